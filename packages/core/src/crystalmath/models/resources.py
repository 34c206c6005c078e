"""The one declaration of a job's resources, in PSI/J's terms."""

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


def _options(options: Mapping[str, str] | None) -> Mapping[str, str]:
    return {} if options is None else options


@documented
@frozen(kw_only=True)
class Resources:
    """The resources of a job; the cluster or the engine decides those that are left out.

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
        hash=False,  # records with resources are keys of dicts
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
        """Return whether any resource is set."""
        return bool(self.given())

    def given(self) -> ResourcesGiven:
        """Return the resources that are set, as the arguments of another record."""
        values = ((one.name, getattr(self, one.name)) for one in declared(Resources))
        return cast(
            "ResourcesGiven",
            {name: value for name, value in values if value is not None and value != {}},
        )

    def over(self, defaults: Resources) -> Resources:
        """Return these resources, with a cluster's defaults for those that are left out.

        Two of nodes, ranks and ranks per node decide the third, so a default that contradicts the
        others gives way.
        """
        own = self.given()
        merged: dict[str, Any] = {**defaults.given(), **own}
        merged["options"] = {**defaults.options, **self.options}
        spare = [name for name in _LAYOUT if name in merged and name not in own]
        made = Resources(**merged)
        # The number of nodes gives way first: more nodes, as full as the cluster says.
        while spare and _contradiction(made):
            del merged[spare.pop(0)]
            made = Resources(**merged)
        return made

    def needed(self) -> frozenset[str]:
        """Return the names that an engine must honour; all engines have one rank without a GPU."""
        names = set(self.given())
        if self.gpus_per_rank == 0:
            names.discard("gpus_per_rank")
        if self.total_nodes == 1:
            names -= set(_LAYOUT)
            names |= {"ranks"} if self.total_ranks > 1 else set()
        return frozenset(names)

    @property
    def total_ranks(self) -> int:
        """The number of ranks, by default one."""
        return self.ranks or (self.nodes or 1) * (self.ranks_per_node or 1)

    @property
    def total_nodes(self) -> int:
        """Number of nodes, one where nothing says otherwise."""
        if self.nodes is None and self.ranks is not None and self.ranks_per_node is not None:
            return self.ranks // self.ranks_per_node
        return self.nodes or 1

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """Read the resources that any release wrote, without unknown ones."""
        return cls(**from_wire(cls, document))


#: Two of these decide the third. A cluster's defaults give way in this order.
_LAYOUT = ("nodes", "ranks", "ranks_per_node")

#: The resources of one value, by their names and by those of their options: ``cores``, ``memory``.
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


def as_resources(resources: Resources | ResourcesGiven | None) -> Resources:
    """Make the record of a caller's resources; raise `InvalidJob` for an unknown one."""
    if isinstance(resources, Resources):
        return resources
    if not resources and (resources is None or isinstance(resources, Mapping)):
        return _NONE
    if not isinstance(resources, Mapping):
        raise InvalidJob(f"'resources' must be an object, not {shown(resources)}")
    known = [one.name for one in declared(Resources)]
    for name in resources:
        if name not in known:
            raise InvalidJob(f"'resources' have no {shown(name)}; {did_you_mean(name, known)}")
    return Resources(**resources)


def check_resources(resources: Resources) -> None:
    """Refuse contradictory nodes, ranks and ranks per node (`InvalidJob`).

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
