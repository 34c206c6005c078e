"""Quantum ESPRESSO's recipes give through us what they give bare, with the real programs.

What follows a calculation finds its files by ``copy_files``, and once more by ``prev_outdir``. The
bare run then gets a copy, because its program writes into the folder that ``prev_outdir`` names.
"""

import shutil
from pathlib import Path

import pytest
from ase.build import bulk

from crystalmath.client import Reference
from crystalmath.recipes.lookup import catalogue, look_up, resolve
from same.both_ways import LONG, assert_runs_as_bare, kept, opened
from same.comparing import assert_same

#: Where Debian's `quantum-espresso` has them.
PSEUDO = Path("/usr/share/espresso/pseudo")

pytestmark = [
    pytest.mark.skipif(
        shutil.which("ph.x") is None or not (PSEUDO / "Si.pz-vbc.UPF").exists(),
        reason="there is no ph.x, or no pseudopotentials: apt-get install quantum-espresso",
    ),
    pytest.mark.filterwarnings("default"),  # quacc's own are no concern of ours
]

SI = bulk("Si", a=5.43)
BANDS = {
    "pseudopotentials": {"Si": "Si.pz-vbc.UPF"},
    "input_data": {"control": {"tprnfor": True}, "system": {"ecutwfc": 12.0}},
    "kpts": [2, 2, 2],
    "kspacing": None,
}
SCF = {"preset": None, **BANDS}
PHONON = {"input_data": {"inputph": {"tr2_ph": 1e-8}}}
#: On a grid of one point, which is quick.
GRID = {"input_data": {"inputph": {"tr2_ph": 1e-8, "ldisp": True, "nq1": 1, "nq2": 1, "nq3": 1}}}
_SYSTEM = {"ecutwfc": 12.0, "occupations": "tetrahedra"}
TETRAHEDRA = {"input_data": {"control": {"tprnfor": True}, "system": _SYSTEM}}
NSCF = {
    "kpts": [4, 4, 4],
    "input_data": {"control": {"calculation": "nscf", "verbosity": "high"}, "system": _SYSTEM},
}
DENSITIES = {"static_job": SCF, "non_scf_job": SCF}
#: Recipe -> structure, parameters, and the recipe whose files it begins with.
CASES = {
    "core.static_job": (SI, SCF, None),
    "core.relax_job": (SI, SCF, None),
    "core.ase_relax_job": (SI, SCF, None),
    "core.non_scf_job": (SI, SCF, "core.static_job"),
    "core.post_processing_job": (None, {}, "core.static_job"),
    "dos.dos_job": (None, {}, "core.static_job"),
    "dos.projwfc_job": (None, {}, "core.static_job"),
    "dos.dos_flow": (SI, {"job_params": DENSITIES}, None),
    "dos.projwfc_flow": (SI, {"job_params": DENSITIES}, None),
    "bands.bands_pw_job": (SI, {"line_density": 1, **BANDS}, "core.static_job"),
    "bands.bands_pp_job": (None, {}, "bands.bands_pw_job"),
    "bands.fermi_surface_job": (None, {}, "core.static_job"),
    "bands.bands_flow": (
        SI,
        {"line_density": 1, "job_params": {"bands_pw_job": BANDS}},
        "core.static_job",
    ),
    "phonons.phonon_job": (None, GRID, "core.static_job"),
    "phonons.q2r_job": (
        None,
        {"input_data": {"input": {"fildyn": "matdyn", "flfrc": "q2r.fc"}}},
        "phonons.phonon_job",
    ),
    "phonons.matdyn_job": (
        None,
        {"input_data": {"input": {"dos": True, "nk1": 2, "nk2": 2, "nk3": 2, "flfrc": "q2r.fc"}}},
        "phonons.q2r_job",
    ),
    "phonons.phonon_dos_flow": (
        None,
        {
            "job_params": {
                "phonon_job": GRID,
                "matdyn_job": {"input_data": {"input": {"nk1": 2, "nk2": 2, "nk3": 2}}},
            }
        },
        "core.static_job",
    ),
    "phonons.grid_phonon_flow": (
        None,
        {"job_params": dict.fromkeys(("ph_init_job", "ph_job", "ph_recover_job"), PHONON)},
        "core.static_job",
    ),
    "phonons.dvscf_q2r_job": (None, {}, "phonons.phonon_job"),
    "phonons.postahc_job": (None, {}, "phonons.phonon_job"),
}


#: These want a grid, and an integration, that take longer: their errors are compared.
FAIL = {"phonons.dvscf_q2r_job", "phonons.postahc_job"}
#: This one looks for files in the folder of the calculation before it.
IN_PLACE = "phonons.grid_phonon_flow"


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    # Open MPI refuses to run as root, as tests may, unless it is told so twice.
    root = ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM")
    environment = {"QUACC_ESPRESSO_PSEUDO": str(PSEUDO), **dict.fromkeys(root, "1")}
    with opened(tmp_path_factory.mktemp("home"), **environment) as client:
        yield client


@pytest.fixture(scope="module")
def bare():
    """What recipes gave bare, by their names."""
    return {}


def test_each_recipe_has_a_case():
    prefix = "quacc.recipes.espresso."
    names = [one.name for one in catalogue() if one.name.startswith(prefix)]
    assert sorted(names) == sorted(f"{prefix}{name}" for name in CASES)


#: Those of them that take the folder in which Quantum ESPRESSO shall run.
IN_A_FOLDER = [
    name
    for name in CASES
    if "prev_outdir" in look_up(f"quacc.recipes.espresso.{name}").signature.parameters
]


def test_a_chain_gives_what_the_flow_gives(client, tmp_path):
    from quacc import change_settings

    scf, nscf = Reference("scf")["dir_name"], Reference("nscf")["dir_name"]
    steps = {
        "scf": ("espresso.core.static_job", {**SCF, **TETRAHEDRA}),
        "nscf": ("espresso.core.non_scf_job", {**SCF, **NSCF, "prev_outdir": scf}),
        # It reads what the step before it has left of that folder.
        "dos": ("espresso.dos.dos_job", {"prev_outdir": scf}),
        "again": ("espresso.dos.dos_job", {"prev_outdir": nscf}),
    }
    (chain,) = client.chain([SI], steps)
    chain["scf"].result(LONG)
    params = {"static_job": {**SCF, **TETRAHEDRA}, "non_scf_job": {**SCF, **NSCF}}
    with kept():
        found = {step: job.result(LONG) for step, job in chain.items()}
    with change_settings({"RESULTS_DIR": tmp_path}):
        flow = resolve("quacc.recipes.espresso.dos.dos_flow", ())(SI.copy(), job_params=params)
    flow["again"] = flow["dos_job"]
    for (step, ours), bare in zip(found.items(), flow.values(), strict=True):
        assert_same(ours["results"], bare["results"], step)


@pytest.mark.parametrize("name", CASES)
def test_same(client, bare, monkeypatch, tmp_path, name):
    atoms, parameters, before = CASES[name]
    monkeypatch.chdir(tmp_path)
    instead = {}
    if before is not None:
        source = bare[before]["dir_name"]
        if name == IN_PLACE:
            parameters = {**parameters, "prev_outdir": source}
            instead = {"prev_outdir": shutil.copytree(source, tmp_path / "bare")}
        else:
            parameters = {**parameters, "copy_files": [{"source": source, "filenames": ["*"]}]}
    given = assert_runs_as_bare(client, f"espresso.{name}", atoms, parameters, tmp_path, **instead)
    assert isinstance(given, Exception) == (name in FAIL), given
    bare[name] = given


@pytest.mark.parametrize("name", IN_A_FOLDER)
def test_same_in_a_folder_that_is_named(client, bare, monkeypatch, tmp_path, name):
    """Each recipe that takes `prev_outdir`: ours leaves that folder as it is."""
    atoms, parameters, before = CASES[name]
    monkeypatch.chdir(tmp_path)
    source = bare[before or "core.static_job"]["dir_name"]
    parameters = {**parameters, "prev_outdir": source}
    instead = {"prev_outdir": shutil.copytree(source, tmp_path / "bare")}
    given = assert_runs_as_bare(client, f"espresso.{name}", atoms, parameters, tmp_path, **instead)
    assert isinstance(given, Exception) == (name in FAIL), given
