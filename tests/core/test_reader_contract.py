"""Core's own readers keep the contract of readers; broken ones do not, nor do broken checks."""

import os
import re
from pathlib import Path

import pytest
from ase.units import Bohr, Ry
from test_progress import FIRST_STEP, OSZICAR, OUTCAR, PW, PW_FIRST, PW_SECOND

from crystalmath.progress.reader import Reading
from crystalmath.testing import ReaderCase, ReaderContract
from crystalmath.testing.run import run_pytest

GUIDE = (Path(__file__).parents[2] / "docs/writing-a-preflight.md").read_text()
ASE = "BFGS:    0 15:09:38       -3.720000        0.5000\n"
MD = """\
Time[ps]      Etot[eV]     Epot[eV]     Ekin[eV]    T[K]
0.0000           0.0106       0.0106       0.0000     0.0
0.0005           0.0106       0.0105       0.0000     0.1
"""


class TestOurs(ReaderContract):
    @pytest.fixture
    def plugin(self):
        return "progress"

    @pytest.fixture
    def cases(self):
        vasp = Reading(ionic_step=1, energy_ev=-3.7210001, max_force_ev_ang=0.05)
        pw = Reading(ionic_step=1, energy_ev=-15.61606979 * Ry, max_force_ev_ang=0.05 * Ry / Bohr)
        ase = Reading(ionic_step=0, energy_ev=-3.72, max_force_ev_ang=0.5)
        return [
            ReaderCase(
                {"OSZICAR": FIRST_STEP, "OUTCAR": ""},
                Reading(ionic_step=1, electronic_step=3, energy_ev=-3.7221403553),
                [],
            ),
            ReaderCase(
                {"OSZICAR": OSZICAR, "OUTCAR": OUTCAR},
                Reading(
                    ionic_step=2, electronic_step=1, energy_ev=-3.7210001, max_force_ev_ang=0.05
                ),
                [vasp],
            ),
            ReaderCase(
                {"pw.out": PW_FIRST},
                Reading(ionic_step=1, electronic_step=5, energy_ev=-15.61606902 * Ry),
                [],
            ),
            ReaderCase(
                {"pw.out": PW + PW_SECOND},
                Reading(
                    ionic_step=2,
                    electronic_step=1,
                    energy_ev=-15.61606979 * Ry,
                    max_force_ev_ang=0.05 * Ry / Bohr,
                ),
                [pw],
            ),
            ReaderCase({"opt.log": ASE}, ase, [ase]),
            ReaderCase(
                {"md.log": MD},
                Reading(ionic_step=1, energy_ev=0.0105),
                [
                    Reading(ionic_step=0, energy_ev=0.0106),
                    Reading(ionic_step=1, energy_ev=0.0105),
                ],
            ),
        ]


# --- the template, typed in from the guide ---------------------------------------------------

#: What is changed in the template, the test that must fail for it, and what it says.
BROKEN = {
    "wrong verdict": ("<= MOST_ATOMS", "> MOST_ATOMS", "test_verdicts", "mylab_atoms"),
    "changes atoms": (
        "    if atoms is None",
        "    atoms.rattle(0.1)\n    if atoms is None",
        "test_verdicts_are_quick_and_change_nothing",
        "changes the structure",
    ),
    "changes the process": (
        "    if atoms is None",
        "    import os; os.environ['MYLAB'] = 'was here'\n    if atoms is None",
        "test_verdicts_are_quick_and_change_nothing",
        "environment: MYLAB was None, is was here",
    ),
    "writes a file": (
        "    if atoms is None",
        "    open('asked', 'w').close()\n    if atoms is None",
        "test_verdicts_are_quick_and_change_nothing",
        "file: asked",
    ),
    "slow": (
        "    if atoms is None",
        "    import time; time.sleep(1.1)\n    if atoms is None",
        "test_verdicts_are_quick_and_change_nothing",
        "whoever submits waits",
    ),
    "heavy": (
        "import re\n",
        "import re\nimport numpy\n",
        "test_loading_is_quick_and_starts_nothing",
        "imports numpy",
    ),
    "wrong reading": (
        "int(found[1])",
        "int(found[1]) + 1",
        "test_readings",
        "ionic_step 3, and not 2",
    ),
    "reads numbers of cut lines": (
        "if found := STEP.match(line):",
        "if found := re.match(r'step (\\d+)(.*)', line):",
        "test_files_that_are_cut_anywhere",
        "raises ValueError",
    ),
    "a folder in its name": (
        '"mylab", "mylab.out"',
        '"mylab", "out/mylab.out"',
        "test_readers_say_which_files_they_read",
        "plain name",
    ),
}


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    """Run tests of the template on the template, changed: ``judge(old, new, test)``."""
    plugin, tests = re.findall(r"```python\n(\"\"\"(?:What our|Our).*?)```", GUIDE, re.DOTALL)

    def judge(old="", new="", test="test"):
        folder = tmp_path_factory.mktemp("mylab")
        assert old in plugin
        (folder / "mylab_plugin.py").write_text(plugin.replace(old, new, 1))
        (folder / "test_mylab_plugin.py").write_text(tests)
        info = folder / "mylab-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mylab\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[crystalmath.plugins]\nmylab = mylab_plugin\n")
        with pytest.MonkeyPatch.context() as patch:
            path = [str(folder), os.environ.get("PYTHONPATH")]
            patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
            return run_pytest(folder, [str(folder / "test_mylab_plugin.py"), "-k", test])

    return judge


def test_the_template_of_the_guide_keeps_the_contract(judge):
    verdicts = judge()
    assert len(verdicts) > 8
    assert {each.outcome for each in verdicts} == {"passed"}, verdicts


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_plugin_is_caught(judge, how):
    old, new, test, said = BROKEN[how]
    reasons = [e.reason for e in judge(old, new, test) if e.name == test and e.reason]
    assert any(said in reason for reason in reasons), reasons
