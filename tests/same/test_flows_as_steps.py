"""Flows of quacc return what they return bare, each step a job of its own, and in one job."""

import contextlib
import importlib.util
import shutil

import pytest
from ase import Atoms
from ase.build import bulk, fcc100

from crystalmath.recipes.lookup import catalogue, resolve
from digests import digests
from flow_owner import FlowOwner
from same import test_same_espresso as cases
from same.comparing import assert_same
from vasp import potcars

#: Flows, and in how many passes they end.
CASES = [
    ("emt.defects.bulk_to_defects_flow", bulk("Cu"), {}, 3),
    ("emt.elastic.elastic_tensor_flow", bulk("Ni"), {}, 4),
    ("emt.elastic.elastic_tensor_flow", bulk("Ni"), {"run_static": True}, 4),
    ("emt.elastic.elastic_tensor_flow", bulk("Ni"), {"pre_relax": False}, 4),
    ("emt.phonons.phonon_flow", bulk("Cu"), {"min_lengths": 5.0}, 3),
    ("emt.slabs.bulk_to_slabs_flow", bulk("Cu"), {"make_slabs_kwargs": {"max_index": 1}}, 2),
    ("tblite.phonons.phonon_flow", bulk("Si"), {"min_lengths": 3.0}, 3),
]

#: Flow -> what it needs beside quacc.
NEEDS = {
    "emt.defects.bulk_to_defects_flow": ("shakenbreak", "pymatgen.analysis.defects"),
    "emt.phonons.phonon_flow": ("phonopy", "seekpath"),
    "tblite.phonons.phonon_flow": ("phonopy", "seekpath", "tblite"),
}

pytestmark = pytest.mark.filterwarnings("default")  # quacc's own are no concern of ours


@pytest.fixture(autouse=True)
def own_folder(monkeypatch, tmp_path):
    """Come back to where this process was; each run changes it."""
    monkeypatch.chdir(tmp_path)


def assert_steps_as_bare(folder, name, atoms, parameters, passes=30, *, bare=None):
    """Run a flow bare, step by step and in one job; for `bare` parameters are others."""
    from quacc import change_settings

    given = () if atoms is None else (atoms.copy(),)
    with change_settings({"RESULTS_DIR": folder}):
        wanted = resolve(f"quacc.recipes.{name}")(*given, **{**parameters, **(bare or {})})
    owner = FlowOwner(folder, f"quacc.recipes.{name}", atoms, **parameters)
    header, result = owner.run(passes=passes)
    assert header["state"] == "completed", header["error"]
    assert_same(result, wanted, name)
    assert len(owner.ran) == len(owner.steps)
    for work, held in owner.left.items():
        assert digests(work) == held, f"{work} has changed since its step completed"
    assert header["summary"]["flow_steps"] == {"completed": len(owner.steps)}
    assert header["summary"]["energy_ev"] is None
    alone = FlowOwner(folder, f"quacc.recipes.{name}", atoms, **parameters)
    header, result = alone.in_one_job()
    assert header["state"] == "completed", header["error"]
    assert_same(result, wanted, name)


def test_each_flow_has_a_case():
    names = {name for name, *_ in CASES} | {f"vasp.{name}" for name in VASP}
    names |= {f"espresso.{name}" for name in cases.CASES if name.endswith("_flow")}
    flows = {one.name.removeprefix("quacc.recipes.") for one in catalogue() if one.kind == "flow"}
    # One takes functions, and is run by the others; `same` says what the others lack.
    assert flows - names == {
        "common.elastic.elastic_tensor_flow",
        "mlip.elastic.elastic_tensor_flow",
        "mlip.phonons.phonon_flow",
    }


@pytest.mark.parametrize(("name", "atoms", "parameters", "passes"), CASES)
def test_same(tmp_path, name, atoms, parameters, passes):
    missing = [each for each in NEEDS.get(name, ()) if importlib.util.find_spec(each) is None]
    if missing:
        pytest.skip(f"quacc needs {missing[0]}")
    assert_steps_as_bare(tmp_path, name, atoms, parameters, passes)


@pytest.fixture(scope="module")
def espresso(tmp_path_factory):
    """Have Quantum ESPRESSO; give the folder of a calculation that others begin with."""
    from quacc import change_settings

    folder = tmp_path_factory.mktemp("scf")
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):
        for name in ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"):
            patch.setenv(name, "1")
        with change_settings({"ESPRESSO_PSEUDO": cases.PSEUDO, "RESULTS_DIR": folder}):
            scf = resolve("quacc.recipes.espresso.core.static_job")(cases.SI, **cases.SCF)
            yield scf["dir_name"]


@cases.pytestmark[0]
@pytest.mark.parametrize("name", [name for name in cases.CASES if name.endswith("_flow")])
def test_same_of_espresso(espresso, tmp_path, name):
    left = digests(espresso)
    atoms, parameters, before = cases.CASES[name]
    if before is None:
        assert_steps_as_bare(tmp_path, f"espresso.{name}", atoms, parameters)
    elif name == cases.IN_PLACE:
        told = (f"espresso.{name}", atoms, {**parameters, "prev_outdir": espresso})
        bare = {"prev_outdir": shutil.copytree(espresso, tmp_path / "bare")}
        assert_steps_as_bare(tmp_path, *told, bare=bare)
    else:
        parameters = {**parameters, "copy_files": [{"source": espresso, "filenames": ["*"]}]}
        assert_steps_as_bare(tmp_path, f"espresso.{name}", atoms, parameters)
    assert digests(espresso) == left


CU = bulk("Cu")
SLABS = {"max_index": 1, "min_slab_size": 3.0, "min_length_width": 2.0, "max_normal_search": 1}
SLAB = fcc100("Cu", (1, 1, 2), vacuum=5.0, periodic=True)
SLAB.info.clear()  # it has tuples, which become lists as a structure is sent
del SLAB.arrays["tags"]  # pymatgen has none for an adsorbate
#: Flows of VASP, for the stand-in.
VASP = {
    "core.double_relax_flow": (bulk("Al", a=4.1, cubic=True), {}),
    "slabs.bulk_to_slabs_flow": (CU, {"make_slabs_kwargs": SLABS}),
    "slabs.slab_to_ads_flow": (
        SLAB,
        {"adsorbate": Atoms("H"), "make_ads_kwargs": {"modes": ["ontop"]}},
    ),
    "mp_legacy.mp_gga_relax_flow": (CU, {}),
    "mof_off.mof_off_static_flow": (CU, {}),
    "mp24.mp_metagga_relax_flow": (CU, {}),
    "matpes.matpes_static_flow": (CU, {}),
}


@pytest.mark.parametrize("name", VASP)
def test_same_of_vasp(monkeypatch, tmp_path, name):
    from quacc import change_settings

    atoms, parameters = VASP[name]
    for variable, text in potcars.beside_vasp(
        tmp_path, "Al", "Cu", "Cu_pv", "H", versions=["52", "54", "64", "original"]
    ).items():
        monkeypatch.setenv(variable, text)
    handlers = {"VASP_CUSTODIAN_HANDLERS": ["UnconvergedErrorHandler"]}
    with change_settings({"VASP_PARALLEL_CMD": "", "VASP_CUSTODIAN_MAX_ERRORS": 1, **handlers}):
        assert_steps_as_bare(tmp_path, f"vasp.{name}", atoms, parameters)
