"""What the server's methods answer, for type checkers: of handlers, and of who calls a client.

Each is what the method of the same subject declares; a test holds the two together. Answers may
gain keys in later releases, and lose none. Those that are lists stand in
:mod:`~crystalmath.models.answer_lists`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypeAlias, TypedDict

from crystalmath.models.job_notes import Parent, Told
from crystalmath.models.submission import CommonTerms

if TYPE_CHECKING:
    from crystalmath.models.checkup import Check

__all__ = [
    "ArchiveAnswer",
    "ArchivedJobs",
    "AttemptEntry",
    "CancelledJob",
    "Change",
    "CheckEntry",
    "CheckedJob",
    "ClusterChecked",
    "ClusterEntry",
    "Counted",
    "CountedOverTime",
    "CountsBucket",
    "DiskRoom",
    "EngineEntry",
    "ErrorGroup",
    "Event",
    "FailedJob",
    "ImportAnswer",
    "ImportedJobs",
    "InputsDocument",
    "JobDocument",
    "JobFile",
    "JobFiles",
    "JobInputs",
    "JobParameters",
    "JobProgress",
    "JobResult",
    "JobScript",
    "LeftJob",
    "ListedResult",
    "LogPart",
    "Nothing",
    "Parent",
    "Pong",
    "Potcar",
    "PresetEntry",
    "ProgressDocument",
    "ProvenCluster",
    "Pruned",
    "PrunedJob",
    "RecipeDescription",
    "RecipeEntry",
    "Relative",
    "ServerStatus",
    "ServerVersion",
    "Specification",
    "Stopping",
    "Story",
    "SubmittedJob",
    "Subscribed",
    "Told",
    "Trouble",
    "Usage",
    "Used",
    "UsedByLabel",
    "UsedByRecipe",
    "UsedByState",
]

#: A job, as ``jobs.status`` and all others tell it: what of :class:`~crystalmath.models.Job` is
#: shown, by the names on the wire. ``Job.read`` makes the record of it.
JobDocument: TypeAlias = Mapping[str, Any]
#: The same of :class:`~crystalmath.models.Inputs` and :class:`~crystalmath.models.Progress`.
InputsDocument: TypeAlias = Mapping[str, Any]
ProgressDocument: TypeAlias = Mapping[str, Any]


class Potcar(TypedDict):
    """A pseudopotential file (:class:`~crystalmath.models.Pseudopotential`)."""

    symbol: str
    setup: str
    path: str
    titel: str | None
    sha256: str
    lexch: str | None
    zval: float | None


class Relative(Parent):
    """A job that another came of, or that came of it, with what is on record of it."""

    name: str | None
    recipe: str | None
    status: str | None


class AttemptEntry(TypedDict):
    """One try at a job (``jobs.show``): where it began, and how it ended."""

    attempt: int
    host: str | None
    pid: int | None
    outcome: str | None
    error: str | None
    begun_from: str | None
    work_dir: str


_Happened = TypedDict("_Happened", {"from": str | None})


class Event(_Happened):
    """Something that happened to a job (``jobs.events``), at a time in s since the epoch."""

    seq: int
    job_id: str
    at: float
    to: str
    reason: str | None
    job: NotRequired[JobDocument]


class Change(_Happened):
    """The same as a notification (``jobs.changed``)."""

    seq: int
    job_id: str
    at: float
    status: str
    reason: str | None
    job: NotRequired[JobDocument]


class Story(TypedDict):
    """A job's whole story (``jobs.show``)."""

    job: JobDocument
    params: Mapping[str, Any]
    potcars: list[Potcar]
    parents: list[Relative]
    children: list[Relative]
    attempts: list[AttemptEntry]
    events: list[Event]
    error: str | None


class ErrorGroup(TypedDict):
    """How many jobs failed with one error, and the newest few of them."""

    error: str
    count: int
    job_ids: list[str]


class Counted(TypedDict):
    """Jobs counted by state, and failures by their error (``jobs.summary``)."""

    states: dict[str, int]
    errors: list[ErrorGroup]
    error: str | None


class CountsBucket(TypedDict):
    """How many jobs came to which state in a span of time that begins `at` (s since the epoch)."""

    at: float
    states: dict[str, int]


class CountedOverTime(TypedDict):
    """How many jobs ended in which state over time (``jobs.counts``), the oldest bucket first."""

    bucket_s: float
    buckets: list[CountsBucket]
    states: dict[str, int]
    error: str | None


class Specification(CommonTerms):
    """What a job was asked to do (``jobs.specification``), its terms among it."""

    job_id: str
    recipe: str
    structure: str | Mapping[str, Any] | None
    params: Mapping[str, Any]
    engine: str
    potcars: list[Potcar]
    parents: list[Parent]
    error: str | None
    job: NotRequired[JobDocument]
    progress: NotRequired[ProgressDocument | None]


class LogPart(TypedDict):
    """A part of what a job has written (``jobs.logs``); offset and size in bytes."""

    job_id: str
    file: str | None
    others: list[str]
    text: str
    offset: int
    size: int
    finished: bool
    error: str | None


class JobFile(TypedDict):
    """A file of a job: its path below the work directory, size in bytes, and time in s."""

    file: str
    size: int
    modified_at: float
    is_link: bool


class JobFiles(TypedDict):
    """The files of an attempt of a job (``jobs.files``)."""

    job_id: str
    attempt: int
    work_dir: str | None
    files: list[JobFile]
    more: int
    error: str | None


class ArchivedJobs(TypedDict):
    """How many jobs and files were archived (``jobs.archive``), and which files were left out."""

    jobs: int
    files: int
    left_out: list[str]


class ArchiveAnswer(ArchivedJobs):
    """The same as the server tells it."""

    error: str | None


class ImportedJobs(TypedDict):
    """The jobs that were taken in (``jobs.import``), and those that were there already."""

    job_ids: list[str]
    known: list[str]


class ImportAnswer(ImportedJobs):
    """The same as the server tells it."""

    error: str | None


class Trouble(TypedDict):
    """What keeps something from being done, for people and for programs."""

    error: str
    code: str


class SubmittedJob(TypedDict):
    """The job that a submission became, or why it was refused (``jobs.submit``)."""

    job_id: str | None
    status: str
    error: str | None
    code: NotRequired[str]
    findings: NotRequired[list[Told]]
    warnings: NotRequired[list[Told]]
    known: NotRequired[bool]


class ListedResult(TypedDict):
    """What the recipe of a job returned (``jobs.results``); arrays and the like in monty's form."""

    job_id: str | None
    status: str
    error: str | None
    result: Any
    code: NotRequired[str]


class JobResult(ListedResult):
    """The same of one job, and where its recipe raised (``jobs.result``)."""

    traceback: NotRequired[str]


class JobParameters(TypedDict):
    """What the recipe of a job was given (``jobs.parameters``)."""

    job_id: str
    params: Mapping[str, Any] | None
    error: str | None
    code: NotRequired[str]


class JobProgress(TypedDict):
    """How far a job has come (``jobs.progress``)."""

    job_id: str
    status: str
    error: str | None
    progress: ProgressDocument | None
    code: NotRequired[str]


class JobInputs(TypedDict):
    """What the programs of a job get (``jobs.inputs``)."""

    job_id: str | None
    inputs: InputsDocument | None
    error: str | None


class JobScript(TypedDict):
    """A job as scripts that run without us (``jobs.script``): in Python, and for sh."""

    job_id: str | None
    script: str | None
    shell: str | None
    error: str | None


class CancelledJob(TypedDict):
    """Whether it was asked that a job be stopped, or why not (``jobs.cancel``)."""

    job_id: str
    cancelled: bool
    error: str | None
    code: NotRequired[str]
    status: NotRequired[Literal["error"]]


class CheckedJob(TypedDict):
    """Whether a job would be accepted, and what is wrong with it (``jobs.check``)."""

    ok: bool
    status: str
    error: str | None
    findings: list[Told]
    potcars: list[Potcar]
    environment: list[str]
    inputs: NotRequired[InputsDocument | None]


class Used(TypedDict):
    """What jobs take on the disk: how many, their files, and sizes in bytes."""

    jobs: int
    files: int
    size: int
    heavy_size: int


class UsedByState(Used):
    """What the jobs in a state take."""

    state: str


class UsedByRecipe(Used):
    """What the jobs of a recipe take."""

    recipe: str


class UsedByLabel(Used):
    """What the jobs with a label take."""

    label: str
    value: str


class Usage(TypedDict):
    """What jobs take on the disk (``jobs.usage``), the largest groups first."""

    total: Used
    states: list[UsedByState]
    recipes: list[UsedByRecipe]
    labels: list[UsedByLabel]
    error: str | None


class PrunedJob(TypedDict):
    """A job whose files were removed, or would be; their size in bytes."""

    job_id: str
    name: str | None
    status: str
    recipe: str
    finished_at: float | None
    size: int


class LeftJob(TypedDict):
    """A job whose files stay, and why."""

    job_id: str
    error: str
    code: str


class Pruned(TypedDict):
    """Whose files were removed (``jobs.prune``)."""

    jobs: list[PrunedJob]
    left: list[LeftJob]
    cursor: str | None
    error: str | None


class EngineEntry(TypedDict):
    """An installed engine (``engines.list``)."""

    name: str
    distribution: str
    version: str
    loads: bool
    error: str | None
    findings: list[Told]
    configured: bool


class ClusterEntry(TypedDict):
    """A cluster of the configuration file (``clusters.list``)."""

    name: str
    engine: str
    scheduler: str
    walltime_s: float | None
    worker_init: str
    environment: dict[str, str]
    launcher: str | None
    continue_lost: bool | None
    resources: dict[str, Any]
    engine_options: dict[str, Any]
    error: str | None
    trouble: str | None


class CheckEntry(TypedDict):
    """One thing that was looked at (:class:`~crystalmath.models.checkup.Check`)."""

    name: str
    state: str
    message: str
    remedy: str | None


class ProvenCluster(TypedDict):
    """What a job has found on a cluster (``clusters.check``)."""

    job_id: str | None
    status: str
    checks: list[CheckEntry]
    error: str | None


class ClusterChecked(TypedDict):
    """The same, as a client gives it."""

    job_id: str | None
    status: str
    checks: list[Check]
    error: str | None


class RecipeEntry(TypedDict):
    """A recipe that there is (``recipes.list``)."""

    name: str
    kind: Literal["job", "flow"] | None
    summary: str


class RecipeDescription(TypedDict):
    """What a recipe's source says (``recipes.describe``); `parameters` is a JSON Schema."""

    name: str
    kind: Literal["job", "flow"] | None
    file: str | None
    line: int | None
    docstring: str | None
    structure: Literal["required", "optional", "none"] | None
    parameters: Mapping[str, Any] | None
    error: str | None


class PresetEntry(TypedDict):
    """A preset of quacc's (``presets.list``): what it sets, with what it inherits."""

    name: str
    program: str
    file: str
    settings: Mapping[str, Any]


class Subscribed(TypedDict):
    """The event after which a subscription begins (``jobs.subscribe``)."""

    seq: int | None
    error: str | None


class Nothing(TypedDict):
    """That it was done (``jobs.unsubscribe``)."""

    error: str | None


class Pong(TypedDict):
    """That the server lives (``system.ping``)."""

    ok: bool


class Stopping(TypedDict):
    """What a server leaves that is about to end (``system.stop``): how many jobs, by state."""

    pending: int
    running: int
    cancel: bool


class ServerVersion(TypedDict, total=False):
    """What answers, and where it runs (``system.version``)."""

    version: str
    protocol: int
    pid: int
    host: str
    python: str
    prefix: str
    home: str
    recipes_allow: list[str]
    started_at: float


class DiskRoom(TypedDict):
    """The file system that jobs write to: sizes in bytes, time in seconds since the epoch."""

    path: str
    free: int
    size: int
    full: bool
    looked_at: float


class FailedJob(TypedDict):
    """A job that failed lately: when, in seconds since the epoch, and its error's first line."""

    job_id: str
    name: str | None
    recipe: str
    at: float | None
    error: str


class ServerStatus(TypedDict):
    """What a server is doing (``system.status``)."""

    jobs: dict[str, int]
    connections: int
    quiet_s: float
    engines: dict[str, str]
    workers: dict[str, int | None]
    backlog: dict[str, int]
    disk: DiskRoom | None
    failures: list[FailedJob] | None
