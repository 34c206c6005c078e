"""Core's own readers keep the contract of readers; broken ones do not, nor do broken checks."""

import os
import re
from pathlib import Path

import pytest

from crystalmath.plugins.progress_reader import Reading
from crystalmath.testing import ReaderCase, ReaderContract
from crystalmath.testing.run import run_pytest
from progress.test_readers import FIRST_STEP, OSZICAR, OUTCAR, PW, PW_FIRST, PW_SECOND, Bohr, Ry

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

LOADS = "TestChecks::test_loading_is_quick_and_starts_nothing"
CHANGES_NOTHING = "TestChecks::test_verdicts_are_quick_and_change_nothing"
#: What the check of the template does once it is asked.
ASKED = "    if atoms is None"
#: What is changed in the template, the test that must fail for it, and what it says.
BROKEN = {
    "wrong verdict": ("<= MOST_ATOMS", "> MOST_ATOMS", "TestChecks::test_verdicts", "mylab_atoms"),
    **{
        how: (ASKED, f"    {statement}\n{ASKED}", CHANGES_NOTHING, said)
        for how, statement, said in (
            ("changes atoms", "atoms.rattle(0.1)", "changes the structure"),
            (
                *("changes the process", "import os; os.environ['MYLAB'] = 'was here'"),
                "environment: MYLAB was None, is was here",
            ),
            ("writes a file", "open('asked', 'w').close()", "file: asked"),
            ("slow", "import time; time.sleep(1.1)", "a submission waits for it"),
        )
    },
    "heavy": ("import re\n", "import re\nimport numpy\n", LOADS, "imports numpy"),
    "wrong reading": (
        *("int(step[1])", "int(step[1]) + 1"),
        *("TestReaders::test_readings", "ionic_step 3, not 2"),
    ),
    "reads numbers of cut lines": (
        *("if step := STEP.match(line):", "if step := re.match(r'step (\\d+)(.*)', line):"),
        *("TestReaders::test_files_that_are_cut_anywhere", "raises ValueError"),
    ),
    "a folder in its name": (
        *('"mylab", "mylab.out"', '"mylab", "out/mylab.out"'),
        *("TestReaders::test_readers_say_which_files_they_read", "plain name"),
    ),
}


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """Run the tests of the template on it as it is, and the test of each change on that.

    Each is a distribution of its own, whose name ends with its number; one pytest runs all.
    """
    plugin, tests = re.findall(r"```python\n(\"\"\"(?:What our|Our).*?)```", GUIDE, re.DOTALL)
    folder = tmp_path_factory.mktemp("mylab")
    nodes = []
    for number, (old, new, test, _) in enumerate([("", "", "", ""), *BROKEN.values()]):
        name = f"mylab{number}"
        assert old in plugin
        source = plugin.replace(old, new, 1).replace("mylab", name)
        (folder / f"{name}_plugin.py").write_text(source)
        file = folder / f"test_{name}_plugin.py"
        numbered = tests.replace("mylab", name).replace("class Test", f"class Test{number}")
        file.write_text(numbered)
        nodes.append(f"{file}::{test.replace('Test', f'Test{number}', 1)}" if test else str(file))
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        points = f"[crystalmath.plugins]\n{name} = {name}_plugin\n"
        (info / "entry_points.txt").write_text(points)
    with pytest.MonkeyPatch.context() as patch:
        path = [str(folder), os.environ.get("PYTHONPATH")]
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
        return run_pytest(folder, nodes)


def test_the_template_of_the_guide_keeps_the_contract(judged):
    of_it = [each for each in judged if each.owner.startswith("Test0")]
    assert len(of_it) > 8
    assert {each.outcome for each in of_it} == {"passed"}, of_it


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_plugin_is_caught(judged, how):
    number = 1 + list(BROKEN).index(how)
    *_, test, said = BROKEN[how]
    owner = test.partition("::")[0].replace("Test", f"Test{number}", 1)
    (found,) = [each for each in judged if each.owner == owner]
    assert said.replace("mylab", f"mylab{number}") in found.reason
