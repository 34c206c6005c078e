"""What is asked for: the one declaration of a submission, and what an engine gets of it.

A new field of a submission stands in :class:`Terms` (and in :class:`CommonTerms`, which says the
same to the type checkers of callers); a keyword of :meth:`.Client.submit` and a column of the
database follow it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import (
    TYPE_CHECKING,
    Any,
    Protocol,
    TypedDict,
    cast,
)

from attrs import field, fields, frozen

from crystalmath.models.fields import (
    Option,
    about,
    array,
    declared,
    documented,
    optional,
    plain,
    reference,
)
from crystalmath.models.reference import JOB, STEP
from crystalmath.models.resources import RESOURCES, Resources, ResourcesGiven, as_resources

if TYPE_CHECKING:
    from collections.abc import Callable

    from ase import Atoms

    from crystalmath.models.job_notes import Parent

#: The priority of what somebody asks for lies between this and the same below zero.
MOST_PRIORITY = 1000
#: So many jobs go together at most, whatever is asked.
MOST_PARCEL = 1000
#: So many jobs can one be told to come after.
MOST_AFTER = 10_000
#: So many labels has a job at most.
MOST_LABELS = 64
#: What of a job's terms may be other for some steps of a flow.
_BY_STEP = ("cluster", "walltime_s", "resources", "priority")
_NAME = {"type": "string", "minLength": 1}
_TITLE = {**_NAME, "maxLength": 255, "format": "printable"}
_STRINGS = {
    "type": "object",
    "propertyNames": {"type": "string"},
    "additionalProperties": {"type": "string"},
}

RECIPE = about(
    "full dotted name, quacc.recipes.emt.core.relax_job",
    {"type": "string", "format": "recipe"},
    hashed=True,
)
ENGINE = about(
    "default: the configured one, else local",
    _NAME,
    hashed=True,
    option=Option(name="--engine", metavar="E", help="A workflow engine; see crystalmath engines."),
)
_ATOMS = about(
    'a POSCAR as text, a dict for ase.Atoms(**dict) (Å), {"format": "ase-json", "data": ...}, '
    '{"format": "job", "job_id": ...}, the final geometry of that job ("frame": 0, what it was '
    'given), or {"$job": ..., "path": [...]}, the structure there in its result; a list of such '
    "for a recipe that takes them together; left out for a recipe that takes none",
    {
        "anyOf": [
            {"type": "string"},
            {"type": "object"},
            array({"anyOf": [{"type": "string"}, {"type": "object"}]}, minItems=1),
        ]
    },
    wire="structure",
    hashed=True,
)
_PARAMETERS = about(
    'the recipe\'s parameters, all of them; {"$job": ID, "path": [...]} in them is the value there '
    "in the result of another job, which is waited for",
    {"type": "object"},
    wire="params",
    hashed=True,
)

PARENTS = about(
    "the jobs that it came of, each with its role: its geometry was taken (structure), or it was "
    "done again (retry)",
    array(reference("Parent")),
)


def _cluster(given: str | None) -> str:
    return "local" if given is None else given


def _labels(given: Mapping[str, str] | None) -> Mapping[str, str]:
    return {} if given is None else given


def _after(
    given: Sequence[str | Mapping[str, Any] | HasJobId] | str,
) -> list[str | Mapping[str, Any]]:
    several = [given] if isinstance(given, str) else given
    # What is none of these is refused when it is checked.
    ids = [getattr(one, "job_id", one) for one in several]
    return cast("list[str | Mapping[str, Any]]", ids)


def as_by_step(given: Mapping[str, Mapping[str, Any]] | None) -> Mapping[str, Mapping[str, Any]]:
    """Write resources by step as JSON has them; `InvalidJob` for one that there is not."""
    told: Any = given  # what is none of these is refused when it is checked
    if not isinstance(told, Mapping):
        return {} if told is None else cast("Mapping[str, Mapping[str, Any]]", told)
    return {
        pattern: {**one, "resources": plain(as_resources(one["resources"]))}
        if isinstance(one, Mapping) and one.get("resources")
        else one
        for pattern, one in told.items()
    }


class HasJobId(Protocol):
    """What names a job: a :class:`~crystalmath.models.Job`, or a client's future."""

    @property
    def job_id(self) -> str:
        """Its id."""


class CommonTerms(TypedDict, total=False):
    """The arguments of :class:`Terms` that many jobs may share, for type checkers; see there."""

    cluster: str | None
    walltime_s: float | None
    resources: Resources | ResourcesGiven | None
    priority: int
    continue_lost: bool | None
    parcel: int | None
    name: str | None
    labels: Mapping[str, str] | None


class TermsGiven(CommonTerms, total=False):
    """The arguments of :class:`Terms`, for type checkers."""

    key: str | None


class MapOptions(CommonTerms, total=False):
    """What may be said of many submissions beside recipe, structures and parameters."""

    engine: str | None
    strict: bool
    lax: bool
    after: Sequence[str | Mapping[str, Any] | HasJobId]
    on_failure: str
    inherit_labels: bool
    in_one_job: bool
    serial: bool
    walltime_total_s: float | None
    by_step: Mapping[str, Mapping[str, Any]] | None
    environment: Mapping[str, str] | None


class SubmissionOptions(MapOptions, total=False):
    """What may be said of a submission beside recipe, structure and parameters."""

    key: str | None


@documented
@frozen(kw_only=True)
class Terms:
    """On what terms somebody wants a job: what a submission and the job's record share."""

    cluster: str = field(
        default="local",
        converter=_cluster,
        metadata=about(
            "one of the engine's clusters; default: local",
            _TITLE,
            hashed=True,
            option=Option(name="--cluster", metavar="C", help="One of the engine's clusters."),
        ),
    )
    walltime_s: float | None = optional(
        "time after which the job is stopped, in seconds from its start",
        {"type": "number", "exclusiveMinimum": 0},
        Option("--walltime", "TIME", "Stop the job after this time: 2h, 1h30m, 90s."),
        hashed=True,
    )
    resources: Resources = field(
        factory=Resources,
        converter=as_resources,
        metadata=about("what it asks of the machine, by name", RESOURCES, hashed=True),
    )
    priority: int = optional(
        "of a home's waiting jobs the one with the higher number is launched first",
        {"type": "integer", "minimum": -MOST_PRIORITY, "maximum": MOST_PRIORITY},
        Option(
            "--priority",
            "N",
            "Launch it before waiting jobs with a lower number, -1000 to 1000; else 0.",
        ),
        default=0,
    )
    continue_lost: bool | None = optional(
        "an attempt that follows a lost one begins from the last whole geometry that this has "
        "left, not anew; default: as the cluster, else [jobs] continue_lost, says for "
        "relaxations",
        {"type": "boolean"},
        Option(
            "--continue-lost/--no-continue-lost",
            "",
            "Where a try is lost, begin the next from its last geometry, or anew; else as "
            "the cluster says, for relaxations.",
        ),
    )
    parcel: int | None = optional(
        "so many small jobs of one recipe go together in an attempt of this host, at most; 1: "
        "it goes alone; default: as [engines.NAME] parcel says, else as many as run in 2 s",
        {"type": "integer", "minimum": 1, "maximum": MOST_PARCEL},
        Option(
            "--parcel",
            "N",
            "Pack at most N small jobs of one recipe together on this machine (--parcel "
            "1: none); else as the configuration says, or as many as run in some 2 s.",
        ),
    )
    name: str | None = optional(
        "for people; never passed to the recipe",
        _TITLE,
        Option("--name", "NAME", "A name to find the job by; else the file's."),
    )
    labels: Mapping[str, str] = field(
        factory=dict,
        converter=_labels,
        hash=False,  # what has terms may be a key of a dict, as an attempt is
        metadata=about(
            "for people and filters; never passed to the recipe",
            {
                "type": "object",
                "maxProperties": MOST_LABELS,
                "propertyNames": _TITLE,
                "additionalProperties": {
                    "type": "string",
                    "maxLength": 1000,
                    "format": "printable",
                },
            },
            option=Option(
                name="--label",
                metavar="K=V",
                help="A label to find the job by; may be repeated.",
            ),
        ),
    )
    key: str | None = optional(
        "the same key gives the same job, never a second one",
        _TITLE,
        Option("--key", "KEY", "The same key again gives the same job, never a second one."),
    )

    @staticmethod
    def terms_in(header: Mapping[str, Any]) -> TermsGiven:
        """Read terms of a header that :meth:`JobSpec.header` wrote."""
        names = (one.name for one in fields(Terms))
        given = {name: header[name] for name in names if header.get(name) is not None}
        given["resources"] = Resources.read(given.get("resources", {}))
        return cast("TermsGiven", given)

    def terms(self) -> TermsGiven:
        """Return these terms as the arguments of another record that has them."""
        return cast("TermsGiven", {one.name: getattr(self, one.name) for one in fields(Terms)})


_OF_STEP = {one.wire: one.schema for one in declared(Terms)}


@frozen(kw_only=True)
class FlowTerms(Terms):
    """The terms of a job, with those that a flow alone has."""

    in_one_job: bool = optional(
        "run a flow as one job, whose steps are no jobs of their own",
        {"type": "boolean"},
        Option(
            "--in-one-job", "", "Run a flow as one job; else each of its steps is a job of its own."
        ),
        default=False,
    )
    serial: bool = optional(
        "each step of a flow is called once the one before has ended, so that none is called "
        "on a guess",
        {"type": "boolean"},
        Option(
            "--serial",
            "",
            "Run the steps of a flow one after the other, for one whose calls would differ else.",
        ),
        default=False,
    )
    walltime_total_s: float | None = optional(
        "time after which a flow fails, and its steps are stopped, in seconds from its start",
        {"type": "number", "exclusiveMinimum": 0},
        Option(
            "--walltime-total",
            "TIME",
            "Stop a flow with all of its steps after this time; --walltime is that of each step.",
        ),
    )
    by_step: Mapping[str, Mapping[str, Any]] = field(
        factory=dict,
        converter=as_by_step,
        hash=False,
        metadata=about(
            "what is other for some steps of a flow than for the flow, by the name of their "
            "function (relax_job) or a pattern (*.relax_job, static*); a longer one goes "
            "before a shorter one",
            {
                "type": "object",
                "maxProperties": 64,
                "propertyNames": _TITLE,
                "additionalProperties": {
                    "type": "object",
                    "properties": {
                        **{name: _OF_STEP[name] for name in _BY_STEP},
                        "engine": _NAME,
                        "params": {
                            "type": "object",
                            "description": "what is other of the parameters that the flow calls "
                            "them with; a table changes in what is named of it alone",
                        },
                    },
                    "additionalProperties": False,
                },
            },
            hashed=True,
        ),
    )

    def flow_terms(self) -> dict[str, Any]:
        """Return what a flow alone has, as the arguments of another such record."""
        return {name: getattr(self, name) for name in OF_FLOW}

    @staticmethod
    def flow_terms_in(header: Mapping[str, Any]) -> dict[str, Any]:
        """Read the same of a header that :meth:`JobSpec.header` wrote."""
        return {name: header[name] for name in OF_FLOW if header.get(name) is not None}


#: What of a submission a flow alone may have.
OF_FLOW = ("in_one_job", "serial", "walltime_total_s", "by_step")
#: So many steps a flow has at most.
MOST_STEPS = 5000


def step_matches(pattern: str, recipe: str, step: str) -> bool:
    """Return whether a pattern means a step of a flow, by its recipe or its own name."""
    names = (recipe.rpartition(".")[2], recipe, recipe.removeprefix("quacc.recipes."), step)
    return any(fnmatchcase(name, pattern) for name in names)


def of_step(by_step: Mapping[str, Mapping[str, Any]], recipe: str, step: str) -> dict[str, Any]:
    """Return what `by_step` says of one step."""
    found: dict[str, Any] = {}
    for pattern in sorted(by_step, key=lambda one: (len(one), one)):
        if step_matches(pattern, recipe, step):
            found = merged(found, by_step[pattern])
    return found


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Change of a table what is named, and of tables in it likewise.

    A reference, or what is encoded as an object, is no table.
    """
    changed = dict(old)
    for name, value in new.items():
        before = changed.get(name, {})
        both = _is_table(before) and _is_table(value)
        changed[name] = merged(before, value) if both else value
    return changed


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping) and not {JOB, STEP, "@module"} & value.keys()


@documented
@frozen(kw_only=True)
class Submission(FlowTerms):
    """What somebody asks for, from the command line or the client to the service.

    A client may name the recipe by the function as imported, and leave ``quacc.recipes.`` out;
    what is sent has the full name. The structure is an ``ase.Atoms`` or what ``jobs.submit``
    takes; it is encoded once, when it is sent, and decoded once, where it is checked. A job, its
    future, or ``"job:ID"`` stands for that job's final geometry, ``"job:ID@0"`` for what it was
    given.
    """

    recipe: str | Callable[..., Any] = field(metadata=RECIPE)
    atoms: Atoms | str | Mapping[str, Any] | HasJobId | Sequence[Atoms | HasJobId | str] | None = (
        field(default=None, metadata=_ATOMS)
    )
    parameters: Mapping[str, Any] = field(factory=dict, metadata=_PARAMETERS)
    engine: str | None = field(default=None, metadata=ENGINE)
    strict: bool = optional(
        "every warning refuses the job",
        {"type": "boolean"},
        Option("--strict", "", "Refuse a job that would be accepted with warnings."),
        default=False,
    )
    lax: bool = optional(
        "a parameter that is most likely misspelt is a warning, and does not refuse the job",
        {"type": "boolean"},
        Option("--lax", "", "Accept parameters that are most likely misspelt, with a warning."),
        default=False,
    )
    after: Sequence[str | Mapping[str, Any]] = field(
        factory=list,
        converter=_after,
        metadata=about(
            "jobs that have to end before, each by its id (completed), or as "
            '{"job_id": ID, "ends": "any"} (in any state)',
            array({"anyOf": [{"type": "string"}, {"type": "object"}]}, maxItems=MOST_AFTER),
            option=Option(
                name="--after",
                metavar="ID[:any]",
                help="Wait until this job has completed; with :any until it has ended in whatever "
                "way. May be repeated, or several with commas.",
            ),
        ),
    )
    on_failure: str = optional(
        "what becomes of it where a job that it refers to fails or is cancelled: it waits for "
        "a retry, or fails; default: wait",
        {"type": "string", "enum": ["wait", "fail"]},
        Option(
            "--on-failure",
            "wait|fail",
            "Where a job that this one waits for fails or is cancelled: wait until it is "
            "run again, as without it, or fail.",
        ),
        default="wait",
    )
    inherit_labels: bool = optional(
        "take those labels of the jobs that it refers to that it does not set itself",
        {"type": "boolean"},
        Option(
            "--inherit-labels",
            "",
            "Take over the labels of the jobs that it waits for or takes something from.",
        ),
        default=False,
    )
    environment: Mapping[str, str] | None = optional(
        "the caller's environment, of which [environment] forward picks what reaches the job; "
        "default: the server's own",
        {
            "type": "object",
            "propertyNames": {"type": "string", "format": "variable"},
            "additionalProperties": {"type": "string", "format": "no-nul", "writeOnly": True},
            "writeOnly": True,
        },
        repr=False,
    )


@documented
@frozen(kw_only=True)
class JobSpec(FlowTerms):
    """Everything that decides what a job computes, and the terms on which it is run."""

    job_id: str = field(metadata=about("a UUID4 as text", _NAME))
    recipe: str = field(metadata=RECIPE)
    atoms: Atoms | None = field(default=None, metadata=_ATOMS)
    parameters: Mapping[str, Any] = field(factory=dict, metadata=_PARAMETERS)
    engine: str | None = field(default=None, metadata=ENGINE)
    environment: Mapping[str, str] = optional(
        "environment variables that the job sees, on top of its worker's own",
        _STRINGS,
        factory=dict,
    )
    files: Mapping[str, str] = optional(
        "the pseudopotential files that it reads, and the SHA-256 of each when it was checked",
        _STRINGS,
        factory=dict,
    )
    parents: Sequence[Parent] = field(default=(), hash=False, metadata=PARENTS)
    replaced: Mapping[str, str | None] = optional(
        "what of the submitter's environment was replaced to tell the programs the resources; "
        "null where there was nothing",
        {"type": "object"},
        factory=dict,
    )
    settings: Mapping[str, str] = optional(
        "settings of quacc that its flow, or who has it read again, has changed, as "
        "environment variables; they go above those of its cluster",
        _STRINGS,
        factory=dict,
    )
    defaulted: Sequence[str] = optional(
        "which of its terms nobody asked for: they are what its cluster, or its home, said",
        array({"enum": ["walltime_s", "continue_lost"]}),
        default=(),
        hash=False,
    )

    asked_hash: str | None = optional(
        "of a job that refers to others: the hash of what was asked for, whatever values were "
        "put in since",
        _NAME,
    )

    changed: Mapping[str, Any] = optional(
        "of a step of a flow: what is other of its parameters than the flow has called it with",
        {"type": "object"},
        factory=dict,
        hash=False,
    )
    flow: Mapping[str, Any] | None = optional(
        "of a flow whose steps are jobs: which pass of its body this is (`pass`), with which "
        "attempt that begins (`attempt`), which steps there are by now (`steps`), on what "
        "terms the flow was submitted (`asked`), which are those of its steps, and the "
        "walltime of each pass on the flow's cluster (`walltime_s`)",
        {"type": "object"},
        hash=False,
    )

    def identity(self) -> dict[str, Any]:
        """Return what makes it this job and no other, beside structure and parameters."""
        return {
            one.name: None if one.name in self.defaulted else plain(getattr(self, one.name))
            for one in declared(JobSpec)
            if one.about.hashed
            and one.name not in _ENCODED
            and (self.by_step or one.name != "by_step")
        }

    def header(self) -> dict[str, Any]:
        """Return what stands above the encoded structure and parameters, as JSON can hold it.

        Fields that are empty by default, and are so here, are left out.
        """
        return {
            one.name: plain(value)
            for one in declared(JobSpec)
            if one.name not in _ENCODED
            for value in (getattr(self, one.name),)
            if value or value != one.default
        }


#: What :mod:`crystalmath.recipes.codec` writes.
_ENCODED = ("atoms", "parameters")
