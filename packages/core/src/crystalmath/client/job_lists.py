"""Ask which jobs there are, and how many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack, cast

from crystalmath.client.caller import Caller
from crystalmath.client.filters_document import filters_document
from crystalmath.client.transport import SHOWN, pages
from crystalmath.errors import the_one
from crystalmath.models import Job

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crystalmath.models import Filters
    from crystalmath.models.answers import Counted, CountedOverTime


class JobLists(Caller):
    """Lists and counts of jobs."""

    def job(self, job_id: str) -> Job:
        """Return what is on record of a job (`UnknownJob` if there is none)."""
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
        given = {"sort": sort, **filters_document(filters)}
        yield from map(Job.read, pages(self._answer, limit, given))

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
        """Return the one job id that begins so.

        Raises
        ------
        UnknownJob
            None does.
        InvalidJob
            Several do, or `prefix` is empty: every id begins with nothing, and a script whose
            variable is not set means none.
        """
        return the_one(prefix, [job.job_id for job in self.list(prefix=prefix, limit=SHOWN)])
