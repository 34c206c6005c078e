"""Quantum ESPRESSO jobs from end to end, with the real ``pw.x``."""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ase.build import bulk
from ase.io import read, write
from ase.io.espresso import units
from ase.units import Ry

from commands import ran
from crystalmath.errors import JobRefused
from crystalmath.models import Submission
from crystalmath.models.reference import JobValue
from crystalmath.models.retry import Retry
from crystalmath.preflight.files import facts
from crystalmath.programs.espresso import Espresso
from crystalmath.recipes.structures import parse_structure
from digests import digests
from ends import ENGINES, completed, failed, finish, opened, submit

PW = shutil.which("pw.x")
#: Where Debian's `quantum-espresso` has them.
PSEUDO = Path("/usr/share/espresso/pseudo")

pytestmark = [
    pytest.mark.vasp,
    pytest.mark.usefixtures("folders_stay"),
    pytest.mark.skipif(
        PW is None or not (PSEUDO / "Si.pz-vbc.UPF").exists(),
        reason="there is no pw.x, or no pseudopotentials: apt-get install quantum-espresso",
    ),
]

SI = bulk("Si", a=5.43)
SI.rattle(0.02, seed=2)
#: Without a preset: quacc's name the files of the SSSP library.
SMALL = {
    "preset": None,
    "pseudopotentials": {"Si": "Si.pz-vbc.UPF"},
    "input_data": {"control": {"tprnfor": True}, "system": {"ecutwfc": 12.0}},
    "kpts": [2, 2, 2],
    "kspacing": None,
}
#: Dynamics without end.
ENDLESS = {"calculation": "md", "nstep": 1_000_000}
#: What quacc's recipes add to it.
GIVEN = {
    "system": {
        "ecutwfc": 12.0,
        "occupations": "smearing",
        "smearing": "gaussian",
        "degauss": 0.005,
    },
    "electrons": {"conv_thr": 1e-8, "mixing_mode": "local-TF", "mixing_beta": 0.35},
}


@pytest.fixture(scope="module")
def environment():
    return {"PATH": f"{Path(PW).parent}:/usr/bin:/bin", "QUACC_ESPRESSO_PSEUDO": str(PSEUDO)}


@pytest.fixture(scope="module", params=ENGINES)
def service(open_mpi_as_root, request, tmp_path_factory):
    with opened(tmp_path_factory.mktemp("home"), request.param) as service:
        yield service


def bare(folder, calculation, library=PSEUDO, **cutoffs):
    """Run ``pw.x`` by hand; give its exit code."""
    control = {"calculation": calculation, "pseudo_dir": str(library), "tprnfor": True}
    write(
        folder / "pw.in",
        SI,
        format="espresso-in",
        input_data={"control": control, **GIVEN, "system": {**GIVEN["system"], **cutoffs}},
        pseudopotentials=SMALL["pseudopotentials"],
        kpts=SMALL["kpts"],
    )
    with open(folder / "pw.out", "w") as output:
        done = subprocess.run(
            [PW, "-in", "pw.in"],
            cwd=folder,
            stdout=output,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    return done.returncode


@pytest.mark.parametrize(("recipe", "calculation"), [("static", "scf"), ("relax", "relax")])
def test_silicon_as_pw_has_it(service, environment, tmp_path, recipe, calculation):
    job_id = submit(service, f"espresso.core.{recipe}_job", SI, environment, **SMALL)
    assert bare(tmp_path, calculation) == 0
    expected = read(tmp_path / "pw.out", format="espresso-out")
    job = finish(service, job_id)
    result = completed(service, job)
    energy = expected.get_potential_energy()
    assert result["results"]["energy"] == pytest.approx(energy, abs=1e-6 * Ry)
    assert abs(result["atoms"].positions - expected.positions).max() < 1e-4
    (next_try,) = service.retry([job_id], Retry(continued=True), dry_run=True)
    assert Path(next_try.parents[0]["file"]).name == "pw.out.gz"
    taken = json.loads(next_try.specification.partition("\n")[2])["atoms"]["data"]
    positions = parse_structure({"format": "ase-json", "data": taken}).positions
    assert abs(positions - result["atoms"].positions).max() < 1e-4
    force = (expected.get_forces() ** 2).sum(axis=1).max() ** 0.5
    # quacc's recipes change a constant of their own module, so that the process is replaced.
    assert {key: value for key, value in job.summary.items() if key != "process_replaced"} == {
        "energy_ev": pytest.approx(energy, abs=1e-6 * Ry),
        "max_force_ev_ang": pytest.approx(force, abs=1e-3),
        "formula": SI.get_chemical_formula(),
        "work_dir": str(result["dir_name"]),
        "natoms": len(SI),
    }
    assert job.job_id in job.summary["work_dir"]
    assert os.path.exists(f"{job.summary['work_dir']}/pw.out.gz")


def test_the_energy_of_a_hybrid_functional_is_the_one_that_pw_ends_with(
    cli, service, environment, monkeypatch, tmp_path
):
    """ASE reads the one before the loop over exact exchange, which the recipe's result keeps."""
    hybrid = {"input_dft": "pbe0", "nqx1": 1, "nqx2": 1, "nqx3": 1, "ecutwfc": 12.0}
    asked = {**SMALL, "kpts": None, "input_data": {"system": hybrid}}
    job = finish(service, submit(service, "espresso.core.static_job", SI, environment, **asked))
    first = completed(service, job)["results"]["energy"]
    with gzip.open(f"{job.summary['work_dir']}/pw.out.gz", "rt") as output:
        (last,) = (line for line in output if line.startswith("!!"))
    energy = job.summary["energy_ev"]
    assert energy == pytest.approx(float(last.split()[-2]) * units["Ry"], abs=1e-6)
    assert energy < first - 0.1
    monkeypatch.setenv("CRYSTALMATH_HOME", str(service.config.home))
    for name, command in (("a", ("result", job.job_id, "--structure")), ("b", ("export",))):
        file = tmp_path / f"{name}.extxyz"
        answer = cli(*command, file, *[job.job_id] * (command == ("export",)))
        assert answer.code == 0, answer.err
        assert read(file).get_potential_energy() == pytest.approx(energy, abs=1e-6)


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="there is no mpirun")
def test_pw_gets_exactly_the_ranks_asked_for(service, environment, tmp_path):
    asked = submit(
        service, "espresso.core.static_job", SI, environment, resources={"ranks": 2}, **SMALL
    )
    job = finish(service, asked)
    completed(service, job)
    assert bare(tmp_path, "scf") == 0
    expected = read(tmp_path / "pw.out", format="espresso-out").get_potential_energy()
    assert job.summary["energy_ev"] == pytest.approx(expected, abs=1e-6 * Ry)
    with gzip.open(f"{job.summary['work_dir']}/pw.out.gz", "rt") as output:
        text = output.read()
    assert "Parallel version (MPI), running on     2 processors" in text
    assert "Threads/MPI process" not in text


@pytest.mark.skipif(shutil.which("dos.x") is None, reason="there is no dos.x")
def test_a_density_of_states_goes_on_from_the_files_of_another_job(service, environment):
    """It takes no structure, only where these files are."""
    static = submit(service, "espresso.core.static_job", SI, environment, **SMALL)
    folder = completed(service, finish(service, static))["dir_name"]
    left = digests(folder)
    job_id = submit(service, "espresso.dos.dos_job", None, environment, prev_outdir=str(folder))
    job = finish(service, job_id)
    result = completed(service, job)
    assert job.formula is None
    assert result["results"]["dos_results"]["fermi"] == pytest.approx(6, abs=3)
    assert digests(folder) == left
    assert not [*service.work_directory(job_id).glob("**/pw.out*")], "it looks as if pw.x had run"


NSCF = {**SMALL, "input_data": {**SMALL["input_data"], "control": {"calculation": "nscf"}}}


@pytest.mark.skipif(shutil.which("dos.x") is None, reason="there is no dos.x")
def test_a_completed_job_keeps_its_files_whoever_goes_on_from_it(service, environment):
    """Each gets a copy of its own, and what follows one of them reads what that has left."""
    static = submit(service, "espresso.core.static_job", SI, environment, **SMALL)
    folder = completed(service, finish(service, static))["dir_name"]
    left = digests(folder.parent)
    meshes = ([2, 2, 2], [3, 3, 3], [4, 4, 4])
    nscf = {**NSCF, "prev_outdir": JobValue(static, ("dir_name",))}
    jobs = [
        submit(service, "espresso.core.non_scf_job", SI, environment, **{**nscf, "kpts": mesh})
        for mesh in meshes
    ]
    folders = [completed(service, finish(service, each))["dir_name"].parent for each in jobs]
    assert digests(folder.parent) == left
    before = [digests(each) for each in folders]
    for each, mesh in zip(jobs, meshes, strict=True):
        follows = JobValue(each, ("dir_name",))
        dos = submit(service, "espresso.dos.dos_job", None, environment, prev_outdir=follows)
        completed(service, finish(service, dos))
        saved = Path(service.work_directory(dos), "outdir/pwscf.save/data-file-schema.xml")
        mesh_of = re.search(r'<monkhorst_pack nk1="(\d)"', saved.read_text())
        assert int(mesh_of[1]) == mesh[0]
    assert [digests(each) for each in folders] == before
    assert digests(folder.parent) == left


def test_what_pw_refuses_is_told_in_its_own_words(service, environment):
    few = {**SMALL, "input_data": {"system": {"ecutwfc": 12.0, "nbnd": 1}}}
    job = finish(service, submit(service, "espresso.core.static_job", SI, environment, **few))
    files = failed(
        service,
        job,
        "CalledProcessError: Command",
        "\nthe end of pw.out:\n",
        "     Error in routine",
        "too few bands",
    )
    assert {"CRASH", "pw.in", "pw.out"} <= set(files)


@pytest.mark.parametrize(
    ("rho", "severity"), [(48.0, None), (40.0, "warning"), (30.0, "warning"), (12.0, "error")]
)
def test_cutoffs_that_do_not_go_together_are_told_as_pw_takes_them(
    service, environment, tmp_path, rho, severity
):
    cutoffs = {"ecutwfc": 12.0, "ecutrho": rho}
    asked = Submission(
        recipe="quacc.recipes.espresso.core.static_job",
        atoms=SI,
        parameters={**SMALL, "input_data": {"system": cutoffs}},
        environment=environment,
    )
    told = [one for one in service.check(asked).findings if one.code == "parameter_cutoffs"]
    assert [one.severity for one in told] == ([] if severity is None else [severity])
    assert all(f"ecutrho = {rho:g} Ry is" in one.message for one in told)
    assert (bare(tmp_path, "scf", **cutoffs) == 0) is (severity != "error")


def test_pw_is_asked_to_stop_before_the_walltime_is_over(open_mpi_as_root, environment, tmp_path):
    """It ends by itself after an electronic step, and what it had reached is told."""
    (tmp_path / "home").mkdir(mode=0o700)
    (tmp_path / "home/config.toml").write_text("[walltime]\nnotice_s = 595\n")
    endless = {**SMALL, "input_data": {**SMALL["input_data"], "control": ENDLESS}}
    with opened(tmp_path / "home", "local") as service:
        job_id = service.submit(
            Submission(
                recipe="quacc.recipes.espresso.core.static_job",
                atoms=SI,
                parameters=endless,
                environment=environment,
                walltime_s=600,
            )
        ).job_id
        job = finish(service, job_id)
        failed(
            service,
            job,
            "the walltime was nearly over, and pwscf.EXIT asked the program to stop: ",
            "\nthe end of pw.out:\n",
            "\nwhat it had reached: Quantum ESPRESSO, calculation 1, ionic step ",
        )


@pytest.mark.parametrize(
    ("library", "name", "words"),
    [
        (PSEUDO, "Si.pz-vbc.upf", ["Si.pz-vbc.upf", str(PSEUDO)]),
        (PSEUDO, "Xy.UPF", ["Xy.UPF", str(PSEUDO)]),
        ("/no/such/library", "Xy.UPF", ["/no/such/library", "QUACC_ESPRESSO_PSEUDO"]),
    ],
)
def test_a_missing_pseudopotential_is_refused(service, environment, library, name, words):
    wrong = environment | {"QUACC_ESPRESSO_PSEUDO": str(library)}
    before = len(service.jobs())
    with pytest.raises(JobRefused) as refused:
        submit(
            service,
            "espresso.core.static_job",
            SI,
            wrong,
            **{**SMALL, "pseudopotentials": {"Si": name}},
        )
    errors = [each for each in refused.value.findings if each.severity == "error"]
    assert len(errors) == 1
    for word in words:
        assert word in f"{errors[0].message} {errors[0].path}"
    assert len(service.jobs()) == before


def test_what_pw_finds_by_itself_is_not_refused(service, environment, tmp_path):
    """Debian's has a folder of its own, and looks there last."""
    wrong = environment | {"QUACC_ESPRESSO_PSEUDO": "/no/such/library"}
    if bare(tmp_path, "scf", "/no/such/library") == 0:
        job_id = submit(service, "espresso.core.static_job", SI, wrong, **SMALL)
        completed(service, finish(service, job_id))
    else:
        with pytest.raises(JobRefused, match="/no/such/library"):
            submit(service, "espresso.core.static_job", SI, wrong, **SMALL)


def test_an_exported_folder_runs_by_pw_alone(cli, service, environment, monkeypatch, tmp_path):
    job = finish(service, submit(service, "espresso.core.static_job", SI, environment, **SMALL))
    energy = completed(service, job)["results"]["energy"]
    monkeypatch.setenv("CRYSTALMATH_HOME", str(service.config.home))
    folder = tmp_path / "out it is"
    answer = cli("export", job.job_id, "--inputs", folder)
    assert answer.code == 0, answer.err
    # Open MPI wants a home.
    plain = {"PATH": environment["PATH"], "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
    allowed = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    done = ran(folder / "run.sh", cwd="/", env={**plain, **allowed})
    assert done.returncode == 0, done.stderr
    alone = read(folder / "pw.out", format="espresso-out").get_potential_energy()
    assert alone == pytest.approx(energy, abs=1e-6 * Ry)


def pseudo_files():
    return [path for path in sorted(PSEUDO.iterdir()) if path.name != "clean_ps"]


def test_the_preflight_accepts_every_file_that_pw_x_ships_with():
    for path in pseudo_files():
        found = facts(str(path), Espresso())
        assert found.problem is None, (path, found.detail)
        # Those that are not UPF begin with the formats of others.
        if path.suffix.lower() == ".upf" and path.name != "CorelUSPBE.RRKJ3.UPF":
            assert found.element == re.match("[A-Za-z][a-z]?", path.name)[0].capitalize()
            assert found.zval > 0


def test_the_preflight_finds_real_files_that_are_cut(tmp_path):
    cut = tmp_path / "cut.UPF"
    for name in ("Si.pz-vbc.UPF", "Si.rel-pbe-rrkj.UPF", "Si_r.upf"):
        content = next(path for path in pseudo_files() if path.name == name).read_bytes()
        for part in range(1, 20):
            cut.write_bytes(content[: len(content) * part // 20])
            found = facts(str(cut), Espresso())
            assert found.problem == "truncated", (name, part)


@pytest.mark.skipif(shutil.which("dos.x") is None, reason="there is no dos.x")
def test_what_is_exported_of_a_job_with_a_copy_changes_nothing(
    cli, service, environment, monkeypatch, tmp_path
):
    """Its program gets a copy once more, by the script with quacc and by the one without."""
    static = submit(service, "espresso.core.static_job", SI, environment, **SMALL)
    folder = completed(service, finish(service, static))["dir_name"]
    monkeypatch.setenv("CRYSTALMATH_HOME", str(service.config.home))
    asked = service.check(
        Submission(
            recipe="quacc.recipes.espresso.dos.dos_job",
            parameters={"prev_outdir": JobValue(static, ("dir_name",))},
            environment=environment,
        )
    )
    ((named, size),) = asked.copies
    assert named == str(folder)
    dos = submit(service, "espresso.dos.dos_job", None, environment, prev_outdir=str(folder))
    completed(service, finish(service, dos))
    # The copy has been unpacked.
    assert size < sum(f.stat().st_size for f in service.work_directory(dos).rglob("outdir/**/*"))
    left = [digests(service.work_directory(each)) for each in (static, dos)]
    out, script = tmp_path / "out it is", tmp_path / "dos.py"
    answer = cli("export", dos, "--inputs", out)
    assert answer.code == 0, answer.err
    answer = cli("export", dos, "--script")
    assert answer.code == 0, answer.err
    script.write_text(answer.out)
    plain = {"PATH": environment["PATH"], "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
    allowed = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    done = ran(out / "run.sh", cwd="/", env={**plain, **allowed})
    assert done.returncode == 0, done.stderr
    assert (out / "pwscf.dos").exists()
    done = ran(sys.executable, script, cwd=tmp_path, env={**plain, **allowed})
    assert done.returncode == 0, done.stderr
    assert [digests(service.work_directory(each)) for each in (static, dos)] == left
