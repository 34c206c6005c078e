"""Wait for jobs, and follow their changes as they happen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from crystalmath.client.event_log import change_events, changes
from crystalmath.client.filters_document import filters_document
from crystalmath.client.job_lists import JobLists
from crystalmath.errors import InvalidJob

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from crystalmath.models import Filters, Job, JobChange


class JobChanges(JobLists):
    """What happens to jobs."""

    def wait(
        self,
        job_ids: Sequence[str] | None = None,
        timeout: float | None = None,
        **filters: Unpack[Filters],
    ) -> Iterator[Job]:
        """Yield the present state of each job and then each change, until all have ended.

        Parameters
        ----------
        job_ids : sequence of str, optional
            The jobs.
        timeout : float, optional
            Time in seconds after which it ends all the same.
        **filters
            In place of `job_ids` the filters of :meth:`list`, of the jobs that there are now.

        Raises
        ------
        InvalidJob
            Nothing says which jobs are meant.
        """
        if (job_ids is None) == (not filters):
            raise InvalidJob("say which jobs to wait for: either ids or filters")
        if job_ids is None:
            job_ids = [job.job_id for job in self.list(**filters)]
        return changes(self._waiting, job_ids, timeout)

    def changes(
        self,
        *,
        after: int | None = None,
        job: bool = False,
        labels: Mapping[str, str] | None = None,
        state: str | Sequence[str] | None = None,
        engine: str | None = None,
        cluster: str | None = None,
        recipe: str | None = None,
        name: str | None = None,
        timeout: float | None = None,
    ) -> Iterator[JobChange]:
        """Go through what happens to jobs, as it happens, in the order of the event log.

        Parameters
        ----------
        after : int, optional
            Only changes whose ``seq`` is larger: the last one that was seen, say. Default: what
            happens from now on; 0 is all that ever happened.
        job : bool
            Whether each comes with the job, as it is by then.
        labels, engine, cluster, recipe, name
            Only of these jobs; see :meth:`list`.
        state : str or sequence of str, optional
            Only changes to this state, or to one of these.
        timeout : float, optional
            Time in seconds after which it ends; 0: what there is already. Default: it never ends.

        Yields
        ------
        JobChange
            Each once, whatever becomes of connections and servers meanwhile.
        """
        filters = {
            "labels": labels,
            "state": state,
            "engine": engine,
            "cluster": cluster,
            "recipe": recipe,
            "name": name,
        }
        asked = {**filters_document(filters), **({"job": True} if job else {})}
        return change_events(self._waiting, after, timeout, asked)
