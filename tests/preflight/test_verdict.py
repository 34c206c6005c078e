"""The verdict on what a recipe was found to need: crystalmath.preflight.verdict."""

import os
from pathlib import Path

import pytest
from ase import Atoms
from ase.build import bulk
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from crystalmath.plugins.report import FileFacts, Need, Report, Step, Trouble
from crystalmath.preflight.files import facts
from crystalmath.preflight.programs_here import program_named
from crystalmath.preflight.verdict import judge, pseudopotentials, unasked
from vasp.potcars import concatenated, library, potcar

STATIC = "quacc.recipes.vasp.core.static_job"
FLOW = "quacc.recipes.vasp.core.double_relax_flow"
THEIRS = "mylab.recipes.relax_flow"


@pytest.fixture
def pots(tmp_path):
    return library(tmp_path / "pots", "Al", "O", "Ba", "Cu", "Ba_xx", "Bab")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def needs(root, *setups, folder="potpaw_PBE.64", reason="preset BulkSet"):
    base = f"{root}/{folder}" if root else folder
    return tuple(
        Need(
            symbol=setup.split("_")[0],
            setup=setup,
            path=f"{base}/{setup}/POTCAR",
            reason=reason,
        )
        for setup in setups
    )


def vasp(root, *setups, folder="potpaw_PBE.64", reason="preset BulkSet", **more):
    return Step(
        calculator="vasp",
        needs=needs(root, *setups, folder=folder, reason=reason),
        root=str(root) if root else None,
        **more,
    )


def report(*steps, quiet=True, **more):
    """Make a report on what is there; of files that nobody doubts, unless asked for."""
    found = {}
    for step in steps:
        program = program_named(step.calculator)
        for need in step.needs:
            known = facts(need.path, program)
            found[need.path] = evolve(known, official=True) if quiet and known.sha256 else known
    # As the child sends it.
    return Report.from_json(Report(steps=steps, files=found, **more).to_json())


def judged(told, *, atoms=None, recipe=STATIC, environment=None, parameters=None):
    atoms = bulk("Al") if atoms is None else atoms
    before = atoms.copy()
    findings = judge(told, recipe, atoms, environment or {}, parameters)
    assert atoms == before
    for finding in findings:
        assert str(finding).isprintable()
    return findings


def only(told, **more):
    (finding,) = judged(told, **more)
    return finding


def ask(pots, *setups, **more):
    """Judge one calculation, with the path from the variable."""
    environment = {"VASP_PP_PATH": str(pots)}
    return only(report(vasp(pots, *setups, **more)), environment=environment)


# ---- good jobs ----


def test_a_good_job(pots):
    told = report(vasp(pots, "Al", "O", custodian=True), vasp(pots, "Al", "O"))
    assert judged(told) == ()
    aluminium, oxygen = pseudopotentials(told)
    assert (aluminium.symbol, aluminium.setup) == ("Al", "Al")
    assert aluminium.path == f"{pots}/potpaw_PBE.64/Al/POTCAR"
    assert (aluminium.titel, aluminium.lexch) == ("PAW_PBE Al 01Jan2001", "PE")
    assert (aluminium.zval, len(aluminium.sha256)) == (4.0, 64)
    assert oxygen.symbol == "O"


def test_files_are_identified_where_they_say_what_they_are(pots):
    damage(pots / "potpaw_PBE.64/Al/POTCAR", "empty")
    damage(pots / "potpaw_PBE.64/Cu/POTCAR", "truncated")
    told = report(vasp(pots, "Al", "O", "Cu", "Si"))
    assert [file.setup for file in pseudopotentials(told)] == ["O", "Cu"]


def test_a_recipe_without_pseudopotentials():
    assert judged(Report(steps=(Step(calculator="emt"),))) == ()


def test_it_looks_at_the_folders_only_if_something_is_wrong(pots, monkeypatch):
    told = report(vasp(pots, "Al"))

    def no(*_):
        raise AssertionError

    monkeypatch.setattr(os, "listdir", no)
    monkeypatch.setattr(os, "stat", no)
    assert judged(told) == ()


# ---- missing files ----


def test_another_variant_is_there(pots):
    finding = ask(pots, "Al", "Ba_sv")
    assert (finding.severity, finding.code) == ("error", "potcar_missing")
    assert finding.path == f"{pots}/potpaw_PBE.64/Ba_sv/POTCAR"
    assert finding.source == "VASP_PP_PATH"
    assert "for Ba: preset BulkSet wants Ba_sv" in finding.message
    assert f"{finding.path} (from VASP_PP_PATH) is not there; found Ba, Ba_xx instead" in (
        finding.message
    )
    assert "add the folder Ba_sv of VASP's potpaw_PBE.64, or choose" in finding.remedy


def test_nothing_of_the_element_is_there(pots):
    finding = ask(pots, "Si")
    assert "found" not in finding.message
    assert "setups" not in finding.remedy


def test_it_is_in_another_library(pots):
    library(pots, "Si", folder="potpaw_PBE.54")
    library(pots, "Si", folder="mine")
    assert "; Si is in mine, potpaw_PBE.54" in ask(pots, "Si").message


def test_every_problem_at_once(pots):
    (pots / "potpaw_PBE.64/Cu/POTCAR").write_text("")
    told = report(vasp(pots, "Al", "Si", "Ba_sv", "Cu"))
    assert [finding.code for finding in judged(told)] == [
        "potcar_missing",
        "potcar_missing",
        "potcar_empty",
    ]


def test_another_spelling_of_the_folder(pots):
    (pots / "potpaw_PBE.64/Al").rename(pots / "potpaw_PBE.64/AL")
    finding = ask(pots, "Al")
    assert "found AL instead" in finding.message
    assert finding.remedy == "rename AL to Al"


@pytest.mark.parametrize(
    ("suffix", "code", "tool"),
    [(".gz", "potcar_missing", "gunzip"), (".Z", "potcar_compressed", "uncompress")],
)
def test_compressed_files(pots, suffix, code, tool):
    path = pots / "potpaw_PBE.64/Al/POTCAR"
    path.rename(f"{path}{suffix}")
    finding = ask(pots, "Al")
    assert finding.code == code
    assert f"POTCAR{suffix}" in finding.message
    assert finding.remedy == f"unpack it: {tool} {path}{suffix}"


def damage(path, how):
    content = path.read_text()
    path.unlink()
    if how == "broken_link":
        path.symlink_to("gone")
    elif how == "link_loop":
        path.symlink_to("POTCAR")
    elif how == "not_a_file":
        path.mkdir()
    else:
        texts = {
            "empty": "",
            "not_text": "\0" * 100,
            "no_header": content[:400],
            "truncated": content[:-100],
            "several": concatenated(["Al", "Cu"]),
            "stray_text": content + "# mine\n",
        }
        path.write_text(texts[how])


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("broken_link", "is a broken link: it points to gone"),
        ("link_loop", "leads back to itself"),
        ("not_a_file", "is not a file: it is a folder"),
        ("empty", "is empty"),
        ("not_text", "is not a text file: it holds NUL bytes"),
        ("no_header", "has no complete header: it has no line 'END of PSCTR"),
        ("truncated", "is cut off: it has no line 'End of Dataset'"),
        ("several", "more than one dataset: PAW_PBE Al 01Jan2001, PAW_PBE Cu 01Jan2001"),
        ("stray_text", "'# mine' follows the line"),
    ],
)
def test_files_that_cannot_be_used(pots, how, words):
    damage(pots / "potpaw_PBE.64/Al/POTCAR", how)
    trouble = Trouble(where="parse", type="ValueError", message="incompatible functionals!")
    finding = ask(pots, "Al", "O", custodian=True, troubles=(trouble,))
    assert (finding.severity, finding.code) == ("error", f"potcar_{how}")
    assert words in finding.message
    there = how not in {"broken_link", "link_loop", "not_a_file"}
    start = "the POTCAR of Al cannot be used: " if there else "no POTCAR for Al: "
    assert finding.message.startswith(start)
    assert finding.remedy


def test_a_file_that_nobody_may_read(pots):
    told = report(vasp(pots, "Al"))
    path = told.steps[0].needs[0].path
    told.files[path] = FileFacts(problem="unreadable", detail="Permission denied")
    finding = only(told, environment={"VASP_PP_PATH": str(pots)})
    assert finding.code == "potcar_unreadable"
    assert "cannot be read: Permission denied" in finding.message
    assert "chmod" in finding.remedy


def test_one_file_for_several_atoms_and_steps_is_one_finding(pots):
    step = vasp(pots, "Al", "Ba_sv")
    step = evolve(step, needs=(*step.needs, *needs(pots, "Ba_sv", reason="parameter setups")))
    finding = only(report(step, step, step))
    assert "in step" not in finding.message


# ---- folders ----


def test_no_path(home):
    finding = only(report(vasp(None, "Al", "Cu_pv")))
    assert (finding.severity, finding.code, finding.path) == ("error", "potcar_unset", None)
    assert finding.message.startswith("VASP_PP_PATH is not set")
    assert finding.message.endswith("wanted for Al, Cu")
    assert finding.remedy == "set VASP_PP_PATH to the folder that holds potpaw_PBE.64"
    (home / ".quacc.yaml").write_text("VASP_PP_PATH: [a]\n")
    finding = only(report(vasp(None, "Al")))
    assert finding.code == "potcar_settings"
    assert ".quacc.yaml must be a path" in finding.message


def test_bad_roots(tmp_path):
    for name, code, words in [
        ("gone", "potcar_path", "does not exist"),
        ("link", "potcar_path", "is a broken link"),
        ("file", "potcar_not_a_folder", "is not a folder"),
    ]:
        root = tmp_path / name
        if name == "link":
            root.symlink_to("gone")
        if name == "file":
            root.touch()
        finding = ask(root, "Al", "Cu", "O")
        assert (finding.code, finding.path) == (code, str(root))
        assert f"the POTCAR folder {root} (from VASP_PP_PATH) {words}" in finding.message
        assert finding.message.endswith("wanted for Al, Cu, O")
        assert "must name the folder that holds potpaw_PBE.64" in finding.remedy


def test_a_relative_root(pots, monkeypatch):
    monkeypatch.chdir(pots.parent)
    told = Report(
        steps=(vasp("pots", "Al"),),
        files={"pots/potpaw_PBE.64/Al/POTCAR": FileFacts(problem="missing")},
    )
    finding = only(told, environment={"VASP_PP_PATH": "pots"})
    assert (finding.code, finding.source) == ("potcar_relative", "VASP_PP_PATH")
    assert "'pots'" in finding.message
    tilde = ask("~/pots", "Al")
    assert tilde.code == "potcar_relative"


def test_paths_that_are_easily_mistyped(tmp_path):
    empty = only(report(vasp(".", "Al")), environment={"VASP_PP_PATH": ""})
    assert (empty.code, empty.source) == ("potcar_unset", "VASP_PP_PATH")
    environment = {"VASP_PP_PATH": "$NOPE/pots"}
    variable = only(report(vasp("$NOPE/pots", "Al")), environment=environment)
    assert variable.remedy.endswith(": the variable $NOPE is not set where jobs run")
    blank = f"{tmp_path} "
    finding = only(report(vasp(blank, "Al")), environment={"VASP_PP_PATH": blank})
    assert f"the POTCAR folder {blank!r} (from VASP_PP_PATH) does not exist" in finding.message


def test_the_wanted_library_is_not_there(pots):
    library(pots, "Al", folder="potpaw_PBE.54")
    library(pots, "Al", folder="potpaw_pbe.99")
    finding = ask(pots, "Al", "Cu", folder="potpaw_PBE.99", reason="parameter pp_version='99'")
    assert finding.code == "potcar_no_library"
    assert finding.path == f"{pots}/potpaw_PBE.99"
    assert "parameter pp_version='99' wants POTCARs of potpaw_PBE.99" in finding.message
    assert "does not exist; folders present: potpaw_PBE.54, potpaw_PBE.64, potpaw_pbe.99" in (
        finding.message
    )
    assert "pp_version" in finding.remedy


def test_the_path_is_itself_a_library(pots):
    root = pots / "potpaw_PBE.64"
    finding = ask(root, "Al")
    assert f"{root} is itself a folder of POTCARs" in finding.message
    assert finding.remedy == f"name the parent folder: VASP_PP_PATH = {pots}"
    root.rename(pots / "potpaw_PBE.54")
    assert "and put potpaw_PBE.64 there" in ask(pots / "potpaw_PBE.54", "Al").remedy
    (pots / "potpaw_PBE.54").rename(pots / "mine")
    assert "is itself a folder of POTCARs" in ask(pots / "mine", "Al").message


def test_an_empty_root(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "correct VASP_PP_PATH" in ask(tmp_path / "empty", "Al").remedy


def test_where_the_path_comes_from(pots, home, tmp_path):
    (home / ".quacc.yaml").write_text(f"VASP_PP_PATH: {pots}\n")
    assert only(report(vasp(pots, "Si"))).source == f"VASP_PP_PATH in {home}/.quacc.yaml"
    config = home / ".config" / "ase" / "config.ini"
    config.parent.mkdir(parents=True)
    config.write_text(f"[environment]\nVASP_PP_PATH = {pots}\n")
    assert only(report(vasp(pots, "Si"))).source == f"[environment] VASP_PP_PATH in {config}"
    other = library(tmp_path / "other", "Al")
    finding = only(report(vasp(other, "Si")))
    assert finding.source == "the recipe"
    # A folder as ``pp``.
    step = vasp(other, "Si", folder="potpaw_PBE.64", reason=f"parameter pp='{other}'")
    finding = only(report(evolve(step, root=str(pots))))
    assert finding.source == f"parameter pp='{other}'"
    step = vasp("/nowhere", "Si", "Al", reason="parameter pp='/nowhere/potpaw_PBE.64'")
    finding = only(report(evolve(step, root=str(pots))))
    assert (finding.code, finding.path) == ("potcar_no_library", "/nowhere/potpaw_PBE.64")


# ---- ends of files, functionals, elements ----


def test_a_loose_end_before_another_file(pots):
    path = pots / "potpaw_PBE.64/Al/POTCAR"
    path.write_text(potcar("Al") + "\n\n")
    assert judged(report(vasp(pots, "O", "Al"), vasp(pots, "Al"))) == ()
    finding = only(report(vasp(pots, "O", "Al"), vasp(pots, "Al", "O")))
    assert (finding.severity, finding.code) == ("error", "potcar_loose_end")
    assert "in step 2 of 2" in finding.message
    path.write_text(potcar("Al").rstrip("\n"))
    assert ask(pots, "Al", "O").code == "potcar_loose_end"


def test_mixed_functionals(pots):
    library(pots, "C", lexch="CA")
    mixed, odd = judged(report(vasp(pots, "Al", "C", "O")))
    assert (mixed.severity, mixed.code) == ("warning", "potcar_mixed")
    assert "LEXCH PE: Al, O; CA: C" in mixed.message
    assert (odd.code, odd.path) == ("potcar_functional", f"{pots}/potpaw_PBE.64/C/POTCAR")
    said = Trouble(where="parse", type="ValueError", message="File contains incompatible")
    mixed, _ = judged(report(vasp(pots, "Al", "C", custodian=True, troubles=(said,))))
    assert (mixed.severity, mixed.code) == ("error", "potcar_mixed")
    assert "custodian refuses" in mixed.message


@pytest.mark.parametrize(
    ("folder", "lexch", "words"),
    [
        ("potpaw_PBE.64", "CA", "LEXCH = CA (LDA), but potpaw_PBE.64 is for PBE: "),
        ("potpaw_PBE", "HL", "LEXCH = HL (LDA), but potpaw_PBE is for PBE: "),
        ("potpaw", "PE", "LEXCH = PE (GGA), but potpaw is for LDA: "),
        ("potpaw_LDA.54", "91", "LEXCH = 91 (GGA), but potpaw_LDA.54 is for LDA: "),
        ("potpaw_PBE.64", "PE", None),
        ("potpaw_PBE.64", "91", None),  # a few of VASP's own are such
        ("potpaw_LDA", "CA", None),
        ("potpaw", "ca", None),
        ("potpaw_PBE.64", "XY", None),
        ("mine", "CA", None),
        ("potpaw_GGA", "CA", None),
        ("potpaw_PBE_mine", "CA", None),
    ],
)
def test_files_for_another_functional_than_their_library(tmp_path, folder, lexch, words):
    library(tmp_path, "Al", "O", folder=folder, lexch=lexch)
    findings = judged(report(vasp(tmp_path, "Al", folder=folder)))
    assert [each.code for each in findings] == ["potcar_functional"] * bool(words)
    if words:
        assert findings[0].severity == "warning"
        assert findings[0].message.endswith(f"{words}{tmp_path}/{folder}/Al/POTCAR")
        both = only(report(vasp(tmp_path, "Al", "O", folder=folder)))
        assert both.message.endswith(f"{words}Al, O in {tmp_path}/{folder}")


def test_the_wrong_element(pots):
    (pots / "potpaw_PBE.64/Al/POTCAR").write_text(potcar("Cu"))
    finding = ask(pots, "Al")
    assert (finding.severity, finding.code) == ("warning", "potcar_element")
    assert finding.message.startswith("WRONG ELEMENT: VASP would compute Cu in the place of Al: ")
    assert "TITEL = PAW_PBE Cu" in finding.message
    assert finding.remedy == "put the POTCAR of Al there"


def test_a_parameter_that_names_another_element(pots):
    # Setups by index are whole names.
    step = vasp(pots, "Cu", reason="preset BulkSet, parameter setups", by_index=True)
    step = evolve(step, needs=(evolve(step.needs[0], symbol="Al"),))
    assert only(report(step)).remedy == "name one of Al with the parameter setups"
    library(pots, "Al_x", element="Cu")
    finding = ask(pots, "Al_x", reason="preset BulkSet, parameter setups")
    assert finding.remedy == "put the POTCAR of Al there"


def test_files_that_are_not_vasps_own(pots):
    told = report(vasp(pots, "Al", "O"), quiet=False)
    for path, known in told.files.items():
        told.files[path] = evolve(known, official=False)
    finding = only(told)
    assert (finding.severity, finding.code) == ("warning", "potcar_unofficial")
    assert finding.message.endswith(f": Al, O in {pots}/potpaw_PBE.64")
    assert finding.path == f"{pots}/potpaw_PBE.64"
    path = next(iter(told.files))
    told.files[path] = evolve(told.files[path], hash_holds=False)
    changed, unofficial = judged(told)
    assert (changed.severity, changed.code, changed.path) == ("warning", "potcar_hash", path)
    assert unofficial.message.endswith(f": {pots}/potpaw_PBE.64/O/POTCAR")


def test_unofficial_files_are_listed_once_for_each_library_and_last(pots):
    setups = ["Al", "O", "Ba", "Cu", "Si", "C", "Bi"]
    library(pots, *setups)
    library(pots, "Cu", folder="potpaw_PBE.54")
    (pots / "potpaw_PBE.64/Al/POTCAR").write_text(potcar("Fe"))
    steps = (
        vasp(pots, *setups, unknown={"encutt": "encut"}),
        vasp(pots, "Cu", folder="potpaw_PBE.54"),
    )
    told = report(*steps, end="stopped")
    for path, known in told.files.items():
        told.files[path] = evolve(known, official=False)
    findings = judged(told)
    assert [each.code for each in findings] == [
        "potcar_element",
        "recipe_partly_checked",
        "parameter_misspelt",
        "potcar_unofficial",
        "potcar_unofficial",
    ]
    assert f": Al, O, Ba, Cu, Si and 2 more in {pots}/potpaw_PBE.64, in step 1" in (
        findings[3].message
    )
    assert f": {pots}/potpaw_PBE.54/Cu/POTCAR, in step 2" in findings[4].message


# ---- troubles ----


def failed(type_, message="", **more):
    trouble = Trouble(where="recipe", type=type_, message=message)
    return report(end="failed", trouble=trouble, **more)


def test_the_recipe_fails():
    finding = only(failed("TypeError", "static_job() got an unexpected\nkeyword \x1b[31m"))
    assert (finding.severity, finding.code) == ("error", "recipe_fails")
    assert f"{STATIC} fails before its first calculation: " in finding.message
    assert "TypeError: static_job() got an unexpected keyword" in finding.message
    # A user's own may need what is only where it runs.
    assert only(failed("KeyError", "'SLURM_NTASKS'"), recipe=THEIRS).severity == "warning"


@pytest.mark.parametrize("text", ["[3,3,3]", " {'Al': '_sv'}", "1e-5", "-3", "True", "none", ".5"])
def test_text_that_should_be_something_else(pots, text):
    given = {"kpts": text, "xc": "pbe", "preset": "BulkSet", "kspacing": 0.3}
    words = (
        f"these are texts, and a list, a mapping or a number may be meant: kpts = {text.strip()!r}"
    )
    finding = only(failed("UFuncTypeError", "ufunc 'multiply' did not"), parameters=given)
    assert finding.remedy == words
    trouble = Trouble(where="input", type="ValueError", message="x")
    assert only(report(vasp(pots, "Al", troubles=(trouble,))), parameters=given).remedy == words
    given["kpts"] = [3, 3, 3]
    assert only(failed("ValueError", "x"), parameters=given).remedy is None


def test_setups_that_are_no_table_of_suffixes(pots):
    finding = only(failed("FileNotFoundError", "Cannot find /presets/cu_pv"))
    assert 'set setups to a table of suffixes, {"Cu": "_pv"}' in finding.remedy
    step = vasp(pots, "AlAl_pv")
    step = evolve(step, needs=(evolve(step.needs[0], symbol="Al"),))
    finding = only(report(step))
    assert finding.remedy == 'setups are suffixes: write setups={"Al": "_pv"}'


def test_a_preset_that_is_not_there(tmp_path):
    (tmp_path / "BulkSet.yaml").touch()
    for name, hint in (
        ("BulkSett", "; did you mean 'BulkSet'?; there are BulkSet"),
        ("Mine", "; there are BulkSet"),
        ("other/Mine", ""),
    ):
        finding = only(failed("FileNotFoundError", f"Cannot find {tmp_path}/{name}.yaml"))
        assert finding.severity == "error"
        assert (
            finding.remedy == f"correct the parameter preset or setups, which names that file{hint}"
        )


def test_ghost_atoms(pots):
    atoms = Atoms("AlXX", cell=[3, 3, 3], pbc=True)
    finding = only(report(vasp(pots, "Al", "X")), atoms=atoms)
    assert (finding.severity, finding.code) == ("error", "potcar_ghost_atom")
    assert "2 of 3 atoms, the first at index 1" in finding.message
    finding = only(failed("AttributeError"), atoms=atoms)
    assert finding.code == "potcar_ghost_atom"
    assert "seen as AttributeError" in finding.message
    # A recipe that does not mind them.
    assert judged(report(vasp(pots, "Al")), atoms=atoms) == ()


def test_structures_without_atoms_or_cell(pots):
    codes = [
        finding.code for finding in judged(failed("ZeroDivisionError", "by zero"), atoms=Atoms())
    ]
    assert codes == ["structure_empty", "structure_no_cell"]
    assert only(failed("LinAlgError"), atoms=Atoms("Al")).code == "structure_no_cell"
    refused = Trouble(where="structure", type="CalculatorSetupError", message="zero!")
    told = report(vasp(pots, "Al", troubles=(refused,)))
    codes = [finding.code for finding in judged(told, atoms=Atoms("Al"))]
    assert codes == ["structure_no_cell", "structure_not_periodic"]
    assert "seen as" not in judged(told, atoms=Atoms("Al"))[0].message
    slab = Atoms("Al", cell=[3, 3, 9], pbc=[True, True, False])
    finding = only(told, atoms=slab)
    assert finding.code == "structure_not_periodic"
    assert "[True, True, False]" in finding.message
    finding = only(told)  # another structure than the job's was refused
    assert (finding.code, "zero!" in finding.message) == ("structure_refused", True)


def test_a_good_structure_explains_nothing():
    assert only(failed("AttributeError", "no x")).code == "recipe_fails"
    codes = [each.code for each in judged(failed("TypeError"), atoms=Atoms("Al"))]
    assert codes == ["recipe_fails"]


def test_input_and_custodian(pots):
    troubles = (
        Trouble(where="input", type="ValueError", message="could not broadcast"),
        Trouble(where="parse", type="KeyError", message="'TITEL'"),
    )
    told = report(vasp(pots, "Al", custodian=True, troubles=troubles))
    same = evolve(told.steps[0], troubles=(troubles[0], troubles[0]))
    assert "in step" not in only(evolve(told, steps=(same,))).message
    findings = judged(told)
    assert [(each.severity, each.code) for each in findings] == [
        ("error", "input_fails"),
        ("error", "potcar_unparsed"),
    ]
    assert "ValueError: could not broadcast" in findings[0].message
    assert "custodian cannot read the POTCAR" in findings[1].message


def test_input_that_custodian_cannot_read(pots):
    def message(where, said, **parameters):
        trouble = Trouble(where=where, type="ValueError", message=said)
        told = report(vasp(pots, "Al", custodian=True, troubles=(trouble,)))
        finding = only(told, parameters=parameters)
        assert (finding.severity, finding.code) == ("error", "input_fails")
        assert "POTCAR" not in finding.message
        return finding.message

    length = "Invalid Kpoint length."
    words = "custodian cannot read the KPOINTS that"
    assert message("KPOINTS", length, kpts=[3, 3], encut=500) == (
        f"{words} is made from kpts = [3, 3]: ValueError: {length}"
    )
    assert message("KPOINTS", length) == f"{words} is written: ValueError: {length}"
    boolean = "LREAL should be a boolean type!"
    assert "the INCAR that is made from lreal = 'x': " in message("INCAR", boolean, lreal="x")
    assert "the POSCAR that is written: " in message("POSCAR", "Empty POSCAR", kpts=[3])


def test_what_is_not_seen(pots):
    why = Trouble(where="recipe", type="Unknown", message="the 'energy' of a result is needed")
    finding = only(report(end="stopped", trouble=why), recipe=THEIRS)
    assert (finding.severity, finding.code) == ("warning", "recipe_unchecked")
    assert finding.message.endswith("could not be checked: the 'energy' of a result is needed")
    lost = Trouble(where="recipe", type="FileNotFoundError", message="no Nope.yaml")
    assert "FileNotFoundError: no Nope" in only(report(end="stopped", trouble=lost)).message
    finding = only(report(vasp(pots, "Al"), vasp(pots, "Al"), end="stopped", trouble=why))
    assert (finding.severity, finding.code) == ("warning", "recipe_partly_checked")
    assert "only steps 1 to 2 of" in finding.message


def test_later_steps(pots):
    trouble = Trouble(where="input", type="ValueError", message="x")
    told = report(vasp(pots, "Al"), vasp(pots, "Si", troubles=(trouble,)), vasp(pots, "Al"))
    for recipe, severity in ((FLOW, "error"), (THEIRS, "warning")):
        findings = judged(told, recipe=recipe)
        assert [each.code for each in findings] == ["potcar_missing", "input_fails"]
        assert {each.severity for each in findings} == {severity}
        assert all("in step 2 of 3" in each.message for each in findings)
    finding = only(report(vasp(pots, "Si"), vasp(pots, "Al")), recipe=THEIRS)
    assert (finding.severity, "in step 1 of 2" in finding.message) == ("error", True)


def test_a_recipe_that_goes_on_is_not_refused(pots):
    told = report(vasp(pots, "Si"), survives=True)
    findings = judged(told, recipe=THEIRS)
    assert [each.code for each in findings] == ["potcar_missing", "recipe_goes_on"]
    assert {each.severity for each in findings} == {"warning"}


def test_errors_come_first(pots):
    (pots / "potpaw_PBE.64/Al/POTCAR").write_text(potcar("Cu"))
    trouble = Trouble(where="input", type="ValueError", message="x")
    told = report(vasp(pots, "Al", unknown={"encutt": "encut"}, troubles=(trouble,)))
    assert [each.severity for each in judged(told)] == ["error", "warning", "warning"]


# ---- parameters ----


@pytest.mark.parametrize(
    ("name", "near", "remedy"),
    [
        ("encutt", "encut", "did you mean 'encut'?"),
        ("ncors", "ncore", "did you mean 'ncore'?"),
        # A newer VASP may have it.
        ("kspacing_optt", "kspacing", "did you mean 'kspacing'?"),
        ("qqqqqq", None, None),
        (
            "fmax",
            "hflmax",
            "VASP's EDIFFG, if negative, is the largest force in eV/Å: ediffg=-0.01",
        ),
        (
            "potcar",
            "npar",
            'choose datasets by suffixes, setups={"Cu": "_pv"}, and their release by pp_version',
        ),
        ("max_steps", None, "VASP's NSW is the number of ionic steps: nsw=100"),
        ("ecutwfc", None, "VASP's ENCUT is the cutoff, in eV (1 Ry is 13.6 eV): encut=520"),
    ],
)
def test_unknown_parameters(pots, name, near, remedy):
    step = vasp(pots, "Al", unknown={name: near})
    finding = only(report(step, step))
    code = "parameter_misspelt" if name in {"encutt", "ncors"} else "parameter_unknown"
    assert (finding.severity, finding.code) == ("warning", code)
    assert (repr(name) in finding.message, finding.remedy) == (True, remedy)


# ---- Quantum ESPRESSO ----

PW = "quacc.recipes.espresso.core.static_job"


def pw(root, **files):
    place = f"{root}/" if root else ""
    reason = "parameter pseudopotentials"
    return Step(
        calculator="espresso",
        root=root and str(root),
        needs=tuple(
            Need(symbol=symbol, setup=name, path=f"{place}{name}", reason=reason)
            for symbol, name in files.items()
        ),
    )


def test_espresso(tmp_path, home):
    (tmp_path / "Si.pbe.UPF").write_text("<UPF version='2'>\n<PP_MESH>\n")
    (tmp_path / "si.upf").touch()
    (home / ".quacc.yaml").write_text(f"ESPRESSO_PSEUDO: {tmp_path}\n")
    source = f"ESPRESSO_PSEUDO in {home}/.quacc.yaml"
    missing = only(report(pw(tmp_path, Si="Si.upf")), recipe=PW)
    assert (missing.severity, missing.code) == ("error", "upf_missing")
    assert missing.source == source
    assert "no pseudopotential for Si: parameter pseudopotentials wants Si.upf" in missing.message
    assert "found Si.pbe.UPF, si.upf instead" in missing.message
    cut = only(report(pw(tmp_path, Si="Si.pbe.UPF")), recipe=PW)
    assert cut.code == "upf_truncated"
    told = report(pw(tmp_path, Si="si.upf"))
    told.files[f"{tmp_path}/si.upf"] = FileFacts(element="Al", sha256="0" * 64)
    wrong = judged(told, recipe=PW)[0]
    assert wrong.message.startswith("WRONG ELEMENT: pw.x would compute Al")
    assert wrong.remedy == "name one of Si with the parameter pseudopotentials"
    (step,) = told.steps
    step = evolve(step, needs=(evolve(step.needs[0], reason="preset SSSP"),))
    wrong = judged(evolve(told, steps=(step,)), recipe=PW)[0]
    assert wrong.remedy == "put the pseudopotential of Si there"
    assert pseudopotentials(told)[0].titel is None


def test_espresso_folders(tmp_path):
    unset = only(report(pw(None, Si="Si.upf")), recipe=PW)
    assert (unset.code, unset.source) == ("upf_unset", "QUACC_ESPRESSO_PSEUDO")
    assert "quacc does not read it" not in unset.message
    environment = {"ESPRESSO_PSEUDO": str(tmp_path)}
    unset = only(report(pw(None, Si="Si.upf")), recipe=PW, environment=environment)
    assert "ESPRESSO_PSEUDO is set, but quacc does not read it" in unset.message
    assert "set QUACC_ESPRESSO_PSEUDO to" in unset.remedy
    gone = only(report(pw(tmp_path / "gone", Si="Si.upf", Al="Al.upf")), recipe=PW)
    assert (gone.code, gone.source) == ("upf_path", "the parameter input_data")
    assert "wanted for Si, Al" in gone.message
    environment = {"QUACC_ESPRESSO_PSEUDO": str(tmp_path / "gone")}
    gone = only(report(pw(tmp_path / "gone", Si="Si.upf")), recipe=PW, environment=environment)
    assert gone.source == "QUACC_ESPRESSO_PSEUDO"
    finding = only(report(pw(tmp_path, Si="sub/Si.upf")), recipe=PW)
    assert finding.code == "upf_no_library"


# ---- recipes that could not be asked ----


def test_a_recipe_that_could_not_be_asked(home):
    finding = unasked("it took longer than\n10 s", STATIC, {})
    assert (finding.severity, finding.code) == ("warning", "recipe_unchecked")
    assert "it took longer than 10 s" in finding.message
    (home / ".quacc.yaml").write_text("a: [")
    finding = unasked("it exited", STATIC, {})
    assert (finding.severity, finding.code) == ("error", "potcar_settings")
    assert ".quacc.yaml" in finding.message
    assert unasked("it exited", PW, {}).severity == "warning"


def test_settings_that_quacc_does_not_start_with(home):
    (home / ".quacc.yaml").write_text("GZIP_FILES: perhaps\n")
    environment = {"QUACC_VASP_INCAR_COPILOT_MODE": "sometimes"}
    refused = {"VASP_INCAR_COPILOT_MODE": "should be 'off'", "GZIP_FILES": "should be a bool"}
    for recipe in (STATIC, PW, THEIRS):
        finding = unasked("it exited", recipe, environment, refused)
        assert (finding.severity, finding.code) == ("error", "quacc_settings")
        assert finding.message == (
            "quacc does not start with these settings: QUACC_VASP_INCAR_COPILOT_MODE is "
            f"'sometimes': should be 'off'; GZIP_FILES in {home}/.quacc.yaml is 'perhaps': should "
            "be a bool"
        )
        assert finding.source == "QUACC_VASP_INCAR_COPILOT_MODE"
        assert finding.remedy.startswith("correct QUACC_VASP_INCAR_COPILOT_MODE and GZIP_FILES in")
    (home / ".quacc.yaml").write_text("a: [")
    finding = unasked("it exited", PW, {}, {"": "while parsing a flow node"})
    assert (finding.severity, finding.code) == ("error", "quacc_settings")
    assert finding.message.endswith("settings: while parsing a flow node")


# ---- any names ----

NAMES = st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=8)


@given(NAMES, NAMES, NAMES, st.text(max_size=9), st.sampled_from(["missing", "truncated", None]))
def test_any_name_is_written_on_one_line(root, setup, symbol, words, problem):
    need = Need(symbol=symbol, setup=setup, path=f"/{root}/lib/{setup}/POTCAR", reason=words)
    trouble = Trouble(where="input", type="ValueError", message=words)
    step = Step(
        calculator="vasp",
        needs=(need,),
        root=f"/{root}",
        troubles=(trouble,),
        unknown={words: None},
    )
    known = FileFacts(problem=problem, sha256="0" * 64, element=setup, titel=words, official=False)
    told = Report(steps=(step,), files={need.path: known}, end="stopped", trouble=trouble)
    findings = judged(told, recipe=words, environment={"VASP_PP_PATH": f"/{root}"})
    for finding in findings:
        (finding.path or "").encode()
    assert (problem is None) or any(each.severity == "error" for each in findings)


def test_surrogates_can_be_stored(tmp_path):
    odd = os.fsdecode(b"\xff")
    path = tmp_path / odd / "potpaw_PBE.64" / "Al" / "POTCAR"
    path.parent.mkdir(parents=True)
    path.write_text(potcar("Al"))
    told = report(vasp(tmp_path / odd, "Al"), vasp(tmp_path / odd, "Cu"))
    assert "\\udcff" in judged(told)[0].path
    pseudopotentials(told)[0].path.encode()
    assert Path(path).exists()
