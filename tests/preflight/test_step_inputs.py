"""Who has set what in the files that a job has written."""

from crystalmath.models import Inputs, Setting, StepInputs
from crystalmath.preflight.step_inputs import with_marks


def setting(name, value, origin=None, **more):
    return Setting(file="INCAR", name=name, value=value, origin=origin, **more)


def step(*settings, **more):
    return StepInputs(program="VASP", files={"INCAR": ""}, settings=settings, **more)


def test_what_is_the_same_is_marked():
    mine = step(setting("ENCUT", "400"), setting("NSW", "0"), setting("MAGMOM", "2*1.7"))
    told = step(
        setting("ENCUT", "400", "asked", instead_of="preset: 520"),
        setting("NSW", "5", "recipe"),  # another release's, or custodian's
        setting("MAGMOM", "2*5.0", "structure", certain=False),
        setting("ALGO", None, "asked", instead_of="preset: fast"),
        setting("NCORE", None, "quacc", certain=False),  # another machine's, which set none
        preset="P",
        formula="Al2",
    )
    other = StepInputs(program="pw.x", files={"pw.in": ""})
    marked = with_marks(
        Inputs(steps=(mine, other, mine), source="files"), Inputs(steps=(told, told))
    )
    assert marked.source == "files"
    first, *rest = marked.steps
    assert (first.preset, first.formula) == ("P", "Al2")
    assert [(each.name, each.value, each.origin, each.instead_of) for each in first.settings] == [
        ("ENCUT", "400", "asked", "preset: 520"),
        ("NSW", "0", None, None),
        ("MAGMOM", "2*1.7", "structure", None),
        ("ALGO", None, "asked", "preset: fast"),
    ]
    assert all(each.certain for each in first.settings)  # it has been written
    assert rest == [other, mine]
