"""The parts of a job's record: its state, the findings of the preflight, and its parents."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired, TypedDict, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from crystalmath.errors import Finding


class JobState(str, Enum):
    """The states of a job that people see."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    def is_terminal(self) -> bool:
        """Return whether the state never changes any more."""
        return self in {JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED}

    @property
    def ended(self) -> str:
        """The verb for a job that has ended in this state: ``failed``, ``was cancelled``."""
        return _ENDED.get(self.value, f"ended as {self.value}")


_ENDED = {"completed": "had completed", "failed": "failed", "cancelled": "was cancelled"}
#: The states of ended jobs that may be worth a retry, and of jobs that have not ended.
NO_RESULT = tuple(
    state for state in JobState if state.is_terminal() and state is not JobState.COMPLETED
)
UNFINISHED = tuple(state for state in JobState if not state.is_terminal())


class FindingDocument(TypedDict):
    """A finding of the preflight (:class:`~crystalmath.models.Finding`)."""

    severity: Literal["error", "warning"]
    code: str
    message: str
    path: str | None
    source: str | None
    remedy: str | None
    place: NotRequired[str | None]  # rows of earlier releases have none


#: Checks name a parameter as the source of a finding by these words.
_PARAMETER = "the parameter "


def written_findings(findings: Iterable[Finding]) -> list[FindingDocument]:
    """Return findings for records and answers, each with its place in the request."""
    return [
        cast("FindingDocument", {**vars(each), "place": each.place or _place(each.source)})
        for each in findings
    ]


def _place(source: str | None) -> str | None:
    if source is None or not source.startswith(_PARAMETER):
        return None
    return f"params.{source.removeprefix(_PARAMETER)}"


class Parent(TypedDict):
    """A job that another one came from, or waits for."""

    job_id: str
    role: Annotated[
        Literal["structure", "value", "after", "retry", "reread", "flow", "taken"],
        "it provides the geometry or a value of its result, it had to end before, this job runs or "
        "reads it again, it is the flow of this step, or another flow that has taken the step over",
    ]
    step: NotRequired[
        Annotated[str, "the name of the step, unique in its flow: bulk_to_slabs#0/relax_job#1"]
    ]
    frame: NotRequired[
        Annotated[int, "which of its geometries, counted from 0; default: its final one"]
    ]
    file: NotRequired[Annotated[str, "the file of its run directory that it was read from"]]
    place: NotRequired[Annotated[str, "the parameter that has the value: calc_kwargs.kpts"]]
    path: NotRequired[Annotated[list[Any], "the keys and numbers that lead to it in the result"]]
    awaited: NotRequired[
        Annotated[
            Literal["ok", "any"],
            "the job waits until this one has completed (`ok`) or ended in any way (`any`)",
        ]
    ]
    on_failure: NotRequired[Annotated[Literal["fail"], "the waiting job fails if this one fails"]]
    taken_from: NotRequired[Annotated[str, "the retry that provided the value in its place"]]


def awaited(parents: Iterable[Parent]) -> list[Parent]:
    """Return the parents that a job waits for."""
    return [parent for parent in parents if "awaited" in parent]


def awaits_structure(parents: Iterable[Parent]) -> bool:
    """Return whether a job gets its structure from one that it waits for."""
    return any(parent["role"] == "structure" for parent in awaited(parents))


def step_of(parents: Iterable[Parent]) -> tuple[str, str] | None:
    """Return the id of the flow that a job is a step of, and the name of the step."""
    for parent in parents:
        if parent["role"] == "flow":
            return parent["job_id"], parent.get("step", "")
    return None


def in_tree(names: Iterable[str]) -> Iterator[list[str]]:
    """Yield the lines of a tree for each step: the subflows that begin, and its own name."""
    before: list[str] = []
    for name in names:
        *around, own = name.split("/")
        depths = [at for at in range(len(around)) if around[: at + 1] != before[: at + 1]]
        before = around
        yield [*("  " * at + around[at] for at in depths), "  " * len(around) + own]


def counted(header: Mapping[str, Any]) -> list[str]:
    """Return the ids of other flows' steps that a flow has taken over, by its specification."""
    steps = (header.get("flow") or {}).get("steps", ())
    return [step["job_id"] for step in steps if step.get("counted")]


def told_steps(steps: Mapping[str, int], states: Sequence[str] = ("failed", "cancelled")) -> str:
    """Return the progress of a flow from its steps by state: ``17/30, 2 failed``."""
    others = [f"{steps[state]} {state}" for state in states if steps.get(state)]
    return ", ".join([f"{steps.get('completed', 0)}/{sum(steps.values())}", *others])


def repeated(parents: Iterable[Parent]) -> str | None:
    """Return the id of the job that a retry or a reread repeats."""
    roles = {parent["role"]: parent["job_id"] for parent in parents}
    return roles.get("retry") or roles.get("reread")
