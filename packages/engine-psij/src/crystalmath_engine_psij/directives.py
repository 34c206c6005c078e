"""The directives of a batch script that PSI/J's templates do not render."""

from __future__ import annotations

import math
import re
import shlex
from typing import TYPE_CHECKING

from crystalmath.errors import ConfigError
from crystalmath.worker import ENDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from crystalmath.models import Resources

#: The command that submits a script to each batch system.
COMMANDS = {"slurm": "sbatch", "pbs": "qsub", "lsf": "bsub", "flux": "flux"}
#: The beginning of a directive.
SIGNS = {"slurm": "#SBATCH", "pbs": "#PBS", "lsf": "#BSUB", "flux": "#FLUX:"}

#: The resources that a batch system has no directive for, and why.
LACKS: Mapping[str, Mapping[str, str]] = {
    "flux": {
        "memory_mb": "Flux hands out nodes, cores and GPUs, and no memory",
        "reservation": "Flux has no reservations; a queue of the site's may be one",
    },
}

#: Options that a user may not set: the name of the resource to use instead, or ``None`` if the
#: engine sets the option itself.
_TAKEN: Mapping[str, Mapping[str, str | None]] = {
    "slurm": {
        "nodes": "nodes",
        "ntasks": "ranks",
        "ntasks-per-node": "ranks_per_node",
        "cpus-per-task": "cores_per_rank",
        "gpus-per-task": "gpus_per_rank",
        "mem": "memory_mb",
        "time": "walltime_s",
        "partition": "queue",
        "account": "account",
        "reservation": "reservation",
        **dict.fromkeys(["array", "chdir", "error", "export", "job-name", "output", "requeue"]),
    },
    "pbs": {"q": "queue", "A": "account", **dict.fromkeys(["N", "J", "V", "e", "o", "r"])},
    "lsf": {
        "n": "ranks",
        "nnodes": "nodes",
        "gpu": "gpus_per_rank",
        "M": "memory_mb",
        "W": "walltime_s",
        "q": "queue",
        "G": "account",
        "P": "account",
        "U": "reservation",
        **dict.fromkeys(["J", "cwd", "e", "env", "o", "r"]),
    },
    "flux": {
        "nodes": "nodes",
        "nslots": "ranks",
        "cores-per-slot": "cores_per_rank",
        "gpus-per-slot": "gpus_per_rank",
        "time-limit": "walltime_s",
        "queue": "queue",
        "bank": "account",
        **dict.fromkeys(["job-name", "cwd", "input", "output", "error", "wrap"]),
        **dict.fromkeys(["dry-run", "quiet"]),
    },
}


def directives(scheduler: str, name: str, resources: Resources) -> list[str]:
    """Return the directives, without their sign, that PSI/J's template of a scheduler lacks.

    PSI/J's templates take the name from a job that has none. `ConfigError` is raised if a scheduler
    option repeats a resource or an option of the engine. It is also raised if the batch system
    cannot honour a resource.
    """
    for lacked, why in LACKS.get(scheduler, {}).items():
        if getattr(resources, lacked) is not None:
            raise ConfigError(f"{lacked!r} cannot be honoured: {why}")
    for option in resources.options:
        if option in _TAKEN[scheduler]:
            instead = _TAKEN[scheduler][option]
            remedy = f"give {instead!r} instead" if instead else "the engine sets it itself"
            raise ConfigError(f"the scheduler option {option!r} is not free: {remedy}")
    return _KINDS[scheduler](name, resources)


def _slurm(name: str, resources: Resources) -> list[str]:
    # Core repeats a lost job in a new work directory; Slurm would repeat it in the same one.
    lines = [f"--job-name={name}", "--no-requeue"]
    for option, value in resources.options.items():
        lines.append(f"--{option}={shlex.quote(value)}" if value else f"--{option}")
    return lines


def _pbs(name: str, resources: Resources) -> list[str]:
    return [f"-N {name}", "-r n", *_short_options(resources)]


def _lsf(name: str, resources: Resources) -> list[str]:
    lines = [f"-J {name}", "-rn"]
    if resources.ranks_per_node:
        lines.append(f'-R "span[ptile={resources.ranks_per_node}]"')
    if resources.cores_per_rank:
        lines.append(f'-R "affinity[core({resources.cores_per_rank})]"')
    return lines + _short_options(resources)


def _flux(name: str, resources: Resources) -> list[str]:
    lines = [f"--job-name={name}"]
    for option, value in resources.options.items():
        lines.append(f"--{option}={escaped(value)}" if value else f"--{option}")
    return lines


def escaped(value: object) -> str:
    """Return a word escaped with backslashes, as both a shell and Flux's directives read it.

    ``shlex.quote`` may write three quotes in a row, which begin a text of several lines in Flux.
    """
    return re.sub(r"[^\w@%+=:,./-]", r"\\\g<0>", str(value), flags=re.ASCII) or "''"


def _short_options(resources: Resources) -> list[str]:
    return [
        f"-{option} {shlex.quote(value)}" if value else f"-{option}"
        for option, value in resources.options.items()
    ]


_KINDS: Mapping[str, Callable[[str, Resources], list[str]]] = {
    "slurm": _slurm,
    "pbs": _pbs,
    "lsf": _lsf,
    "flux": _flux,
}


def mended(scheduler: str, script: str, resources: Resources) -> str:
    """Return a script with the errors of PSI/J's template corrected.

    The template for PBS always requests one core for each rank, and no GPU.
    """
    if scheduler != "pbs":
        return script
    each = resources.total_ranks // resources.total_nodes
    cores = resources.cores_per_rank or 1
    chunk = f"{resources.total_nodes}:ncpus={each * cores}:mpiprocs={each}:ompthreads={cores}"
    if resources.gpus_per_rank:
        chunk += f":ngpus={each * resources.gpus_per_rank}"
    if resources.memory_mb:
        chunk += f":mem={resources.memory_mb // resources.total_nodes}mb"
    return re.sub(r"^#PBS -l select=.*$", f"#PBS -l select={chunk}", script, flags=re.MULTILINE)


def with_end(scheduler: str, script: str, lasts_s: float | None) -> str:
    """Return a script whose first command exports the end of the allocation for the worker.

    `script` must have all its directives: none counts after a command. The allocation lasts
    `lasts_s` seconds, or as long as the queue allows (``None``).
    """
    ends = "" if lasts_s is None else f"$(($(date +%s) + {math.floor(lasts_s)}))"
    if scheduler == "slurm":
        ends = _slurms_end(lasts_s)
    elif scheduler == "flux":
        ends = _fluxs_end(lasts_s)
    # Exported even if unknown: the server may have the variable of its own allocation.
    return re.sub(
        r"^(?=[^#\s])", lambda _: f"export {ENDS}={ends}\n", script, count=1, flags=re.MULTILINE
    )


def _slurms_end(lasts_s: float | None) -> str:
    """Return shell code for the end by Slurm's variable, or as requested in older releases."""
    by_slurm = "${SLURM_JOB_END_TIME:+$(($(date +%s) + SLURM_JOB_END_TIME - SLURM_JOB_START_TIME))}"
    if lasts_s is None:
        return by_slurm
    # Slurm counts minutes.
    as_requested = f"$(($(date +%s) + {math.ceil(lasts_s / 60) * 60}))"
    return f'{by_slurm}\n[ -n "${ENDS}" ] || {ENDS}={as_requested}'


def _fluxs_end(lasts_s: float | None) -> str:
    """Return shell code that asks Flux for the time left: a 32-bit number if there is no limit."""
    by_flux = (
        "$(left=$(timeout 30 flux job timeleft 2>/dev/null); "
        '[ "${left:-0}" -gt 0 ] && [ "$left" -lt 4000000000 ] && echo $(($(date +%s) + left)))'
    )
    if lasts_s is None:
        return by_flux
    return f'{by_flux}\n[ -n "${ENDS}" ] || {ENDS}=$(($(date +%s) + {math.floor(lasts_s)}))'
