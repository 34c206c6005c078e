"""Which events a subscriber wants: the filters of lists, asked of a job in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from crystalmath.models.filters import Selection

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from crystalmath.models import Job, JobState
    from crystalmath.store.records import Event

#: The filters of lists that events can be chosen by, by the names that the service takes.
_HOLDS: Mapping[str, Callable[[Job, Any], bool]] = {
    "engine": lambda job, engine: job.engine == engine,
    "cluster": lambda job, cluster: job.cluster == cluster,
    "recipe": lambda job, recipe: _is_of(job.recipe, recipe),
    "name": lambda job, text: text.casefold() in (job.name or "").casefold(),
    "label": lambda job, labels: labels.items() <= job.labels.items(),
    "error": lambda job, text: text.casefold() in (job.error or "").casefold(),
    "prefix": lambda job, prefix: job.job_id.startswith(prefix),
}
FOLLOWED = ("state", *_HOLDS)


def _is_of(recipe: str, wanted: str) -> bool:
    """Return whether a recipe is the one that is wanted, or of that group."""
    names = (wanted, f"quacc.recipes.{wanted}")
    return any(f"{recipe}.".startswith(f"{name}.") for name in names)


@frozen
class JobEvent:
    """An event, and its job as it was read afterwards, where somebody wanted to know."""

    event: Event
    job: Job | None = None


@frozen(kw_only=True)
class Wanted:
    """Which events are wanted.

    Parameters
    ----------
    job_ids : frozenset of str, optional
        Those of these jobs.
    state : collection of JobState, optional
        Those by which a job came to one of these states.
    filters : Selection
        Those of jobs for which these hold (`FOLLOWED`).
    with_job : bool
        Whether the job itself is wanted, too.
    """

    job_ids: frozenset[str] | None = None
    state: Collection[JobState] | None = None
    filters: Selection = field(factory=Selection)
    with_job: bool = False

    @property
    def needs_jobs(self) -> bool:
        """Whether an event alone does not tell if it is wanted."""
        return self.with_job or bool(self.filters)

    def holds(self, one: JobEvent) -> bool:
        """Return whether this is wanted."""
        event, job = one.event, one.job
        if self.job_ids is not None and event.job_id not in self.job_ids:
            return False
        if self.state is not None:
            reached = event.from_state is not event.to_state and event.to_state in self.state
            if not reached:
                return False
        if not self.filters:
            return True
        return job is not None and all(
            _HOLDS[name](job, value) for name, value in self.filters.items()
        )
