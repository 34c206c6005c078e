"""The one declaration of the filters of lists.

The command line, the client, the wire and the store know a filter by the same name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict, cast

from crystalmath.models.fields import Option, about, array, declared, documented, properties
from crystalmath.models.job_notes import JobState

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from crystalmath.models.fields import Schema

_TEXT = {"type": "string", "minLength": 1}
# A database has no larger numbers.
_NUMBER = {"type": "number", "minimum": -1e300, "maximum": 1e300}
_STATE = {"type": "string", "enum": [state.value for state in JobState]}
_PREFIX = about("whose id begins so", {"type": "string"})
_ELEMENTS = array(_TEXT, minItems=1, maxItems=120)


class Filters(TypedDict, total=False):
    """The filters of lists as a client takes them, for type checkers; see :class:`JobFilter`."""

    state: str | Sequence[str] | None
    engine: str | None
    cluster: str | None
    recipe: str | None
    name: str | None
    labels: Mapping[str, str] | None
    formula: str | None
    elements: str | Sequence[str] | None
    energy_min: float | None
    energy_max: float | None
    since: float | datetime | None
    until: float | datetime | None
    error: str | None
    failure: str | None
    prefix: str | None
    key: str | None
    parent: str | Sequence[str] | None
    steps: bool | None
    all_tries: bool | None
    exclude: Mapping[str, Any] | None


class Selection(TypedDict, total=False):
    """The filters of lists as the service takes them; see :class:`JobFilter`."""

    state: Collection[JobState]
    engine: str
    cluster: str
    label: Mapping[str, str]
    recipe: str
    name: str
    formula: str
    elements: Collection[str]
    energy_min: float
    energy_max: float
    since: float
    until: float
    error: str
    failure: str
    prefix: str
    key: str
    parent: str | Collection[str]
    steps: bool
    superseded: bool
    exclude: Selection


class StoreSelection(Selection, total=False):
    """The filters of the store, with those that only the service uses."""

    seen: Mapping[str, JobState]
    errors: Mapping[str, str]
    owner: str


def _filter(doc: str, schema: Schema, option: str, text: str) -> Any:
    """Declare a filter, with its option (and the placeholder of its value) and the help."""
    name, _, metavar = option.partition(" ")
    return field(default=None, metadata=about(doc, schema, option=Option(name, metavar, text)))


#: Filters are only declared, never made: to generate a record's methods takes 1 ms each.
_declares = dataclass(init=False, repr=False, eq=False)


@_declares
class TraitFilter:
    """The filters that events and lists share."""

    state: str | Sequence[str] | None = _filter(
        "in this state, or one of these",
        {"anyOf": [_STATE, array(_STATE, minItems=1)]},
        "--state STATE",
        "Only jobs in this state; repeated: in one of them.",
    )
    engine: str | None = _filter("of this engine", _TEXT, "--engine E", "Only jobs of this engine.")
    cluster: str | None = _filter(
        "for this cluster", _TEXT, "--cluster C", "Only jobs for this cluster."
    )
    recipe: str | None = _filter(
        "of this recipe, or of a group of them (`emt.core`); `quacc.recipes.` may be left out",
        _TEXT,
        "--recipe R",
        "Only jobs of this recipe, or of a group of them: vasp, vasp.core.",
    )
    name: str | None = _filter(
        "whose name contains this text, in any case",
        _TEXT,
        "--name TEXT",
        "Only jobs whose name contains this.",
    )
    labels: Mapping[str, str] | None = _filter(
        "names and values of labels; all must agree",
        {"type": "object", "additionalProperties": {"type": "string"}},
        "--label K=V",
        "Only jobs with this label; repeated: with all of them.",
    )
    error: str | None = _filter(
        "whose error contains this text, in any case",
        _TEXT,
        "--error TEXT",
        "Only jobs whose error contains this.",
    )


@_declares
class EventFilter(TraitFilter):
    """The filters of events."""

    prefix: str | None = field(default=None, metadata=_PREFIX)


@_declares
class ExcludeFilter(TraitFilter):
    """The filters that can be negated.

    Ranges are negated by their ends, and ids are only searched for.
    """

    formula: str | None = _filter(
        "of this formula, in any order: `NaCl` finds `Na4Cl4` too, `Na4Cl4` only itself",
        _TEXT,
        "--formula F",
        "Only jobs of this formula: NaCl finds Na4Cl4 too, Na4Cl4 only itself.",
    )
    elements: Sequence[str] | None = _filter(
        "whose structure contains all of these elements",
        _ELEMENTS,
        "--elements A,B",
        "Only jobs whose structure contains all of these elements.",
    )
    failure: str | None = field(
        default=None,
        metadata=about(
            "that failed with an error of this group of `jobs.summary`: the first lines are equal "
            "without paths and ids",
            _TEXT,
        ),
    )


@documented
@_declares
class JobFilter(ExcludeFilter):
    """The filters that methods take as keywords, or as a mapping; all must hold.

    The class only declares them and has no instances: ``client.list(state="failed")``. The type
    of the keywords is :class:`Filters`.
    """

    energy_min: float | None = _filter(
        "of at least this energy, in eV",
        _NUMBER,
        "--energy-min EV",
        "Only jobs of at least this energy in eV.",
    )
    energy_max: float | None = _filter(
        "of at most this energy, in eV",
        _NUMBER,
        "--energy-max EV",
        "Only jobs of at most this energy in eV.",
    )
    since: float | None = _filter(
        "submitted then or later, in seconds since the epoch",
        _NUMBER,
        "--since TIME",
        "Only jobs submitted since: 2h, 3d (ago), 2026-11-20, '2026-11-20 14:30'.",
    )
    until: float | None = _filter(
        "submitted before that, in seconds since the epoch",
        _NUMBER,
        "--until TIME",
        "Only jobs submitted before, as --since.",
    )
    prefix: str | None = field(default=None, metadata=_PREFIX)
    key: str | None = field(
        default=None, metadata=about("that was submitted with this idempotency key", _TEXT)
    )
    parent: str | Sequence[str] | None = _filter(
        "that is a step of this flow, or of one of these: ids, or their beginnings",
        {"anyOf": [_TEXT, array(_TEXT, minItems=1, maxItems=1000)]},
        "--parent ID",
        "Only the steps of this flow.",
    )
    steps: bool | None = _filter(
        "also the steps of flows, which are left out unless `parent` or `prefix` is given",
        {"type": "boolean"},
        "--steps",
        "Also the steps of flows, which are left out otherwise: a flow is one job.",
    )
    all_tries: bool | None = _filter(
        "also superseded jobs, which a retry or a reread has replaced; they are left out unless "
        "`prefix` or `key` is given",
        {"type": "boolean"},
        "--all-tries",
        "Also superseded jobs, which a retry or a reread has replaced.",
    )
    exclude: Mapping[str, Any] | None = _filter(
        "filters, none of which may hold; of several labels or elements not one may hold",
        {
            "type": "object",
            "properties": properties(ExcludeFilter),
            "required": [],
            "additionalProperties": False,
        },
        "--exclude F=V",
        "Not the jobs for which this filter holds: state=failed, elements=Cu, "
        "label=set=test; may be repeated.",
    )


#: The filters that can be negated.
EXCLUDABLE = tuple(one.name for one in declared(ExcludeFilter))


def filters_in(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the filters among parameters; an empty filter chooses no job, never all."""
    known = {one.name for one in declared(JobFilter)}
    items = params.items()
    return {name: value for name, value in items if name in known and value not in ("", [], {})}


def choosing(params: Mapping[str, Any]) -> set[str]:
    """Return the names of the filters that choose jobs; some only widen a choice."""
    return filters_in(params).keys() - {"steps", "all_tries"}


def read_filters(params: Mapping[str, Any]) -> Selection:
    """Read the filters of a request, without its other parameters, for the service.

    By default they leave out the steps of flows, as most users see a flow as one job. They also
    leave out superseded jobs, as the latest try stands for all; ids and keys always select the job.
    """
    selection = all_filters(params)
    if not (selection.pop("steps", False) or "parent" in selection or selection.get("prefix")):
        selection["steps"] = False
    if not (params.get("all_tries") or selection.get("prefix") or selection.get("key")):
        selection["superseded"] = False
    return selection


def all_filters(params: Mapping[str, Any]) -> Selection:
    """Read filters as `read_filters` does, with the steps of flows and with earlier tries."""
    names = {"labels": "label"}
    # Inside a parameter, too, null is the same as none.
    items = [(name, value) for name, value in params.items() if value is not None]
    selection: dict[str, Any] = {names.get(name, name): value for name, value in items}
    if selection.pop("all_tries", True) is False:
        selection["superseded"] = False
    if "state" in selection:
        states = (
            selection["state"] if isinstance(selection["state"], list) else [selection["state"]]
        )
        selection["state"] = [JobState(state) for state in states]
    if "exclude" in selection:
        selection["exclude"] = all_filters(selection["exclude"])
    return cast("Selection", selection)
