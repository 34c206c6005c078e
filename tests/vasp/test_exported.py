"""A folder that `export --inputs` writes: VASP runs in it, without us and without quacc."""

import pytest
from ase.build import bulk
from ase.io import read

from commands import ran
from ends import completed, finish, opened, submit
from vasp import potcars

pytestmark = pytest.mark.vasp

AL = bulk("Al", a=4.1, cubic=True)
AL.rattle(0.05, seed=1)


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    root = tmp_path_factory.mktemp("a place")
    more = {"QUACC_VASP_PARALLEL_CMD": "", "QUACC_VASP_CUSTODIAN_HANDLERS": "[]"}
    return potcars.beside_vasp(root, "Al", **more)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    (home / "config.toml").write_text("[engines.local]\nworkers = 1\n")
    with opened(home, "local") as service:
        yield service


@pytest.fixture
def export(cli, service, tmp_path, monkeypatch):
    """Export the folder of a job; its name has a space, as people's have."""
    monkeypatch.setenv("CRYSTALMATH_HOME", str(service.config.home))

    def written(job):
        answer = cli("export", job.job_id, "--inputs", tmp_path / "out it is")
        assert answer.code == 0, answer.err
        return tmp_path / "out it is"

    return written


def run(folder, environment):
    return ran(folder / "run.sh", cwd="/", env={"PATH": environment["PATH"]})


@pytest.mark.parametrize(
    ("recipe", "folders"),
    [("vasp.core.static_job", ["."]), ("vasp.core.double_relax_flow", ["step-1", "step-2"])],
)
def test_it_runs_by_the_program_alone(service, environment, export, recipe, folders):
    job = finish(service, submit(service, recipe, AL, environment))
    completed(service, job)
    folder = export(job)
    for _ in range(2):  # once more: what it has made is not in its way
        done = run(folder, environment)
        assert done.returncode == 0, done.stderr
    for each in folders:
        assert "PAW_PBE Al" in (folder / each / "POTCAR").read_text()
        assert (folder / each / "vasp.out").exists()
    result = read(folder / folders[-1] / "vasprun.xml")
    assert result.get_potential_energy() == pytest.approx(job.summary["energy_ev"], abs=1e-6)


def test_of_a_job_that_has_not_run(service, environment, export):
    """Its recipe is asked; what goes wrong leaves nothing that a second run takes for whole."""
    sleeping = {"system": "STANDIN_SLEEP=600"}
    before = submit(service, "vasp.core.static_job", AL, environment, **sleeping)
    job_id = submit(service, "vasp.core.static_job", AL, environment)
    job = service.job(job_id)
    service.cancel(job_id)
    service.cancel(before)
    folder = export(finish(service, job_id))
    script = folder / "run.sh"
    whole, library = script.read_text(), environment["VASP_PP_PATH"]
    script.write_text(whole.replace(library, "/nowhere"))
    assert run(folder, environment).returncode != 0
    assert not (folder / "OUTCAR").exists()
    script.write_text(whole)
    done = run(folder, environment)
    assert done.returncode == 0, done.stderr
    assert "PAW_PBE Al" in (folder / "POTCAR").read_text()
    assert read(folder / "vasprun.xml").get_potential_energy() < 0
    assert job.recipe in whole


def test_a_program_that_fails_ends_it(service, environment, export):
    job_id = submit(service, "vasp.core.double_relax_flow", AL, environment)
    folder = export(finish(service, job_id))
    (folder / "step-1/INCAR").write_text("SYSTEM = STANDIN_CRASH=3\n")
    done = run(folder, environment)
    assert done.returncode == 3, (done.stdout, done.stderr)
    assert not (folder / "step-2/OUTCAR").exists()
