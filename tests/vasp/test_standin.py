"""The stand-in for VASP: what it refuses, what it lets pass, and what it computes."""

import os
import sys
from typing import Any

import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import read, write

from commands import ran
from vasp import standin
from vasp.potcars import END, concatenated, potcar

pytestmark = pytest.mark.vasp

ALCU = Atoms("AlCu", positions=[[0, 0, 0], [2, 2, 2]], cell=[4, 4, 4], pbc=True)
MESH = "k-points\n0\nGamma\n2 2 2\n0 0 0\n"


@pytest.fixture
def vasp(tmp_path):
    """Run the stand-in in a directory with these files; give exit code, output and verdict."""
    command = standin.install(tmp_path / "bin") / "vasp_std"
    folder = tmp_path / "run"
    folder.mkdir()

    def run(*, judge=True, atoms=ALCU, **files):
        write(folder / "POSCAR", atoms, format="vasp", direct=True)
        usual = {"INCAR": "ENCUT = 520\nNSW = 0\n", "KPOINTS": MESH}
        usual["POTCAR"] = concatenated(dict.fromkeys(atoms.symbols))
        for name, content in (usual | files).items():
            if content is not None:
                (folder / name).write_bytes(content.encode("latin-1"))
        judged = folder / "judged"
        environment = {"STANDIN_JUDGE": str(judged)} if judge else {}
        done = ran(command, cwd=folder, env=environment)
        assert done.stderr == ""
        verdict = judged.read_text().splitlines()[-1] if judge else None
        return done.returncode, done.stdout, verdict

    here: Any = run
    here.folder = folder
    return here


GOOD = concatenated(["Al", "Cu"])
CUT = potcar("Al").removesuffix(END)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"POTCAR": None}, "Cannot open file 'POTCAR': No such file"),
        ({"POTCAR": ""}, "number of potentials on File POTCAR incompatible"),
        ({"POTCAR": potcar("Al")}, "INCAR : 2 POTCAR : 1"),
        ({"POTCAR": GOOD + potcar("O")}, "INCAR : 2 POTCAR : 3"),
        ({"POTCAR": potcar("Al") + potcar("Cu").removesuffix(END)}, "End of file (POTCAR"),
        ({"POTCAR": CUT + potcar("Cu")}, "Bad real number in POTCAR, dataset 1"),
        ({"POTCAR": potcar("Al")[:400]}, "End of file (POTCAR, dataset 1"),
        ({"POTCAR": "stray text\n" + GOOD}, "header of POTCAR, dataset 1"),
        ({"POTCAR": GOOD.replace("TITEL", "TITLE")}, "item 'TITEL' in the header of POTCAR"),
        ({"POTCAR": GOOD.replace("0.61397770E+02", "\0\0")}, "Bad real number in POTCAR"),
        ({"KPOINTS": "k\n0\nGamma\n"}, "Error reading KPOINTS file"),
        ({"KPOINTS": "k\n0\nGamma\n0 2 2\n"}, "Error reading KPOINTS file"),
        ({"KPOINTS": "k\n2\nReciprocal\n0 0 0 1\n"}, "Error reading KPOINTS file"),
        ({"INCAR": "NSW = many\n"}, "Error reading item 'NSW' from file INCAR"),
        ({"INCAR": None}, "No INCAR found"),
        ({"POSCAR": "only\n1.0\n"}, "reading the POSCAR file"),
        ({"POSCAR": "x\n1\n4 0 0\n0 4 0\n0 0 4\nAl\n2\nDirect\n0 0 0\n"}, "positions of the ions"),
        ({"POSCAR": "x\n1\n4 0 0\n0 4 0\n4 0 0\nAl\n1\nDirect\n0 0 0\n"}, "volume of the cell"),
        ({"POSCAR": "x\n1\n0 4 0\n4 0 0\n0 0 4\nAl\n1\nDirect\n0 0 0\n"}, "triple product"),
    ],
)
def test_it_refuses_what_vasp_would_refuse(vasp, files, words):
    code, said, verdict = vasp(**files)
    assert code == 1
    assert "I REFUSE TO CONTINUE WITH THIS SICK JOB" in said
    assert verdict.startswith("refused: ")
    assert words in verdict


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"POTCAR": GOOD + "\n \n"},
        {"POTCAR": GOOD.replace("\n", "\r\n")},
        {"POTCAR": concatenated(["Cu", "Al"])},  # VASP warns
        {"POTCAR": potcar("Al") + potcar("Cu", lexch="CA")},
        {"KPOINTS": None},  # VASP 6 has KSPACING = 0.5
        {"KPOINTS": "k\n1\nReciprocal\n0 0 0 1\n"},
        {"KPOINTS": "k\n10\nLine-mode\nReciprocal\n0 0 0\n0.5 0 0\n"},
        {"INCAR": "# nothing\nNSW = 3 ; IBRION = 2 ! a comment\nSYSTEM = AlCu\nENCUTT = 1\n"},
    ],
)
def test_it_lets_pass_what_vasp_would_take(vasp, files):
    assert vasp(**files)[::2] == (0, "accepted")


def test_a_verdict_is_quick(vasp):
    """It is asked for thousands of times: nothing heavy may be imported for it."""
    vasp()
    command = (sys.executable, "-X", "importtime", "-I", standin.__file__)
    done = ran(*command, cwd=vasp.folder, env={"STANDIN_JUDGE": "judged"}, check=True)
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "os" in imported
    assert not {"ase", "numpy", "subprocess", "typing"} & imported


def test_potcar_says_what_the_ions_are(vasp):
    """A POTCAR of copper in the place of aluminium's: VASP warns, and computes copper."""
    code, said, _ = vasp(judge=False, atoms=bulk("Al", cubic=True), POTCAR=potcar("Cu"))
    assert (code, "POTCAR overwrites the type information in POSCAR" in said) == (0, True)
    computed = read(vasp.folder / "vasprun.xml")
    assert set(computed.symbols) == {"Cu"}
    copper = bulk("Al", cubic=True)
    copper.symbols[:] = "Cu"
    copper.calc = EMT()
    expected = copper.get_potential_energy() - 4.0 * len(copper)
    assert computed.get_potential_energy() == pytest.approx(expected, abs=1e-9)


def test_elements_that_emt_lacks_are_bound_and_no_more(vasp):
    vasp(judge=False, atoms=bulk("Si"), INCAR="NSW = 5\nIBRION = 2\nISIF = 3\n")
    computed = read(vasp.folder / "vasprun.xml")
    assert computed.get_potential_energy() == pytest.approx(-8.0)
    assert abs(computed.get_forces()).max() == 0
    assert os.path.getsize(vasp.folder / "OUTCAR") > 0


def test_molecular_dynamics_has_as_many_steps_as_it_was_asked_for(vasp):
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=3)
    vasp(judge=False, atoms=atoms, INCAR="IBRION = 0\nNSW = 4\nPOTIM = 2.0\n")
    frames = read(vasp.folder / "vasprun.xml", index=":")
    assert len(frames) == 4
    assert abs(frames[-1].positions - frames[0].positions).max() > 1e-4
