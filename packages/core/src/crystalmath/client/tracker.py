"""Makes the futures of jobs; a client's follower keeps them up to date."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crystalmath.models.notebook import Jobs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from crystalmath.client.follower import Follower
    from crystalmath.client.future import Controls, JobFuture
    from crystalmath.client.results import Results
    from crystalmath.models import Job


class Tracker:
    """Makes the futures of one client.

    Parameters
    ----------
    client : Controls
        The client, which a future asks about its job.
    follower : Follower
        Keeps the futures up to date.
    results : Results
        Fetches the results of completed jobs.
    """

    def __init__(self, client: Controls, follower: Follower, results: Results) -> None:
        self._client = client
        self.follower = follower
        self._results = results

    def new(self, job_id: str, name: str | None, labels: Mapping[str, str]) -> JobFuture:
        """Return the future of a job; nothing follows it yet."""
        from crystalmath.client.future import JobFuture

        return JobFuture(self._client, self._results, job_id, name, labels)

    def futures_of(self, jobs: Iterable[Job]) -> Jobs[JobFuture]:
        """Return futures of jobs on record, which are followed from now on."""
        futures: Jobs[JobFuture] = Jobs()
        for job in jobs:
            future = self.new(job.job_id, job.name, job.labels)
            future.update(job)
            futures.append(future)
        self.follower.follow(futures)
        return futures
