"""Ask which jobs there are, and how many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack, cast

from crystalmath.client.caller import PAGE, Caller
from crystalmath.client.filters_document import filters_document
from crystalmath.errors import InvalidJob, UnknownJob
from crystalmath.models import Job

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crystalmath.models import Filters
    from crystalmath.models.answers import Counted, CountedOverTime

#: So many ids are named where several begin alike.
SHOWN = 5


class JobLists(Caller):
    """Lists and counts of jobs."""

    def job(self, job_id: str) -> Job:
        """Tell what is on record of a job (`UnknownJob` if there is none)."""
        return Job.read(self._answer("jobs.status", job_id=job_id))

    def list(
        self,
        *,
        sort: str | None = None,
        limit: int | None = None,
        **filters: Unpack[Filters],
    ) -> Iterator[Job]:
        """Go through jobs, newest first, fetching them page by page.

        Parameters
        ----------
        sort : str, optional
            In another order: ``energy_ev``, with a minus from the largest
            (:data:`~crystalmath.models.filters.SORTED_BY`). Jobs without a value come last.
        limit : int, optional
            So many at most.
        **filters
            The fields of :class:`~crystalmath.models.JobFilter`; all must agree. Times are seconds
            since the epoch or a ``datetime``, energies are in eV.
        """
        given = filters_document(filters)
        cursor: str | None = None
        left = limit
        while left is None or left > 0:
            size = PAGE if left is None else min(left, PAGE)
            page = self._answer("jobs.list", limit=size, cursor=cursor, sort=sort, **given)
            yield from map(Job.read, page["jobs"])
            cursor = page["cursor"]
            if cursor is None:
                return
            left = None if left is None else left - len(page["jobs"])

    def totals(self, **filters: Unpack[Filters]) -> dict[str, int]:
        """Count jobs by state; states that none is in are left out.

        Parameters
        ----------
        **filters
            See :meth:`list`.
        """
        answer = self._answer("jobs.list", limit=0, totals=True, **filters_document(filters))
        totals: dict[str, int] = answer["totals"]
        return totals

    def summary(self, **filters: Unpack[Filters]) -> Counted:
        """Count jobs by state and by error: ``{"states", "errors"}``.

        Parameters
        ----------
        **filters
            See :meth:`list`.
        """
        return cast("Counted", self._answer("jobs.summary", **filters_document(filters)))

    def counts(
        self,
        *,
        bucket_s: float | None = None,
        start: float | None = None,
        end: float | None = None,
        **filters: Unpack[Filters],
    ) -> CountedOverTime:
        """Count the jobs that ended in each state, over time.

        Parameters
        ----------
        bucket_s : float, optional
            The length of a bucket in seconds; default: an hour.
        start, end : float, optional
            From when until when, in seconds since the epoch; default: 24 buckets until now.
        **filters
            See :meth:`list`; ``state`` is that to which jobs changed, by default those in which
            a job ends.

        Returns
        -------
        dict
            ``{"bucket_s", "buckets", "states"}``; each bucket is ``{"at", "states"}``, from the
            oldest to the newest without a gap.
        """
        asked = {"bucket_s": bucket_s, "start": start, "end": end, **filters_document(filters)}
        return cast("CountedOverTime", self._answered("jobs.counts", asked))

    def find(self, prefix: str) -> str:
        """Give the one job id that begins so.

        Raises
        ------
        UnknownJob
            None does.
        InvalidJob
            Several do, or `prefix` is empty: every id begins with nothing, and a script whose
            variable is not set means none.
        """
        if not prefix.strip():
            raise InvalidJob("the id of a job is empty; 'crystalmath list' shows the ids there are")
        found = [info.job_id for info in self.list(prefix=prefix, limit=SHOWN)]
        if not found:
            raise UnknownJob(prefix)
        if len(found) > 1:
            raise InvalidJob(f"several job ids begin with {prefix!r}: {', '.join(found)}, ...")
        return found[0]
