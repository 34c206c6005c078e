"""The types of the server's answers, declared once.

Schemas, the OpenRPC document and the page of methods follow from these types
(:mod:`~crystalmath.wire.schemas`). Type checkers hold handlers and clients to them. Answers may
gain keys in later releases, and lose none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NotRequired, TypeAlias, TypedDict

from crystalmath.models.cluster import Check
from crystalmath.models.fields import Limits
from crystalmath.models.inputs import FlowCheck, Inputs, Preset
from crystalmath.models.job import Job
from crystalmath.models.job_notes import FindingDocument, JobState, Parent
from crystalmath.models.progress import Progress
from crystalmath.models.resources import RESOURCES
from crystalmath.models.submission import CommonTerms

_STATES = [state.value for state in JobState]

#: How many jobs a request may name.
MOST_JOBS = 10_000

Name: TypeAlias = Annotated[str, Limits(minLength=1)]
JobId: TypeAlias = Annotated[str, Limits(format="job-id"), "a job's id, a UUID"]
JobIds: TypeAlias = Annotated[list[JobId], Limits(maxItems=MOST_JOBS)]
State: TypeAlias = Annotated[str, Limits(enum=_STATES)]
#: The state of a job, or that a request about it failed.
Status: TypeAlias = Annotated[str, Limits(enum=[*_STATES, "error"])]
#: The name of a file on its way: 32 hexadecimal digits, chosen by who writes it.
Transfer: TypeAlias = Annotated[str, Limits(minLength=32, maxLength=32), "32 hexadecimal digits"]
Count: TypeAlias = Annotated[int, Limits(minimum=0)]
Bytes: TypeAlias = Annotated[int, Limits(minimum=0, maximum=2**53)]
Time: TypeAlias = Annotated[float, "seconds since the epoch"]
Timeout: TypeAlias = Annotated[
    float,
    Limits(minimum=0, maximum=600),
    "how long to wait for news, in seconds",
]
Error: TypeAlias = Annotated[str | None, "the error as a text for people"]
Place: TypeAlias = Annotated[str, "the parameter of the request that the error is about"]
Code: TypeAlias = Annotated[str, "names the kind of error; it never changes"]

#: A job as all methods describe it: the public fields of :class:`~crystalmath.models.Job`, by their
#: names on the wire. ``Job.read`` makes the record from it.
JobDocument: TypeAlias = Annotated[Mapping[str, Any], Job]
#: The same for other records.
InputsDocument: TypeAlias = Annotated[Mapping[str, Any], Inputs]
ProgressDocument: TypeAlias = Annotated[Mapping[str, Any], Progress]
CheckDocument: TypeAlias = Annotated[Mapping[str, Any], Check]
PresetDocument: TypeAlias = Annotated[Mapping[str, Any], Preset]


class Answer(TypedDict):
    """The key that most answers have."""

    error: Error


class Trouble(TypedDict):
    """The reason why something cannot be done, for people and for programs."""

    error: str
    code: Code


class Refusal(Trouble):
    """The answer of any method that refuses a request."""

    status: Literal["error"]
    findings: NotRequired[list[FindingDocument]]
    place: NotRequired[Place]


class Potcar(TypedDict):
    """A pseudopotential file (:class:`~crystalmath.models.Pseudopotential`)."""

    symbol: str
    setup: str
    path: str
    titel: str | None
    sha256: str
    lexch: str | None
    zval: float | None


Potcars: TypeAlias = Annotated[
    list[Potcar], "the pseudopotentials that the job reads, as they were at submission"
]


Replaced = Annotated[
    Mapping[str, Count],
    "reason -> how often the warm runner had to be replaced for it during this job, or the job was "
    "computed again without another job of its batch",
]


class Summary(TypedDict):
    """The main values of the result of a completed job."""

    energy_ev: Annotated[float | None, "energy in eV"]
    max_force_ev_ang: Annotated[float | None, "the largest force on an atom in eV/Å"]
    formula: Annotated[str | None, "the formula of all atoms that have this energy"]
    work_dir: str | None
    natoms: NotRequired[Annotated[Count, "the number of atoms, where there are any"]]
    steps: NotRequired[Annotated[Count, "the number of results of a flow"]]
    as_text: NotRequired[
        Annotated[
            list[str],
            "values of the result that JSON cannot express, and that are stored as text: place and "
            "type; the first hundred",
        ]
    ]
    asked_to_stop: NotRequired[
        Annotated[
            bool,
            "the walltime of the job or its allocation was nearly over, and the program was "
            "asked to stop: it may not have finished",
        ]
    ]
    changed_files: NotRequired[
        Annotated[
            list[str],
            "pseudopotentials that had changed between submission and run",
        ]
    ]
    batch: NotRequired[
        Annotated[int, "how many jobs one call of the recipe's batched function computed"]
    ]
    process_replaced: NotRequired[Replaced]


# --- submitting and stopping ---------------------------------------------------------------------


class SubmittedJob(Answer):
    """The new job, or why the submission was refused (``jobs.submit``)."""

    job_id: str | None
    status: Status
    code: NotRequired[str]
    place: NotRequired[Place]
    findings: NotRequired[list[FindingDocument]]
    warnings: NotRequired[list[FindingDocument]]
    known: NotRequired[
        Annotated[bool, "with a key: whether an earlier request has submitted the job"]
    ]


class SubmittedJobs(Answer):
    """The answers to many submissions, in their order (``jobs.submit_many``)."""

    jobs: Sequence[SubmittedJob]


class RetriedJob(Answer):
    """The new job that retries an old one, or why it was refused (``jobs.retry``)."""

    retry_of: Annotated[str, "the old job"]
    name: str | None
    labels: Mapping[str, str]
    job_id: Annotated[str | None, "the new job"]
    status: Annotated[str, Limits(enum=[*_STATES, "ok", "error"])]
    code: NotRequired[str]
    place: NotRequired[Place]
    findings: NotRequired[list[FindingDocument]]
    warnings: NotRequired[list[FindingDocument]]
    known: NotRequired[
        Annotated[bool, "with a key: whether an earlier request has made the new job"]
    ]


class RetriedJobs(Answer):
    """The new jobs that retry old ones (``jobs.retry``)."""

    jobs: Sequence[RetriedJob]


class CancelledJob(Answer):
    """Whether a stop of a job was requested, or why not (``jobs.cancel``)."""

    job_id: str
    cancelled: Annotated[bool, "a stop of the job was requested"]
    successors: NotRequired[
        Annotated[list[str], "the jobs that waited for it, and are stopped as well"]
    ]
    code: NotRequired[str]
    status: NotRequired[Literal["error"]]


class CancelledJobs(Answer):
    """Which of many jobs are to be stopped (``jobs.cancel_many``)."""

    jobs: Sequence[CancelledJob]


class FolderCopy(TypedDict):
    """A folder that a job copies, and runs in the copy."""

    folder: Annotated[str, "the folder that is copied"]
    size: Annotated[int, "the size of the copy in bytes"]


class CheckedJob(Answer):
    """Whether a job would be accepted, and its faults (``jobs.check``)."""

    ok: Annotated[bool, "whether the job would be accepted"]
    status: Annotated[str, Limits(enum=["ok", "error"])]
    findings: list[FindingDocument]
    potcars: Annotated[list[Potcar], "the pseudopotentials that it would read, if they are known"]
    environment: Annotated[list[str], "the caller's variables that the job would see"]
    copies: Annotated[
        list[FolderCopy], "the folders that it would copy and run in, if they exist already"
    ]
    inputs: NotRequired[Annotated[InputsDocument | None, "with `inputs` in the request"]]
    flow: NotRequired[
        Annotated[Mapping[str, Any], FlowCheck, "for a flow, the jobs that it would call"]
    ]


# --- jobs ----------------------------------------------------------------------------------------


class JobStates(Answer):
    """Jobs in the order of their ids, or an error for an unknown one (``jobs.status_many``)."""

    jobs: Sequence[Annotated[Mapping[str, Any], Job, Refusal]]


class JobRow(TypedDict):
    """The chosen fields of a job in a list."""

    job_id: JobId


class JobList(Answer):
    """A page of jobs, and how many there are in each state (``jobs.list``)."""

    jobs: Annotated[
        Sequence[Annotated[Mapping[str, Any], Job, JobRow]],
        "each whole, or only its `fields` and `job_id`",
    ]
    cursor: Annotated[str | None, "the `cursor` for the next page, if any"]
    totals: Annotated[Mapping[str, int] | None, "how many jobs there are in each state"]


class WaitedJobs(Answer):
    """Jobs as they were at the end of the wait, and whether all had ended (``jobs.wait``)."""

    jobs: Sequence[JobDocument]
    done: bool


class ErrorGroup(TypedDict):
    """How many jobs failed with one error, and the newest few of them."""

    error: str
    count: int
    job_ids: list[str]


class Counted(Answer):
    """Jobs counted by state, and failures by their error (``jobs.summary``)."""

    states: Annotated[dict[str, int], "how many jobs there are in each state"]
    errors: list[ErrorGroup]


class FacetValue(TypedDict):
    """How many jobs have a value."""

    value: str
    count: Count


class Facet(TypedDict):
    """Jobs counted by the values of one filter, the most frequent first (``jobs.facets``)."""

    filter: Annotated[
        Literal["state", "recipe", "engine", "cluster", "elements", "labels"],
        "the filter that takes these values",
    ]
    label: Annotated[str | None, "the name of the label; null for other filters"]
    values: list[FacetValue]
    more: Annotated[Count, "how many further values there are"]


class Facets(Answer):
    """Jobs counted by the values of filters (``jobs.facets``); labels come last."""

    facets: list[Facet]
    more: Annotated[Count, "how many further labels there are"]


_CameTo: TypeAlias = Annotated[dict[str, int], "state -> how many jobs reached it"]


class CountsBucket(TypedDict):
    """Jobs counted by the states that they reached in a span of time."""

    at: Annotated[float, "its beginning, in seconds since the epoch"]
    states: _CameTo


class CountedOverTime(Answer):
    """Ended jobs counted by state over time (``jobs.counts``), the oldest bucket first."""

    bucket_s: Annotated[float, "the length of a bucket in seconds"]
    buckets: list[CountsBucket]
    states: Annotated[_CameTo, "in all buckets"]


class Specification(CommonTerms, Answer):
    """The specification of a job with its terms (``jobs.specification``)."""

    job_id: str
    recipe: str
    structure: str | Mapping[str, Any] | None
    params: Mapping[str, Any]
    engine: str
    potcars: Potcars
    parents: Annotated[list[Parent], "the jobs that it depends on or retries"]
    in_one_job: bool
    serial: bool
    walltime_total_s: float | None
    by_step: Mapping[str, Mapping[str, Any]]
    job: NotRequired[Annotated[JobDocument, "with `job` in the request: as in jobs.status"]]
    progress: NotRequired[
        Annotated[
            ProgressDocument | None,
            "with `progress` in the request: as in jobs.progress; null unless the job runs or has "
            "failed",
        ]
    ]


class ListedResult(Answer):
    """The result of a job (``jobs.results``); arrays and the like are in monty's form."""

    job_id: JobId
    status: Status
    result: Annotated[Any, "the whole result of the recipe; null unless the job completed"]
    code: NotRequired[str]


class JobResult(ListedResult):
    """The result of one job, or the traceback of its recipe (``jobs.result``)."""

    traceback: NotRequired[str]
    brief: NotRequired[Annotated[bool, "true if `result` was reduced, with `brief` in the request"]]


class ResultList(Answer):
    """The results of the first jobs, as many as fit (``jobs.results``)."""

    results: Sequence[ListedResult]
    more: Annotated[Count, "how many of the last ids did not fit"]


class JobParameters(Answer):
    """The recipe's parameters of a job (``jobs.parameters``)."""

    job_id: JobId
    params: Annotated[Mapping[str, Any] | None, "as in jobs.specification"]
    code: NotRequired[str]


class ParametersList(Answer):
    """The recipes' parameters of the first jobs, as many as fit (``jobs.parameters``)."""

    parameters: Sequence[JobParameters]


class JobTable(Answer):
    """The first jobs as rows of a table, as many as fit (``jobs.table``)."""

    rows: Annotated[
        Sequence[Mapping[str, Any]],
        "for each job `job_id` and its values, by the names of columns; values that it does not "
        "have are left out",
    ]
    more: Annotated[Count, "how many of the last ids did not fit"]
    unreadable: Annotated[
        Mapping[str, str],
        "job id -> why the result of a job in `rows` cannot be read; its row lacks values",
    ]


class JobProgress(Answer):
    """The progress of a job (``jobs.progress``)."""

    job_id: JobId
    status: Status
    progress: ProgressDocument | None
    code: NotRequired[str]


class ProgressList(Answer):
    """The progress of jobs, in the order of their ids (``jobs.progress``)."""

    jobs: Sequence[JobProgress]


class Numbers(TypedDict):
    """An array of numbers of NumPy's ``dtype``, in base64."""

    dtype: Annotated[Literal["float32", "float64"], "little-endian"]
    shape: list[Count]
    data: Annotated[str, "base64, the last index running fastest; NaN for a missing value"]


class Trajectory(Answer):
    """Frames that a calculation of a job has written (``jobs.trajectory``)."""

    job_id: JobId
    attempt: Annotated[Count, "the attempt that has written them"]
    file: Annotated[str | None, "the absolute path of their file"]
    others: Annotated[list[str], "further files of frames, the newest first, as `file` takes them"]
    frames: Annotated[Count, "how many whole frames the file has by now"]
    start: Annotated[Count, "the number of the first frame here; the file's first one is 0"]
    stride: Annotated[Count, "the distance from one frame here to the next"]
    next: Annotated[int | None, "the `start` for the frames that did not fit, if any"]
    numbers: Annotated[list[int], "atomic numbers, the same in all frames"]
    pbc: Annotated[list[bool], "whether the cell is periodic along each of its vectors"]
    positions: Annotated[Numbers | None, "(frames, atoms, 3), in Å"]
    cells: Annotated[Numbers | None, "(frames, 3, 3), the vectors as rows, in Å"]
    energies: Annotated[Numbers | None, "(frames,), in eV; null if no frame has one"]
    forces: Annotated[Numbers | None, "(frames, atoms, 3), in eV/Å; null if there are none"]
    magmoms: Annotated[Numbers | None, "(frames, atoms), in μB; null if there are none"]


class JobInputs(Answer):
    """The inputs of a job's programs (``jobs.inputs``)."""

    job_id: JobId
    inputs: InputsDocument


class JobScript(Answer):
    """A job as scripts that run without CrystalMath (``jobs.script``): in Python, and for sh."""

    job_id: JobId
    script: Annotated[str, "in Python; it needs only quacc"]
    shell: Annotated[
        str | None,
        "for sh, with `shell` in the request; null if a step runs no program that a command starts",
    ]


class Relative(Parent):
    """A parent or child of a job, with its record."""

    name: str | None
    recipe: str | None
    status: Annotated[State | None, "its state; null if it is not on record"]


class AttemptEntry(TypedDict):
    """An attempt of a job (``jobs.show``): where it began, and how it ended."""

    attempt: Annotated[int, "its number; the first is 1"]
    host: Annotated[str | None, "the host where it began; null if it has not begun"]
    pid: Annotated[int | None, "the process id of its supervisor"]
    outcome: Annotated[str | None, "completed, failed, cancelled or lost; null if it has none yet"]
    error: Error
    begun_from: Annotated[
        str | None,
        "the file of an earlier attempt with the geometry from which it began; null if it began "
        "with the job's own structure",
    ]
    process_replaced: NotRequired[Replaced]
    work_dir: str


_From = TypedDict("_From", {"from": State | None})


class _Happened(_From):
    seq: Annotated[int, "grows from event to event, with gaps"]
    job_id: str
    at: Time
    reason: str | None
    job: NotRequired[Annotated[JobDocument, "with `job` in the request: as it is by then"]]


class Event(_Happened):
    """A change or a note of a job (``jobs.events``)."""

    to: Annotated[State, "the new state; for a note the same as `from`"]


class Change(_Happened):
    """The same as a notification (``jobs.changed``)."""

    status: Annotated[State, "the new state; for a note the same as `from`"]


class EventList(Answer):
    """Events, the oldest first, and the place where the next ones begin (``jobs.events``)."""

    events: Sequence[Event]
    last: Annotated[int, "the `after` for the next call"]


class Subscribed(Answer):
    """The event after which a subscription begins (``jobs.subscribe``)."""

    seq: Annotated[int, Limits(minimum=0, maximum=2**53)] | None


class Target(TypedDict):
    """An engine with one of its clusters."""

    engine: str
    cluster: str


class Story(Answer):
    """A job's whole story (``jobs.show``)."""

    job: Annotated[JobDocument, "as in jobs.status"]
    params: Annotated[Mapping[str, Any], "the recipe's parameters"]
    flow: Annotated[
        Mapping[str, Any],
        "the parameters of jobs.submit for flows only: `serial`, `by_step` and the like",
    ]
    body: Annotated[
        Target | None,
        "for a flow whose steps are jobs, where its body runs; `job` says where its steps run",
    ]
    potcars: Potcars
    parents: Annotated[list[Relative], "the jobs that it depends on or retries"]
    children: Annotated[
        list[Relative], "the first 1000 jobs that depend on it or retry it, the oldest first"
    ]
    attempts: list[AttemptEntry]
    events: Annotated[list[Event], "the first 1000 with their reasons, the oldest first"]


# --- files ---------------------------------------------------------------------------------------


class LogPart(Answer):
    """A part of a job's log or of another file (``jobs.logs``)."""

    job_id: JobId
    file: Annotated[str | None, "the absolute path"]
    others: Annotated[
        list[str],
        "further files of that name, the newest first, by their paths below the work directory; "
        "``file`` is the newest of all",
    ]
    text: str
    offset: Annotated[Bytes, "the `offset` for the next call"]
    size: Annotated[Bytes, "the size of the decompressed file in bytes"]
    finished: Annotated[bool, "the job has ended, and its file was read to the end"]


class FilePart(Answer):
    """Bytes of a file of a job (``jobs.file``)."""

    job_id: JobId
    file: Annotated[str | None, "the absolute path"]
    others: Annotated[list[str], "further files of that name, as jobs.logs names them"]
    data: Annotated[str, "the bytes in base64"]
    offset: Annotated[Bytes, "the `offset` for the next call"]
    size: Annotated[Bytes, "the size of the stored file in bytes"]
    finished: Annotated[bool, "the job has ended, and its file was read to the end"]
    sha256: NotRequired[
        Annotated[str, "with `sha256` in the request: of the bytes before `offset`, in hexadecimal"]
    ]


class JobFile(TypedDict):
    """A file of a job."""

    file: Annotated[str, "its path below the work directory, as jobs.logs takes it"]
    size: Annotated[Count, "the stored size in bytes"]
    modified_at: Annotated[float, "when it was last written, in seconds since the epoch"]
    is_link: Annotated[bool, "it is a link"]


class JobFiles(Answer):
    """The files of an attempt of a job (``jobs.files``)."""

    job_id: JobId
    attempt: Annotated[Count, "the attempt that wrote them"]
    work_dir: Annotated[str | None, "the folder above them"]
    files: list[JobFile]
    more: Annotated[Count, "how many files there are beyond 10000"]


class ArchivedJobs(Answer):
    """The content of a new archive (``jobs.archive``)."""

    jobs: Annotated[Count, "how many jobs it has"]
    files: Annotated[Count, "how many files it has"]
    left_out: Annotated[list[str], "files that are not in it, and why; the first hundred"]
    transfer: Annotated[
        str | None, "without `file` in the request: its name for transfers.read, for a day"
    ]


class TransferPart(Answer):
    """Bytes of a file that is on its way (``transfers.read``, ``transfers.write``)."""

    transfer: Transfer
    data: Annotated[str, "the bytes in base64; empty in the answer of transfers.write"]
    offset: Annotated[Bytes, "the end of these bytes in the file"]
    size: Annotated[Bytes, "the size of the file in bytes"]
    sha256: NotRequired[
        Annotated[str, "with `sha256` in the request: of the bytes before `offset`, in hexadecimal"]
    ]


class ImportedJobs(Answer):
    """The jobs of an archive (``jobs.import``)."""

    job_ids: list[str]
    known: Annotated[list[str], "jobs that were here already, and were not changed"]
    without_key: Annotated[
        list[str], "jobs that were imported without their keys, because other jobs here have these"
    ]


class Used(TypedDict):
    """The disk usage of jobs."""

    jobs: Annotated[Count, "how many jobs"]
    files: Annotated[Count, "how many files"]
    size: Annotated[Count, "disk blocks of files and folders, in bytes"]
    heavy_size: Annotated[Count, "the part that jobs.prune removes with keep_results, in bytes"]
    packed: Annotated[Count, "how many of the jobs are in packs, which count with their share"]


class UsedByState(Used):
    """The disk usage of the jobs in a state."""

    state: State


class UsedByRecipe(Used):
    """The disk usage of the jobs of a recipe."""

    recipe: str


class UsedByLabel(Used):
    """The disk usage of the jobs with a label."""

    label: str
    value: str


class Usage(Answer):
    """The disk usage of jobs (``jobs.usage``), the largest groups first."""

    total: Used
    states: list[UsedByState]
    recipes: list[UsedByRecipe]
    labels: list[UsedByLabel]


class PrunedJob(TypedDict):
    """A job that loses files."""

    job_id: str
    name: str | None
    status: State
    recipe: str
    finished_at: Annotated[float | None, "in seconds since the epoch"]
    size: Annotated[Count, "the size of the removed files in bytes"]


class LeftJob(Trouble):
    """A job that keeps its files, and why."""

    job_id: str


class Pruned(Answer):
    """The jobs whose files were removed, or would be in a dry run (``jobs.prune``)."""

    jobs: list[PrunedJob]
    left: Annotated[list[LeftJob], "jobs that keep their files, and why"]
    cursor: Annotated[str | None, "the `cursor` for the rest, if any"]


class PackedJobs(Answer):
    """The jobs that were packed (``jobs.pack``), or brought back (``jobs.unpack``)."""

    job_ids: list[str]
    left: Annotated[list[LeftJob], "jobs that stay as they were, and why"]
    cursor: Annotated[str | None, "the `cursor` for the rest, if any"]


# --- what is installed ---------------------------------------------------------------------------


class EngineEntry(TypedDict):
    """An installed engine (``engines.list``)."""

    name: str
    distribution: Annotated[str, "the package that provides it"]
    version: str
    loads: Annotated[bool, "its plugin can be used"]
    error: Annotated[str | None, "why its plugin cannot be used"]
    findings: list[FindingDocument]
    configured: Annotated[bool, "submissions without an engine use it"]


class EngineList(Answer):
    """The installed engines (``engines.list``)."""

    engines: Sequence[EngineEntry]


class ClusterEntry(TypedDict):
    """A cluster of the configuration file (``clusters.list``)."""

    name: Annotated[str, "the `cluster` of submissions"]
    engine: Annotated[str, "the engine that it implies"]
    scheduler: str
    walltime_s: Annotated[float | None, "how long an allocation lasts, in seconds"]
    worker_init: Annotated[str, "shell commands to run before the worker"]
    environment: Annotated[
        dict[str, str], "variables that its jobs see in place of their submitters'"
    ]
    launcher: Annotated[
        str | None, "the command that starts a job's ranks; default: mpirun, or that of Flux"
    ]
    continue_lost: Annotated[
        bool | None,
        "lost relaxations go on from their last geometries; default: [jobs] continue_lost",
    ]
    resources: Annotated[dict[str, Any], Limits(**RESOURCES), "the default of an allocation"]
    engine_options: Annotated[dict[str, Any], "the engine's own keys"]
    error: Annotated[str | None, "why its engine cannot use it"]
    trouble: Annotated[str | None, "why its batch system does not answer at present"]


class ClusterList(Answer):
    """The clusters of the configuration file (``clusters.list``)."""

    clusters: Sequence[ClusterEntry]


class ProvenCluster(Answer):
    """The checks of a cluster (``clusters.check``)."""

    job_id: Annotated[str | None, "the job that runs the checks there"]
    status: Annotated[Status, "the state of that job"]
    checks: Annotated[
        Sequence[CheckDocument], "the results; those of the node come once the job has ended"
    ]


class ClusterChecked(Answer):
    """The checks of a cluster, as a client returns them."""

    job_id: str | None
    status: str
    checks: list[Check]


_Kind: TypeAlias = Annotated[Literal["job", "flow"] | None, "quacc's decorator of the recipe"]


class RecipeEntry(TypedDict):
    """A recipe (``recipes.list``)."""

    name: str
    kind: _Kind
    summary: Annotated[str, "the first paragraph of its docstring"]


class RecipeList(Answer):
    """The recipes that may be submitted (``recipes.list``)."""

    recipes: Sequence[RecipeEntry]


class RecipeDescription(Answer):
    """A recipe as its source describes it (``recipes.describe``)."""

    name: str
    kind: _Kind
    file: str | None
    line: int | None
    docstring: str | None
    structure: Annotated[
        Literal["required", "optional", "none"] | None,
        "whether the recipe takes one; null if its source does not show it",
    ]
    parameters: Annotated[
        Mapping[str, Any] | None,
        "JSON Schema of `params`; null if its source does not show them",
    ]


class PresetList(Answer):
    """quacc's presets (``presets.list``)."""

    presets: Sequence[PresetDocument]


class ReadStructure(TypedDict):
    """A structure that was read from a text."""

    name: Annotated[str, "the name of its file, with a number if there are several: slab-0"]
    formula: str
    structure: Annotated[Mapping[str, Any], "as jobs.submit takes it"]
    numbers: Annotated[list[int], "atomic numbers"]
    positions: Annotated[list[list[float]], "a row for each atom, in Å"]
    cell: Annotated[list[list[float]], "the vectors as rows, in Å"]
    pbc: Annotated[list[bool], "whether it is periodic along each vector of the cell"]


class Structures(Answer):
    """The structures of a text (``structures.read``)."""

    structures: Sequence[ReadStructure]
    more: Annotated[Count, "how many further structures the text has"]


# --- the server ----------------------------------------------------------------------------------


class Pong(TypedDict):
    """The sign that the server lives (``system.ping``)."""

    ok: bool


class Doctor(Answer):
    """The checks of everything that jobs need (``system.doctor``)."""

    ok: Annotated[bool, "no check keeps jobs from running"]
    checks: Sequence[CheckDocument]


class UnfinishedJobs(TypedDict):
    """The number of unfinished jobs, by state."""

    pending: Count
    running: Count


class Stopping(UnfinishedJobs):
    """The unfinished jobs of a server that is stopping (``system.stop``)."""

    cancel: bool


class ServerVersion(TypedDict):
    """The server's version, process and home (``system.version``)."""

    version: str
    protocol: Count
    pid: Count
    host: str
    python: NotRequired[str]
    prefix: NotRequired[str]
    home: NotRequired[str]
    recipes_allow: NotRequired[list[str]]
    started_at: NotRequired[float]


class DiskRoom(TypedDict):
    """The file system that jobs write to."""

    path: Annotated[str, "the folder of the jobs"]
    free: Annotated[Count, "the free bytes"]
    size: Annotated[Count, "all bytes"]
    full: Annotated[bool, "whether results wait for room"]
    looked_at: Time


class FailedJob(TypedDict):
    """A job that failed lately."""

    job_id: str
    name: str | None
    recipe: str
    at: Annotated[float | None, "when it failed, in seconds since the epoch"]
    error: Annotated[str, "the first line of its error"]


class ServerStatus(TypedDict):
    """The state of a server (``system.status``)."""

    jobs: Annotated[dict[str, int], UnfinishedJobs]
    connections: Count
    quiet_s: float
    engines: Annotated[dict[str, str], "the state of each installed engine"]
    workers: NotRequired[
        Annotated[
            dict[str, Count | None],
            "how many jobs each loaded engine runs at once, if it knows",
        ]
    ]
    backlog: NotRequired[
        Annotated[dict[str, Count], "how many jobs wait to begin on each loaded engine"]
    ]
    disk: NotRequired[
        Annotated[
            DiskRoom | None,
            "the file system of the jobs, seconds ago; null if it is not known",
        ]
    ]
    failures: NotRequired[
        Annotated[
            list[FailedJob] | None,
            "the jobs that failed last, the newest failure first; null while the database does "
            "not answer, and left out if it cannot be used",
        ]
    ]
