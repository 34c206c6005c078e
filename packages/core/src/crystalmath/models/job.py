"""A job on record: the one record that store, service and clients share."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from attrs import field, frozen

from crystalmath.models.fields import (
    about,
    array,
    documented,
    from_wire,
    optional,
    reference,
    to_wire,
)
from crystalmath.models.job_notes import JobState
from crystalmath.models.resources import Resources
from crystalmath.models.submission import ENGINE, PARENTS, RECIPE, Terms

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from crystalmath.models.job_notes import FindingDocument, Parent

_TEXT = {"type": "string"}
_COUNT = {"type": "integer"}
_TIME = {"type": "number"}
_STATES = [state.value for state in JobState]
#: The members of each summary, ``null`` if the result lacks them.
_SUMMARY = ("energy_ev", "max_force_ev_ang", "formula", "work_dir")


@documented
@frozen(kw_only=True)
class Job(Terms):
    """A job on record, at the moment when it was read.

    The store keeps it, the service returns it, and a client reads it from an answer. Answers leave
    out ``spec_hash``, ``owner`` and ``traceback``, and add the places of the files.
    """

    job_id: str = field(metadata=about("a UUID4 as text", _TEXT))
    state: JobState = optional(
        "its state", {"type": "string", "enum": _STATES}, wire="status", default=JobState.PENDING
    )
    error: str | None = optional("the error, for people", _TEXT)
    summary: Mapping[str, Any] | None = optional(
        "the summary of a completed job (eV, eV/Å); jobs.result returns the whole result",
        reference("Summary"),
        wire="result",
    )
    reason: str | None = optional(
        "why it is in its state and what it waits for, in the engine's own words if it has any",
        _TEXT,
    )
    recipe: str = field(metadata=RECIPE)
    engine: str = field(metadata=ENGINE)
    attempt: int = optional("the number of the present attempt", _COUNT, default=1)
    revision: int = optional("grows with each change of the record", _COUNT, default=0)
    formula: str | None = optional("the formula of the first structure", _TEXT)
    created_at: float = field(metadata=about("seconds since the epoch", _TIME))
    started_at: float | None = optional(
        "when the present attempt (of a flow: its first pass) began, in seconds since the epoch",
        _TIME,
    )
    finished_at: float | None = optional("seconds since the epoch", _TIME)
    cancel_requested_at: float | None = optional("seconds since the epoch", _TIME)
    warnings: Sequence[FindingDocument] = optional(
        "the warnings of the preflight", array(reference("Finding")), default=()
    )
    parents: Sequence[Parent] = field(default=(), metadata=PARENTS)
    stage: str | None = optional(
        "for a flow whose steps are jobs: `pass` while its body runs, or will run next, `steps` "
        "while it waits for its steps",
        {**_TEXT, "enum": ["pass", "steps"]},
    )
    superseded_by: str | None = optional(
        "the newest retry or reread of this job, which replaces it and may itself be superseded",
        _TEXT,
    )
    removed: str | None = optional(
        "which of its files were removed: `heavy`, the large ones that can be computed again; "
        "`all`, its run directory; `gone`: the run directory is missing for an unknown reason",
        {**_TEXT, "enum": ["heavy", "all", "gone"]},
    )
    removed_at: float | None = optional("when they were removed, in seconds since the epoch", _TIME)
    work_dir: Path | None = optional(
        "the working directory of the present attempt; may not exist yet",
        _TEXT,
        stored=False,
        known=True,
    )
    log: Path | None = optional(
        "its log, which exists once the job has printed", _TEXT, stored=False, known=True
    )
    spec_hash: str | None = optional("the hash of its specification", _TEXT, shown=False)
    owner: Mapping[str, Any] = optional(
        "the process that owns the job: host, boot_id, pid, start_time",
        {"type": "object"},
        shown=False,
        factory=dict,
    )
    traceback: str | None = optional(
        "the traceback of its recipe, which jobs.result returns", _TEXT, shown=False, repr=False
    )
    steps: Mapping[str, int] | None = field(
        default=None,
        eq=False,  # of other jobs
        metadata=about(
            "for a flow whose steps are jobs: the number of steps in each state; not in events",
            {"type": "object", "additionalProperties": _COUNT},
            stored=False,
        ),
    )
    held_up_by: str | None = field(
        default=None,
        eq=False,  # of other jobs
        metadata=about(
            "for a waiting job: the job that has failed, was cancelled, or has lost its files; the "
            "waiting one goes on once a retry of that job has completed; not in events",
            _TEXT,
            stored=False,
        ),
    )
    given_before: bool = field(
        default=False,
        eq=False,  # of the answer, not of the job
        metadata=about(
            "for a submission: an earlier one with the same key made the job",
            {"type": "boolean"},
            shown=False,
            stored=False,
        ),
    )

    def _repr_html_(self) -> str:
        from crystalmath.models.notebook import job_html

        return job_html(self)

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        from crystalmath.models.notebook import bundle

        return bundle(self)

    @property
    def waits(self) -> bool:
        """Whether it waits for other jobs: earlier ones, or its own steps."""
        if self.stage == "steps":
            return not self.state.is_terminal()
        return self.state is JobState.PENDING and any("awaited" in one for one in self.parents)

    def without_files(self) -> str | None:
        """Return a sentence on its removed files; ``None`` if they exist."""
        if self.removed == "all":
            at = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.removed_at))
            return f"the run directory of job {self.job_id} was removed on {at}; its record stays"
        if self.removed == "gone":
            return (
                f"the run directory of job {self.job_id} is gone: it was removed or moved, and not "
                "by crystalmath prune; the record of the job stays"
            )
        return None

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """Read a job from an answer of ``jobs.*``."""
        arguments = from_wire(cls, document)
        for name in {"work_dir", "log"} & arguments.keys():
            arguments[name] = Path(arguments[name])
        arguments["state"] = JobState(arguments["state"])
        arguments["resources"] = Resources.read(arguments.get("resources", {}))
        return cls(**arguments)

    def document(self, fields: Collection[str] | None = None) -> dict[str, Any]:
        """Write the job for the answers of ``jobs.*``, or only some of its fields."""
        members = to_wire(self, only=fields)
        if "result" in members:
            members["result"] = None
            if self.state is JobState.COMPLETED:
                members["result"] = {**dict.fromkeys(_SUMMARY), **(self.summary or {})}
        first = ("job_id", "status", "error", "result")  # people look for these
        return {name: members[name] for name in first if name in members} | members


@frozen(kw_only=True)
class JobChange:
    """A change of a job.

    Parameters
    ----------
    seq : int
        Its number in the log of all changes, which grows.
    job_id : str
        The job.
    at : float
        The time, in seconds since the epoch.
    before : JobState, optional
        Its state until then, ``None`` for a new job. It is the same as `state` for a mere note, as
        the request to cancel.
    state : JobState
        Its state from then on.
    reason : str, optional
        The reason for the change.
    job : Job, optional
        The job when the event was read, if the request wants it.
    """

    seq: int
    job_id: str
    at: float
    before: JobState | None
    state: JobState
    reason: str | None = None
    job: Job | None = None

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """Read a change from an event of ``jobs.events``."""
        before, job = document["from"], document.get("job")
        return cls(
            seq=document["seq"],
            job_id=document["job_id"],
            at=document["at"],
            before=None if before is None else JobState(before),
            state=JobState(document["to"]),
            reason=document["reason"],
            job=None if job is None else Job.read(job),
        )


@documented
@frozen(kw_only=True)
class NewJob(Job):
    """A job as its submission records it, with the parts that are kept apart from its row."""

    specification: str = field(
        repr=False,
        metadata=about(
            "the encoded specification, from which recovery writes the run directory again",
            _TEXT,
            shown=False,
        ),
    )
    pseudopotentials: Sequence[Mapping[str, Any]] = optional(
        "the files that it reads", array(reference("Potcar")), shown=False, default=()
    )
    only_retry: bool = optional(
        "whether it is refused if another job is a retry of the same one",
        {"type": "boolean"},
        shown=False,
        stored=False,
        default=False,
    )


@frozen(kw_only=True)
class Pseudopotential:
    """A pseudopotential file that a job reads, as it was when the job was submitted.

    Parameters
    ----------
    symbol : str
        Chemical symbol.
    setup : str
        The dataset: the name of the POTCAR's folder (``Ba_sv``), or of the UPF file.
    path : str
        The file.
    sha256 : str
        The hash of the whole file, in hexadecimal.
    titel : str, optional
        ``PAW_PBE Ba_sv 06Sep2000``.
    lexch : str, optional
        Its functional: ``PE``, ``CA``, ...
    zval : float, optional
        Number of valence electrons.
    """

    symbol: str
    setup: str
    path: str
    sha256: str
    titel: str | None = None
    lexch: str | None = None
    zval: float | None = None
