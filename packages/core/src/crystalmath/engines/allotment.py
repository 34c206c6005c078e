"""Turn the resources of a job into the environment of its programs.

Resources that the engine cannot honour are refused here. The others reach the programs through
``OMP_NUM_THREADS``, and through the commands before parallel programs in quacc's settings.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from crystalmath.errors import InvalidJob
from crystalmath.models.fields import declared
from crystalmath.models.resources import Resources, check_resources
from crystalmath.recipes.quacc_settings import quacc_setting

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

#: The launcher of ranks if a cluster names none.
MPIRUN = "mpirun -np {ranks}"
#: quacc's settings that stand before a program and may start it several times.
PARALLEL_COMMANDS = ("AIMS_PARALLEL_CMD", "ESPRESSO_PARALLEL_CMD", "VASP_PARALLEL_CMD")
#: How many threads each rank has.
THREADS = "OMP_NUM_THREADS"
# Open MPI (4; 5) binds each of two ranks to one core, counted from the first. Threads of a rank
# would share that core, and so would jobs that run beside each other.
_UNBOUND = {
    "OMPI_MCA_hwloc_base_binding_policy": "none",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
}
_OPTIONS = {one.name: one.about.option.name for one in declared(Resources) if one.about.option}


def travelling(environment: Mapping[str, str], there: Collection[str]) -> dict[str, str]:
    """Return the variables of a job that are valid on a machine without our files.

    These are our own, and those that its cluster or its flow has set (`there`). The others name
    programs and folders of the submitter's machine.
    """
    return {
        name: value
        for name, value in environment.items()
        if name in there or name.startswith("CRYSTALMATH_")
    }


def check_honoured(
    resources: Resources,
    honoured: Collection[str],
    *,
    engine: str,
    cluster: str,
    cores: int | None = None,
) -> None:
    """Refuse resources that a cluster cannot honour; `cores` is the number of cores of each node.

    The `InvalidJob` names engine, resource and remedy.
    """
    check_resources(resources)  # with the cluster's defaults they may not go together
    place = f"the engine {engine!r} on its cluster {cluster!r}"
    needed = resources.needed()
    for name, option in _OPTIONS.items():
        if name in needed and name not in honoured:
            known = ", ".join(known for known in _OPTIONS if known in honoured)
            raise InvalidJob(
                f"{place} cannot honour {name!r} ({getattr(resources, name)}), but: "
                f"{known or 'none'}; leave out {option}, or choose an engine or cluster "
                "that has a scheduler (crystalmath engines)"
            )
    each = -(-resources.total_ranks // resources.total_nodes) * (resources.cores_per_rank or 1)
    if cores is not None and each > cores and needed & {"ranks", "cores_per_rank"}:
        raise InvalidJob(
            f"{place} cannot honour {resources.total_ranks} ranks of "
            f"{resources.cores_per_rank or 1} cores: a node of it has {cores}, not {each}; ask for "
            "fewer with --ranks and --cores, or choose a larger cluster"
        )


def job_environment(
    resources: Resources, environment: Mapping[str, str], launcher: str | None = None
) -> dict[str, str]:
    """Return the environment that tells a job's programs its resources.

    The submitter's own variables stay, with ``{ranks}`` and the like filled in. `launcher` is the
    cluster's template, ``srun -N {nodes} -n {ranks}``; else :data:`MPIRUN` starts several ranks,
    and nothing starts one.
    """
    environment = dict(environment)
    template = launcher
    if template is None and resources.total_ranks > 1:
        template = MPIRUN
        environment = {**_UNBOUND, **environment}
    for name in PARALLEL_COMMANDS:
        try:
            own, _ = quacc_setting(name, environment) or (None, "")
        except ValueError:
            break  # quacc does not start with such settings, which the preflight reports
        command = own if _says_something(own) else template
        if command is None:
            continue
        text = command if isinstance(command, str) else json.dumps(command)
        if command is template or filled(text, resources) != text:
            _set(environment, f"QUACC_{name}", filled(text, resources))
    if resources.cores_per_rank is not None:
        environment.setdefault(THREADS, str(resources.cores_per_rank))
    return environment


def filled(template: str, resources: Resources) -> str:
    """Fill in a launcher's template; other braces stay for its reader."""
    values = {
        "nodes": resources.total_nodes,
        "ranks": resources.total_ranks,
        "ranks_per_node": -(-resources.total_ranks // resources.total_nodes),
        "cores_per_rank": resources.cores_per_rank or 1,
        "gpus_per_rank": resources.gpus_per_rank or 0,
    }
    return re.sub(
        r"\{(\w+)\}", lambda match: str(values.get(match[1], match[0])), template, flags=re.ASCII
    )


def _says_something(value: object) -> bool:
    return bool(value.strip()) if isinstance(value, str) else bool(value) and value != ["", ""]


def _set(environment: dict[str, str], variable: str, value: str) -> None:
    # pydantic ignores the case of a variable, and the last spelling wins.
    for name in [name for name in environment if name.upper() == variable]:
        del environment[name]
    environment[variable] = value
