"""Tell whether the commands that start a program would be found on the job's PATH."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from crystalmath.errors import one_line
from crystalmath.models import Finding
from crystalmath.preflight.launching import Command, Launch, is_certain, is_found, starts_here
from crystalmath.preflight.programs_here import failure, program_of
from crystalmath.recipes.lookup import NAMESPACE
from crystalmath.recipes.quacc_settings import ase_files

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from crystalmath.preflight.report import Report, Step

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
    family = recipe.removeprefix(f"{NAMESPACE}.").partition(".")[0]
    if family not in _OTHERS or not recipe.startswith(f"{NAMESPACE}."):
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
