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
#: What a summary always has, ``null`` where the result does not have it.
_SUMMARY = ("energy_ev", "max_force_ev_ang", "formula", "work_dir")


@documented
@frozen(kw_only=True)
class Job(Terms):
    """A job as it was when somebody looked.

    The store keeps it, the service gives it, and a client reads it from an answer: that does not
    tell ``spec_hash``, ``owner`` and ``traceback``, and adds where the files are.
    """

    job_id: str = field(metadata=about("a UUID4 as text", _TEXT))
    state: JobState = optional(
        "its state", {"type": "string", "enum": _STATES}, wire="status", default=JobState.PENDING
    )
    error: str | None = optional("what is wrong, for people", _TEXT)
    summary: Mapping[str, Any] | None = optional(
        "the summary of a completed job (eV, eV/Å); jobs.result gives the whole",
        reference("Summary"),
        wire="result",
    )
    reason: str | None = optional(
        "why it is in its state and what it waits for, in the engine's own words where it has any",
        _TEXT,
    )
    recipe: str = field(metadata=RECIPE)
    engine: str = field(metadata=ENGINE)
    attempt: int = optional("the number of the present attempt", _COUNT, default=1)
    revision: int = optional("grows with each change of the record", _COUNT, default=0)
    formula: str | None = optional("of the structure that went in", _TEXT)
    created_at: float = field(metadata=about("seconds since the epoch", _TIME))
    started_at: float | None = optional(
        "when the present attempt, of a flow its first pass, began, in seconds since the epoch",
        _TIME,
    )
    finished_at: float | None = optional("seconds since the epoch", _TIME)
    cancel_requested_at: float | None = optional("seconds since the epoch", _TIME)
    warnings: Sequence[FindingDocument] = optional(
        "findings of the preflight that travel along", array(reference("Finding")), default=()
    )
    parents: Sequence[Parent] = field(default=(), metadata=PARENTS)
    stage: str | None = optional(
        "of a flow whose steps are jobs: `pass` while its body runs, or is to run, `steps` "
        "while it waits for its steps",
        {**_TEXT, "enum": ["pass", "steps"]},
    )
    superseded_by: str | None = optional(
        "the newest job that runs, or reads, this one again, and stands in for it; that one may be "
        "superseded in turn",
        _TEXT,
    )
    removed: str | None = optional(
        "what was removed of its files: `heavy`, the large ones that can be computed again; "
        "`all`, its run directory; `gone`: that is not there, and nobody has recorded why",
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
        "its log; exists once the job has printed", _TEXT, stored=False, known=True
    )
    spec_hash: str | None = optional("tells two specifications apart", _TEXT, shown=False)
    owner: Mapping[str, Any] = optional(
        "the process whose job it is: host, boot_id, pid, start_time",
        {"type": "object"},
        shown=False,
        factory=dict,
    )
    traceback: str | None = optional(
        "where its recipe raised; jobs.result tells it", _TEXT, shown=False, repr=False
    )
    steps: Mapping[str, int] | None = field(
        default=None,
        eq=False,  # of other jobs
        metadata=about(
            "of a flow whose steps are jobs: how many of them are in which state; not in events",
            {"type": "object", "additionalProperties": _COUNT},
            stored=False,
        ),
    )
    held_up_by: str | None = field(
        default=None,
        eq=False,  # of other jobs
        metadata=about(
            "of a job that waits: the job that has failed, was cancelled, or has lost its files, "
            "and that must be retried with success before this one can go on; not in events",
            _TEXT,
            stored=False,
        ),
    )
    given_before: bool = field(
        default=False,
        eq=False,  # of the answer, not of the job
        metadata=about(
            "of a submission: its key had given the job before",
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
        """Whether it waits for other jobs, those before it or its own steps: nobody runs it."""
        if self.stage == "steps":
            return not self.state.is_terminal()
        return self.state is JobState.PENDING and any("awaited" in one for one in self.parents)

    def without_files(self) -> str | None:
        """Return what became of its files, in a sentence; ``None`` where they are there."""
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
        """Make it of a job as the answers of ``jobs.*`` describe it."""
        given = from_wire(cls, document)
        paths: dict[str, Any] = {
            name: Path(given[name]) for name in ("work_dir", "log") if name in given
        }
        given.update(paths, state=JobState(given["state"]))
        given["resources"] = Resources.read(given.get("resources", {}))
        return cls(**given)

    def document(self, fields: Collection[str] | None = None) -> dict[str, Any]:
        """Describe it as the answers of ``jobs.*`` do, or only some fields of that."""
        told = to_wire(self, only=fields)
        if "result" in told:
            told["result"] = None
            if self.state is JobState.COMPLETED:
                told["result"] = {**dict.fromkeys(_SUMMARY), **(self.summary or {})}
        first = ("job_id", "status", "error", "result")  # what people look for
        return {name: told[name] for name in first if name in told} | told


@frozen(kw_only=True)
class JobChange:
    """Something that happened to a job.

    Parameters
    ----------
    seq : int
        Its number in the log of all changes, which grows.
    job_id : str
        The job.
    at : float
        When, in seconds since the epoch.
    before : JobState, optional
        Its state until then, ``None`` of a new job. The same as `state` where something was only
        noted, as that its cancel was asked for.
    state : JobState
        Its state from then on.
    reason : str, optional
        Why.
    job : Job, optional
        The job as it was when this was told, where that was asked for.
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
        """Make it of an event as ``jobs.events`` describes it."""
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
    """A job as it is recorded when it is submitted, with what is kept apart from its row."""

    specification: str = field(
        repr=False,
        metadata=about(
            "the whole encoded specification; a crash can be repaired from it", _TEXT, shown=False
        ),
    )
    pseudopotentials: Sequence[Mapping[str, Any]] = optional(
        "the files that it was found to read", array(reference("Potcar")), shown=False, default=()
    )
    only_retry: bool = optional(
        "whether it is refused where another job is a retry of the same one",
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
        Of the whole file, in hexadecimal.
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
