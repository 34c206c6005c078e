"""Quantum ESPRESSO: what of its jobs is checked before they are submitted."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from crystalmath.hookspecs import hookimpl
from crystalmath.plugins.checked_job import FileKind
from crystalmath.plugins.folders import Folders, FolderTrouble
from crystalmath.plugins.launching import Command, Launch
from crystalmath.plugins.program import Asked, Condition, Program
from crystalmath.preflight.programs import espresso_calculator
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
#: Those that quacc has recipes for, as they name their input.
_PROGRAMS = (
    *("pw", "ph", "phcg", "bands", "dos", "projwfc", "pp", "fs", "q2r", "matdyn", "dvscf_q2r"),
    "postahc",
)


@frozen(slots=False)
class UpfFolders(Folders):
    """The folder of all pseudopotentials."""

    def named_by(self) -> str:
        """Return what named the folder: quacc's setting, or the input itself."""
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
        """Say that nothing names the folder, and what does not."""
        message = (
            f"QUACC_{_PSEUDO} is not set, and nothing else says where the pseudopotentials of "
            "Quantum ESPRESSO are"
        )
        if self.job.environment.get(_PSEUDO):
            message += f"; {_PSEUDO} is set, and quacc does not read it"
        remedy = f"set QUACC_{_PSEUDO} to {self.holder}"
        return FolderTrouble(code="unset", path="", message=message, remedy=remedy)


class Espresso(Program):
    """pw.x; of Quantum ESPRESSO's other programs it is only seen that they would run."""

    name = "espresso"
    recipes = ("quacc.recipes.espresso",)
    imports = ("quacc.calculators.espresso", "ase.calculators.espresso")
    files = FileKind(title="pw.x", noun="pseudopotential", code="upf", choice="pseudopotentials")
    launcher = "ESPRESSO_PARALLEL_CMD"
    input_files = tuple(f"{name}.in" for name in _PROGRAMS)
    endings = {f"{name}.out": "JOB DONE." for name in _PROGRAMS}  # noqa: RUF012 - never changed
    presets = ("ESPRESSO_PRESET_DIR", "calculators/espresso/presets")

    def install(self) -> None:
        """Import what the first question would wait for."""
        import quacc.recipes.espresso.core  # noqa: F401

    def runs(self, calculator: object) -> bool:
        """Return whether it runs one of Quantum ESPRESSO's programs."""
        return espresso_calculator.is_espresso(calculator)

    def ask(self, calculator: Any, atoms: Atoms, asked: Asked) -> Step:
        """Find its pseudopotentials in the input that it would write."""
        return espresso_calculator.ask(self.name, calculator, atoms, asked)

    def inputs(self, calculator: Any, atoms: Atoms, asked: Asked) -> StepInputs:
        """Return its input."""
        return espresso_calculator.inputs(self, calculator, atoms, asked)

    def settings(self, files: Mapping[str, str]) -> Iterator[Setting]:
        """Read the variables of its namelists, and its cards."""
        return espresso_calculator.settings(files)

    def written(self, files: Mapping[str, str]) -> StepInputs:
        """Return which of its programs got an input, by the name of that."""
        title = f"{next(iter(files)).removesuffix('.in')}.x"
        return evolve(super().written(files), program=title)

    def command(self, step: StepInputs, environment: Mapping[str, str]) -> str | None:
        """Start the program that the step names, as quacc's settings say."""
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
        """Look around a pseudopotential."""
        return UpfFolders(wanted, job)

    def findings(self, job: CheckedJob) -> Iterator[Finding]:
        """Find cutoffs that do not go together."""
        return espresso_calculator.findings(job)

    def launch(self, recipe: str, environment: Mapping[str, str]) -> Launch | None:
        """Return how pw.x is started, where it comes first."""
        if recipe not in _PW or "PARSL_MPI_PREFIX" in environment:
            return None
        return Launch(
            title="pw.x",
            launcher=Command.of_setting("ESPRESSO_PARALLEL_CMD", "", environment),
            programs=(_pw(environment),),
            remedy="put the folder of pw.x on PATH, or name it with QUACC_ESPRESSO_BIN_DIR",
        )

    def conditions(self, environment: Mapping[str, str]) -> Iterator[Condition]:
        """Yield where pseudopotentials and pw.x are, where either is there."""
        from crystalmath.preflight.commands import check_commands

        setting = quacc_setting(_PSEUDO, environment)
        missing = check_commands(f"{self.recipes[0]}.core.static_job", environment)
        found = None if missing else _found(environment)
        if setting is not None and isinstance(setting[0], str):
            yield _pseudopotentials(setting[0], setting[1])
        elif found is None:
            return  # nothing is said to those who do not use it
        else:
            message = f"QUACC_{_PSEUDO} is not set: jobs have to name the folder (pseudo_dir)"
            remedy = f"set QUACC_{_PSEUDO} to the folder of the UPF files{_ONLY}"
            yield Condition(name="UPF files", ok=False, message=message, remedy=remedy)
        if missing is not None:
            remedy = f"{missing.remedy}{_ONLY}"
            yield Condition(name="pw.x", ok=False, message=missing.message, remedy=remedy)
        elif found is not None:
            yield Condition(name="pw.x", ok=True, message=found)


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


def _found(environment: Mapping[str, str]) -> str | None:
    """Return where pw.x is, and what named it; ``None`` where it is not on this machine's path."""
    try:
        command = _pw(environment)
    except (ValueError, RecursionError):
        return None  # quacc's settings cannot be read, which is told elsewhere
    if command is None:
        return None
    found = shutil.which(shlex.split(command.text)[0], path=environment.get("PATH"))
    return found and f"{found} (from {command.source})"


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
