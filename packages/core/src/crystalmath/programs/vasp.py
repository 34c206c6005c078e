"""VASP: the checks of its jobs before submission."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import evolve

from crystalmath.errors import one_line
from crystalmath.hookspecs import hookimpl
from crystalmath.models import Finding
from crystalmath.plugins.checked_job import FileKind, brief, said
from crystalmath.plugins.launching import Command, Launch
from crystalmath.plugins.program import Condition, Context, Program
from crystalmath.programs import potcar_file, vasp_findings, vasp_inputs
from crystalmath.programs.vasp_findings import PotcarFolders, functionals_of
from crystalmath.recipes.quacc_settings import VARIABLE, potcars_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ase import Atoms

    from crystalmath.models.inputs import Setting, StepInputs
    from crystalmath.plugins.checked_job import CheckedJob, Wanted
    from crystalmath.plugins.report import FileFacts, Step, Trouble

#: Files that custodian reads -> the parameters that they are made from, if a finding names them.
_MADE_FROM: dict[str, set[str]] = {
    "INCAR": set(),
    "KPOINTS": {"gamma", "kpts", "pmg_kpts", "reciprocal"},
    "POSCAR": set(),
}


class Vasp(Program):
    """VASP, through ASE's calculator or quacc's on top of it."""

    name = "vasp"
    recipes = ("quacc.recipes.vasp",)
    imports = ("quacc.calculators.vasp", "ase.calculators.vasp")
    files = FileKind(
        title="VASP", noun="POTCAR", code="potcar", choice="setups", unreadable=(".Z",)
    )
    launcher = "VASP_PARALLEL_CMD"
    input_files = ("INCAR", "KPOINTS", "POSCAR", "POTCAR")
    endings: ClassVar[Mapping[str, str]] = {"OUTCAR": "General timing and accounting"}
    presets = ("VASP_PRESET_DIR", "calculators/vasp/presets")

    def install(self) -> None:
        """Replace quacc's calculation and summary that exist for VASP alone."""
        from crystalmath.programs import vasp_calculator

        vasp_calculator.install()

    def runs(self, calculator: object) -> bool:
        """Return whether a calculator is ASE's or quacc's for VASP."""
        from ase.calculators.vasp import Vasp as Calculator

        return isinstance(calculator, Calculator)

    def ask(self, calculator: Any, atoms: Atoms, context: Context) -> Step:
        """Return the step with its POTCARs and the troubles of its input."""
        from crystalmath.programs import vasp_calculator

        return vasp_calculator.ask(self, calculator, atoms, context)

    def inputs(self, calculator: Any, atoms: Atoms, context: Context) -> StepInputs:
        """Return INCAR, KPOINTS, POSCAR, and the titles of the POTCARs."""
        return vasp_inputs.inputs(self, calculator, atoms, context)

    def settings(self, files: Mapping[str, str]) -> Iterator[Setting]:
        """Return the tags of INCAR; each other file is one setting."""
        return vasp_inputs.settings(files)

    def command(self, step: StepInputs, environment: Mapping[str, str]) -> str | None:
        """Return the command of ``vasp_std``, from quacc's settings."""
        launch = _launch(environment)
        program = launch.programs[0]
        if step.program != self.files.title or launch.launcher is None or program is None:
            return None
        return f"{launch.launcher.text} {program.text} > vasp.out".strip()

    def preset(self, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return its parameters; none of a file that only lists moments or POTCARs."""
        parameters: Mapping[str, Any] = document.get("inputs", {})
        return (
            parameters
            if parameters.keys() - {"elemental_magmoms", "pp", "pp_version", "setups"}
            else {}
        )

    def read(self, path: str, data: bytes) -> FileFacts:
        """Judge the content of a POTCAR."""
        return potcar_file.read(path, data)

    def folders(self, wanted: Wanted, job: CheckedJob) -> PotcarFolders:
        """Return the folders of a missing POTCAR."""
        return PotcarFolders(wanted, job)

    def words(self, trouble: Trouble, step: Step, job: CheckedJob) -> tuple[str, str] | None:
        """Return a code and words, those for custodian's failures among them."""
        if trouble.where == "parse":
            words = "custodian cannot read the POTCAR that these files make"
            return None if self._is_explained(step, job) else ("potcar_unparsed", words)
        if trouble.where in _MADE_FROM:
            words = f"custodian cannot read the {trouble.where} that {_origin(trouble, job)}"
            return "input_fails", words
        return super().words(trouble, step, job)

    def _is_explained(self, step: Step, job: CheckedJob) -> bool:
        """Return whether the findings of the files explain why custodian cannot read them."""
        files = [job.report.files.get(need.path) for need in step.needs]
        bad = any(facts and facts.problem for facts in files)
        return bad or len(functionals_of(job, step)) > 1

    def right_element(self, wanted: Wanted, wrong: Sequence[str]) -> str:
        """Return the remedy: change the parameter if it chose the file, else the file."""
        # A setup of the right element shows that the parameter is right and the file is wrong.
        if any(wanted.setup.startswith(symbol) for symbol in wrong):
            return f"put the {self.files.noun} of {brief(wrong)} there"
        return super().right_element(wanted, wrong)

    def findings(self, job: CheckedJob) -> Iterator[Finding]:
        """Return findings about datasets that do not fit each other, and about tags."""
        return vasp_findings.findings(job)

    def check_ranks(self, parameters: Mapping[str, Any], ranks: int) -> Iterator[Finding]:
        """Return findings about tags that do not divide the ranks."""
        return vasp_findings.rank_findings(parameters, ranks)

    def unasked(self, recipe: str, environment: Mapping[str, str]) -> Finding | None:  # noqa: ARG002 - the settings decide
        """Refuse a job if ASE's configuration keeps quacc from being imported."""
        named = potcars_of(environment)
        if named.trouble is None:
            return None
        return Finding(
            severity="error",
            code="potcar_settings",
            message=f"{named.trouble}; the job would not start",
            source=named.source,
            remedy=f"correct that file: its {VARIABLE} must name the folder that holds "
            "potpaw_PBE.64",
        )

    def launch(self, recipe: str, environment: Mapping[str, str]) -> Launch:  # noqa: ARG002 - all recipes start it alike
        """Return the commands of VASP, ``vasp_std`` and ``vasp_gam``."""
        return _launch(environment)

    def conditions(self, environment: Mapping[str, str]) -> Iterator[Condition]:
        """Yield the place of the POTCARs, and the trouble of VASP's command if it has one."""
        from crystalmath.preflight.commands import check_commands
        from crystalmath.quacc.potcar import check_potcars, describe_potcars

        where = potcars_of(environment)
        if wrong := check_potcars(where, ()):
            # Other programs need no POTCARs, and a job may name a library of its own.
            remedy = f"{wrong.remedy}; only VASP's recipes need one"
            yield Condition(name="POTCARs", ok=False, message=wrong.message, remedy=remedy)
        else:
            info = describe_potcars(where)
            sets = ", ".join(f"{name}: {count}" for name, count in info["functionals"].items())
            message = f"{info['path']} (from {info['source']}); {sets}"
            yield Condition(name="POTCARs", ok=True, message=message)
        if missing := check_commands(f"{self.recipes[0]}.core.static_job", environment):
            remedy = f"{missing.remedy}; only VASP's recipes need it"
            yield Condition(name="VASP", ok=False, message=missing.message, remedy=remedy)


def _launch(environment: Mapping[str, str]) -> Launch:
    launcher = Command.of_setting("VASP_PARALLEL_CMD", "", environment)
    usual = Command.of_setting("VASP_CMD", "vasp_std", environment)
    gamma = Command.of_setting("VASP_GAMMA_CMD", "vasp_gam", environment)
    if usual is not None:
        remedy = (
            "vasp_gam computes a single k-point only: put this program on PATH, or name it with "
            "QUACC_VASP_CMD=/path/to/vasp_std"
        )
        usual = evolve(usual, remedy=remedy)
    if gamma is not None and usual is not None:
        remedy = (
            "without custodian quacc always starts this program for a single k-point: put it on "
            f"PATH, or set QUACC_VASP_GAMMA_CMD={usual.text}, which computes that as well"
        )
        gamma = evolve(gamma, remedy=remedy)
    remedy = (
        "put the folder of VASP's programs on PATH, or name one with "
        "QUACC_VASP_CMD=/path/to/vasp_std"
    )
    if launcher is not None and not launcher.text.strip():
        remedy += '; for several ranks set QUACC_VASP_PARALLEL_CMD="mpirun -np 16"'
    return Launch(title="VASP", launcher=launcher, programs=(usual, gamma), remedy=remedy)


def _origin(trouble: Trouble, job: CheckedJob) -> str:
    """Return the user's parameters that a file is made from, or that its error names."""
    made = _MADE_FROM[trouble.where] | set(re.findall(r"\w+", trouble.message.lower()))
    parameters = [
        f"{one_line(name)} = {said(repr(value))}"
        for name, value in job.parameters.items()
        if name.lower() in made
    ]
    return f"is made from {brief(parameters)}" if parameters else "is written"


@hookimpl
def crystalmath_programs() -> list[Program]:
    """Provide VASP."""
    return [Vasp()]
