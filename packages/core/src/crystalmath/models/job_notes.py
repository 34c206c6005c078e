"""What a job's record consists of: its state, findings of the preflight, and what it came of."""

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
        """What a job did that has ended in this state, for a sentence about it."""
        return _ENDED.get(self.value, f"ended as {self.value}")


_ENDED = {"completed": "had completed", "failed": "failed", "cancelled": "was cancelled"}
#: How a job may have ended that somebody may want to run again, and how it has not ended.
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


#: How checks name a parameter as the source of a finding.
_PARAMETER = "the parameter "


def written_findings(findings: Iterable[Finding]) -> list[FindingDocument]:
    """Return findings as a record and an answer have them, each with its place in the request."""
    return [
        cast("FindingDocument", {**vars(each), "place": each.place or _place(each.source)})
        for each in findings
    ]


def _place(source: str | None) -> str | None:
    if source is None or not source.startswith(_PARAMETER):
        return None
    return f"params.{source.removeprefix(_PARAMETER)}"


class Parent(TypedDict):
    """A job that another came of, or waits for."""

    job_id: str
    role: Annotated[
        Literal["structure", "value", "after", "retry", "reread", "flow", "taken"],
        "its geometry or a value of its result was taken, it had to end before, it was done again, "
        "it is the flow that this job is a step of, or another one that has taken this step over",
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
            "that it is waited for: until it has completed, or until it has ended in any way",
        ]
    ]
    on_failure: NotRequired[
        Annotated[Literal["fail"], "that the waiting job fails where this one fails"]
    ]
    taken_from: NotRequired[Annotated[str, "the retry that gave what was wanted in its place"]]


def awaited(parents: Iterable[Parent]) -> list[Parent]:
    """Return those of a job's parents that it waits for."""
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
    """Yield of each step's name the lines of a tree: the subflows that begin, and its own name."""
    before: list[str] = []
    for name in names:
        *around, own = name.split("/")
        depths = [at for at in range(len(around)) if around[: at + 1] != before[: at + 1]]
        before = around
        yield [*("  " * at + around[at] for at in depths), "  " * len(around) + own]


def counted(header: Mapping[str, Any]) -> list[str]:
    """Return which steps of others a flow has taken over, as its specification says."""
    told = (header.get("flow") or {}).get("steps", ())
    return [each["job_id"] for each in told if each.get("counted")]


def told_steps(steps: Mapping[str, int], states: Sequence[str] = ("failed", "cancelled")) -> str:
    """Say how far a flow has come, of its steps by state: ``17/30, 2 failed``."""
    others = [f"{steps[state]} {state}" for state in states if steps.get(state)]
    return ", ".join([f"{steps.get('completed', 0)}/{sum(steps.values())}", *others])


def repeated(parents: Iterable[Parent]) -> str | None:
    """Return the id of the job that one runs, or reads, again."""
    roles = {parent["role"]: parent["job_id"] for parent in parents}
    return roles.get("retry") or roles.get("reread")
