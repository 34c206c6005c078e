"""The answers of the server's methods: their one declaration.

Schemas, the OpenRPC document and the page of methods follow from these types
(:mod:`~crystalmath.wire.schemas`), and type checkers read them, of handlers and of clients.
Answers may gain keys in later releases, and lose none.
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

#: So many jobs in one request at most.
MOST_JOBS = 10_000

Name: TypeAlias = Annotated[str, Limits(minLength=1)]
JobId: TypeAlias = Annotated[str, Limits(format="job-id"), "a job's id, a UUID"]
JobIds: TypeAlias = Annotated[list[JobId], Limits(maxItems=MOST_JOBS)]
State: TypeAlias = Annotated[str, Limits(enum=_STATES)]
#: What has become of a job, or of what was asked of it.
Status: TypeAlias = Annotated[str, Limits(enum=[*_STATES, "error"])]
Count: TypeAlias = Annotated[int, Limits(minimum=0)]
Bytes: TypeAlias = Annotated[int, Limits(minimum=0, maximum=2**53)]
Time: TypeAlias = Annotated[float, "seconds since the epoch"]
Timeout: TypeAlias = Annotated[
    float,
    Limits(minimum=0, maximum=600),
    "how long to wait for something to tell, in seconds",
]
Error: TypeAlias = Annotated[str | None, "what is wrong, for people"]
Code: TypeAlias = Annotated[str, "stays the same when the wording changes"]

#: A job, as ``jobs.status`` and all others tell it: what of :class:`~crystalmath.models.Job` is
#: shown, by the names on the wire. ``Job.read`` makes the record of it.
JobDocument: TypeAlias = Annotated[Mapping[str, Any], Job]
#: The same of others.
InputsDocument: TypeAlias = Annotated[Mapping[str, Any], Inputs]
ProgressDocument: TypeAlias = Annotated[Mapping[str, Any], Progress]
CheckDocument: TypeAlias = Annotated[Mapping[str, Any], Check]
PresetDocument: TypeAlias = Annotated[Mapping[str, Any], Preset]


class Answer(TypedDict):
    """What most answers have."""

    error: Error


class Trouble(TypedDict):
    """What keeps something from being done, for people and for programs."""

    error: str
    code: Code


class Refusal(Trouble):
    """What any method may answer in place of a result."""

    status: Literal["error"]
    findings: NotRequired[list[FindingDocument]]


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
    list[Potcar], "the pseudopotentials that it reads, as they were at submission"
]


Replaced = Annotated[
    Mapping[str, Count],
    "why the warm process that runs recipes had to be replaced for this job, each with how often",
]


class Summary(TypedDict):
    """What people look for in the result of a completed job."""

    energy_ev: Annotated[float | None, "energy in eV"]
    max_force_ev_ang: Annotated[float | None, "the largest force on an atom in eV/Å"]
    formula: Annotated[str | None, "of all atoms that the energy is of"]
    work_dir: str | None
    natoms: NotRequired[Annotated[Count, "the number of atoms, where there are any"]]
    steps: NotRequired[Annotated[Count, "the number of results of a flow"]]
    as_text: NotRequired[
        Annotated[
            list[str],
            "what of the result JSON has no form for and is stored as text: place and type; the "
            "first hundred",
        ]
    ]
    asked_to_stop: NotRequired[
        Annotated[
            bool,
            "the walltime, or its allocation's, was nearly over, and the program was asked to "
            "stop: it may have been before all was done",
        ]
    ]
    changed_files: NotRequired[
        Annotated[
            list[str],
            "pseudopotentials that were not, when the job ran, what they were at submission",
        ]
    ]
    process_replaced: NotRequired[Replaced]


# --- what becomes of a request -------------------------------------------------------------------


class SubmittedJob(Answer):
    """The job that a submission became, or why it was refused (``jobs.submit``)."""

    job_id: str | None
    status: Status
    code: NotRequired[str]
    findings: NotRequired[list[FindingDocument]]
    warnings: NotRequired[list[FindingDocument]]
    known: NotRequired[Annotated[bool, "with a key: whether it gave the job before"]]


class SubmittedJobs(Answer):
    """What became of many submissions, in their order (``jobs.submit_many``)."""

    jobs: Sequence[SubmittedJob]


class RetriedJob(Answer):
    """What came of a job that was to run again (``jobs.retry``)."""

    retry_of: Annotated[str, "the job that was asked for"]
    name: str | None
    labels: Mapping[str, str]
    job_id: Annotated[str | None, "the new job"]
    status: Annotated[str, Limits(enum=[*_STATES, "ok", "error"])]
    code: NotRequired[str]
    findings: NotRequired[list[FindingDocument]]
    warnings: NotRequired[list[FindingDocument]]
    known: NotRequired[Annotated[bool, "with a key: whether it gave the new job before"]]


class RetriedJobs(Answer):
    """What came of jobs that were to run again (``jobs.retry``)."""

    jobs: Sequence[RetriedJob]


class CancelledJob(Answer):
    """Whether it was asked that a job be stopped, or why not (``jobs.cancel``)."""

    job_id: str
    cancelled: Annotated[bool, "it was asked that the job be stopped"]
    successors: NotRequired[
        Annotated[list[str], "the jobs that waited for it, and are stopped too"]
    ]
    code: NotRequired[str]
    status: NotRequired[Literal["error"]]


class CancelledJobs(Answer):
    """Of many jobs, whether it was asked that they be stopped (``jobs.cancel_many``)."""

    jobs: Sequence[CancelledJob]


class FolderCopy(TypedDict):
    """A folder of which a job gets a copy to run in."""

    folder: Annotated[str, "the folder that is copied"]
    size: Annotated[int, "how large the copy is, in bytes"]


class CheckedJob(Answer):
    """Whether a job would be accepted, and what is wrong with it (``jobs.check``)."""

    ok: Annotated[bool, "whether the job would be accepted"]
    status: Annotated[str, Limits(enum=["ok", "error"])]
    findings: list[FindingDocument]
    potcars: Annotated[list[Potcar], "the pseudopotentials it would read, as far as they are known"]
    environment: Annotated[list[str], "the variables of the caller's that the job would see"]
    copies: Annotated[
        list[FolderCopy], "the folders that it would copy, to run in, as far as they are there"
    ]
    inputs: NotRequired[Annotated[InputsDocument | None, "where that was asked for"]]
    flow: NotRequired[
        Annotated[Mapping[str, Any], FlowCheck, "of a flow, the jobs that it would call"]
    ]


# --- jobs ----------------------------------------------------------------------------------------


class JobStates(Answer):
    """Jobs in the order of their ids, or why one is not known (``jobs.status_many``)."""

    jobs: Sequence[Annotated[Mapping[str, Any], Job, Refusal]]


class JobRow(TypedDict):
    """Those fields of a job that a list was asked for."""

    job_id: JobId


class JobList(Answer):
    """A page of jobs, and how many there are in each state (``jobs.list``)."""

    jobs: Annotated[
        Sequence[Annotated[Mapping[str, Any], Job, JobRow]],
        "each whole, or of `fields` and `job_id` alone",
    ]
    cursor: Annotated[str | None, "of the next page, if any"]
    totals: Annotated[Mapping[str, int] | None, "how many jobs there are in each state"]


class WaitedJobs(Answer):
    """Jobs as they were when the waiting was over (``jobs.wait``), and whether all had ended."""

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
    """How many jobs have which value of a filter, the most frequent first (``jobs.facets``)."""

    filter: Annotated[
        Literal["state", "recipe", "engine", "cluster", "elements", "labels"],
        "the filter that takes these values",
    ]
    label: Annotated[str | None, "the name of the label; null of other filters"]
    values: list[FacetValue]
    more: Annotated[Count, "how many further values there are"]


class Facets(Answer):
    """How many jobs have which values of filters (``jobs.facets``); labels come last."""

    facets: list[Facet]
    more: Annotated[Count, "how many further labels there are"]


_CameTo: TypeAlias = Annotated[dict[str, int], "state -> how many jobs came to it"]


class CountsBucket(TypedDict):
    """How many jobs came to which state in a span of time."""

    at: Annotated[float, "its beginning, in seconds since the epoch"]
    states: _CameTo


class CountedOverTime(Answer):
    """How many jobs ended in which state over time (``jobs.counts``), the oldest bucket first."""

    bucket_s: Annotated[float, "the length of a bucket in seconds"]
    buckets: list[CountsBucket]
    states: Annotated[_CameTo, "in all buckets"]


class Specification(CommonTerms, Answer):
    """What a job was asked to do (``jobs.specification``), its terms among it."""

    job_id: str
    recipe: str
    structure: str | Mapping[str, Any] | None
    params: Mapping[str, Any]
    engine: str
    potcars: Potcars
    parents: Annotated[list[Parent], "the jobs that it came of"]
    in_one_job: bool
    serial: bool
    walltime_total_s: float | None
    by_step: Mapping[str, Mapping[str, Any]]
    job: NotRequired[Annotated[JobDocument, "what jobs.status tells, where that was asked for"]]
    progress: NotRequired[
        Annotated[
            ProgressDocument | None,
            "as jobs.progress tells it, where that was asked for; null unless the job runs or "
            "failed",
        ]
    ]


class ListedResult(Answer):
    """What the recipe of a job returned (``jobs.results``); arrays and the like in monty's form."""

    job_id: JobId
    status: Status
    result: Annotated[Any, "what the recipe returned, whole; null unless it completed"]
    code: NotRequired[str]


class JobResult(ListedResult):
    """The same of one job, and where its recipe raised (``jobs.result``)."""

    traceback: NotRequired[str]
    brief: NotRequired[Annotated[bool, "true where `result` is a part, as `brief` asked for"]]


class ResultList(Answer):
    """What the recipes of the first jobs returned, as many as fit (``jobs.results``)."""

    results: Sequence[ListedResult]
    more: Annotated[Count, "how many of the last ids did not fit"]


class JobParameters(Answer):
    """What the recipe of a job was given (``jobs.parameters``)."""

    job_id: JobId
    params: Annotated[Mapping[str, Any] | None, "as jobs.specification gives them"]
    code: NotRequired[str]


class ParametersList(Answer):
    """What the recipes of the first jobs were given, as many as fit (``jobs.parameters``)."""

    parameters: Sequence[JobParameters]


class JobTable(Answer):
    """The first jobs as lines of a table, as many as fit (``jobs.table``)."""

    rows: Annotated[
        Sequence[Mapping[str, Any]],
        "of each job its values by the names of columns, and `job_id`; what it does not have is "
        "left out",
    ]
    more: Annotated[Count, "how many of the last ids did not fit"]
    unreadable: Annotated[
        Mapping[str, str],
        "why the results of some jobs in `rows` cannot be read, by job id: their rows lack values",
    ]


class JobProgress(Answer):
    """How far a job has come (``jobs.progress``)."""

    job_id: JobId
    status: Status
    progress: ProgressDocument | None
    code: NotRequired[str]


class ProgressList(Answer):
    """How far jobs have come, in the order of their ids (``jobs.progress``)."""

    jobs: Sequence[JobProgress]


class Numbers(TypedDict):
    """An array of numbers in a compact form: of NumPy's ``dtype`` in base64."""

    dtype: Annotated[Literal["float32", "float64"], "little-endian"]
    shape: list[Count]
    data: Annotated[str, "base64, the last index running fastest; NaN where there is no value"]


class Trajectory(Answer):
    """Frames that a calculation of a job has written (``jobs.trajectory``)."""

    job_id: JobId
    attempt: Annotated[Count, "which attempt has written them"]
    file: Annotated[str | None, "from which they were read, the whole path"]
    others: Annotated[list[str], "further files of frames, the newest first, as `file` takes them"]
    frames: Annotated[Count, "how many whole frames the file holds by now"]
    start: Annotated[Count, "the number of the first frame here; the file's first one is 0"]
    stride: Annotated[Count, "from one frame here to the next"]
    next: Annotated[int | None, "the `start` for the rest that did not fit, if any"]
    numbers: Annotated[list[int], "atomic numbers, the same in all frames"]
    pbc: Annotated[list[bool], "whether the cell is periodic along each of its vectors"]
    positions: Annotated[Numbers | None, "(frames, atoms, 3), in Å"]
    cells: Annotated[Numbers | None, "(frames, 3, 3), the vectors as rows, in Å"]
    energies: Annotated[Numbers | None, "(frames,), in eV; null where no frame has one"]
    forces: Annotated[Numbers | None, "(frames, atoms, 3), in eV/Å; null where there are none"]
    magmoms: Annotated[Numbers | None, "(frames, atoms), in μB; null where there are none"]


class JobInputs(Answer):
    """What the programs of a job get (``jobs.inputs``)."""

    job_id: JobId
    inputs: InputsDocument


class JobScript(Answer):
    """A job as scripts that run without us (``jobs.script``): in Python, and for sh."""

    job_id: JobId
    script: Annotated[str, "in Python; it needs quacc alone"]
    shell: Annotated[
        str | None,
        "for sh; null where that was not asked for, or a step is no program's that a command "
        "starts",
    ]


class Relative(Parent):
    """A job that another came of, or that came of it, with what is on record of it."""

    name: str | None
    recipe: str | None
    status: Annotated[State | None, "its state; null where it is not on record"]


class AttemptEntry(TypedDict):
    """One try at a job (``jobs.show``): where it began, and how it ended."""

    attempt: Annotated[int, "its number; the first is 1"]
    host: Annotated[str | None, "where it began; null where it has not"]
    pid: Annotated[int | None, "of the process that looked after it"]
    outcome: Annotated[str | None, "completed, failed, cancelled or lost; null where it has none"]
    error: Error
    begun_from: Annotated[
        str | None,
        "the file of an earlier attempt from whose geometry it began; null where it began with "
        "what the job was given",
    ]
    process_replaced: NotRequired[Replaced]
    work_dir: str


_From = TypedDict("_From", {"from": State | None})


class _Happened(_From):
    seq: Annotated[int, "grows; a gap means nothing"]
    job_id: str
    at: Time
    reason: str | None
    job: NotRequired[Annotated[JobDocument, "as it is by then, where that was asked for"]]


class Event(_Happened):
    """Something that happened to a job (``jobs.events``)."""

    to: Annotated[State, "the same as `from` where something was only noted"]


class Change(_Happened):
    """The same as a notification (``jobs.changed``)."""

    status: Annotated[State, "the same as `from` where something was only noted"]


class EventList(Answer):
    """What has happened, the oldest first, and after which the next begin (``jobs.events``)."""

    events: Sequence[Event]
    last: Annotated[int, "the `after` of the next call"]


class Subscribed(Answer):
    """The event after which a subscription begins (``jobs.subscribe``)."""

    seq: Annotated[int, Limits(minimum=0, maximum=2**53)] | None


class Target(TypedDict):
    """Where something runs."""

    engine: str
    cluster: str


class Story(Answer):
    """A job's whole story (``jobs.show``)."""

    job: Annotated[JobDocument, "what jobs.status tells"]
    params: Annotated[Mapping[str, Any], "the recipe's parameters"]
    flow: Annotated[
        Mapping[str, Any],
        "what jobs.submit takes for flows alone, as it was given: `serial`, `by_step` and the like",
    ]
    body: Annotated[
        Target | None,
        "of a flow whose steps are jobs, where its own function runs; `job` has where its steps do",
    ]
    potcars: Potcars
    parents: Annotated[list[Relative], "the jobs that it came of"]
    children: Annotated[list[Relative], "the first 1000 jobs that came of it, the oldest first"]
    attempts: list[AttemptEntry]
    events: Annotated[list[Event], "the first 1000 with their reasons, the oldest first"]


# --- files ---------------------------------------------------------------------------------------


class LogPart(Answer):
    """A part of what a job has written (``jobs.logs``)."""

    job_id: JobId
    file: Annotated[str | None, "the whole path"]
    others: Annotated[
        list[str],
        "further files of that name, the newest first, by their paths below the work directory; "
        "``file`` is the newest of all",
    ]
    text: str
    offset: Annotated[Bytes, "the `offset` of the next call"]
    size: Annotated[Bytes, "of the file, decompressed, in bytes"]
    finished: Annotated[bool, "the job has ended, and its file was read to the end"]


class FilePart(Answer):
    """Bytes of a file of a job (``jobs.file``)."""

    job_id: JobId
    file: Annotated[str | None, "the whole path"]
    others: Annotated[list[str], "further files of that name, as jobs.logs names them"]
    data: Annotated[str, "the bytes in base64"]
    offset: Annotated[Bytes, "the `offset` of the next call"]
    size: Annotated[Bytes, "of the file, as it is stored, in bytes"]
    finished: Annotated[bool, "the job has ended, and its file was read to the end"]


class JobFile(TypedDict):
    """A file of a job."""

    file: Annotated[str, "its path below the work directory, as jobs.logs takes it"]
    size: Annotated[Count, "in bytes, as it is stored"]
    modified_at: Annotated[float, "when it was last written, in seconds since the epoch"]
    is_link: Annotated[bool, "it is a link, to wherever"]


class JobFiles(Answer):
    """The files of an attempt of a job (``jobs.files``)."""

    job_id: JobId
    attempt: Annotated[Count, "whose files these are"]
    work_dir: Annotated[str | None, "below which they are"]
    files: list[JobFile]
    more: Annotated[Count, "how many there are beyond 10000"]


class ArchivedJobs(Answer):
    """What was archived (``jobs.archive``)."""

    jobs: Annotated[Count, "how many jobs are in it"]
    files: Annotated[Count, "how many files of theirs"]
    left_out: Annotated[
        list[str], "files that could not be taken along, and why; the first hundred"
    ]


class ImportedJobs(Answer):
    """What was taken in (``jobs.import``)."""

    job_ids: list[str]
    known: Annotated[list[str], "jobs that were there already, and stay as they are"]
    without_key: Annotated[
        list[str], "jobs that were taken in without their keys, which other jobs have there"
    ]


class Used(TypedDict):
    """What jobs take on the disk."""

    jobs: Annotated[Count, "how many jobs"]
    files: Annotated[Count, "how many files"]
    size: Annotated[Count, "blocks of the disk, with those of folders, in bytes"]
    heavy_size: Annotated[Count, "of those that jobs.prune removes with keep_results, in bytes"]


class UsedByState(Used):
    """What the jobs in a state take."""

    state: State


class UsedByRecipe(Used):
    """What the jobs of a recipe take."""

    recipe: str


class UsedByLabel(Used):
    """What the jobs with a label take."""

    label: str
    value: str


class Usage(Answer):
    """What jobs take on the disk (``jobs.usage``), the largest groups first."""

    total: Used
    states: list[UsedByState]
    recipes: list[UsedByRecipe]
    labels: list[UsedByLabel]


class PrunedJob(TypedDict):
    """A job whose files were removed, or would be."""

    job_id: str
    name: str | None
    status: State
    recipe: str
    finished_at: Annotated[float | None, "in seconds since the epoch"]
    size: Annotated[Count, "of what is removed, in bytes"]


class LeftJob(Trouble):
    """A job whose files stay, and why."""

    job_id: str


class Pruned(Answer):
    """Whose files were removed (``jobs.prune``)."""

    jobs: list[PrunedJob]
    left: Annotated[list[LeftJob], "jobs whose files stay, and why"]
    cursor: Annotated[str | None, "of the rest, if any"]


# --- what is installed ---------------------------------------------------------------------------


class EngineEntry(TypedDict):
    """An installed engine (``engines.list``)."""

    name: str
    distribution: Annotated[str, "the package that brings it"]
    version: str
    loads: Annotated[bool, "its plugin can be used"]
    error: Annotated[str | None, "why it cannot"]
    findings: list[FindingDocument]
    configured: Annotated[bool, "submissions that name no engine use it"]


class EngineList(Answer):
    """The installed engines (``engines.list``)."""

    engines: Sequence[EngineEntry]


class ClusterEntry(TypedDict):
    """A cluster of the configuration file (``clusters.list``)."""

    name: Annotated[str, "what a submission's cluster takes"]
    engine: Annotated[str, "the engine that it implies"]
    scheduler: str
    walltime_s: Annotated[float | None, "how long an allocation lasts, in seconds"]
    worker_init: Annotated[str, "shell commands that come before the worker"]
    environment: Annotated[
        dict[str, str], "variables that its jobs see in place of their submitters'"
    ]
    launcher: Annotated[
        str | None, "what starts a job's ranks; default: mpirun, and on Flux its own"
    ]
    continue_lost: Annotated[
        bool | None,
        "relaxations that were lost go on from their last geometries; default: as [jobs] "
        "continue_lost says",
    ]
    resources: Annotated[dict[str, Any], Limits(**RESOURCES), "what an allocation has by default"]
    engine_options: Annotated[dict[str, Any], "keys that are the engine's own"]
    error: Annotated[str | None, "why its engine cannot use it"]
    trouble: Annotated[str | None, "why its batch system does not answer just now"]


class ClusterList(Answer):
    """The clusters of the configuration file (``clusters.list``)."""

    clusters: Sequence[ClusterEntry]


class ProvenCluster(Answer):
    """What a job has found on a cluster (``clusters.check``)."""

    job_id: Annotated[str | None, "the job that looks around there"]
    status: Annotated[Status, "that of the job"]
    checks: Annotated[
        Sequence[CheckDocument], "what was looked at; of the node once the job has ended"
    ]


class ClusterChecked(Answer):
    """The same, as a client gives it."""

    job_id: str | None
    status: str
    checks: list[Check]


_Kind: TypeAlias = Annotated[Literal["job", "flow"] | None, "what quacc's decorator makes of it"]


class RecipeEntry(TypedDict):
    """A recipe that there is (``recipes.list``)."""

    name: str
    kind: _Kind
    summary: Annotated[str, "a line"]


class RecipeList(Answer):
    """The recipes that there are (``recipes.list``)."""

    recipes: Sequence[RecipeEntry]


class RecipeDescription(Answer):
    """What a recipe's source says (``recipes.describe``)."""

    name: str
    kind: _Kind
    file: str | None
    line: int | None
    docstring: str | None
    structure: Annotated[
        Literal["required", "optional", "none"] | None,
        "whether the recipe takes one; null where the source cannot tell",
    ]
    parameters: Annotated[
        Mapping[str, Any] | None,
        "JSON Schema of `params`; null where the source cannot tell",
    ]


class PresetList(Answer):
    """quacc's presets (``presets.list``)."""

    presets: Sequence[PresetDocument]


class ReadStructure(TypedDict):
    """A structure that was read from a text."""

    name: Annotated[str, "of its file, and of several which one: slab-0"]
    formula: str
    structure: Annotated[Mapping[str, Any], "as jobs.submit takes it"]
    numbers: Annotated[list[int], "atomic numbers"]
    positions: Annotated[list[list[float]], "a row for each atom, in Å"]
    cell: Annotated[list[list[float]], "the vectors as rows, in Å"]
    pbc: Annotated[list[bool], "whether it is periodic along each vector of the cell"]


class Structures(Answer):
    """The structures of a text (``structures.read``)."""

    structures: Sequence[ReadStructure]
    more: Annotated[Count, "how many further ones there are in the text"]


# --- the server ----------------------------------------------------------------------------------


class Pong(TypedDict):
    """That the server lives (``system.ping``)."""

    ok: bool


class Doctor(Answer):
    """What was looked at of all that jobs need (``system.doctor``)."""

    ok: Annotated[bool, "nothing was found that keeps jobs from running"]
    checks: Sequence[CheckDocument]


class UnfinishedJobs(TypedDict):
    """How many jobs have not ended."""

    pending: Count
    running: Count


class Stopping(UnfinishedJobs):
    """What a server leaves that is about to end (``system.stop``): how many jobs, by state."""

    cancel: bool


class ServerVersion(TypedDict):
    """What answers, and where it runs (``system.version``)."""

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

    path: Annotated[str, "where jobs write"]
    free: Annotated[Count, "what is left, in bytes"]
    size: Annotated[Count, "the whole, in bytes"]
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
    """What a server is doing (``system.status``)."""

    jobs: Annotated[dict[str, int], UnfinishedJobs]
    connections: Count
    quiet_s: float
    engines: Annotated[dict[str, str], "what has become here of each that is installed"]
    workers: NotRequired[
        Annotated[
            dict[str, Count | None],
            "how many jobs each loaded engine runs at once, where it knows",
        ]
    ]
    backlog: NotRequired[
        Annotated[dict[str, Count], "how many jobs wait to begin on each loaded engine"]
    ]
    disk: NotRequired[
        Annotated[
            DiskRoom | None,
            "the file system of the jobs, as it was seen within seconds; null where that is not "
            "known",
        ]
    ]
    failures: NotRequired[
        Annotated[
            list[FailedJob] | None,
            "the jobs that failed last, the newest failure first; null while the database does "
            "not answer, and left out where it cannot be used",
        ]
    ]
