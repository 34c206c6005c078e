"""The verdict against what really happens, over random jobs; see test_differential.

``python -m vasp.differential CASES FOLDER NAMED``, started in ``tests``, without root's right to
read everything. Everything is written below FOLDER, where ``bin`` has the stand-in for VASP, and in
memory if possible. NAMED tells what names the folder of the POTCARs: ``variable``, ``config``
(ASE's configuration file, against a variable) or ``nothing``.
"""

from __future__ import annotations

import collections
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, reject, settings

from crystalmath.engines.registry import plugins
from crystalmath.errors import InvalidJob
from crystalmath.models import Finding, JobSpec
from crystalmath.preflight import inspector
from crystalmath.recipes import codec
from vasp.cases import Case, Structure, cases
from vasp.potcars import potcar
from vasp.trees import Tree, listing, remove
from vasp.truth import Fate, Recipe, Truth

_ENDS = {
    "ran": "ran",
    "potcar": "died for their POTCARs",
    "other": "died of something else",
    "extras": "recipes want an extra of quacc that is not here",
}
#: Of files that are younger than this, nothing is remembered.
_SETTLED_S = 0.06
_PRESET = """\
inputs:
  xc: pbe
  encut: 400
  kpts: [1, 1, 1]
  pp_version: "54"
  setups:
    Cu: Cu_pv
    O: O_s
    Al: Al
    Bi: _d
"""


class DisagreementError(AssertionError):
    """The verdict and the truth."""


class Differential:
    """Judges jobs before they run, runs them, and counts."""

    def __init__(self, folder: Path, named: str) -> None:
        # Hundreds of small files for each job: a busy disk takes longer for them than all else.
        memory = Path("/dev/shm")
        self.scratch = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else folder))
        self.root = self.scratch / "potcars"
        self.environment = {
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "HOME": os.environ["HOME"],
            "QUACC_VASP_PARALLEL_CMD": "",
            "QUACC_VASP_CUSTODIAN_HANDLERS": "[]",
            "QUACC_VASP_CUSTODIAN_VALIDATORS": "[]",
        }
        if named == "variable":
            self.environment["VASP_PP_PATH"] = str(self.root)
        elif named == "config":
            config = folder / "ase.ini"
            config.write_text(f"[environment]\nVASP_PP_PATH = {self.root}\n")
            self.environment["ASE_CONFIG_PATH"] = str(config)
            self.environment["VASP_PP_PATH"] = str(folder / "elsewhere")
        self.files = self._write_files(folder / "files")
        self.truth = Truth(self.environment, self.scratch)
        self.counts: collections.Counter[tuple[str, bool]] = collections.Counter()
        self.recipes: collections.Counter[str] = collections.Counter()
        self.reasons: collections.Counter[str] = collections.Counter()
        self.seconds: collections.Counter[str] = collections.Counter()
        self.full = self.begun = 0
        self.here = [recipe for recipe in self.truth.recipes if not self._wants_extra(recipe)]

    def _write_files(self, folder: Path) -> dict[str, str]:
        """Write what parameters may name."""
        previous, nothing = folder / "previous", folder / "nothing"
        previous.mkdir(parents=True)
        nothing.mkdir()
        Structure(("Cu",)).atoms().write(previous / "POSCAR", format="vasp")
        (previous / "POTCAR").write_text(potcar("Cu"))
        (previous / "KPOINTS").write_text("mesh\n0\nGamma\n1 1 1\n")
        (previous / "INCAR").write_text("NSW = 0\n")
        subprocess.run(
            ["vasp_std"], cwd=previous, env=self.environment, check=True, stdout=subprocess.DEVNULL
        )
        (folder / "preset.yaml").write_text(_PRESET)
        (folder / "setups.yaml").write_text(_PRESET)
        (folder / "broken.yaml").write_text("inputs: [")
        files = {name: str(folder / f"{name}.yaml") for name in ("preset", "setups", "broken")}
        return files | {"previous": str(previous), "nothing": str(nothing)}

    def _wants_extra(self, recipe: Recipe) -> bool:
        """Tell whether a recipe wants an extra of quacc that is not here, and judge it, too."""
        case = Case(recipe.name, Structure(("Cu",)), {}, Tree("missing"))
        self.truth.begin(recipe.name, _document(case))
        if self.truth.fate().end != "extras":
            return False
        self.counts["extras", _refused(self._findings(case))] += 1
        return True

    def check(self, case: Case) -> None:
        """Judge a job and run it; raise `DisagreementError` where that does not agree."""
        elements = set(case.structure.symbols)
        if "adsorbate" in case.parameters:
            elements |= set(case.parameters["adsorbate"].symbols)
        try:
            document = _document(case)
        except InvalidJob:
            reject()  # it is no job, whatever the verdict
        if case.before is not None:
            case.before.build(self.root, elements)
            time.sleep(_SETTLED_S)
            larger = replace(case.structure, symbols=case.structure.symbols * 2)
            self._findings(replace(case, structure=larger))
        if case.before != case.tree:
            case.tree.build(self.root, elements)
        self.truth.begin(case.recipe, document, full=case.full)
        started = time.perf_counter()
        findings = self._findings(case)
        judged = time.perf_counter()
        fate = self.truth.fate()
        refused = _refused(findings)
        if refused and fate.end == "ran" and not case.full:
            # It may be refused for a later calculation than the first.
            self.truth.begin(case.recipe, document, full=True)
            fate = self.truth.fate()
            self.full += 1
        self.seconds["verdict"] += judged - started
        self.seconds["job"] += time.perf_counter() - started
        self.full += case.full
        self.begun += case.several and not case.full and fate.end == "ran"
        self.counts[fate.end, refused] += 1
        self.recipes[case.recipe] += 1
        if fate.end == "potcar":
            self.reasons.update({each.code for each in findings if each.severity == "error"})
        if (fate.end == "ran" and refused) or (fate.end == "potcar" and not refused):
            shown = self._shown(case, fate, findings)
            # hypothesis tells what failed again, and fails differently if it did not.
            print(f"disagreement: {shown}", flush=True)
            raise DisagreementError(shown)

    def _findings(self, case: Case) -> list[Finding]:
        findings = plugins().preflight(
            recipe=case.recipe,
            atoms=case.structure.atoms(),
            parameters=dict(case.parameters),
            environment=self.environment,
            document=_document(case),
        )
        assert not plugins().broken
        return findings

    def _shown(self, case: Case, fate: Fate, findings: list[Finding]) -> str:
        said = "".join(f"\n    {each.severity} {each.code}: {each.message}" for each in findings)
        tree = "\n    ".join(listing(self.root).splitlines())
        return (
            f"the job {_ENDS[fate.end]} after {fate.started} calculations: {fate.error}\n"
            f"  and the verdict was:{said or ' nothing'}\n"
            f"  recipe: {case.recipe}\n  structure: {case.structure}\n"
            f"  parameters: {dict(case.parameters)}\n  tree: {case.tree}\n"
            f"  before: {case.before}\n"
            f"  VASP_PP_PATH={self.root}:\n    {tree}"
        )

    def close(self) -> None:
        """End the processes, and remove what is not below the folder."""
        self.truth.close()
        inspector.close()
        remove(self.root)
        shutil.rmtree(self.scratch)

    def report(self) -> str:
        """Tell what was counted."""
        number = sum(self.recipes.values())
        lines = [
            f"{number} jobs of {len(self.recipes)} recipes",
            f"{self.full:6} computed in full",
            f"{self.begun:6} ran that have several calculations, of which the first was seen only",
        ]
        for end, words in _ENDS.items():
            refused, passed = self.counts[end, True], self.counts[end, False]
            lines.append(f"{refused + passed:6} {words}: {refused} refused, {passed} passed")
        reasons = ", ".join(f"{code} {times}" for code, times in self.reasons.most_common())
        lines.append(f"those that died for their POTCARs were refused for: {reasons or 'nothing'}")
        verdict, job = (1000 * self.seconds[name] / max(number, 1) for name in ("verdict", "job"))
        lines.append(f"a verdict took {verdict:.0f} ms, and with the job beside it {job:.0f} ms")
        return "\n".join(lines)


def _refused(findings: list[Finding]) -> bool:
    return any(finding.severity == "error" for finding in findings)


def _document(case: Case) -> str:
    spec = JobSpec(
        job_id=str(uuid.uuid4()),
        recipe=case.recipe,
        atoms=case.structure.atoms(),
        parameters=case.parameters,
    )
    return codec.encode_spec(spec)


def main(number: int, folder: Path, named: str) -> None:
    """Judge and run so many jobs, and print the counts."""
    differential = Differential(folder, named)

    @settings(
        max_examples=number,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases(differential.here, differential.files))
    def agree(case: Case) -> None:
        differential.check(case)

    try:
        agree()
    finally:
        print(differential.report(), flush=True)
        differential.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
