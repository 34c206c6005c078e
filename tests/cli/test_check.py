"""What programs get, as the commands show and write it."""

import pytest
from attrs import evolve

from conftest import AL
from crystalmath.cli import check
from crystalmath.errors import CrystalMathError
from crystalmath.models import Inputs, Setting, StepInputs

INCAR = " ENCUT = 400.0\n IVDW = 12\n"
FIRST = StepInputs(
    program="VASP",
    formula="Al4",
    preset="Default",
    files={"INCAR": INCAR, "KPOINTS": "KPOINTS of ASE\n0\n"},
    settings=(
        Setting(
            file="INCAR", name="ENCUT", value="400.0", origin="asked", instead_of="preset: 520"
        ),
        Setting(file="INCAR", name="IVDW", value="12", origin="preset"),
        Setting(file="INCAR", name="ALGO", value=None, origin="asked", instead_of="preset: fast"),
        Setting(file="KPOINTS", name="KPOINTS", value="0", origin="preset"),
    ),
)
SECOND = StepInputs(
    program="VASP",
    files={"INCAR": " ISPIN = 2\n"},
    settings=(Setting(file="INCAR", name="ISPIN", value="2", origin="preset", certain=False),),
    certain=False,
)
BOTH = Inputs(steps=(FIRST, SECOND), rest="further steps are not known: why")


def test_each_line_has_who_has_set_it(capsys):
    check.show(BOTH)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "step 1 of 2: VASP, Al4, preset Default"
    assert "ENCUT = 400.0 asked (preset: 520)" in lines
    assert "IVDW = 12 preset" in lines
    assert "(ALGO is left out) asked (preset: fast)" in lines
    assert "--- KPOINTS preset" in lines
    assert "KPOINTS of ASE" in lines
    assert "ISPIN = 2 preset ?" in lines
    assert lines[-1] == "further steps are not known: why"


def test_of_a_long_table_of_a_preset_the_beginning_is_shown(capsys):
    long = evolve(FIRST.settings[0], instead_of=f"preset: {[520] * 9999}")
    check.show(Inputs(steps=(evolve(FIRST, settings=(long,)),)))
    line = next(line for line in capsys.readouterr().out.splitlines() if "ENCUT" in line)
    assert "asked (preset: [520, 520" in line
    assert line.endswith("...)")
    assert len(line) < 200


def test_what_the_machine_of_the_job_decides_is_marked_in_its_first_step_too(capsys):
    unsure = {"file": "INCAR", "origin": "quacc", "certain": False}
    told = evolve(
        FIRST,
        files={"INCAR": " NCORE = 1\n"},
        settings=(
            Setting(name="NCORE", value="1", **unsure),
            Setting(name="NPAR", value=None, **unsure),
        ),
        certain=False,
    )
    check.show(Inputs(steps=(told, SECOND)))
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == "what the machine that the job runs on may still change is marked with ?"
    assert [line for line in lines if line.endswith("quacc ?")] == [
        "NCORE = 1 quacc ?",
        "(NPAR may be set) quacc ?",
    ]
    assert (
        "what an earlier step's result or the machine that the job runs on may still change is "
        "marked with ?"
    ) in lines


def test_files_are_written_as_they_are_and_none_is_overwritten(tmp_path):
    check.write(Inputs(steps=(FIRST,)), str(tmp_path / "one"))
    assert (tmp_path / "one/INCAR").read_bytes() == INCAR.encode()
    (tmp_path / "two/step-2").mkdir(parents=True)
    (tmp_path / "two/step-2/INCAR").write_text("mine")
    with pytest.raises(CrystalMathError, match="step-2/INCAR is there already.*--inputs"):
        check.write(BOTH, str(tmp_path / "two"))
    assert not (tmp_path / "two/step-1").exists()
    written = check.write(BOTH, str(tmp_path / "three"))
    assert [str(path.relative_to(tmp_path)) for path in written] == [
        *("three/step-1/INCAR", "three/step-1/KPOINTS", "three/step-2/INCAR")
    ]


@pytest.mark.parametrize("where", [["--inputs"], ["--inputs", "--engine", "local"]])
def test_any_recipe_is_asked_and_nothing_is_left(cli, lab, home, where):
    answer = cli("check", "lab_recipes.value", AL, *where)
    assert answer.code == 0, answer.err
    assert answer.lines[0] == "the recipe begins no calculation that could be seen"
    assert list(home.iterdir()) == []


def test_what_goes_on_the_wire(cli, lab, tmp_path):
    document = cli("check", "lab_recipes.value", AL, "--inputs", tmp_path / "new", "--json").json
    assert document["inputs"] == {"steps": [], "rest": None, "source": "recipe"}
    assert not (tmp_path / "new").exists()
    assert "inputs" not in cli("check", "lab_recipes.value", AL, "--json").json
    # What cannot be called is not asked.
    refused = cli("check", "lab_recipes.none_such", AL, "--inputs", "--json")
    assert (refused.code, refused.json["inputs"]) == (1, None)


def test_of_a_job_that_is_not_known(cli, lab):
    answer = cli("inputs", "3f2a91c4", "--json")
    assert (answer.code, answer.json["code"], answer.json["inputs"]) == (1, "unknown_job", None)


def test_what_differs():
    changed = evolve(FIRST, files={}, settings=FIRST.settings[1:])
    mine, its = Inputs(steps=(FIRST, SECOND)), Inputs(steps=(changed,))
    told = [(each.step, each.name, each.value, each.other) for each in mine.differences(its)]
    assert told == [(1, "ENCUT", "400.0", None), (2, "ISPIN", "2", None)]
    assert mine.differences(mine) == []
