"""What a job asks of a machine, in PSI/J's terms: the one declaration of its resources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypedDict, cast

from attrs import field, frozen

from crystalmath.errors import InvalidJob, did_you_mean, shown
from crystalmath.models.fields import (
    Option,
    about,
    declared,
    documented,
    from_wire,
    optional,
    properties,
)

if TYPE_CHECKING:
    from typing import Self

_MOST = 1_000_000
_COUNT = {"type": "integer", "minimum": 1, "maximum": _MOST}
_TITLE = {"type": "string", "minLength": 1, "maxLength": 255, "format": "printable"}


class ResourcesGiven(TypedDict, total=False):
    """The arguments of :class:`Resources`, for type checkers; see there."""

    nodes: int | None
    ranks: int | None
    ranks_per_node: int | None
    cores_per_rank: int | None
    gpus_per_rank: int | None
    memory_mb: int | None
    queue: str | None
    account: str | None
    reservation: str | None
    options: Mapping[str, str] | None


def _options(given: Mapping[str, str] | None) -> Mapping[str, str]:
    return {} if given is None else given


@documented
@frozen(kw_only=True)
class Resources:
    """What a job asks of a machine; what is left out is the cluster's or the engine's to say.

    The terms are those of PSI/J's ``ResourceSpecV1`` and ``JobAttributes``: a rank is a process,
    ``ranks = nodes * ranks_per_node``, and memory is that of the whole job.
    """

    nodes: int | None = optional(
        "number of nodes", _COUNT, Option("--nodes", "N", "Number of nodes.")
    )
    ranks: int | None = optional(
        "number of ranks (processes) on all nodes together",
        _COUNT,
        Option("--ranks", "N", "Number of ranks (MPI processes) on all nodes together."),
    )
    ranks_per_node: int | None = optional(
        "number of ranks on each node",
        _COUNT,
        Option("--ranks-per-node", "N", "Number of ranks on each node."),
    )
    cores_per_rank: int | None = optional(
        "number of CPU cores for each rank, and of its threads",
        _COUNT,
        Option(
            "--cores",
            "N",
            "Number of CPU cores for each rank, and of its threads (OMP_NUM_THREADS).",
        ),
    )
    gpus_per_rank: int | None = optional(
        "number of GPUs for each rank",
        {**_COUNT, "minimum": 0},
        Option("--gpus", "N", "Number of GPUs for each rank."),
    )
    memory_mb: int | None = optional(
        "memory of the whole job, in MB of 1024 * 1024 bytes, as schedulers count",
        {"type": "integer", "minimum": 1, "maximum": 10**12},
        Option("--memory", "SIZE", "Memory of the whole job: 4GB, 512MB; 1 GB is 1024 MB."),
    )
    queue: str | None = optional(
        "the scheduler's queue (partition)",
        _TITLE,
        Option("--queue", "Q", "The scheduler's queue (partition)."),
    )
    account: str | None = optional(
        "the account (project) that pays",
        _TITLE,
        Option("--account", "A", "The account (project) that pays."),
    )
    reservation: str | None = optional(
        "a reservation made with the scheduler",
        _TITLE,
        Option("--reservation", "R", "A reservation made with the scheduler."),
    )
    options: Mapping[str, str] = field(
        factory=dict,
        converter=_options,
        hash=False,  # what has resources may be a key of a dict
        metadata=about(
            "further options of the scheduler, by their long names without dashes; the empty text "
            "for one that takes no value",
            {
                "type": "object",
                "maxProperties": 64,
                "propertyNames": {"type": "string", "format": "option"},
                "additionalProperties": {
                    "type": "string",
                    "maxLength": 1000,
                    "format": "printable",
                },
            },
            option=Option(
                name="--scheduler-option",
                metavar="K=V",
                help="A further option of the scheduler, without its dashes: constraint=skylake, "
                "or exclusive alone; may be repeated.",
            ),
        ),
    )

    def __bool__(self) -> bool:
        """Return whether anything is asked for."""
        return bool(self.given())

    def given(self) -> ResourcesGiven:
        """Return what is asked for, by name; these are the arguments that make it again."""
        values = ((one.name, getattr(self, one.name)) for one in declared(Resources))
        return cast(
            "ResourcesGiven",
            {name: value for name, value in values if value is not None and value != {}},
        )

    def over(self, defaults: Resources) -> Resources:
        """Return these with a cluster's defaults for what is left out.

        Of nodes, ranks and ranks per node two decide the third: a default of one of them does not
        contradict what is asked for, it gives way.
        """
        given = self.given()
        merged: ResourcesGiven = {**defaults.given(), **given}
        merged["options"] = {**defaults.options, **self.options}
        spare = [name for name in _LAYOUT if name in merged and name not in given]
        made = Resources(**merged)
        # The number of nodes goes first: there are more of them, as full as the cluster says.
        while spare and _contradiction(made):
            merged[spare.pop(0)] = None  # type: ignore[literal-required]
            made = Resources(**merged)
        return made

    def needed(self) -> frozenset[str]:
        """Name what an engine must honour; each gives one rank on one node, without a GPU."""
        names = set(self.given())
        if self.gpus_per_rank == 0:
            names.discard("gpus_per_rank")
        if self.total_nodes == 1:
            names -= set(_LAYOUT)
            names |= {"ranks"} if self.total_ranks > 1 else set()
        return frozenset(names)

    @property
    def total_ranks(self) -> int:
        """Number of ranks, one where nothing says otherwise."""
        return self.ranks or (self.nodes or 1) * (self.ranks_per_node or 1)

    @property
    def total_nodes(self) -> int:
        """Number of nodes, one where nothing says otherwise."""
        if self.nodes is None and self.ranks is not None and self.ranks_per_node is not None:
            return self.ranks // self.ranks_per_node
        return self.nodes or 1

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """Read them of what any release wrote; what this one does not know is left out."""
        return cls(**from_wire(cls, document))


#: What decides each other, in the order in which a cluster's defaults give way.
_LAYOUT = ("nodes", "ranks", "ranks_per_node")

#: Those of one value, by their names and by those of their options: ``cores``, ``memory``.
RESOURCE_NAMES = {
    name: one.name
    for one in declared(Resources)
    if one.about.schema["type"] != "object" and one.about.option is not None
    for name in (one.name, one.about.option.name.removeprefix("--").replace("-", "_"))
}

RESOURCES: Mapping[str, Any] = {
    "type": "object",
    "properties": properties(Resources),
    "additionalProperties": False,
}


_NONE = Resources()


def as_resources(given: Resources | ResourcesGiven | None) -> Resources:
    """Make the record of what a caller gave; `InvalidJob` for what it does not have."""
    if isinstance(given, Resources):
        return given
    if not given and (given is None or isinstance(given, Mapping)):
        return _NONE
    if not isinstance(given, Mapping):
        raise InvalidJob(f"'resources' must be an object, not {shown(given)}")
    known = [one.name for one in declared(Resources)]
    for name in given:
        if name not in known:
            raise InvalidJob(f"'resources' have no {shown(name)}; {did_you_mean(name, known)}")
    return Resources(**given)


def check_resources(resources: Resources) -> None:
    """Refuse a combination of nodes, ranks and ranks per node that nothing can give (`InvalidJob`).

    Each value is checked already.
    """
    if wrong := _contradiction(resources):
        raise InvalidJob(wrong)


def _contradiction(resources: Resources) -> str | None:
    nodes, ranks, each = (getattr(resources, name) for name in _LAYOUT)
    if ranks is None:
        return None
    if nodes is not None and each is not None and ranks != nodes * each:
        return (
            f"{ranks} ranks are not {nodes} nodes with {each} ranks each, which are "
            f"{nodes * each}; give two of 'nodes', 'ranks' and 'ranks_per_node'"
        )
    if each is not None and ranks % each:
        return (
            f"{ranks} ranks do not fill nodes with {each} ranks each; 'ranks' must be a multiple "
            "of 'ranks_per_node'"
        )
    if nodes is not None and ranks % nodes:
        return (
            f"{ranks} ranks cannot be spread evenly over {nodes} nodes; 'ranks' must be a multiple "
            "of 'nodes'"
        )
    return None
