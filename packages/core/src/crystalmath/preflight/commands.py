"""Whether the commands that start a program are there, and start the ranks that a job has."""

from __future__ import annotations

import itertools
import os
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from crystalmath.engines.allotment import PARALLEL_COMMANDS, THREADS, filled
from crystalmath.errors import one_line
from crystalmath.models import Finding, Resources
from crystalmath.plugins.launching import (
    LAUNCHERS,
    MPI,
    Command,
    Launch,
    before_the_program,
    is_certain,
    is_found,
    names_hosts,
    starts_here,
)
from crystalmath.preflight.programs_here import failure, guarded, program_of
from crystalmath.recipes.lookup import family_of
from crystalmath.recipes.quacc_settings import ase_files, quacc_setting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from crystalmath.plugins.report import Report, Step

#: Programs whose files nobody checks, by the folder of quacc's recipes: their name, quacc's setting
#: of their command, and what that is by default.
_OTHERS = {
    "aims": ("FHI-aims", "AIMS_BIN", "aims.x"),
    "dftb": ("DFTB+", "", "dftb+"),
    "gaussian": ("Gaussian", "GAUSSIAN_CMD", "g16"),
    "gulp": ("GULP", "GULP_CMD", "gulp"),
    "mrcc": ("MRCC", "MRCC_CMD", "dmrcc"),
    "onetep": ("ONETEP", "ONETEP_CMD", "onetep.arch"),
    "orca": ("ORCA", "ORCA_CMD", "orca"),
    "qchem": ("Q-Chem", "QCHEM_CMD", "qchem"),
}


def check_commands(recipe: str, environment: Mapping[str, str]) -> Finding | None:
    """Look for the programs that a job of quacc's recipes starts.

    ``command_missing`` is an error where the worker itself would start what is not on this machine,
    a warning where a launcher does, which may look elsewhere. Nothing is claimed where that cannot
    be told.
    """
    found = commands_of(recipe, environment)
    return found.check() if isinstance(found, Commands) else found


def commands_of(recipe: str, environment: Mapping[str, str]) -> Commands | Finding | None:
    """Return what a job may start; a finding where its program's own code fails."""
    path, program = environment.get("PATH"), program_of(recipe)
    if path is None:
        return None
    try:
        launch = (program.launch if program else _launch)(recipe, environment)
    except (ValueError, RecursionError):
        return None  # quacc's settings cannot be read, which is told elsewhere
    except Exception as error:
        if program is None:
            raise
        return failure(program, error)  # a stranger's; the job goes on
    if launch is None or launch.launcher is None:
        return None
    programs = tuple(each for each in launch.programs if each)
    if len(programs) < len(launch.programs):
        return None
    return Commands(launch, launch.launcher, programs, path)


def _launch(recipe: str, environment: Mapping[str, str]) -> Launch | None:
    """Return how a program of quacc's recipes is started whose files nobody checks."""
    family = family_of(recipe)
    if family not in _OTHERS:
        return None
    title, setting, default = _OTHERS[family]
    launcher: Command | None = Command("", "")
    if family == "aims":
        launcher = Command.of_setting("AIMS_PARALLEL_CMD", "", environment)
    if setting:
        program = Command.of_setting(setting, default, environment)
        named = f"QUACC_{setting}"
    else:  # ASE's own
        if any(Path(file).exists() for file in ase_files(environment)):
            return None  # its configuration file may name another
        named = "DFTB_COMMAND"
        own = environment.get(named)
        program = Command(own or default, named if own else "ASE's default")
    remedy = f"put the folder of {default} on PATH, or name it with {named}=/path/to/{default}"
    if not setting:
        remedy += f", forwarded to jobs ([environment] forward has {named} in config.toml)"
    return Launch(title=title, launcher=launcher, programs=(program,), remedy=remedy)


@frozen(slots=False)
class Commands:
    """The commands that may start a job's program, and where it looks for them."""

    #: What its program says.
    launch: Launch
    #: What stands before each.
    launcher: Command
    #: Those of which one is started.
    programs: tuple[Command, ...]
    #: The ``PATH`` that the job sees.
    path: str

    def check(self, programs: Sequence[Command] | None = None) -> Finding | None:
        """Find that none of the programs is there, or that what starts them is not."""
        programs = self.programs if programs is None else programs
        launched = bool(self.launcher.text.strip())
        if launched:
            if not self.launcher.words:
                return None
            if not is_found(self.launcher.words[0], self.path):
                return _missing("the parallel command", [self.launcher], "correct it", self.path)
            if not starts_here(self.launcher.words, self.path):
                return None
        if not all(map(self._lacks, programs)):
            return None
        remedy = self.launch.remedy
        if len(programs) < len(self.programs):
            remedy = programs[0].remedy or remedy
        found = _missing(self.launch.title, programs, remedy, self.path)
        return replace(found, severity="warning") if launched else found

    def check_steps(self, ask: Callable[..., Report]) -> Finding | None:
        """Find that the one that a calculation starts is not there, where another one is.

        `ask` asks the recipe what it would calculate, with ``exact=True`` for this structure alone.
        """
        if not any(map(self._lacks, self.programs)):
            return None
        steps = ask(exact=False).steps
        if any(map(self._missing_in, steps)):
            steps = ask(exact=True).steps
        for number, step in enumerate(steps):
            if missing := self._missing_in(step):
                found = missing[0]
                where = f", in step {number + 1} of {len(steps)}" if len(steps) > 1 else ""
                # A later one goes on from results that are not known yet.
                sure = number == 0 and len(missing) == len(step.starts)
                return replace(
                    found,
                    severity=found.severity if sure else "warning",
                    message=f"{found.message}{where}",
                )
        return None

    def _missing_in(self, step: Step) -> list[Finding]:
        """Find of each group that may start a step that nothing of it is there."""
        known = {each.text: each for each in self.programs}
        if not known.keys() >= {text for group in step.starts for text in group}:
            return []
        found = [self.check([known[text] for text in group]) for group in step.starts]
        return [each for each in found if each]

    def _lacks(self, program: Command) -> bool:
        return bool(program.words) and not is_found(program.words[0], self.path)


def _missing(what: str, commands: Sequence[Command], remedy: str, path: str) -> Finding:
    words = [each.words[0] for each in commands]
    named = [
        f"{one_line(word)!s:.200} ({each.source})"
        for word, each in zip(words, commands, strict=True)
    ]
    several = len(named) > 1
    if any("/" in word for word in words):
        where = "is a program" if several else "is no program"
    else:
        where = f"is {'' if several else 'not '}on the PATH that the job sees"
    programs = f"neither {' nor '.join(named)}" if several else named[0]
    return Finding(
        severity="error" if all(is_certain(word, path) for word in words) else "warning",
        code="command_missing",
        message=f"{what} would not start: {programs} {where}",
        path=words[0] if "/" in words[0] else None,
        source=commands[0].source,
        remedy=remedy,
    )


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
    """Warn (``too_many_ranks``) if the jobs of all `workers` share this machine's cores."""
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
    """Warn of a command that its owner has fixed, and that is not overwritten."""
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
    if family := family_of(recipe):
        name = f"{family.upper()}_PARALLEL_CMD"
        return [name] if name in PARALLEL_COMMANDS else [], True
    return list(PARALLEL_COMMANDS), False  # a user's own recipe may run any
