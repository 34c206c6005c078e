"""The one declaration of a submission, and of the specification that a job runs by.

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

#: Submissions have priorities from minus this to this.
MOST_PRIORITY = 1000
#: The most jobs in a parcel.
MOST_PARCEL = 1000
#: The most jobs that one job may come after.
MOST_AFTER = 10_000
#: The most labels of a job.
MOST_LABELS = 64
#: The terms that may differ between the steps of a flow.
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
    '{"format": "job", "job_id": ...}, the final geometry of that job ("frame": 0: its first), or '
    '{"$job": ..., "path": [...]}, the structure at that path of its result; a list of these for '
    "a recipe that takes several together; left out for a recipe that takes none",
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
    'all parameters of the recipe; {"$job": ID, "path": [...]} in them stands for the value at '
    "that path of another job's result, for which the job waits",
    {"type": "object"},
    wire="params",
    hashed=True,
)

PARENTS = about(
    "the jobs that it came from, each with its role: the job takes its geometry (structure), or "
    "runs it again (retry)",
    array(reference("Parent")),
)


def _cluster(name: str | None) -> str:
    return "local" if name is None else name


def _labels(labels: Mapping[str, str] | None) -> Mapping[str, str]:
    return {} if labels is None else labels


def _after(
    jobs: Sequence[str | Mapping[str, Any] | HasJobId] | str,
) -> list[str | Mapping[str, Any]]:
    several = [jobs] if isinstance(jobs, str) else jobs
    # The check of the submission refuses values of other types.
    ids = [getattr(job, "job_id", job) for job in several]
    return cast("list[str | Mapping[str, Any]]", ids)


def as_by_step(
    by_step: Mapping[str, Mapping[str, Any]] | None,
) -> Mapping[str, Mapping[str, Any]]:
    """Write resources by step as JSON has them; raise `InvalidJob` for an unknown resource."""
    patterns: Any = by_step  # the check of the submission refuses values of other types
    if not isinstance(patterns, Mapping):
        return {} if patterns is None else cast("Mapping[str, Mapping[str, Any]]", patterns)
    return {
        pattern: {**changes, "resources": plain(as_resources(changes["resources"]))}
        if isinstance(changes, Mapping) and changes.get("resources")
        else changes
        for pattern, changes in patterns.items()
    }


class HasJobId(Protocol):
    """An object that names a job: a :class:`~crystalmath.models.Job`, or a client's future."""

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
    """The options that many submissions may share, for type checkers."""

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
    """The options of a submission beside recipe, structure and parameters, for type checkers."""

    key: str | None


@documented
@frozen(kw_only=True)
class Terms:
    """The terms of a job, which its submission and its record share."""

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
        metadata=about("the resources that it needs, by name", RESOURCES, hashed=True),
    )
    priority: int = optional(
        "among the waiting jobs of a home, higher numbers are launched first",
        {"type": "integer", "minimum": -MOST_PRIORITY, "maximum": MOST_PRIORITY},
        Option(
            "--priority",
            "N",
            "Launch it before waiting jobs with a lower number, -1000 to 1000. Default: 0.",
        ),
        default=0,
    )
    continue_lost: bool | None = optional(
        "an attempt after a lost one begins from the last whole geometry that the lost one left, "
        "and not anew; default: as the cluster, else [jobs] continue_lost, says for relaxations",
        {"type": "boolean"},
        Option(
            "--continue-lost/--no-continue-lost",
            "",
            "After a lost attempt, begin the next one from its last geometry, or anew. Default: "
            "as configured for relaxations; other recipes begin anew.",
        ),
    )
    parcel: int | None = optional(
        "the most small jobs of one recipe that share an attempt on this host; 1: the job runs "
        "alone; default: as [engines.NAME] parcel says, else as many as run in 2 s",
        {"type": "integer", "minimum": 1, "maximum": MOST_PARCEL},
        Option(
            "--parcel",
            "N",
            "Pack at most N small jobs of one recipe together on this machine (--parcel "
            "1: none). Default: as configured, or as many as run in some 2 s.",
        ),
    )
    name: str | None = optional(
        "for people; never passed to the recipe",
        _TITLE,
        Option("--name", "NAME", "A name to find the job by. Default: the file's name."),
    )
    labels: Mapping[str, str] = field(
        factory=dict,
        converter=_labels,
        hash=False,  # records with terms are keys of dicts, as attempts are
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
        "another submission with the same key returns the same job",
        _TITLE,
        Option("--key", "KEY", "A key for the job: the same key again returns the same job."),
    )

    @staticmethod
    def terms_in(header: Mapping[str, Any]) -> TermsGiven:
        """Read terms of a header that :meth:`JobSpec.header` wrote."""
        names = (one.name for one in fields(Terms))
        terms = {name: header[name] for name in names if header.get(name) is not None}
        terms["resources"] = Resources.read(terms.get("resources", {}))
        return cast("TermsGiven", terms)

    def terms(self) -> TermsGiven:
        """Return these terms as the arguments of another record that has them."""
        return cast("TermsGiven", {one.name: getattr(self, one.name) for one in fields(Terms)})


_OF_STEP = {one.wire: one.schema for one in declared(Terms)}


@frozen(kw_only=True)
class FlowTerms(Terms):
    """The terms of a job, and the further ones of a flow."""

    in_one_job: bool = optional(
        "run a flow as one job, whose steps are no jobs of their own",
        {"type": "boolean"},
        Option("--in-one-job", "", "Run a flow as one job. By default each of its steps is a job."),
        default=False,
    )
    serial: bool = optional(
        "call each step of a flow only after the step before it has ended, so that no call rests "
        "on a guess",
        {"type": "boolean"},
        Option(
            "--serial",
            "",
            "Run the steps of a flow one after the other, if its calls would differ otherwise.",
        ),
        default=False,
    )
    walltime_total_s: float | None = optional(
        "time after which a flow fails, and its steps are stopped, in seconds from its start",
        {"type": "number", "exclusiveMinimum": 0},
        Option(
            "--walltime-total",
            "TIME",
            "Stop a flow with all of its steps after this time; --walltime limits each step.",
        ),
    )
    by_step: Mapping[str, Mapping[str, Any]] = field(
        factory=dict,
        converter=as_by_step,
        hash=False,
        metadata=about(
            "terms of some steps that differ from those of the flow, by the name of the step's "
            "function (relax_job) or a pattern (*.relax_job, static*); a longer pattern goes "
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
                            "description": "changes of the parameters that the flow calls the step "
                            "with; of a table only the named keys change",
                        },
                    },
                    "additionalProperties": False,
                },
            },
            hashed=True,
        ),
    )

    def flow_terms(self) -> dict[str, Any]:
        """Return the terms that only flows have, as the arguments of another record."""
        return {name: getattr(self, name) for name in OF_FLOW}

    @staticmethod
    def flow_terms_in(header: Mapping[str, Any]) -> dict[str, Any]:
        """Read the terms that only flows have from a header that :meth:`JobSpec.header` wrote."""
        return {name: header[name] for name in OF_FLOW if header.get(name) is not None}


#: The terms that only flows have.
OF_FLOW = ("in_one_job", "serial", "walltime_total_s", "by_step")
#: The most steps of a flow.
MOST_STEPS = 5000


def step_matches(pattern: str, recipe: str, step: str) -> bool:
    """Return whether a pattern means a step of a flow, by its recipe or its own name."""
    names = (recipe.rpartition(".")[2], recipe, recipe.removeprefix("quacc.recipes."), step)
    return any(fnmatchcase(name, pattern) for name in names)


def of_step(by_step: Mapping[str, Mapping[str, Any]], recipe: str, step: str) -> dict[str, Any]:
    """Return the entry of `by_step` for one step: that of its longest pattern goes first."""
    entry: dict[str, Any] = {}
    for pattern in sorted(by_step, key=lambda one: (len(one), one)):
        if step_matches(pattern, recipe, step):
            entry = merged(entry, by_step[pattern])
    return entry


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table with its named keys replaced, also in the tables below it.

    References and encoded objects are replaced whole.
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
    """A request for a job, on its way from the command line or the client to the service.

    A client may name the recipe by the imported function, and leave ``quacc.recipes.`` out; it
    sends the full name. The structure is an ``ase.Atoms`` or a value that ``jobs.submit`` takes.
    The client encodes it once, and the check of the submission decodes it once. A job, its future,
    or ``"job:ID"`` stands for that job's final geometry, ``"job:ID@0"`` for its first.
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
        "a parameter that is most likely misspelt gives a warning, and the job is accepted",
        {"type": "boolean"},
        Option("--lax", "", "Accept parameters that are most likely misspelt, with a warning."),
        default=False,
    )
    after: Sequence[str | Mapping[str, Any]] = field(
        factory=list,
        converter=_after,
        metadata=about(
            "jobs that must end before this one starts, each by its id (it must complete), or as "
            '{"job_id": ID, "ends": "any"} (it may end in any state)',
            array({"anyOf": [{"type": "string"}, {"type": "object"}]}, maxItems=MOST_AFTER),
            option=Option(
                name="--after",
                metavar="ID[:any]",
                help="Wait until this job has completed; with :any until it has ended in any way. "
                "May be repeated, or take several with commas.",
            ),
        ),
    )
    on_failure: str = optional(
        "if a job that it refers to fails or is cancelled, the job waits for a retry of that one, "
        "or fails; default: wait",
        {"type": "string", "enum": ["wait", "fail"]},
        Option(
            "--on-failure",
            "wait|fail",
            "If a job that this one waits for fails or is cancelled: wait until that one is "
            "run again (the default), or fail.",
        ),
        default="wait",
    )
    inherit_labels: bool = optional(
        "take over the labels of the jobs that it refers to, except names that it sets itself",
        {"type": "boolean"},
        Option(
            "--inherit-labels",
            "",
            "Take over the labels of the jobs that it waits for or takes values from.",
        ),
        default=False,
    )
    environment: Mapping[str, str] | None = optional(
        "the caller's environment; [environment] forward picks the variables that reach the job; "
        "default: the server's own environment",
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
    """The specification of a job: everything that decides what it computes, and its terms."""

    job_id: str = field(metadata=about("a UUID4 as text", _NAME))
    recipe: str = field(metadata=RECIPE)
    atoms: Atoms | None = field(default=None, metadata=_ATOMS)
    parameters: Mapping[str, Any] = field(factory=dict, metadata=_PARAMETERS)
    engine: str | None = field(default=None, metadata=ENGINE)
    environment: Mapping[str, str] = optional(
        "environment variables of the job, on top of its worker's own",
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
        "variables of the submitter's environment that the resources replaced, each with its old "
        "value; null if it was not set",
        {"type": "object"},
        factory=dict,
    )
    settings: Mapping[str, str] = optional(
        "settings of quacc that its flow, or the request to read it again, has changed, as "
        "environment variables; they go before those of its cluster",
        _STRINGS,
        factory=dict,
    )
    defaulted: Sequence[str] = optional(
        "the terms that its cluster or its home set, as its submission left them out",
        array({"enum": ["walltime_s", "continue_lost"]}),
        default=(),
        hash=False,
    )

    asked_hash: str | None = optional(
        "for a job that refers to others: the hash of its specification as submitted, before "
        "values replaced the references",
        _NAME,
    )

    changed: Mapping[str, Any] = optional(
        "for a step of a flow: the parameters that differ from those of the flow's call",
        {"type": "object"},
        factory=dict,
        hash=False,
    )
    flow: Mapping[str, Any] | None = optional(
        "for a flow whose steps are jobs: the number of this pass of its body (`pass`), the first "
        "attempt of the pass (`attempt`), the steps so far (`steps`), the terms of the submission, "
        "which its steps inherit (`asked`), and the walltime of each pass on the flow's cluster "
        "(`walltime_s`)",
        {"type": "object"},
        hash=False,
    )

    def identity(self) -> dict[str, Any]:
        """Return the fields that tell this job from others, beside structure and parameters."""
        return {
            one.name: None if one.name in self.defaulted else plain(getattr(self, one.name))
            for one in declared(JobSpec)
            if one.about.hashed
            and one.name not in _ENCODED
            and (self.by_step or one.name != "by_step")
        }

    def header(self) -> dict[str, Any]:
        """Return all fields but the encoded structure and parameters, as JSON can hold them.

        Fields that are empty by default and here are left out.
        """
        return {
            one.name: plain(value)
            for one in declared(JobSpec)
            if one.name not in _ENCODED
            for value in (getattr(self, one.name),)
            if value or value != one.default
        }


#: The fields that :mod:`crystalmath.recipes.codec` writes.
_ENCODED = ("atoms", "parameters")
