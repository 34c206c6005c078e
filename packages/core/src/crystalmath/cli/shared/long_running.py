"""Find jobs that run much longer than others of their recipe have taken."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

from attrs import define, field, frozen

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from crystalmath.client import Client
    from crystalmath.models import Job

#: A job runs long after TIMES the median of its recipe, taken from at least _FEWEST jobs.
TIMES, _FEWEST = 10, 3
#: Jobs never count as long-running before this time, in seconds: a median may be milliseconds.
_LEAST_S = 60.0
#: The most jobs of a median, the newest ones.
_NEWEST = 100


@frozen
class LongRunning:
    """Long-running jobs of one recipe, and the median of `count` completed jobs in seconds."""

    jobs: Sequence[Job]
    median_s: float
    count: int


@define
class Medians:
    """Medians of completed jobs by recipe; reports each long-running job once."""

    _known: dict[str, tuple[float, int]] = field(factory=dict)
    _returned: set[str] = field(factory=set)

    def find_new(self, client: Client, jobs: Iterable[Job]) -> list[LongRunning]:
        """Return the long-running jobs that no earlier call has returned, by recipe."""
        begun_before = time.time() - _LEAST_S
        candidates: dict[str, list[Job]] = {}
        for job in jobs:
            is_new = job.state.value == "running" and job.job_id not in self._returned
            if is_new and job.started_at is not None and job.started_at < begun_before:
                candidates.setdefault(job.recipe, []).append(job)
        groups = []
        for recipe, running in candidates.items():
            if (known := self._of(client, recipe)) is None:
                continue
            median_s, count = known
            begun_before = time.time() - max(_LEAST_S, TIMES * median_s)
            if long := [job for job in running if (job.started_at or 0.0) < begun_before]:
                self._returned |= {job.job_id for job in long}
                groups.append(LongRunning(long, median_s, count))
        return groups

    def _of(self, client: Client, recipe: str) -> tuple[float, int] | None:
        """Return the median of a recipe in seconds and the number of jobs, cached."""
        if recipe not in self._known:
            completed = client.list(recipe=recipe, state="completed", steps=True, limit=_NEWEST)
            took = [
                job.finished_at - job.started_at
                for job in completed
                if job.started_at is not None and job.finished_at is not None
            ]
            if len(took) < _FEWEST:
                return None
            self._known[recipe] = statistics.median(took), len(took)
        return self._known[recipe]
