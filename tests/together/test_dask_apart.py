"""Jobs on workers that see nothing of the home: a Dask cluster that another user keeps."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import psutil
import pytest
from ase.build import bulk

from commands import piped
from conftest import LAB, eventually
from crystalmath import config, processes
from crystalmath.errors import JobRefused
from crystalmath.models import JobState, Submission
from crystalmath.preflight import inspector
from crystalmath.recipes.job_structure import JobValue
from crystalmath.service import JobService
from ends import finish

pytest.importorskip("crystalmath_engine_dask_apart")

NOBODY = 65534
ROOT = Path(__file__).parents[2]
OWNER = """
import sys
from ase.build import bulk
from crystalmath.models import Submission
from crystalmath.service import JobService
asked = Submission(
    recipe="lab_recipes.wait_for", atoms=bulk("Al"), parameters={"path": sys.argv[1]},
    engine="dask-apart",
)
service = JobService()
print(service.submit(asked).job_id, flush=True)
sys.stdin.read()
"""


def as_another_user():
    """Write a shell script that goes on as another user, who can reach Python and nothing else."""
    script = ["set -e", "aside=$(mktemp -d)"]
    closed = {}
    for path in map(Path, dict.fromkeys((sys.base_prefix, sys.prefix, str(ROOT)))):
        for above in reversed(path.parents):
            if not above.stat().st_mode & 0o001:
                closed.setdefault(above, []).append(path)
                break
    for number, (above, kept) in enumerate(closed.items()):
        places = [(f'"$aside/{number}.{i}"', shlex.quote(str(each))) for i, each in enumerate(kept)]
        script += [f"mkdir {place}; mount --bind {path} {place}" for place, path in places]
        script.append(f"mount -t tmpfs -o mode=755 none {shlex.quote(str(above))}")
        script += [f"mkdir -p {path}; mount --move {place} {path}" for place, path in places]
    return "\n".join(
        [*script, f'exec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups "$@"']
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Make the home, which only its owner can enter."""
    root = tmp_path_factory.mktemp("home")
    root.chmod(0o700)
    return root


@pytest.fixture(scope="module")
def place():
    """Yield a folder of the other user's, in which tests may write."""
    if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
        pytest.skip("only root can start workers as another user, who does not see its files")
    folder = Path(tempfile.mkdtemp(prefix="apart-", dir="/tmp"))
    os.chown(folder, NOBODY, NOBODY)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module", autouse=True)
def _cluster(root, place):
    """Start a scheduler, and a worker that another user keeps."""
    told, python = place / "scheduler.json", [sys.executable, "-m"]
    with (place / "log").open("w") as log:
        streams = {"stdout": log, "stderr": log, "start_new_session": True}
        command = ("distributed.cli.dask_scheduler", "--host=127.0.0.1", "--port=0")
        scheduler = subprocess.Popen(
            [*python, *command, "--no-dashboard", f"--scheduler-file={told}"],
            env={**os.environ, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"},
            **streams,
        )
        address = json.loads(eventually(lambda: told.exists() and told.read_text()))["address"]
        environment = {
            "HOME": place,
            "TMPDIR": place,
            "PATH": os.environ["PATH"],
            "PYTHONPATH": LAB,
            "VASP_PP_PATH": place / "potcars",
        }
        apart = ("unshare", "--mount", "--propagation=private", "sh", "-c", as_another_user(), "sh")
        given = (f"{name}={value}" for name, value in environment.items())
        command = ("distributed.cli.dask_worker", address, "--nworkers=1", "--nthreads=1")
        options = ("--no-dashboard", f"--local-directory={place}")
        workers = subprocess.Popen(
            [*apart, "env", "-i", *given, *python, *command, *options], **streams
        )
        (root / "config.toml").write_text(
            f'[engines.dask-apart]\nscheduler = "{address}"\n[flows]\non_cluster = ["bulk_to*"]\n'
        )
        yield
        for process in (workers, scheduler):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    # The jobs' processes end with their workers.
    eventually(lambda: not [each for each in psutil.process_iter() if _is_jobs(each, place)])


def _is_jobs(process, place):
    try:
        return process.environ().get("TMPDIR") == str(place)
    except psutil.Error:
        return False


@pytest.fixture(scope="module")
def service(root, _cluster):
    environ = {"CRYSTALMATH_HOME": str(root), "CRYSTALMATH_RECIPES": "lab_recipes"}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(LAB)
        with JobService(config.load(environ)) as service:
            yield service
    inspector.close()


def submit(service, recipe, /, atoms=None, environment=None, **parameters):
    atoms = bulk("Al") if atoms is None else atoms
    asked = Submission(
        recipe=recipe,
        atoms=atoms,
        parameters=parameters,
        engine="dask-apart",
        environment=environment,
    )
    return service.submit(asked).job_id


def is_running(service, job_id):
    return service.job(job_id).state is JobState.RUNNING


def test_a_relaxation_gives_what_it_gives_bare_and_its_files_come_back(
    service, root, tmp_path, monkeypatch, cli
):
    from quacc import change_settings
    from quacc.recipes.emt.core import relax_job

    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=1)
    with (
        warnings.catch_warnings(action="ignore"),
        change_settings({"RESULTS_DIR": tmp_path, "SCRATCH_DIR": None}),
    ):
        bare = relax_job(atoms.copy())
    job = finish(service, submit(service, "quacc.recipes.emt.core.relax_job", atoms))
    assert job.state is JobState.COMPLETED, job.error
    result = service.result(job.job_id)
    assert result["results"]["energy"] == bare["results"]["energy"]
    assert (result["atoms"].positions == bare["atoms"].positions).all()
    work = Path(result["dir_name"])
    assert work.is_relative_to(root / "jobs" / job.job_id / "1.work")
    assert any("opt" in path.name for path in work.iterdir()), list(work.iterdir())
    source = JobValue(job.job_id, ("dir_name",))
    asked = Submission(
        recipe="quacc.recipes.emt.core.static_job",
        atoms=atoms,
        parameters={"copy_files": [{"source": source, "filenames": ["opt*"]}]},
        engine="local",
    )
    again = finish(service, service.submit(asked).job_id)
    assert again.state is JobState.COMPLETED, again.error
    monkeypatch.setenv("CRYSTALMATH_HOME", str(root))
    shown = " ".join(cli("show", job.job_id).out.split())
    # Of a quick job the engine knows the worker only where it was asked while the job ran.
    worker = r"(the Dask worker tcp://[\d.:]+|a worker that has answered)"
    assert re.search(f"attempts 1 on {worker}, completed", shown), shown


def test_potcars_do_not_travel(service, tmp_path, place):
    from vasp.potcars import library

    (place / "potcars").mkdir(exist_ok=True)
    here = {"VASP_PP_PATH": str(library(tmp_path, "Si"))}
    recipe = "quacc.recipes.vasp.core.static_job"
    job = finish(service, submit(service, recipe, bulk("Si"), here))
    assert job.state is JobState.FAILED
    assert str(place / "potcars") in job.error


def test_a_worker_is_another_user_and_sees_nothing_of_the_home(service, root):
    command = ["sh", "-c", f"id -u; cat {root}/config.toml || true"]
    job = finish(service, submit(service, "lab_recipes.run_command", command=command))
    assert service.result(job.job_id) == {"lines": [str(NOBODY)]}


def test_a_recipe_that_fails_says_why(service, root):
    job = finish(service, submit(service, "lab_recipes.fail", message="no luck"))
    assert (job.state, job.error) == (JobState.FAILED, "RuntimeError: no luck")
    assert "lab_recipes.py" in job.traceback
    assert "RuntimeError: no luck" in (root / "jobs" / job.job_id / "1.log").read_text()


@pytest.mark.parametrize("is_seen", [False, True])
def test_a_cancelled_job_has_no_process_left(service, root, place, go, is_seen):
    pids = place / f"pids-{is_seen}"
    job_id = submit(service, "lab_recipes.abandon", pids=str(pids), path=str(place / "never"))
    eventually(pids.exists)
    if is_seen:
        eventually(lambda: is_running(service, job_id))
        assert "it runs at the Dask worker tcp://" in (root / "jobs" / job_id / "1.log").read_text()
    assert service.cancel(job_id)
    assert finish(service, job_id).state is JobState.CANCELLED
    assert not [pid for pid in map(int, pids.read_text().split()) if processes.start_time(pid)]


def test_a_job_whose_worker_was_killed_runs_once_more(service, place):
    marks = place / "marks"
    job_id = submit(service, "lab_recipes.count_and_sleep", path=str(marks))
    eventually(marks.exists)
    (runner,) = processes.marked("CRYSTALMATH_ATTEMPT", f"{job_id}.1")
    above = psutil.Process(runner).parents()
    next(each for each in above if "crystalmath.worker" not in " ".join(each.cmdline())).kill()
    job = finish(service, job_id)
    assert (job.state, job.attempt) == (JobState.COMPLETED, 2)
    assert marks.read_text() == "xx"
    eventually(lambda: processes.start_time(runner) is None)


@pytest.mark.parametrize("ends_meanwhile", [False, True])
def test_a_job_outlives_its_owner_and_runs_once(service, root, place, ends_meanwhile):
    go = place / f"go-{ends_meanwhile}"
    environ = {"CRYSTALMATH_HOME": str(root), "CRYSTALMATH_RECIPES": "lab_recipes"}
    owner = piped(sys.executable, "-c", OWNER, str(go), env={**os.environ, **environ})
    job_id = owner.stdout.readline().strip()
    eventually(lambda: processes.marked("CRYSTALMATH_ATTEMPT", f"{job_id}.1"))
    owner.kill()
    owner.communicate()
    if ends_meanwhile:
        go.touch()
        eventually(lambda: not processes.marked("CRYSTALMATH_ATTEMPT", f"{job_id}.1"))
    service.take_over()
    go.touch()
    job = finish(service, job_id)
    assert (job.state, job.attempt) == (JobState.COMPLETED, 1), job
    assert service.result(job_id) == {"saw": str(go)}


def test_what_needs_files_of_this_machine_is_refused(service, tmp_path):
    static = "quacc.recipes.emt.core.static_job"
    with pytest.raises(JobRefused, match="copy_files names files.*see no files of this machine"):
        submit(service, static, copy_files=[{"source": str(tmp_path), "filenames": ["x"]}])
    with pytest.raises(JobRefused, match="a flow's body reads the results of its steps"):
        submit(service, "quacc.recipes.emt.slabs.bulk_to_slabs_flow")
