"""Check that the commands of a program are there, and that they start a job's ranks."""

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

#: Programs without a plugin, by the folder of quacc's recipes: their name, quacc's setting of their
#: command, and its default.
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
    """Return a finding if a program that a job of quacc's recipes starts is missing.

    ``command_missing`` is an error if the worker itself would start it, and a warning if a launcher
    would, which may look elsewhere. Without certainty there is no finding.
    """
    commands = commands_of(recipe, environment)
    return commands.check() if isinstance(commands, Commands) else commands


def commands_of(recipe: str, environment: Mapping[str, str]) -> Commands | Finding | None:
    """Return the commands that a job may start; a finding if its program's own code fails."""
    path, program = environment.get("PATH"), program_of(recipe)
    if path is None:
        return None
    try:
        launch = (program.launch if program else _launch)(recipe, environment)
    except (ValueError, RecursionError):
        return None  # another finding reports that quacc's settings cannot be read
    except Exception as error:
        if program is None:
            raise
        return failure(program, error)  # a plugin failed; the job goes on
    if launch is None or launch.launcher is None:
        return None
    programs = tuple(each for each in launch.programs if each)
    if len(programs) < len(launch.programs):
        return None
    return Commands(launch, launch.launcher, programs, path)


def _launch(recipe: str, environment: Mapping[str, str]) -> Launch | None:
    """Return the commands of a program of quacc's recipes that has no plugin."""
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
    else:  # ASE has a variable, and no setting of quacc's
        if any(Path(file).exists() for file in ase_files(environment)):
            return None  # ASE's configuration file may name another command
        named = "DFTB_COMMAND"
        own = environment.get(named)
        program = Command(own or default, named if own else "ASE's default")
    remedy = f"put the folder of {default} on PATH, or name it with {named}=/path/to/{default}"
    if not setting:
        remedy += f' and forward that to jobs ([environment] forward = ["{named}"] in config.toml)'
    return Launch(title=title, launcher=launcher, programs=(program,), remedy=remedy)


@frozen(slots=False)
class Commands:
    """The commands that may start a job's program.

    Parameters
    ----------
    launch : Launch
        The program's own description.
    launcher : Command
        The command before each of them.
    programs : tuple of Command
        The commands of which one is started.
    path : str
        The ``PATH`` that the job sees.
    """

    launch: Launch
    launcher: Command
    programs: tuple[Command, ...]
    path: str

    def check(self, programs: Sequence[Command] | None = None) -> Finding | None:
        """Return a finding if all the programs are missing, or their launcher is."""
        programs = self.programs if programs is None else programs
        launched = bool(self.launcher.text.strip())
        if launched:
            if not self.launcher.words:
                return None
            if not is_found(self.launcher.words[0], self.path):
                remedy = f"correct {self.launcher.source}"
                return _missing("the parallel command", [self.launcher], remedy, self.path)
            if not starts_here(self.launcher.words, self.path):
                return None
        if not all(map(self._lacks, programs)):
            return None
        remedy = self.launch.remedy
        if len(programs) < len(self.programs):
            remedy = programs[0].remedy or remedy
        missing = _missing(self.launch.title, programs, remedy, self.path)
        return replace(missing, severity="warning") if launched else missing

    def check_steps(self, ask: Callable[..., Report]) -> Finding | None:
        """Return a finding if the command that a calculation starts is missing.

        `ask` returns the report on the recipe, with ``exact=True`` for this structure alone. It is
        called only if some of the commands are missing.
        """
        if not any(map(self._lacks, self.programs)):
            return None
        steps = ask(exact=False).steps
        if any(map(self._missing_in, steps)):
            steps = ask(exact=True).steps
        for number, step in enumerate(steps):
            if missing := self._missing_in(step):
                first = missing[0]
                where = f", in step {number + 1} of {len(steps)}" if len(steps) > 1 else ""
                # A later step depends on results that are not known yet.
                sure = number == 0 and len(missing) == len(step.starts)
                return replace(
                    first,
                    severity=first.severity if sure else "warning",
                    message=f"{first.message}{where}",
                )
        return None

    def _missing_in(self, step: Step) -> list[Finding]:
        """Return a finding for each group of commands of a step that is missing."""
        known = {each.text: each for each in self.programs}
        if not known.keys() >= {text for group in step.starts for text in group}:
            return []
        findings = [self.check([known[text] for text in group]) for group in step.starts]
        return [each for each in findings if each]

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
        where = "is an executable file" if several else "is no executable file"
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


#: The options of MPI's and Slurm's launchers that decide the number of ranks, with their meaning.
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
        return None  # another finding reports that quacc's settings cannot be read
    if setting is None:
        return None
    value, source = setting
    command = before_the_program(value)
    count = ranks(command)
    cores = len(os.sched_getaffinity(0))
    if count is None or count * workers <= cores:
        return None
    jobs = f"each of the {workers} jobs" if workers > 1 else "the one job"
    fewer = "set fewer workers of the engine ([engines.<name>] workers in config.toml), or "
    fewer *= workers > 1
    return Finding(
        severity="warning",
        code="too_many_ranks",
        message=f"{jobs} that the engine runs at once starts {count} ranks ({source} is "
        f"{one_line(command)!s:.80}), {count * workers} in all, but this machine has {cores} "
        f"core{'s' if cores > 1 else ''}: they would slow each other down",
        source=source,
        remedy=f"{fewer}set fewer ranks in {source}: workers times ranks must not exceed {cores}",
    )


def ranks(command: object, nodes: int = 1) -> int | None:
    """Return the number of processes that a parallel command starts on a job's nodes.

    ``None`` if it is unknown: the scheduler decides it, or other machines take part.
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
    """Return the options with numbers: ``-n 4``, ``-n=4``, ``-n4``, ``--ntasks=4``."""
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


#: The resources that decide the number of ranks.
_LAYOUT = frozenset({"nodes", "ranks", "ranks_per_node"})
_NO_DEFAULTS = Resources()


def check_asked_ranks(
    recipe: str,
    parameters: Mapping[str, Any],
    environment: Mapping[str, str],
    resources: Resources,
    defaults: Resources = _NO_DEFAULTS,
) -> list[Finding]:
    """Compare a job's ranks and threads with the commands that start its program.

    The job's own `resources` go before the `defaults` of its cluster. ``ranks_contradicted`` is an
    error, and a warning if the job does not set ranks itself; ``ranks_unsure``, ``ranks_unused``
    and ``threads_differ`` are warnings. The program may add its own findings.
    """
    together = resources.over(defaults)
    if not together:
        return []
    findings = [_ranks(recipe, environment, resources, together), _threads(environment, together)]
    program = program_of(recipe)
    if program is not None and together.total_ranks > 1:
        findings += guarded(program, program.check_ranks, parameters, together.total_ranks)
    return [finding for finding in findings if finding is not None]


def _ranks(
    recipe: str, environment: Mapping[str, str], own: Resources, resources: Resources
) -> Finding | None:
    wanted = resources.total_ranks
    names, is_certain = _commands(recipe)
    # A cluster's defaults hold for all jobs, and some do not use them.
    if not names and own.total_ranks > 1:
        return Finding(
            severity="warning",
            code="ranks_unused",
            message=f"the job asks for {own.total_ranks} ranks, but quacc has no parallel "
            f"command for {recipe}: they would stay idle",
            remedy="leave out ranks and nodes, or set the parallel command in the recipe's own "
            "parameters",
        )
    if not resources.given().keys() & _LAYOUT:
        return None
    asks = bool(own.given().keys() & _LAYOUT)
    for name in names:
        try:
            setting = quacc_setting(name, environment)
        except ValueError:
            return None  # another finding reports that quacc's settings cannot be read
        command = None if setting is None else before_the_program(setting[0])
        if setting is None or not isinstance(command, str) or not command.strip():
            continue
        known = ranks(command, resources.total_nodes)
        if filled(command, resources) == command and known != wanted:
            certain = is_certain and known is not None and asks
            whose = "the job asks for" if asks else "the job's cluster sets"
            return _own(command, setting[1], f"{whose} {wanted} ranks", known, certain=certain)
    return None


def _own(command: str, source: str, wanted: str, known: int | None, *, certain: bool) -> Finding:
    """Return the finding about a user's own parallel command, which is never overwritten."""
    starts = f"starts {known}" if known is not None else "may start another number"
    return Finding(
        severity="error" if certain else "warning",
        code="ranks_contradicted" if known is not None else "ranks_unsure",
        message=f"{wanted}, but {source} = {one_line(command)!s:.80} {starts}",
        source=source,
        remedy=f"remove {source}, so that the job's resources make it, or write "
        "{ranks} in the place of its number",
    )


def _threads(environment: Mapping[str, str], resources: Resources) -> Finding | None:
    own, cores = environment.get(THREADS), resources.cores_per_rank
    if cores is None or own is None or own == str(cores):
        return None
    return Finding(
        severity="warning",
        code="threads_differ",
        message=f"{THREADS} = {one_line(own)!s:.80} is set, but each rank has {cores} cores",
        source=THREADS,
        remedy=f"unset {THREADS}: jobs then set it to the cores of a rank",
    )


def _commands(recipe: str) -> tuple[list[str], bool]:
    """Return the settings that may start a recipe's program, and whether they certainly do."""
    program = program_of(recipe)
    if program is not None:
        return [program.launcher] if program.launcher else [], True
    if family := family_of(recipe):
        name = f"{family.upper()}_PARALLEL_CMD"
        return [name] if name in PARALLEL_COMMANDS else [], True
    return list(PARALLEL_COMMANDS), False  # a user's own recipe may run any
