"""What a job asks of the machine on its way to the job's programs.

What the engine cannot honour is refused here, and what it can is told to the programs: in the
commands of quacc's settings that stand before a parallel program, and in ``OMP_NUM_THREADS``.
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

#: What starts the ranks where a cluster has no launcher of its own.
MPIRUN = "mpirun -np {ranks}"
#: quacc's settings that stand before a program and may start it several times.
PARALLEL_COMMANDS = ("AIMS_PARALLEL_CMD", "ESPRESSO_PARALLEL_CMD", "VASP_PARALLEL_CMD")
#: How many threads each rank has.
THREADS = "OMP_NUM_THREADS"
# Open MPI (4; 5) binds each of two ranks to one core, counted from the first: threads of a rank
# would share that core, and so would jobs that run beside each other.
_UNBOUND = {
    "OMPI_MCA_hwloc_base_binding_policy": "none",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
}
_OPTIONS = {one.name: one.about.option.name for one in declared(Resources) if one.about.option}


def check_honoured(
    resources: Resources,
    honoured: Collection[str],
    *,
    engine: str,
    cluster: str,
    cores: int | None = None,
) -> None:
    """Refuse what a cluster cannot honour.

    Parameters
    ----------
    resources : Resources
        What is asked for, with the cluster's defaults.
    honoured : collection of str
        The names of the resources that the cluster can honour.
    engine, cluster : str
        For the message.
    cores : int, optional
        How many cores each of its nodes has.

    Raises
    ------
    InvalidJob
        It names engine, resource and remedy.
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
    """Return the environment in which a job's programs find what was asked for.

    What the submitter has set himself stays, but ``{ranks}`` and the like in it are filled in.

    Parameters
    ----------
    resources : Resources
        What is asked for, with the cluster's defaults.
    environment : mapping of str to str
        The submitter's.
    launcher : str, optional
        The cluster's template, ``srun -N {nodes} -n {ranks}``; else :data:`MPIRUN` for several
        ranks, and nothing for one.
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
            break  # quacc does not start with such settings, which the preflight tells
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
    """Fill in a launcher's template; other braces are left to who reads them."""
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
