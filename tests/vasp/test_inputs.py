"""What `check --inputs` tells is what jobs then write, byte by byte, of VASP and Quantum ESPRESSO.

The programs are stand-ins. VASP's computes with EMT, so that what is told of later steps is held
against these; where EMT has no such element, and for Quantum ESPRESSO, jobs end with their first.
"""

import asyncio
import gzip
import importlib.util
import re
from pathlib import Path

import pytest
from ase.build import add_adsorbate, bulk, fcc111
from ase.constraints import FixAtoms
from ase.io import write
from attrs import evolve

from crystalmath.models import Inputs, Submission
from crystalmath.server.handlers import METHODS
from ends import finish
from vasp import potcars

pytestmark = [
    pytest.mark.vasp,
    pytest.mark.by_turns,
    pytest.mark.skipif(
        importlib.util.find_spec("atomate2") is None,
        reason="quacc's MP24 recipes need atomate2: pip install quacc[atomate2]",
    ),
]

AL = bulk("Al", a=4.1, cubic=True)
AL.rattle(0.05, seed=1)
MIXED = bulk("Cu", a=3.9, cubic=True)
MIXED.symbols[1:3] = "Al"  # Cu Al Al Cu: three blocks for ASE to sort
IRON = bulk("Fe", cubic=True)
IRON.set_initial_magnetic_moments([2.5, -2.5])
SLAB = fcc111("Cu", (1, 1, 3), vacuum=6.0, periodic=True)
SLAB.set_constraint(FixAtoms([0]))
COVERED = SLAB.copy()
add_adsorbate(COVERED, "Al", 2.0)
SI = bulk("Si", a=5.43)
SI.rattle(0.02, seed=2)

PBE = {"preset": None, "pseudopotentials": {"Si": "Si.pz-vbc.UPF"}, "kpts": [2, 2, 2]}
SMALL = {**PBE, "kspacing": None, "input_data": {"system": {"ecutwfc": 12.0}}}
SLABS = {"max_index": 1, "min_slab_size": 3.0, "min_length_width": 2.0, "max_normal_search": 1}
#: What an earlier calculation has left; the folder is made by the fixture.
HERE = {"prev_outdir": "previous"}
#: ASE has such a step calculated many times, in one folder.
ONCE = {"use_custodian": False, "system": "STANDIN_CRASH=3"}

UPF = """<UPF version="2.0.1">
<PP_HEADER element="Si" z_valence="4.0" functional="PBE"/>
<PP_MESH><PP_R>0.1 0.2</PP_R></PP_MESH>
<PP_LOCAL>0.1 0.2</PP_LOCAL>
<PP_RHOATOM>0.1 0.2</PP_RHOATOM>
</UPF>
"""
#: Recipe, structure, parameters.
JOBS = [
    ("vasp.core.static_job", AL, {}),
    ("vasp.core.static_job", MIXED, {"encut": 400, "ivdw": None, "kpts": [3, 3, 3]}),
    ("vasp.core.static_job", IRON, {"xc": "r2scan", "use_custodian": False, "kspacing": 0.4}),
    ("vasp.core.static_job", AL, {"preset": None, "xc": "pbe", "pp_version": "64", "charge": 1}),
    ("vasp.core.relax_job", AL, {"relax_cell": True, "setups": {"Al": ""}, "pp_version": "54"}),
    (
        "vasp.core.relax_job",
        IRON,
        {"preset": "DefaultSetMetaGGA", "ldau_luj": {"Fe": {"L": 2, "U": 4.0, "J": 0.0}}},
    ),
    ("vasp.core.relax_job", MIXED, {"preset": "DefaultSetHybrid", "elemental_magmoms": {"Cu": 3}}),
    ("vasp.core.ase_relax_job", AL, {"relax_cell": True, **ONCE}),
    ("vasp.core.freq_job", AL, ONCE),
    ("vasp.md.md_job", AL, {"nsteps": 9, "ensemble": "nvt", **ONCE}),
    ("vasp.slabs.static_job", SLAB, {"auto_dipole": True}),
    ("vasp.slabs.relax_job", COVERED, {"pmg_kpts": {"kppa": 500}}),
    ("vasp.core.double_relax_flow", AL, {"relax2_kwargs": {"encut": 450}}),
    ("vasp.slabs.bulk_to_slabs_flow", bulk("Cu"), {"make_slabs_kwargs": SLABS}),
    ("vasp.qmof.qmof_relax_job", AL, {"run_prerelax": False, **ONCE}),
    ("vasp.mp_legacy.mp_gga_relax_job", AL, {}),
    ("vasp.mp_legacy.mp_gga_static_job", IRON, {}),
    ("vasp.mp24.mp_prerelax_job", MIXED, {}),
    ("vasp.mp24.mp_metagga_relax_job", AL, {}),
    ("vasp.mp24.mp_metagga_static_job", AL, {"nelm": 7}),
    ("vasp.mp24.mp_metagga_relax_flow", AL, {}),
    ("vasp.matpes.matpes_static_job", AL, {"level": "PBE"}),
    ("espresso.core.static_job", SI, SMALL),
    ("espresso.core.static_job", SI, {}),
    ("espresso.core.static_job", SI, {**SMALL, **HERE, "input_data": {"ecutwfc": 9, "nbnd": 8}}),
    ("espresso.core.relax_job", SI, {**SMALL, "relax_cell": True}),
    ("espresso.core.ase_relax_job", SI, SMALL),
    ("espresso.core.non_scf_job", SI, {**SMALL, **HERE}),
    ("espresso.core.post_processing_job", None, {**HERE, "input_data": {"plot_num": 3}}),
    ("espresso.bands.bands_pw_job", SI, {**HERE, "pseudopotentials": PBE["pseudopotentials"]}),
    ("espresso.bands.bands_pp_job", None, HERE),
    ("espresso.bands.fermi_surface_job", None, HERE),
    ("espresso.dos.dos_job", None, HERE),
    ("espresso.dos.projwfc_job", None, HERE),
    ("espresso.phonons.phonon_job", None, HERE),
]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    root = tmp_path_factory.mktemp("inputs")
    more = {"QUACC_VASP_PARALLEL_CMD": "", "QUACC_VASP_CUSTODIAN_HANDLERS": "[]"}
    more |= {"QUACC_ESPRESSO_PSEUDO": f"{root}/pseudo", "QUACC_ESPRESSO_BIN_DIR": f"{root}/bin"}
    versions, setups = ("52", "54", "64", "original"), ("Al", "Cu", "Cu_pv", "Fe", "Fe_pv")
    environment = potcars.beside_vasp(root, *setups, versions=versions, **more)
    (root / "previous").mkdir()
    (root / "pseudo").mkdir()
    for name in ("Si.pz-vbc.UPF", "Si.pbe-n-rrkjus_psl.1.0.0.UPF"):
        (root / "pseudo" / name).write_text(UPF)
    for name in ("pw", "pp", "bands", "fs", "dos", "projwfc", "ph"):
        program = root / "bin" / f"{name}.x"
        program.write_text("#!/bin/sh\nexit 3\n")
        program.chmod(0o755)
    return environment


def asked(recipe, atoms, environment, parameters):
    return Submission(
        recipe=f"quacc.recipes.{recipe}",
        atoms=atoms,
        parameters=parameters,
        environment=environment,
    )


def written(service, job_id):
    """Return the input files of each calculation of a job, and of its steps if it is a flow."""
    jobs = [job_id, *service.step_ids(job_id)]
    return [files for each in jobs for files in written_below(service.work_directory(each))]


def written_below(work):
    """Return the input files of each calculation below a work directory, in order of time."""
    found = {}
    for path in Path(work).rglob("*"):
        name = path.name.removesuffix(".gz")
        if name in {"INCAR", "KPOINTS", "POSCAR", "POTCAR.titel"} or re.fullmatch(r"\w+\.in", name):
            data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            found.setdefault(path.parent, {})[name] = data
    # quacc-<time>-<number>, failed-quacc-... where it died.
    order = sorted(found, key=lambda folder: folder.name.partition("quacc-")[2])
    return [_as_told(folder, found[folder]) for folder in order]


def _as_told(folder, files):
    # Made of the POTCAR that the job has read, which is not kept.
    if potcar := files.pop("POTCAR.titel", None):
        titles = re.findall(rb"TITEL\s*=\s*(.*\S)", potcar)
        files["POTCAR.titel"] = b"".join(title + b"\n" for title in titles)
    running = re.compile(
        re.escape(str(folder.parent)).encode() + rb"/(tmp-quacc-[\d-]+|outdir(-\d+)?)"
    )
    return {name: running.sub(b".", data) for name, data in files.items()}


def told(step):
    return {name: text.encode() for name, text in step.files.items()}


@pytest.fixture(scope="module")
def jobs(service, environment):
    """Check all, and submit them beside each other."""
    found = []
    for recipe, atoms, given in JOBS:
        parameters = dict(given)
        if "prev_outdir" in parameters:
            parameters["prev_outdir"] = str(Path(environment["VASP_PP_PATH"], "../previous"))
        submission = asked(recipe, atoms, environment, parameters)
        checked = service.check(submission, inputs=True)
        assert not checked.errors, (recipe, checked.errors)
        found.append((checked.inputs, service.submit(submission).job_id))
    return found


@pytest.mark.parametrize(
    "number", range(len(JOBS)), ids=[f"{number}-{job[0]}" for number, job in enumerate(JOBS)]
)
def test_what_is_known_is_what_the_job_writes(service, jobs, number):
    inputs, job_id = jobs[number]
    finish(service, job_id)
    calculations = written(service, job_id)
    assert calculations
    assert inputs.steps[0].certain
    for step, files in zip(inputs.steps, calculations, strict=False):
        if step.certain:
            assert told(step) == files


def kept_inputs(service, job_id):
    """Ask for the inputs of a job as anybody does on the wire."""
    answer = asyncio.run(METHODS["jobs.inputs"](service, {"job_id": job_id}))
    assert answer["error"] is None
    return Inputs.read(answer["inputs"])


def test_a_job_keeps_its_inputs(service, jobs):
    """Of 30 recipes: what is read of what they wrote is what was told, and differs in nothing."""
    for inputs, job_id in jobs:
        finish(service, job_id)
        kept = kept_inputs(service, job_id)
        assert kept.source == "files"
        # Nothing has changed since: who has set what is told as it was.
        first, told_first = kept.steps[0], inputs.steps[0]
        assert first.settings == told_first.settings
        assert (first.preset, first.formula) == (told_first.preset, told_first.formula)
        calculations = written(service, job_id)
        assert [set(step.files) for step in kept.steps] == [set(files) for files in calculations]
        assert kept.steps[0].program == inputs.steps[0].program
        first = evolve(kept, steps=kept.steps[:1])
        assert first.differences(evolve(inputs, steps=inputs.steps[:1])) == []


def test_inputs_that_no_file_tells_are_asked_for(service, environment):
    """As before a job has run, and of calculators that write none."""
    job_id = service.submit(asked("emt.core.static_job", AL, environment, {})).job_id
    finish(service, job_id)
    kept = kept_inputs(service, job_id)
    assert (kept.source, kept.steps[0].program) == ("recipe", "EMT")


@pytest.fixture
def in_its_home(service, as_submitter, monkeypatch):
    monkeypatch.setenv("CRYSTALMATH_HOME", str(service.config.home))


def test_inputs_are_shown_written_and_compared(cli, service, jobs, in_its_home, tmp_path):
    _, job_id = jobs[0]
    finish(service, job_id)
    answer = cli("inputs", job_id[:8])
    assert answer.code == 0, answer.err
    assert answer.lines[0] == "step 1 of 1: VASP, Al4, preset DefaultSetGGA"
    assert "IVDW = 12 preset" in [" ".join(line.split()) for line in answer.lines]
    assert "PAW_PBE Al 01Jan2001" in answer.lines
    assert "Dataset" not in answer.out  # no POTCAR itself
    assert cli("inputs", job_id, "--dir", tmp_path / "kept").code == 0
    (incar,) = service.work_directory(job_id).rglob("INCAR.gz")
    assert (tmp_path / "kept/INCAR").read_bytes() == gzip.decompress(incar.read_bytes())
    structure = tmp_path / "Al.json"
    write(structure, AL)
    same = cli("check", "vasp.core.static_job", structure, "--diff", job_id)
    assert same.lines[0] == "no differences in 1 step", same.out
    other = ["--param", "encut=400", "--param", "ivdw=null", "--diff", job_id]
    told = cli("check", "vasp.core.static_job", structure, *other)
    assert told.lines[:3] == [
        "step 1, INCAR:",
        "  ENCUT = 400.000000  (other: 520.000000)",
        "  IVDW = (none)  (other: 12)",
    ]
    (difference, _) = cli("check", "vasp.core.static_job", structure, *other, "--json").json[
        "differences"
    ]
    assert difference == {
        "step": 1,
        "file": "INCAR",
        "name": "ENCUT",
        "value": "400.000000",
        "other": "520.000000",
    }
    mixed = cli("inputs", job_id, "--diff", jobs[1][1][:8])
    assert "step 1, KPOINTS:" in mixed.lines
    assert "  +PAW_PBE Al 01Jan2001" not in mixed.lines


# --- as it is shown ------------------------------------------------------------------------------


@pytest.fixture
def as_submitter(environment, monkeypatch):
    """Have this process's environment be that of the jobs, so that the same child is asked."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


EXAMPLE = Path(__file__).parents[2] / "examples/Al.poscar"


def test_what_the_preset_added_is_marked_beside_what_was_asked_for(cli, as_submitter, tmp_path):
    given = ["--param", "encut=400", "--param", "lreal=null"]
    answer = cli("check", "vasp.core.relax_job", EXAMPLE, *given, "--inputs")
    assert answer.code == 0, answer.out
    lines = [" ".join(line.split()) for line in answer.lines]
    assert lines[0] == "step 1 of 1: VASP, Al4, preset DefaultSetGGA"
    for line in (
        *("ENCUT = 400.000000 asked (preset: 520)", "IVDW = 12 preset", "ISYM = 0 recipe"),
        *("GGA = PE preset", "NSW = 200 recipe (preset: 0)", "MAGMOM = 4*0.5000 quacc"),
        *("(LREAL is left out) asked (preset: false)", "--- POSCAR structure"),
        *("--- KPOINTS preset", "--- POTCAR.titel preset", "PAW_PBE Al 01Jan2001"),
    ):
        assert line in lines, line
    assert "Dataset" not in answer.out  # no POTCAR itself
    copper = cli("check", "vasp.core.relax_job", EXAMPLE.with_name("Cu.poscar"), "--inputs")
    assert "MAGMOM = 1*2.0000 preset" in [" ".join(line.split()) for line in copper.lines]
    folder = tmp_path / "inputs"
    assert cli("check", "vasp.core.relax_job", EXAMPLE, *given, "--inputs", folder).code == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        *("INCAR", "KPOINTS", "POSCAR", "POTCAR.titel")
    ]
    again = cli("check", "vasp.core.relax_job", EXAMPLE, *given, "--inputs", folder)
    assert again.code == 1
    assert "is there already" in again.err


def test_who_has_set_what_of_quantum_espresso(service, environment):
    system = {"ecutwfc": 12.0, "lda_plus_u": True, "Hubbard_U(1)": 2.0}
    given = {"input_data": {"system": system}, "kpts": [2, 2, 2], "kspacing": None}
    asked_for = asked("espresso.core.static_job", SI, environment, given)
    (step,) = service.check(asked_for, inputs=True).inputs.steps
    assert (step.program, step.preset) == ("pw.x", "sssp_1.3.0_pbe_efficiency")
    origins = {each.name: each.origin for each in step.settings}
    assert origins["ecutwfc"] == origins["K_POINTS"] == origins["hubbard_u(1)"] == "asked"
    assert origins["ecutrho"] == origins["ATOMIC_SPECIES"] == "preset"
    assert origins["conv_thr"] == "recipe"
    assert origins["nat"] == origins["ATOMIC_POSITIONS"] == "structure"
    assert origins["outdir"] == "quacc"


def test_what_an_earlier_result_decides_is_not_certain(service, environment):
    """Moments that vanish switch off the spin, and a mesh of k-points follows the cell."""
    asked_for = asked("vasp.core.double_relax_flow", AL, environment, {})
    first, second = service.check(asked_for, inputs=True).inputs.steps
    assert all(each.certain for each in first.settings)
    unsure = {each.name for each in second.settings if not each.certain}
    assert unsure == {"ISPIN", "MAGMOM", "KPOINTS", "POSCAR"}
