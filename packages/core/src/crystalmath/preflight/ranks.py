"""Whether the ranks and threads of a job are those that its program gets, and fit this machine."""

from __future__ import annotations

import itertools
import os
import re
import shlex
from typing import TYPE_CHECKING

from crystalmath.engines.allotment import PARALLEL_COMMANDS, THREADS, filled
from crystalmath.errors import one_line
from crystalmath.models import Finding, Resources
from crystalmath.preflight.launching import LAUNCHERS, MPI, before_the_program, names_hosts
from crystalmath.preflight.programs_here import guarded, program_of
from crystalmath.recipes.lookup import NAMESPACE
from crystalmath.recipes.quacc_settings import quacc_setting

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

#: What the options mean that decide the number of ranks; of MPI's, and of Slurm's.
_MPI_OPTIONS = {"-n": "ranks", "-np": "ranks", "--n": "ranks", "--np": "ranks"}
_SRUN_OPTIONS = {
    "-n": "ranks",
    "--ntasks": "ranks",
    "-N": "nodes",
    "--nodes": "nodes",
    "--ntasks-per-node": "each",
}
_NUMBER = re.compile(r"[0-9]{1,6}")


def check_ranks(recipe: str, environment: Mapping[str, str], workers: int) -> Finding | None:
    """Warn (``too_many_ranks``) if the jobs that an engine runs at once share this machine's cores.

    `workers` is how many jobs it runs at once.
    """
    program = program_of(recipe)
    name = program.launcher if program else None
    try:
        setting = None if name is None else quacc_setting(name, environment)
    except ValueError:
        return None  # quacc does not start with such settings, which the job will tell
    if setting is None:
        return None
    value, source = setting
    command = before_the_program(value)
    count = ranks(command)
    cores = len(os.sched_getaffinity(0))
    if count is None or count * workers <= cores:
        return None
    jobs = f"each of the {workers} jobs" if workers > 1 else "the one job"
    fewer = "give the engine fewer workers ([engines.<name>] workers in config.toml), or "
    fewer *= workers > 1
    return Finding(
        severity="warning",
        code="too_many_ranks",
        message=f"{jobs} that the engine runs at once starts {count} ranks ({source} is "
        f"{one_line(command)!s:.80}), {count * workers} in all, and this machine has {cores} "
        f"core{'s' if cores > 1 else ''}: they would slow each other down",
        source=source,
        remedy=f"{fewer}give its jobs fewer ranks: workers times ranks must not exceed {cores}",
    )


def ranks(command: object, nodes: int = 1) -> int | None:
    """Return how many processes a parallel command starts, on this machine or a job's nodes.

    ``None`` if that cannot be told: the scheduler decides it, or other machines take their part.
    """
    try:
        words = shlex.split(command) if isinstance(command, str) else []
    except ValueError:
        return None
    for number, word in enumerate(words):
        launcher = os.path.basename(word)
        if launcher in LAUNCHERS:
            options = words[number + 1 :]
            counts = _read(options, _MPI_OPTIONS if launcher in MPI else _SRUN_OPTIONS)
            used = counts.get("nodes", nodes)
            if names_hosts(options) or used not in {1, nodes}:
                return None
            return counts.get("ranks", counts["each"] * used if "each" in counts else None)
    return None


def _read(words: list[str], options: Mapping[str, str]) -> dict[str, int]:
    """Read the options that are numbers: ``-n 4``, ``-n=4``, ``-n4``, ``--ntasks=4``."""
    counts: dict[str, int] = {}
    for word, following in itertools.pairwise([*words, ""]):
        name, is_assigned, value = word.partition("=")
        if not is_assigned:
            value = following
            if name not in options and name[:2] in options and not name.startswith("--"):
                name, value = name[:2], name[2:]
        if name in options and _NUMBER.fullmatch(value):
            counts[options[name]] = int(value)
    return counts


#: Any of these says how many ranks there are.
_LAYOUT = frozenset({"nodes", "ranks", "ranks_per_node"})


def check_asked_ranks(
    recipe: str,
    parameters: Mapping[str, Any],
    environment: Mapping[str, str],
    resources: Resources,
    defaults: Resources = Resources(),  # noqa: B008 - frozen
) -> list[Finding]:
    """Compare what a job asks for, or has of its cluster, with what starts its program.

    ``ranks_contradicted`` is an error, and a warning if the job does not ask for ranks itself;
    ``ranks_unsure``, ``ranks_unused`` and ``threads_differ`` are warnings. The program has a say.
    """
    there = resources.over(defaults)
    if not there:
        return []
    found = [_ranks(recipe, environment, resources, there), _threads(environment, there)]
    program = program_of(recipe)
    if program is not None and there.total_ranks > 1:
        found += guarded(program, lambda: program.check_ranks(parameters, there.total_ranks))
    return [finding for finding in found if finding is not None]


def _ranks(
    recipe: str, environment: Mapping[str, str], asked: Resources, resources: Resources
) -> Finding | None:
    wanted = resources.total_ranks
    names, is_certain = _commands(recipe)
    # What a cluster gives to all jobs, some need not use.
    if not names and asked.total_ranks > 1:
        return Finding(
            severity="warning",
            code="ranks_unused",
            message=f"the job asks for {asked.total_ranks} ranks, and quacc has no parallel "
            f"command for {recipe}: nothing starts them",
            remedy="leave out ranks and nodes, or say in the recipe's own parameters how its "
            "program is to be started in parallel",
        )
    if not resources.given().keys() & _LAYOUT:
        return None
    asks = bool(asked.given().keys() & _LAYOUT)
    for name in names:
        try:
            setting = quacc_setting(name, environment)
        except ValueError:
            return None  # quacc does not start with such settings, which is told elsewhere
        command = None if setting is None else before_the_program(setting[0])
        if setting is None or not isinstance(command, str) or not command.strip():
            continue
        known = ranks(command, resources.total_nodes)
        if filled(command, resources) == command and known != wanted:
            certain = is_certain and known is not None and asks
            whose = "the job asks for" if asks else "the job has of its cluster"
            return _own(command, setting[1], f"{whose} {wanted} ranks", known, certain=certain)
    return None


def _own(command: str, source: str, wanted: str, known: int | None, *, certain: bool) -> Finding:
    """Tell of a command that its owner has fixed, and that is not overwritten."""
    starts = f"starts {known}" if known is not None else "may start another number"
    return Finding(
        severity="error" if certain else "warning",
        code="ranks_contradicted" if known is not None else "ranks_unsure",
        message=f"{wanted}, and {source}, which is {one_line(command)!s:.80}, {starts}",
        source=source,
        remedy=f"leave {source} out, so that it is made from what the job asks for, or write "
        "{ranks} for the number in it",
    )


def _threads(environment: Mapping[str, str], resources: Resources) -> Finding | None:
    own, cores = environment.get(THREADS), resources.cores_per_rank
    if cores is None or own is None or own == str(cores):
        return None
    return Finding(
        severity="warning",
        code="threads_differ",
        message=f"each rank has {cores} cores, and {one_line(own)!s:.80} threads by {THREADS}, "
        "which you have set",
        source=THREADS,
        remedy=f"unset {THREADS}: it is then the number of cores of a rank",
    )


def _commands(recipe: str) -> tuple[list[str], bool]:
    """Name the settings that may start a recipe's program, and tell whether they certainly do."""
    program = program_of(recipe)
    if program is not None:
        return [program.launcher] if program.launcher else [], True
    if recipe.startswith(f"{NAMESPACE}."):
        folder = recipe.removeprefix(f"{NAMESPACE}.").partition(".")[0]
        name = f"{folder.upper()}_PARALLEL_CMD"
        return [name] if name in PARALLEL_COMMANDS else [], True
    return list(PARALLEL_COMMANDS), False  # a user's own recipe may run any
