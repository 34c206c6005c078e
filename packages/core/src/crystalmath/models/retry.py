"""The changes for jobs that run again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypedDict

from attrs import field, frozen

from crystalmath.models.fields import ABOUT, About, Option, about, declared, documented, optional
from crystalmath.models.resources import Resources, ResourcesGiven, as_resources
from crystalmath.models.submission import Submission, as_by_step

if TYPE_CHECKING:
    from collections.abc import Sequence

_OF_SUBMISSION = {one.name: one.about for one in declared(Submission)}


def _as_before(name: str, doc: str) -> dict[str, About]:
    """Describe a field of a submission whose default is the value of the earlier job."""
    return {ABOUT: _OF_SUBMISSION[name]._replace(doc=f"{doc}; default: as before")}


def _other(name: str, doc: str) -> Any:
    """Declare a field of a submission whose default is the value of the earlier job."""
    return field(default=None, metadata=_as_before(name, doc))


class RetryOptions(TypedDict, total=False):
    """The arguments of :class:`Retry` beside the parameters, for type checkers."""

    engine: str | None
    cluster: str | None
    walltime_s: float | None
    resources: Resources | ResourcesGiven | None
    priority: int | None
    continue_lost: bool | None
    strict: bool
    lax: bool
    serial: bool | None
    walltime_total_s: float | None
    by_step: Mapping[str, Mapping[str, Any]] | None
    continued: bool
    force: bool
    copy: Sequence[str]
    key: str | None


@documented
@frozen(kw_only=True)
class Retry:
    """The changes of the next try at a job; all else is as in the earlier submission."""

    parameters: Mapping[str, Any] = optional(
        "changes of the recipe's parameters; of a table only the named keys change. For a flow "
        'also by step: {"relax_job": {...}} changes the parameters of its steps that run again',
        {"type": "object"},
        wire="params",
        factory=dict,
    )
    engine: str | None = _other("engine", "another engine")
    cluster: str | None = _other("cluster", "another cluster")
    walltime_s: float | None = _other(
        "walltime_s", "time after which it is stopped, in seconds from its start"
    )
    resources: Resources = field(
        factory=Resources,
        converter=as_resources,
        metadata=_as_before("resources", "changes of its resources"),
    )
    priority: int | None = _other("priority", "another priority")
    continue_lost: bool | None = _other(
        "continue_lost", "whether an attempt goes on from the geometry of a lost one"
    )
    strict: bool = field(default=False, metadata={ABOUT: _OF_SUBMISSION["strict"]})
    lax: bool = field(default=False, metadata={ABOUT: _OF_SUBMISSION["lax"]})
    serial: bool | None = _other(
        "serial", "whether the steps of a flow are called one after the other"
    )
    walltime_total_s: float | None = _other(
        "walltime_total_s",
        "time after which a flow fails, and its steps are stopped, in seconds from its start",
    )
    by_step: Mapping[str, Mapping[str, Any]] = field(
        factory=dict,
        converter=as_by_step,
        metadata=_as_before("by_step", "changes of these terms for some steps of a flow"),
    )
    continued: bool = optional(
        "go on from the last whole geometry that the job has left, with the constraints, tags "
        "and magnetic moments of its first; default: begin anew",
        {"type": "boolean"},
        Option(
            "--continue",
            "",
            "Go on from the last whole geometry of each job, not from its first.",
        ),
        default=False,
    )
    force: bool = optional(
        "go on also from overlapping atoms or an absurd energy; default: these jobs are refused",
        {"type": "boolean"},
        Option("--force", "", "With --continue: also from overlapping atoms or an absurd energy."),
        default=False,
    )
    copy: Sequence[str] = field(
        factory=list,
        converter=list,
        metadata=about(
            "files of the job's last calculation with which the next one begins, as WAVECAR and "
            "CHGCAR; default: none",
            {"type": "array", "items": {"type": "string"}, "maxItems": 20},
            option=Option(
                name="--copy",
                metavar="FILE",
                help="Begin with this file of each job's last calculation, as WAVECAR; repeated.",
            ),
        ),
    )
    key: str | None = optional(
        "the same key again gives the same new jobs, whose keys are KEY/ID with the id of the "
        "job that runs again",
        _OF_SUBMISSION["key"].schema,
        Option("--key", "KEY", "The same key again gives the same new jobs, never others."),
    )
