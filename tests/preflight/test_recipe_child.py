"""What recipes say they would read, asked in a real child."""

import os
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.constraints import FixAtoms

from crystalmath.preflight import inspector
from crystalmath.recipes import lookup
from vasp.potcars import library

pytestmark = pytest.mark.vasp

RECIPES = Path(__file__).parent / "recipes"

#: What the recipes cannot do without.
REQUIRED = {"adsorbate": molecule("CO"), "level": "PBE", "prev_dir": "/nowhere", "copy_files": []}

#: The one thing that is no calculation's fault: an extra is not installed.
EXTRA = "is not installed. Run `pip install quacc["

VASP = "quacc.recipes.vasp."
EMT = "quacc.recipes.emt."
ESPRESSO = "quacc.recipes.espresso."
GRID = f"{ESPRESSO}phonons.grid_phonon_flow"
OWN = "own_recipes."


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("place")


@pytest.fixture(scope="module")
def environment(place):
    setups = ("Al", "Si", "O", "C", "Ba", "Ba_sv", "Bi", "Bi_d", "Cr", "Cr_pv", "Fe")
    for folder in ("64", "54", "original"):
        library(place / "pp", *setups, folder=f"potpaw_PBE.{folder}")
    library(place / "pp", "Al", folder="potpaw", lexch="CA")
    library(place / "pp", "Al", folder="mine")
    (place / "upf").mkdir()
    yield {
        "VASP_PP_PATH": f"{place}/pp",
        "QUACC_ESPRESSO_PSEUDO": f"{place}/upf",
        "QUACC_CONFIG_FILE": f"{place}/none.yaml",
        "ASE_CONFIG_PATH": f"{place}/none.ini",
        "CRYSTALMATH_RECIPES": "own_recipes",
        "PYTHONPATH": str(RECIPES),
    }
    inspector.close()


@pytest.fixture(scope="module")
def ask(environment):
    def ask(recipe, atoms, *, calls=False, **parameters):
        return inspector.ask(recipe, atoms, parameters, environment, calls=calls)

    return ask


def names(report):
    """Return the folders of each step's files, as library/setup."""
    return [["/".join(need.path.split("/")[-3:-1]) for need in step.needs] for step in report.steps]


def troubles(report):
    return [(trouble.where, trouble.type) for step in report.steps for trouble in step.troubles]


def catalogue():
    found = [recipe for recipe in lookup.catalogue() if recipe.name.startswith((VASP, ESPRESSO))]
    assert len(found) > 50
    return found


@pytest.mark.parametrize("recipe", catalogue(), ids=lambda recipe: recipe.name[14:])
def test_every_recipe_of_quacc_is_seen_or_says_what_it_lacks(recipe, ask):
    required = recipe.signature.parameters.values()
    given = [
        each.name
        for each in required
        if each.default is each.empty and each.kind != each.VAR_KEYWORD
    ]
    parameters = {name: REQUIRED[name] for name in given[1:]}
    if recipe.name == GRID:
        parameters["job_params"] = {"ph_job": {"input_data": {}}}
    report = ask(recipe.name, bulk("Al"), **parameters)
    if report.end == "failed":
        assert report.trouble.type == "RuntimeError"
        assert EXTRA in report.trouble.message
    elif "prev_dir" in parameters:
        assert (report.end, report.trouble.type) == ("stopped", "FileNotFoundError")
    else:
        assert report.steps
        for step in report.steps:
            assert step.unknown == {}
            assert step.calculator == recipe.name.split(".")[2]


PRESETS = [
    ("core.static_job", {}, "potpaw_PBE.64/Ba_sv potpaw_PBE.64/Bi_d potpaw_PBE.64/Cr_pv"),
    (
        "core.static_job",
        {"preset": "QMOFSet"},
        "potpaw_PBE.54/Ba_sv potpaw_PBE.54/Bi_d potpaw_PBE.54/Cr_pv",
    ),
    ("slabs.relax_job", {}, "potpaw_PBE.64/Ba_sv potpaw_PBE.64/Bi_d potpaw_PBE.64/Cr_pv"),
    (
        "mp_aloe.mp_aloe_static_job",
        {},
        "potpaw_PBE.64/Ba_sv_GW potpaw_PBE.64/Bi potpaw_PBE.64/Cr_pv",
    ),
    (
        "mp_legacy.mp_relax_set_job",
        {},
        "potpaw_PBE.original/Ba_sv potpaw_PBE.original/Bi potpaw_PBE.original/Cr_pv",
    ),
]


@pytest.mark.parametrize(("recipe", "parameters", "wanted"), PRESETS)
def test_presets_name_exact_datasets(recipe, parameters, wanted, ask):
    atoms = Atoms("BaBiCr", positions=np.eye(3) * 3, cell=[9, 9, 9], pbc=True)
    report = ask(VASP + recipe, atoms, **parameters)
    assert sorted(names(report)[0]) == wanted.split()


CHOICES = [
    ({}, "potpaw_PBE.64/Al", "preset DefaultSetGGA"),
    ({"setups": {"Al": "_x"}}, "potpaw_PBE.64/Al_x", "preset DefaultSetGGA, parameter setups"),
    ({"pp": "mine"}, "mine/Al", "preset DefaultSetGGA, parameter pp='mine'"),
    ({"pp": "lda", "pp_version": None}, "potpaw/Al", "preset DefaultSetGGA, parameter pp='lda'"),
    ({"preset": None, "xc": "lda", "pp_version": "64"}, "potpaw_LDA.64/Al",
     "parameter pp_version='64', parameter xc='lda'"),
    ({"PP_VERSION": "54"}, "potpaw_PBE.54/Al", "preset DefaultSetGGA, parameter pp_version='54'"),
    ({"pp_version": "6.4"}, "potpaw_PBE.6.4/Al",
     "preset DefaultSetGGA, parameter pp_version='6.4'"),
    ({"preset": None}, "potpaw/Al", "ASE's default"),
    ({"preset": None, "xc": "pbe", "setups": "recommended"}, "potpaw_PBE/Al",
     "parameter setups='recommended', parameter xc='pbe'"),
]  # fmt: skip


@pytest.mark.parametrize(("parameters", "wanted", "reason"), CHOICES)
def test_parameters_choose_the_file_and_the_reason_names_them(parameters, wanted, reason, ask):
    [step] = ask(VASP + "core.static_job", bulk("Al"), **parameters).steps
    assert step.needs[0].path.endswith(f"/{wanted}/POTCAR")
    assert step.needs[0].reason == reason


def test_what_the_recipe_chose_is_not_said_to_be_the_users(ask):
    [step] = ask(VASP + "mp_aloe.mp_aloe_static_job", bulk("Al"), pp_version="54").steps
    assert step.needs[0].reason == (
        "the recipe's setups, the recipe's pp='pbe', parameter pp_version='54'"
    )


def test_setups_of_the_user_replace_all_of_the_presets(ask):
    atoms = Atoms("BaO", positions=[[0, 0, 0], [0, 0, 2]], cell=[5, 5, 5], pbc=True)
    report = ask(VASP + "core.static_job", atoms, setups={"O": ""})
    assert names(report) == [["potpaw_PBE.64/Ba", "potpaw_PBE.64/O"]]


def test_a_setup_for_an_atoms_index_is_a_full_name(ask):
    atoms = bulk("Al", cubic=True)
    report = ask(VASP + "core.static_job", atoms, setups={2: "Al_GW"})
    assert names(report) == [["potpaw_PBE.64/Al_GW", "potpaw_PBE.64/Al"]]
    assert [need.symbol for need in report.steps[0].needs] == ["Al", "Al"]
    assert report.steps[0].by_index
    assert not ask(VASP + "core.static_job", atoms).steps[0].by_index


def test_setups_and_presets_may_be_yaml_files_which_may_change(ask, tmp_path):
    file = tmp_path / "mine.yaml"
    for setup in ("Al_a", "Al_b"):
        file.write_text(f"inputs:\n  xc: pbe\n  setups:\n    Al: {setup}\n")
        report = ask(VASP + "core.static_job", bulk("Al"), preset=str(file))
        assert names(report) == [[f"potpaw_PBE/{setup}"]]
        report = ask(VASP + "core.static_job", bulk("Al"), setups=file)
        assert names(report) == [[f"potpaw_PBE.64/{setup}"]]


def test_the_root_is_what_ase_takes(ask, place):
    [step] = ask(VASP + "core.static_job", bulk("Al")).steps
    assert step.root == f"{place}/pp"
    assert step.custodian
    assert not ask(VASP + "core.static_job", bulk("Al"), use_custodian=False).steps[0].custodian


def test_ases_own_configuration_comes_before_quaccs_settings(environment, place, tmp_path):
    config = tmp_path / "config.ini"
    config.write_text(f"[environment]\nVASP_PP_PATH = {tmp_path}/first\n")
    other = environment | {
        "ASE_CONFIG_PATH": str(config),
        "QUACC_VASP_PP_PATH": f"{tmp_path}/second",
    }
    recipe = VASP + "core.static_job"
    assert inspector.ask(recipe, bulk("Al"), {}, other).steps[0].root == f"{tmp_path}/first"
    # The file changes, and so does the answer.
    config.write_text("")
    assert inspector.ask(recipe, bulk("Al"), {}, other).steps[0].root == f"{tmp_path}/second"


def test_without_any_path_ase_looks_below_the_working_directory(environment):
    bare = {name: value for name, value in environment.items() if name != "VASP_PP_PATH"}
    report = inspector.ask(VASP + "core.static_job", bulk("Al"), {}, bare)
    assert report.steps[0].root is None
    assert report.steps[0].needs[0].path == "potpaw_PBE.64/Al/POTCAR"
    assert report.files["potpaw_PBE.64/Al/POTCAR"].problem == "missing"


def test_all_steps_of_a_flow_are_seen_with_their_own_parameters(ask):
    report = ask(
        VASP + "core.double_relax_flow", bulk("Al"), relax2_kwargs={"setups": {"Al": "_GW"}}
    )
    assert names(report) == [["potpaw_PBE.64/Al"], ["potpaw_PBE.64/Al_GW"]]
    assert report.end == "done"


def test_the_calls_of_a_flow_are_known_up_to_the_first_result_that_is_needed(ask):
    slabs = ask(EMT + "slabs.bulk_to_slabs_flow", bulk("Al"), calls=True)
    first = [call.name.removeprefix("bulk_to_slabs_subflow#0/") for call in slabs.calls[:2]]
    assert first == ["relax_job#0", "static_job#0"]
    assert {(call.known, call.recipe) for call in slabs.calls} == {
        (True, EMT + "core.relax_job"),
        (True, EMT + "core.static_job"),
    }
    assert [call.steps for call in slabs.calls] == [(n, n + 1) for n in range(len(slabs.steps))]
    assert slabs.awaits is None
    assert not ask(EMT + "core.relax_job", bulk("Al"), calls=True).calls
    grid = ask(GRID, None, job_params={"ph_job": {"input_data": {}}}, calls=True)
    assert [(call.name, call.known) for call in grid.calls] == [("phonon_job#0", True)]
    assert (grid.end, grid.awaits) == ("stopped", "phonon_job#0")


@pytest.mark.parametrize(
    ("flow", "expected", "awaits"),
    [
        ("relaxes_twice", {"relax_job#0": True, "relax_job#1": True}, None),
        # Only a result says whether it is relaxed again, and the stand-in lets it.
        ("looks_at_atoms", {"relax_job#0": True, "relax_job#1": False}, "relax_job#0"),
        # A reference is no text; what a body makes of one is a guess.
        ("joins_text", {"relax_job#0": True}, None),
        ("keeps_a_step", {"relax_job#0": False}, "builtins.len#0"),
    ],
)
def test_what_only_results_decide_is_told_apart(flow, expected, awaits, ask):
    report = ask(f"{OWN}{flow}", bulk("Al"), calls=True)
    assert {call.name: call.known for call in report.calls} == expected
    assert report.awaits == awaits
    assert report.end == ("stopped" if flow == "joins_text" else "done")


@pytest.mark.parametrize("inputs", [False, True])
def test_no_job_of_a_users_own_flow_runs(inputs, environment, tmp_path):
    given = {"folder": str(tmp_path)}
    report = inspector.ask(
        f"{OWN}touches", bulk("Al"), given, environment, inputs=inputs, calls=True
    )
    assert os.listdir(tmp_path) == []
    # quacc's own are judged all the same, and what follows is known as far as it is certain.
    assert [step.calculator for step in report.steps] == ["vasp", "vasp"]
    touched = {f"{OWN}touched#{number}": number == 0 for number in range(3)}
    relaxed = {"relax_job#0": False, "relax_job#1": False}
    assert {call.name: call.known for call in report.calls} == {**relaxed, **touched}
    assert report.awaits == f"{OWN}noted#0"
    assert (report.end, str(report.trouble)) == (
        "stopped",
        f"Unknown: the result of {OWN}touched#0 is needed",
    )


@pytest.mark.parametrize(("number", "known"), [(1500, 1500), (6000, 5000)])
def test_as_many_calls_are_known_as_a_flow_may_have(number, known, ask):
    report = ask(f"{OWN}touches_many", None, number=number, calls=True)
    assert sum(call.known for call in report.calls) == known
    assert len(report.calls) == number
    if known == number:
        assert report.end == "done"
    else:
        assert report.end == "stopped"
        assert "calls more than 5000 steps" in str(report.trouble)


def test_a_flow_that_fails_with_and_without_results_is_bound_to(ask):
    report = ask(GRID, None)
    assert (report.end, str(report.trouble)) == ("failed", "KeyError: 'ph_job'")
    # No stand-in is to blame for a wrong name of a parameter, either.
    wrong = ask(f"{OWN}misnames", bulk("Al"))
    assert (wrong.end, len(wrong.steps)) == ("failed", 1)
    assert "unexpected keyword argument 'shfit'" in wrong.trouble.message


def test_every_slab_is_relaxed_and_then_calculated(ask):
    relax = ask(VASP + "slabs.bulk_to_slabs_flow", bulk("Al"), run_static=False)
    both = ask(
        VASP + "slabs.bulk_to_slabs_flow",
        bulk("Al"),
        job_params={"static_job": {"pp_version": "54"}},
    )
    assert (relax.end, both.end) == ("done", "done")
    assert len(both.steps) == 2 * len(relax.steps) > 2
    assert names(both) == [["potpaw_PBE.64/Al"], ["potpaw_PBE.54/Al"]] * len(relax.steps)


def test_an_adsorbate_is_among_the_files_of_its_slab(ask):
    report = ask(VASP + "slabs.slab_to_ads_flow", bulk("Al", cubic=True), adsorbate=molecule("CO"))
    assert {name for step in names(report) for name in step} == {
        f"potpaw_PBE.64/{symbol}" for symbol in ("Al", "C", "O")
    }


@pytest.mark.parametrize("recipe", ["core.ase_relax_job", "core.freq_job", "qmof.qmof_relax_job"])
def test_ases_optimizers_and_vibrations_are_seen_like_other_runs(recipe, ask):
    report = ask(VASP + recipe, bulk("Al"))
    assert report.end == "done"
    assert len(report.steps) == (6 if "qmof" in recipe else 1)


def test_names_that_nobody_knows_are_told(ask):
    parameters = {"encutt": 520, "LDIPOLL": True, "kptz": 3, "qqqqqq": 1}
    parameters |= {"ncore": 2, "ivdw": 11, "ENCUT": 500}
    [step] = ask(VASP + "core.static_job", bulk("Al"), **parameters).steps
    assert dict(step.unknown) == {
        "encutt": "encut",
        "ldipoll": "ldipol",
        "kptz": "kpts",
        "qqqqqq": None,
    }


BAD = [
    ({"kpts": "[3,3,3]"}, "UFuncTypeError"),
    ({"xc": "pbe1"}, "ValueError"),
    ({"encutt": {"a": 1}}, "TypeError"),
]


@pytest.mark.parametrize(("parameters", "type_"), BAD)
def test_what_the_recipe_dies_of_is_its_trouble(parameters, type_, ask):
    report = ask(VASP + "core.static_job", bulk("Al"), **parameters)
    assert (report.end, report.trouble.where, report.trouble.type) == ("failed", "recipe", type_)


def test_what_ase_cannot_write_is_a_trouble_of_the_input(ask):
    report = ask(VASP + "core.static_job", bulk("Al"), magmom=[1.0, 2.0])
    assert troubles(report) == [("input", "ValueError")]
    # A missing file does not hide it.
    report = ask(VASP + "core.static_job", bulk("Al"), magmom=[1.0, 2.0], pp_version="52")
    assert troubles(report) == [("input", "ValueError")]
    assert [facts.problem for facts in report.files.values()] == ["missing"]


def test_a_net_charge_needs_the_potcar_itself(ask):
    assert troubles(ask(VASP + "core.static_job", bulk("Al"), charge=1)) == []
    report = ask(VASP + "core.static_job", bulk("Al"), charge=1, pp_version="52")
    assert troubles(report) == []
    assert [facts.problem for facts in report.files.values()] == ["missing"]


STRUCTURES = {
    "a ghost": Atoms("AlX", positions=np.eye(3)[:2], cell=[4, 4, 4], pbc=True),
    "no cell": Atoms("Al"),
    "not periodic": Atoms("Al", cell=[4, 4, 4]),
}


@pytest.mark.parametrize("atoms", STRUCTURES.values(), ids=STRUCTURES)
def test_structures_that_cannot_be_calculated(atoms, ask):
    report = ask(VASP + "core.static_job", atoms)
    assert report.end == "failed" or troubles(report)[0][0] == "structure"


def test_a_file_that_cannot_be_written_or_read_back_is_named(ask):
    recipe = VASP + "core.static_job"
    assert troubles(ask(recipe, bulk("Al"), kpts=[3, 3])) == [("KPOINTS", "ValueError")]
    assert troubles(ask(recipe, bulk("Al"), kpts=[3, 3], use_custodian=False)) == []
    [step] = ask(recipe, bulk("Al"), encut="abc").steps
    [trouble] = step.troubles
    assert trouble.where == "input"
    assert trouble.message.startswith("text in place of a number: encut = 'abc' (Unknown format")


def test_custodian_reads_what_vasp_would(ask, place, environment):
    file = place / "pp/potpaw_PBE.64/Fe/POTCAR"
    lines = file.read_text().replace("LEXCH  = PE", "LEXCH  = CA")
    other = Atoms("AlFe", positions=[[0, 0, 0], [0, 0, 2]], cell=[4, 4, 4], pbc=True)
    recipe = VASP + "core.static_job"
    assert troubles(ask(recipe, other)) == []
    file.write_text(lines)
    assert troubles(ask(recipe, other)) == [("parse", "ValueError")]
    assert troubles(ask(recipe, other, use_custodian=False)) == []
    # What is known of a file by itself is not said again.
    file.write_text(lines.replace("TITEL", "TITLE"))
    report = ask(recipe, other)
    assert troubles(report) == []
    assert report.files[str(file)].problem


SILICON = "Si.pbe-n-rrkjus_psl.1.0.0.UPF"


def test_espresso_reads_the_files_of_its_preset(ask, place):
    [step] = ask(ESPRESSO + "core.static_job", bulk("Si")).steps
    assert (step.calculator, step.root) == ("espresso", f"{place}/upf")
    [need] = step.needs
    assert (need.symbol, need.setup, need.path) == ("Si", SILICON, f"{place}/upf/{SILICON}")
    assert need.reason == "preset sssp_1.3.0_pbe_efficiency"


def test_espresso_follows_pseudo_dir_and_pseudopotentials(ask):
    atoms = bulk("Fe", cubic=True)
    atoms.set_initial_magnetic_moments([2, -2])
    [step] = ask(
        ESPRESSO + "core.relax_job",
        atoms,
        pseudopotentials={"Fe": "mine.UPF"},
        input_data={"control": {"pseudo_dir": "/else/where"}},
    ).steps
    # Two species of one element, but one file.
    assert [need.path for need in step.needs] == ["/else/where/mine.UPF"]
    assert step.needs[0].reason == "preset sssp_1.3.0_pbe_efficiency, parameter pseudopotentials"


def test_espresso_without_a_name_for_an_element(ask):
    atoms = Atoms("AlSi", positions=[[0, 0, 0], [0, 0, 2]], cell=[4, 4, 4], pbc=True)
    report = ask(ESPRESSO + "core.static_job", atoms, preset=None, pseudopotentials={"Al": "a.upf"})
    assert troubles(report) == [("input", "KeyError")]
    assert "Si" in report.steps[0].troubles[0].message
    assert [need.setup for need in report.steps[0].needs] == ["a.upf"]


def test_only_pw_reads_pseudopotentials(ask):
    report = ask(ESPRESSO + "dos.dos_flow", bulk("Si"))
    assert [len(step.needs) for step in report.steps] == [1, 1, 0]
    assert report.end == "done"


def test_espresso_may_go_on_from_what_another_calculation_saved(ask, tmp_path):
    saved = tmp_path / "pwscf.save"
    saved.mkdir()
    (saved / SILICON).write_text("<UPF>")
    recipe = ESPRESSO + "core.non_scf_job"
    report = ask(recipe, bulk("Si"), prev_outdir=str(tmp_path))
    assert list(report.files) == [f"{saved}/{SILICON}"]
    (saved / SILICON).rename(saved / f"{SILICON}.gz")
    assert ask(recipe, bulk("Si"), prev_outdir=str(tmp_path)).steps[0].needs == ()
    assert os.listdir(saved) == [f"{SILICON}.gz"]


def test_debians_own_folder_is_looked_at_by_debians_program_only(environment, place):
    """As tried with pw.x 6.7: what is in none of the folders named is looked for there."""
    name = "Si.pz-vbc.UPF"
    own = Path("/usr/share/espresso/pseudo") / name
    if not own.exists():
        pytest.skip("needs Debian's quantum-espresso-data")
    parameters = {"preset": None, "pseudopotentials": {"Si": name}}

    def ask(bin_dir):
        other = environment | {"QUACC_ESPRESSO_BIN_DIR": str(bin_dir)}
        return inspector.ask(ESPRESSO + "core.static_job", bulk("Si"), parameters, other)

    for folder, content in (("debian", b"\0/usr/share/espresso/pseudo/\0"), ("other", b"\0")):
        program = place / folder / "pw.x"
        program.parent.mkdir()
        program.write_bytes(content)
        program.chmod(0o755)
    assert list(ask(place / "debian").files) == [str(own)]
    assert list(ask(place / "other").files) == [f"{place}/upf/{name}"]


OWN_WAYS = [
    ("at_once", ["vasp"], "stopped"),
    ("plain", ["vasp"], "stopped"),
    ("neb", ["vasp", "vasp"], "done"),
    ("emt_first", ["emt", "vasp"], "done"),
    ("final_atoms", ["vasp", "vasp"], "stopped"),
    ("where_the_energy_leads", ["vasp"], "stopped"),
    ("careless", ["vasp"], "stopped"),
    ("reckless", ["vasp"], "stopped"),
    ("converged", ["vasp"], "stopped"),
    ("merged", ["vasp"], "stopped"),
    ("breaks", [], "failed"),
    ("leaves", [], "failed"),
    ("opens", [], "stopped"),
]


@pytest.mark.parametrize(("recipe", "calculators", "end"), OWN_WAYS)
def test_recipes_of_the_users_own_are_followed_as_far_as_that_goes(recipe, calculators, end, ask):
    report = ask(OWN + recipe, bulk("Al"))
    assert [step.calculator for step in report.steps] == calculators
    assert report.end == end
    assert (report.trouble is None) == (end == "done")


def test_ases_own_espresso_is_asked_too(ask):
    report = ask(
        OWN + "plain_espresso", bulk("Si"), pseudo_dir="/pseudo", pseudopotentials={"Si": "Si.upf"}
    )
    assert [need.path for need in report.steps[0].needs] == ["/pseudo/Si.upf"]


def test_after_fifty_calculations_it_is_enough(ask):
    report = ask(OWN + "many", bulk("Al"), number=60)
    assert (len(report.steps), report.end) == (50, "stopped")
    assert ask(OWN + "many", bulk("Al"), number=50).end == "done"


def test_settings_of_a_recipes_own_count_and_make_no_folder(ask, tmp_path):
    report = ask(OWN + "other_folders", bulk("Al"), folder=str(tmp_path / "new"))
    assert report.steps[0].root == f"{tmp_path}/new/pp"
    assert os.listdir(tmp_path) == []
    # They end with it.
    assert ask(OWN + "plain", bulk("Al"), xc="pbe").steps[0].root != report.steps[0].root


def test_no_command_is_run(ask, tmp_path):
    report = ask(OWN + "command", bulk("Al"), file=str(tmp_path / "touched"))
    assert report.end == "stopped"
    assert os.listdir(tmp_path) == []


def test_what_is_asked_stays_as_it_was(ask):
    atoms = bulk("Al", cubic=True)
    atoms.set_constraint(FixAtoms([0]))
    before = atoms.copy()
    setups = {"Al": "_x"}
    ask(OWN + "changes", atoms)
    ask(VASP + "core.static_job", atoms, setups=setups)
    assert atoms == before
    assert (atoms.calc, setups) == (None, {"Al": "_x"})


def test_quaccs_own_folders_are_not_made(environment, tmp_path):
    folders = {
        "QUACC_RESULTS_DIR": f"{tmp_path}/results",
        "QUACC_SCRATCH_DIR": f"{tmp_path}/scratch",
    }
    log = {"QUACC_LOG_FILENAME": f"{tmp_path}/log"}
    report = inspector.ask(VASP + "core.static_job", bulk("Al"), {}, environment | folders | log)
    assert report.end == "done"
    assert os.listdir(tmp_path) == []
