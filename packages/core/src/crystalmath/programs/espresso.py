"""Quantum ESPRESSO: the checks of its jobs before submission."""

from __future__ import annotations

import importlib
import json
import os
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import evolve, frozen

from crystalmath.hookspecs import hookimpl
from crystalmath.plugins.checked_job import FileKind
from crystalmath.plugins.folders import Folders, FolderTrouble
from crystalmath.plugins.launching import Command, Launch
from crystalmath.plugins.program import Condition, Context, Program
from crystalmath.programs import espresso_calculator
from crystalmath.recipes.quacc_settings import quacc_setting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ase import Atoms

    from crystalmath.models import Finding
    from crystalmath.models.inputs import Setting, StepInputs
    from crystalmath.plugins.checked_job import CheckedJob, Wanted
    from crystalmath.plugins.report import FileFacts, Step

_PSEUDO = "ESPRESSO_PSEUDO"
_ONLY = "; only Quantum ESPRESSO's recipes need one"
#: Recipes whose first step is pw.x.
_PW = frozenset(
    f"quacc.recipes.espresso.{name}"
    for name in (
        *("core.static_job", "core.relax_job", "core.ase_relax_job", "core.non_scf_job"),
        *("dos.dos_flow", "dos.projwfc_flow", "bands.bands_pw_job", "bands.bands_flow"),
    )
)
#: The programs that quacc has recipes for, by the names of their input files.
_PROGRAMS = (
    *("pw", "ph", "phcg", "bands", "dos", "projwfc", "pp", "fs", "q2r", "matdyn", "dvscf_q2r"),
    "postahc",
)


@frozen(slots=False)
class UpfFolders(Folders):
    """The folder of all pseudopotentials."""

    def named_by(self) -> str:
        """Return the name of quacc's setting, or of the parameter that replaced it."""
        try:
            setting = quacc_setting(_PSEUDO, self.job.environment)
        except ValueError:
            setting = None
        if setting and isinstance(setting[0], str) and setting[0]:
            name = os.path.basename(setting[0].rstrip("/"))
            if self.root is None or os.path.basename(self.root.rstrip("/")) == name:
                return setting[1]
        return f"QUACC_{_PSEUDO}" if self.root is None else "the parameter input_data"

    def unset(self) -> FolderTrouble:
        """Return the trouble that no setting names the folder."""
        message = (
            f"QUACC_{_PSEUDO} is not set, and no other setting names the folder of Quantum "
            "ESPRESSO's pseudopotentials"
        )
        if self.job.environment.get(_PSEUDO):
            message += f"; {_PSEUDO} is set, but quacc does not read it"
        remedy = f"set QUACC_{_PSEUDO} to {self.holder}"
        return FolderTrouble(code="unset", path="", message=message, remedy=remedy)


class Espresso(Program):
    """pw.x. Quantum ESPRESSO's other programs are recognised, and not checked."""

    name = "espresso"
    recipes = ("quacc.recipes.espresso",)
    imports = ("quacc.calculators.espresso", "ase.calculators.espresso")
    files = FileKind(title="pw.x", noun="pseudopotential", code="upf", choice="pseudopotentials")
    launcher = "ESPRESSO_PARALLEL_CMD"
    input_files = tuple(f"{name}.in" for name in _PROGRAMS)
    endings: ClassVar[Mapping[str, str]] = {f"{name}.out": "JOB DONE." for name in _PROGRAMS}
    presets = ("ESPRESSO_PRESET_DIR", "calculators/espresso/presets")

    def install(self) -> None:
        """Import the modules that the first question would wait for."""
        importlib.import_module("quacc.recipes.espresso.core")

    def runs(self, calculator: object) -> bool:
        """Return whether a calculator runs one of Quantum ESPRESSO's programs."""
        return espresso_calculator.is_espresso(calculator)

    def ask(self, calculator: Any, atoms: Atoms, context: Context) -> Step:
        """Return the step with the pseudopotentials in its input."""
        return espresso_calculator.ask(self.name, calculator, atoms, context)

    def inputs(self, calculator: Any, atoms: Atoms, context: Context) -> StepInputs:
        """Return the program's input."""
        return espresso_calculator.inputs(self, calculator, atoms, context)

    def settings(self, files: Mapping[str, str]) -> Iterator[Setting]:
        """Return the variables of its namelists, and its cards."""
        return espresso_calculator.settings(files)

    def written(self, files: Mapping[str, str]) -> StepInputs:
        """Return the input, with the program that the file's name stands for."""
        title = f"{next(iter(files)).removesuffix('.in')}.x"
        return evolve(super().written(files), program=title)

    def command(self, step: StepInputs, environment: Mapping[str, str]) -> str | None:
        """Return the command of the step's program, from quacc's settings."""
        name = next(iter(step.files), "").removesuffix(".in")
        launcher = Command.of_setting("ESPRESSO_PARALLEL_CMD", "", environment)
        if name not in _PROGRAMS or step.program != f"{name}.x" or launcher is None:
            return None
        setting = quacc_setting("ESPRESSO_BIN_DIR", environment)
        folder = setting[0] if setting and isinstance(setting[0], str) else ""
        program = shlex.quote(str(Path(folder, f"{name}.x")))
        return f"{launcher.text} {program} -in {name}.in > {name}.out".strip()

    def read(self, path: str, data: bytes) -> FileFacts:
        """Judge the content of a pseudopotential."""
        return espresso_calculator.read(path, data)

    def folders(self, wanted: Wanted, job: CheckedJob) -> UpfFolders:
        """Return the folders of a missing pseudopotential."""
        return UpfFolders(wanted, job)

    def findings(self, job: CheckedJob) -> Iterator[Finding]:
        """Return findings about cutoffs that do not fit each other."""
        return espresso_calculator.findings(job)

    def launch(self, recipe: str, environment: Mapping[str, str]) -> Launch | None:
        """Return the commands of pw.x, for recipes whose first step it is."""
        if recipe not in _PW or "PARSL_MPI_PREFIX" in environment:
            return None
        return Launch(
            title="pw.x",
            launcher=Command.of_setting("ESPRESSO_PARALLEL_CMD", "", environment),
            programs=(_pw(environment),),
            remedy="put the folder of pw.x on PATH, or name it with QUACC_ESPRESSO_BIN_DIR",
        )

    def conditions(self, environment: Mapping[str, str]) -> Iterator[Condition]:
        """Yield the places of pseudopotentials and pw.x, if either is there."""
        from crystalmath.preflight.commands import check_commands

        setting = quacc_setting(_PSEUDO, environment)
        missing = check_commands(f"{self.recipes[0]}.core.static_job", environment)
        place = None if missing else _place(environment)
        if setting is not None and isinstance(setting[0], str):
            yield _pseudopotentials(setting[0], setting[1])
        elif place is None:
            return  # this user does not use Quantum ESPRESSO
        else:
            message = f"QUACC_{_PSEUDO} is not set: jobs have to name the folder (pseudo_dir)"
            remedy = f"set QUACC_{_PSEUDO} to the folder of the UPF files{_ONLY}"
            yield Condition(name="UPF files", ok=False, message=message, remedy=remedy)
        if missing is not None:
            remedy = f"{missing.remedy}{_ONLY}"
            yield Condition(name="pw.x", ok=False, message=missing.message, remedy=remedy)
        elif place is not None:
            yield Condition(name="pw.x", ok=True, message=place)


def _pseudopotentials(folder: str, source: str) -> Condition:
    place = Path(os.path.expandvars(folder)).expanduser()
    named = f"{place} (from {source})"
    try:
        count = sum(name.lower().endswith(".upf") for name in os.listdir(place))
    except OSError as error:
        message = f"{named} cannot be listed: {error.strerror}"
        remedy = f"name the folder of the UPF files{_ONLY}"
        return Condition(name="UPF files", ok=False, message=message, remedy=remedy)
    if not count:
        remedy = "name the folder that holds the UPF files itself"
        return Condition(name="UPF files", ok=False, message=f"{named} has none", remedy=remedy)
    return Condition(name="UPF files", ok=True, message=f"{named}; {count} files")


def _place(environment: Mapping[str, str]) -> str | None:
    """Return the path of pw.x and its source; ``None`` if it is not on this machine's path."""
    try:
        command = _pw(environment)
    except (ValueError, RecursionError):
        return None  # another finding reports that quacc's settings cannot be read
    if command is None:
        return None
    program = shutil.which(shlex.split(command.text)[0], path=environment.get("PATH"))
    return program and f"{program} (from {command.source})"


def _pw(environment: Mapping[str, str]) -> Command | None:
    folder = quacc_setting("ESPRESSO_BIN_DIR", environment)
    names = quacc_setting("ESPRESSO_BINARIES", environment)
    if any(name.upper().startswith("QUACC_ESPRESSO_BINARIES__") for name in environment):
        return None
    name: object = "pw.x"
    if names is not None:
        binaries = json.loads(names[0]) if isinstance(names[0], str) else names[0]
        name = binaries.get("pw") if isinstance(binaries, dict) else None
    where = "" if folder is None else folder[0]
    if not isinstance(name, str) or not isinstance(where, str):
        return None
    source = next((setting[1] for setting in (folder, names) if setting), None)
    text = shlex.quote(str(Path(where, name)))
    return Command(text, source or "the default of QUACC_ESPRESSO_BIN_DIR")


@hookimpl
def crystalmath_programs() -> list[Program]:
    """Provide Quantum ESPRESSO."""
    return [Espresso()]
