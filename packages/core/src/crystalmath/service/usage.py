"""What the run directories of jobs take on the disk."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, TypeAlias, Unpack

from attrs import Factory, define

from crystalmath.jobs.heavy import Use, use_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from crystalmath.models.filters import Selection
    from crystalmath.quacc.store import JobMetadata
    from crystalmath.service.job_service import JobService

#: So many jobs are asked for at once.
PAGE = 200

_Uses: TypeAlias = "defaultdict[Any, Use]"


def _none() -> _Uses:
    return defaultdict(Use)


@define
class Usage:
    """What jobs take: all, and by their state, by recipe, and by label (name and value)."""

    total: Use = Factory(Use)
    states: _Uses = Factory(_none)
    recipes: _Uses = Factory(_none)
    labels: _Uses = Factory(_none)

    def add(self, job: JobMetadata, use: Use) -> None:
        """Count a job."""
        self.total += use
        self.states[job.state.value] += use
        self.recipes[job.recipe] += use
        for label in job.labels.items():
            self.labels[label] += use


def pages(
    service: JobService, before: str | None = None, **filters: Unpack[Selection]
) -> Iterator[list[JobMetadata]]:
    """Go through jobs, newest first, a few hundred at a time."""
    while found := service.jobs(limit=PAGE, before=before, **filters):
        yield found
        before = found[-1].job_id


def measure(service: JobService, **filters: Unpack[Selection]) -> Generator[None, None, Usage]:
    """Measure the run directories of the jobs for which all filters hold.

    Yields where others may come between.

    Parameters
    ----------
    service : JobService
        Whose jobs they are.
    **filters
        See :func:`crystalmath.store.selection.selected`.
    """
    usage = Usage()
    for page in pages(service, **filters):
        for job in page:
            usage.add(job, (yield from use_of(str(service.config.jobs_directory / job.job_id))))
            yield
    return usage
