"""Tell whether the jobs that an engine runs at once would share this machine's cores."""

from __future__ import annotations

import itertools
import os
import re
import shlex
from typing import TYPE_CHECKING

from crystalmath.models import Finding
from crystalmath.preflight.launching import LAUNCHERS, MPI, before_the_program, names_hosts
from crystalmath.preflight.programs_here import program_of
from crystalmath.recipes.one_line import shown
from crystalmath.recipes.quacc_settings import quacc_setting

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    """Compare the ranks of an engine's jobs with the cores of this machine.

    Parameters
    ----------
    recipe : str
        Full dotted name.
    environment : mapping of str to str
        The environment variables that the job will see.
    workers : int
        How many jobs the engine runs at once on this machine.

    Returns
    -------
    Finding or None
        The warning ``too_many_ranks``.
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
        f"{shown(command)!s:.80}), {count * workers} in all, and this machine has {cores} "
        f"core{'s' if cores > 1 else ''}: they would slow each other down",
        source=source,
        remedy=f"{fewer}give its jobs fewer ranks: workers times ranks must not exceed {cores}",
    )


def ranks(command: object, nodes: int = 1) -> int | None:
    """Return how many processes a parallel command starts, on this machine or a job's nodes.

    Parameters
    ----------
    command : object
        ``mpirun -np 4``, ``srun --ntasks-per-node 48``, as it stands before the program.
    nodes : int
        How many nodes the job has.

    Returns
    -------
    int or None
        ``None`` where that cannot be told: it is left to the scheduler, or other machines take
        their part.
    """
    try:
        words = shlex.split(command) if isinstance(command, str) else []
    except ValueError:
        return None
    for number, word in enumerate(words):
        launcher = os.path.basename(word)
        if launcher in LAUNCHERS:
            options = words[number + 1 :]
            told = _read(options, _MPI_OPTIONS if launcher in MPI else _SRUN_OPTIONS)
            used = told.get("nodes", nodes)
            if names_hosts(options) or used not in {1, nodes}:
                return None
            return told.get("ranks", told["each"] * used if "each" in told else None)
    return None


def _read(words: list[str], options: Mapping[str, str]) -> dict[str, int]:
    """Read the options that are numbers: ``-n 4``, ``-n=4``, ``-n4``, ``--ntasks=4``."""
    told: dict[str, int] = {}
    for word, following in itertools.pairwise([*words, ""]):
        name, is_assigned, value = word.partition("=")
        if not is_assigned:
            value = following
            if name not in options and name[:2] in options and not name.startswith("--"):
                name, value = name[:2], name[2:]
        if name in options and _NUMBER.fullmatch(value):
            told[options[name]] = int(value)
    return told
