"""The worker's process chain, driven as an engine's worker drives it: `crystalmath.worker.run`."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from ase.build import bulk

from conftest import eventually
from crystalmath import config, processes, worker
from crystalmath.jobs.documents import FORMAT
from crystalmath.jobs.identities import IDENTITIES, IdentityFile
from crystalmath.jobs.reading import read_result
from crystalmath.models import JobState, Resources, Submission
from crystalmath.service import JobService
from crystalmath.worker.chains import WorkerLostError
from ends import finish
from rundirs import write_job

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("chains_end")]


@pytest.fixture
def run(make):
    def run(recipe, /, **parameters):
        directory = make(f"lab_recipes.{recipe}", **parameters)
        worker.run(directory.path)
        assert directory.outcome(1)["state"] == "completed", directory.outcome(1)
        return read_result(directory)

    return run


def test_the_runner_is_warm(run):
    assert run("where")["pid"] == run("where")["pid"]


def test_a_supervisor_claims_in_one_home_alone(run, tmp_path):
    """What others learn of it, and what it has not published yet, lies in the home of its jobs."""
    first = run("where")["pid"]
    (tmp_path / "other").mkdir()
    other = write_job(tmp_path / "other", "lab_recipes.where")
    worker.run(other.path)
    identities = (tmp_path / "other" / "jobs" / IDENTITIES).iterdir()
    assert any(os.path.samefile(each, other.file("1.claim")) for each in identities)
    assert run("where")["pid"] == first


POTCARS = {
    "step/POTCAR": "  PAW_PBE Al\n   TITEL  = PAW_PBE Al 04Jan2001\n   TITEL  = PAW_PBE Cu\n",
    "step/POTCAR.orig": "   TITEL  = PAW_PBE Al 04Jan2001\n   TITEL  = PAW_PBE Cu\n",
    "step/OUTCAR": "   TITEL  = PAW_PBE Al 04Jan2001\n",
}


@pytest.mark.parametrize(
    ("end", "state"), [("return", "completed"), ("fail", "failed"), ("sleep", "cancelled")]
)
def test_a_potcar_does_not_stay_with_a_job_that_has_ended(make, end, state, tmp_path):
    library, scratch = tmp_path / "library", tmp_path / "failed-quacc-2026"
    for folder in (library, scratch):
        folder.mkdir()
        (folder / "POTCAR").write_text(POTCARS["step/POTCAR"])
    directory = make("lab_recipes.leave_files", texts=POTCARS, end=end)
    work = Path(directory.work(1))
    work.mkdir()
    (work / "symlink-library").symlink_to(library)
    (work / "symlink-failed-quacc-2026").symlink_to(scratch)
    (work / "again").symlink_to(scratch)
    thread = threading.Thread(target=worker.run, args=[directory.path])
    thread.start()
    eventually((work / "written").exists)
    if end == "sleep":
        assert (work / "step" / "POTCAR").is_file()
        directory.request_cancel()
    thread.join()
    assert directory.outcome(1)["state"] == state
    assert {path.name for path in (work / "step").iterdir()} == {"OUTCAR", "POTCAR.titel"}
    # Nor where quacc says that it has left a calculation; but no other link is followed.
    assert [path.name for path in scratch.iterdir()] == ["POTCAR.titel"]
    for folder in (work / "step", scratch):
        said = (folder / "POTCAR.titel").read_text()
        assert "TITEL = PAW_PBE Al 04Jan2001\nTITEL = PAW_PBE Cu\nSHA-256 = " in said
    assert (library / "POTCAR").read_text() == POTCARS["step/POTCAR"]


def test_a_file_that_is_not_what_is_on_record_is_named(make, tmp_path):
    """Somebody replaced a POTCAR while the job waited in a queue."""
    same, other = tmp_path / "same", tmp_path / "other"
    for file in (same, other):
        file.write_text("PAW Al")
    files = {str(file): hashlib.sha256(b"PAW Al").hexdigest() for file in (same, other)}
    other.write_text("PAW Cu")
    directory = make("lab_recipes.where", files={**files, "relative/or/gone": "0" * 64})
    worker.run(directory.path)
    assert directory.outcome(1)["summary"]["changed_files"] == [str(other)]
    assert f"{other} has changed" in Path(directory.log(1)).read_text()
    other.write_text("PAW Al")
    directory = make("lab_recipes.where", files=files)
    worker.run(directory.path)
    assert "changed_files" not in directory.outcome(1)["summary"]


def test_a_broken_configuration_fails_no_job(home, run):
    """It is edited while jobs wait; what was admitted came along with them."""
    (home / "config.toml").write_text("nonsense = [")
    assert run("where", environment={"VASP_OWN": "a runner of its own"})


@pytest.mark.parametrize("leak", ["leave_thread", "leave_child", "leave_clone", "leave_path"])
def test_what_cannot_be_put_back_costs_the_runner(run, leak):
    left = run(leak)
    assert run("where")["pid"] != left["pid"]
    if "child" in left:
        assert processes.start_time(left["child"]) is None


def test_what_a_recipe_loads_once_costs_no_runner(run):
    """However large it is, and another one beside it."""
    found = [run("load", name=name)["pid"] for name in ("small", "small", "large", "small")]
    assert len({*found, run("where")["pid"]}) == 1


def test_memory_that_grows_from_job_to_job_costs_the_runner(make, run):
    directories = [make("lab_recipes.leave_memory") for _ in range(4)]
    found = []
    for directory in directories:
        worker.run(directory.path)
        assert directory.outcome(1)["state"] == "completed", directory.outcome(1)
        found.append(read_result(directory)["pid"])
    # The first job may have loaded its 300 MB; with the third it is 600 MB more.
    assert found[0] == found[1] == found[2] != found[3]
    said = {"the recipe left memory behind": 1}
    outcomes = [directory.outcome(1) for directory in directories]
    assert [each.get("process_replaced") for each in outcomes] == [None, None, said, None]
    assert outcomes[2]["summary"]["process_replaced"] == said


def test_the_user_reads_why_a_process_was_replaced(home, cli):
    with JobService(config.load()) as service:
        left, failed = (
            finish(service, service.submit(Submission(recipe=recipe, atoms=bulk("Al"))).job_id)
            for recipe in ("lab_recipes.leave_thread", "lab_recipes.leave_thread_and_fail")
        )
    why = "the recipe left threads behind"
    for job, state in ((left, "completed"), (failed, "failed")):
        shown = " ".join(cli("show", job.job_id).out.split())
        assert f", {state}" in shown
        assert f"its process was replaced: {why}" in shown
    document = json.loads(cli("status", left.job_id, "--json").out)
    assert document["result"]["process_replaced"] == {why: 1}


def test_jobs_of_a_recipe_go_to_the_process_that_has_run_it(make, run, go):
    """Of two that are idle, whichever ran the last job."""
    waiting = make("lab_recipes.wait_for", path=str(go))
    thread = threading.Thread(target=worker.run, args=[waiting.path])
    thread.start()
    eventually(lambda: waiting.claimant(1))
    process = run("where")["pid"]
    go.touch()
    thread.join()
    for _ in range(2):
        assert run("where")["pid"] == process
        run("wait_for", path=str(go))


#: A quacc that counts how often it is imported.
QUACC = """
import contextlib, os, pathlib, signal, socket, subprocess, threading, types
FILE = pathlib.Path(__file__).parent.parent / "imports"
with open(FILE, "a") as file:
    file.write("x")
if os.environ.get("VASP_START") == "thread":
    threading.Thread(target=threading.Event().wait, daemon=True).start()
if os.environ.get("VASP_START") == "process":
    subprocess.Popen(["sleep", "600"])
settings = types.SimpleNamespace(RESULTS_DIR=None)
def get_settings():
    return settings
DIES, TEMPLATE = FILE.with_name("dies"), os.getpid()
def die(moment):
    with contextlib.suppress(FileNotFoundError):
        if DIES.read_text() == moment:
            DIES.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
def hook(owner, name, before, after):
    real = getattr(owner, name)
    def call(*args):
        who = "template" if os.getpid() == TEMPLATE else "other"
        die(f"{who} {before}")
        result = real(*args)
        die(f"child of {who}" if result == 0 else f"{who} {after}")
        return result
    setattr(owner, name, call)
if DIES.exists():
    if DIES.read_text() == "import":
        DIES.unlink()
        raise ValueError("no such setting")
    hook(os, "fork", "forks", "has forked")
    hook(os, "waitpid", "waits", "has waited")
    hook(os, "setsid", "goes on", "has gone on")
    hook(socket.socket, "sendall", "tells", "has told")
"""
QUACC_RECIPES = """
import os, random, signal, threading, time
import numpy
from crystalmath import processes
def where(atoms):
    drawn = [random.random(), float(numpy.random.random())]
    return {"pid": os.getpid(), "parent": os.getppid(), "drawn": drawn}
def thread(atoms):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
def killed(atoms):
    os.kill(os.getpid(), signal.SIGKILL)
def child(atoms):
    if os.fork() == 0:
        os.setsid()
        time.sleep(600)
def overdue(atoms):
    time.sleep(600)
def without_template(atoms):
    (template,) = {*processes.children(os.getppid())} - {os.getpid()}
    os.kill(template, signal.SIGKILL)
    while processes.start_time(template) is not None:
        time.sleep(0.01)
"""


@pytest.fixture
def count_imports(tmp_path, with_quacc, monkeypatch, make):
    """Run a recipe of a quacc that counts; return what it found, and how often it was imported."""
    package = tmp_path / "counting" / "quacc"
    for name, code in (("", QUACC), ("runners", ""), ("schemas", ""), ("recipes", "")):
        (package / name).mkdir(parents=True)
        (package / name / "__init__.py").write_text(code)
    for name in ("runners", "schemas"):
        (package / name / "ase.py").touch()
    (package / "recipes" / "counting.py").write_text(QUACC_RECIPES)
    monkeypatch.setenv("PYTHONPATH", f"{package.parent}{os.pathsep}{os.environ['PYTHONPATH']}")

    def run(recipe, state="completed", **options):
        directory = make(f"quacc.recipes.counting.{recipe}", **options)
        worker.run(directory.path)
        assert directory.outcome(1)["state"] == state, directory.outcome(1)
        found = read_result(directory) if recipe == "where" else None
        return found, len((package.parent / "imports").read_text())

    return run


@pytest.mark.parametrize(
    ("end", "state", "options"),
    [
        ("thread", "completed", {}),
        ("child", "completed", {}),
        ("killed", "lost", {}),
        ("overdue", "failed", {"walltime_s": 0.3}),
        ("where", "completed", {"environment": {"CRYSTALMATH_FRESH": "*"}}),
    ],
)
def test_a_new_runner_need_not_import_quacc_again(count_imports, end, state, options):
    """It is forked from a template, as the supervisor's own child."""
    told = {name: value for name, value in options.items() if name == "environment"}
    first, _ = count_imports("where", **told)
    for _ in range(2):
        count_imports(end, state, **options)
    second, count = count_imports("where", **told)
    assert count == 1
    assert second["pid"] != first["pid"]
    assert second["parent"] == first["parent"]
    assert not set(second["drawn"]) & set(first["drawn"])


def test_a_template_is_of_one_environment(count_imports):
    """What is imported may read any variable."""
    counts = [count_imports("where", environment={"VASP_X": x})[1] for x in "1121"]
    assert counts == [1, 1, 2, 3]


def test_a_killed_template_costs_no_job(count_imports):
    """Neither the one that runs nor the next, which has another template."""
    first, _ = count_imports("where")
    assert count_imports("without_template")[1] == 1
    second, count = count_imports("where")
    assert second["parent"] == first["parent"]
    assert count == 2


#: Of the template, of the process between, and of the runner that is on its way.
MOMENTS = (
    "template forks",
    "other forks",
    "other has forked",
    "child of other",
    "template has waited",
    "other goes on",
    "other has gone on",
    "template has told",
)


def test_whoever_dies_on_the_way_to_a_runner_is_noticed(count_imports, make, tmp_path):
    """It costs that one attempt, and the supervisor runs the next job."""
    dies = tmp_path / "counting" / "dies"

    def run():
        directory = make("quacc.recipes.counting.where")
        hangs = threading.Timer(300, directory.request_cancel)
        hangs.start()
        worker.run(directory.path)
        hangs.cancel()
        return directory.claimant(1), directory.outcome(1)

    dies.write_text("import")
    supervisor, outcome = run()
    assert outcome["state"] == "failed"
    assert "no such setting" in outcome["error"]
    for moment in MOMENTS:
        dies.write_text(moment)
        found, outcome = run()
        assert not dies.exists(), moment
        assert (outcome["state"], found) == ("lost", supervisor), (moment, outcome)
        assert "SIGKILL" in outcome["error"]
        assert "Traceback" not in outcome["error"]
    assert count_imports("where")[0]["parent"] == supervisor.pid


def test_what_starts_threads_when_imported_is_no_template(count_imports):
    """They would not live on in a fork: the process that imported runs the jobs itself."""
    told = {"environment": {"VASP_START": "thread"}}
    first, _ = count_imports("where", **told)
    assert processes.children(first["parent"]) == [first["pid"]]
    assert count_imports("where", **told)[0]["pid"] == first["pid"]
    count_imports("thread", **told)
    assert count_imports("where", **told)[1] == 2


def test_a_template_keeps_no_zombie_of_what_an_import_started(count_imports):
    told = {"environment": {"VASP_START": "process"}}
    first, _ = count_imports("where", **told)
    count_imports("killed", "lost", **told)
    second, count = count_imports("where", **told)
    assert count == 1
    (template,) = {*processes.children(first["parent"])} - {second["pid"]}
    assert processes.children(template) == []


def test_a_template_that_cannot_be_started_holds_up_nobody(make):
    directory = make("lab_recipes.where", environment={"VASP_X": "no value of a variable: \0"})
    with pytest.raises(WorkerLostError):
        worker.run(directory.path)


def test_why_no_process_can_be_started_is_told(make):
    directory = make("lab_recipes.where", environment={"VASP_X": "x" * 200_000})
    worker.run(directory.path)
    outcome = directory.outcome(1)
    assert outcome["state"] == "lost"
    assert outcome["error"].startswith("no process could be started for it: [Errno 7] Argument")


def test_quacc_is_imported_for_its_own_recipes_alone(count_imports, run, tmp_path):
    run("where")
    assert not (tmp_path / "counting" / "imports").exists()
    assert count_imports("where")[1] == 1


@pytest.mark.parametrize("what", ["numpy", "units", "table", "class", "norm", "own"])
def test_a_change_in_the_libraries_costs_the_runner(run, what):
    before = run("libraries")
    left = run("change", what=what)
    after = run("libraries")
    assert left["pid"] == before["pid"]
    assert left[what] != before[what]
    assert after["pid"] != before["pid"]
    assert {**after, "pid": before["pid"]} == before


def test_what_most_jobs_do_changes_nothing_in_the_libraries(with_quacc, make, run):
    """Else each would cost a runner, and seconds."""
    found = []
    for recipe in ("emt.core.relax_job", "emt.slabs.bulk_to_slabs_flow", "lj.core.static_job"):
        directory = make(f"quacc.recipes.{recipe}")
        worker.run(directory.path)
        assert directory.outcome(1)["state"] == "completed", directory.outcome(1)
        found.append(run("libraries"))
    run("change", what="warnings")
    assert [*found, run("libraries")] == found[:1] * 4


def test_what_a_job_set_in_python_is_put_back(run):
    before = run("libraries")
    for what in ("decimal", "recursion"):
        assert run("change", what=what)[what] != before[what]
    after = run("libraries")
    for name in ("pid", "decimal", "recursion"):
        assert after[name] == before[name]


def test_a_fresh_process_for_each_job(make, run):
    """Forked from one warm process; whatever the job leaves in it, nothing stays."""
    fresh = {"CRYSTALMATH_FRESH": "some.other,lab_recipes"}
    jobs = ("change", {"what": "units"}), ("leave_thread", {}), ("libraries", {}), ("where", {})
    found = [run(recipe, environment=fresh, **more) for recipe, more in jobs]
    assert len({job["pid"] for job in found}) == len(found)
    assert found[0]["units"] == 1.0
    assert found[2]["units"] != 1.0
    own = [run("where", environment={"CRYSTALMATH_FRESH": "lab"})["pid"] for _ in range(2)]
    assert own[0] == own[1]


def test_a_fresh_process_that_dies_is_told_as_a_warm_one(make):
    fresh = {"CRYSTALMATH_FRESH": "*"}
    directory = make("lab_recipes.talk_and_die", environment=fresh, lines=3)
    worker.run(directory.path)
    outcome = directory.outcome(1)
    assert outcome["state"] == "lost"
    assert "SIGKILL" in outcome["error"]
    assert "line 2" in outcome["error"]
    directory = make("lab_recipes.long_sleep", environment=fresh, walltime_s=0.3)
    worker.run(directory.path)
    assert "walltime of 0.3 s" in directory.outcome(1)["error"]
    assert processes.marked("CRYSTALMATH_ATTEMPT", f"{os.path.basename(directory.path)}.1") == []


@pytest.mark.parametrize("warm", [True, False])
def test_a_warm_home_has_imported_quacc_before_its_first_job(count_imports, home, tmp_path, warm):
    """For the environment that most jobs have; it waits for them, whatever runs meanwhile."""
    settings = f"[server]\nwarm = {str(warm).lower()}\n[engines.local]\nworkers = 1\n"
    (home / "config.toml").write_text(settings)
    imports = tmp_path / "counting" / "imports"
    with JobService(config.load()) as service:
        service.warm()
        if warm:
            eventually(imports.exists)
        for resources in (Resources(cores_per_rank=2), Resources(), Resources(cores_per_rank=2)):
            asked = Submission(recipe="lab_recipes.where", atoms=bulk("Al"), resources=resources)
            assert finish(service, service.submit(asked).job_id).state is JobState.COMPLETED
        assert imports.exists() == warm
    assert not warm or imports.read_text() == "x"


def test_a_seed_is_a_jobs_own(run):
    first, second = run("draw", seed=0), run("draw", seed=0)
    assert first == second
    others = [run("draw"), *(run("draw", seed=0) and run("draw") for _ in range(2))]
    assert {draw["pid"] for draw in others} == {first["pid"]}
    for name in ("python", "numpy"):
        assert len({draw[name] for draw in others}) == 3


def test_torch_is_put_back(run):
    pytest.importorskip("torch")
    before = run("torch_default")
    assert run("torch_default", name="float64")["type"] == "torch.float64"
    first = run("torch_default")
    run("torch_default", name="float64")
    second = run("torch_default")
    assert before["type"] == first["type"] == second["type"]
    assert first["drawn"] != second["drawn"]


def test_settings_that_cannot_be_put_back_cost_the_runner(with_quacc, run):
    left = run("leave_settings")
    after = run("gzip_files")
    assert (after["pid"] == left["pid"], after["gzip"]) == (False, True)


def test_a_recipe_that_imports_quacc_itself_costs_no_runner(with_quacc, run):
    assert run("gzip_files") == run("gzip_files")


def test_what_can_be_put_back_does_not(run):
    left = run("leave_environment")
    after = run("where")
    assert after["pid"] == left["pid"]
    assert "LEFT_BEHIND" not in after["environment"]
    assert after["cwd"].endswith("1.work")
    assert run("where")["umask"] == 0o077  # `where` itself changes it


def test_another_environment_gets_another_runner(run):
    first = run("where", environment={"VASP_PP_PATH": "/one"})
    second = run("where", environment={"VASP_PP_PATH": "/two"})
    assert first["environment"]["VASP_PP_PATH"] == "/one"
    assert second["environment"]["VASP_PP_PATH"] == "/two"
    assert first["pid"] != second["pid"]


def test_a_scratch_folder_that_a_node_does_not_name_is_none(run):
    """quacc would make a folder that is called `$NODE_TMP`."""
    for given, seen in (("$NODE_TMP/me", None), ("/scratch/me", "/scratch/me")):
        found = run("where", environment={"QUACC_SCRATCH_DIR": given})["environment"]
        assert found.get("QUACC_SCRATCH_DIR") == seen
    given = {"QUACC_SCRATCH_DIR": "$NODE_TMP/me", "NODE_TMP": "/node"}
    found = run("where", environment=given)["environment"]
    assert found["QUACC_SCRATCH_DIR"] == "$NODE_TMP/me"


def test_a_mended_recipe_never_runs_in_its_old_form(make, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ['PYTHONPATH']}")
    recipe, helper = tmp_path / "edited.py", tmp_path / "edited_helper.py"
    code = "import time, edited_helper\nAT = time.time()\ndef f(atoms): return HELPER"
    recipe.write_text(code.replace("HELPER", "{'value': edited_helper.VALUE, 'imported': AT}"))
    for value in (1, 2, 3, 4):
        # Same size, same second: the times and sizes that bytecode is trusted by do not change.
        helper.write_text(f"VALUE = {value}\n")
        directory = make("edited.f")
        worker.run(directory.path)
        found = read_result(directory)
        assert found["value"] == value
        # What it takes to import a recipe is no time of the job.
        assert directory.outcome(1)["started"] >= found["imported"]
        # A bytecode file that somebody else left must not be trusted, either.
        subprocess.run([sys.executable, "-c", "import edited_helper"], cwd=tmp_path, check=True)


def test_settings_that_were_mended_hold_for_the_next_job(with_quacc, run, tmp_path):
    settings = tmp_path / "quacc.yaml"
    environment = {"QUACC_CONFIG_FILE": str(settings)}
    assert run("gzip_files", environment=environment)["gzip"] is True
    settings.write_text("GZIP_FILES: false\n")
    assert run("gzip_files", environment=environment)["gzip"] is False


def test_a_job_launched_twice_runs_once(make, tmp_path):
    mark = tmp_path / "mark"
    directory = make("lab_recipes.kill_supervisor", count=str(mark))
    mark.write_text("xx")  # from here on it just counts
    threads = [threading.Thread(target=worker.run, args=(directory.path,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    worker.run(directory.path)
    assert mark.read_text() == "xxx"


def test_a_job_cancelled_before_it_is_claimed_never_runs(make, tmp_path):
    directory = make("lab_recipes.touch", path=str(tmp_path / "ran"))
    directory.request_cancel()
    worker.run(directory.path)
    assert directory.outcome(1)["state"] == "cancelled"
    assert directory.outcome(1)["started"] is None
    assert not (tmp_path / "ran").exists()


def test_a_run_directory_that_is_removed_as_it_is_claimed_stops_no_others(make):
    jobs = first, removed, last = [make("lab_recipes.where") for _ in range(3)]
    first.write_parcel(1, [(os.path.basename(each.path), 1) for each in jobs[1:]])
    spec = Path(removed.file("spec"))
    content = spec.read_bytes()
    spec.unlink()
    os.mkfifo(spec)
    thread = threading.Thread(target=worker.run, args=(first.path,))
    thread.start()
    # It waits until the supervisor reads.
    with spec.open("wb") as file:
        shutil.rmtree(removed.path)
        file.write(content)
    thread.join()
    assert [each.outcome(1)["state"] for each in (first, last)] == ["completed"] * 2
    assert first.claimant(1) == last.claimant(1), "its supervisor goes on"


def test_a_supervisor_told_to_stop_says_that_the_attempt_is_lost(make):
    directory = make("lab_recipes.long_sleep")
    thread = threading.Thread(target=worker.run, args=(directory.path,))
    thread.start()
    claimant = eventually(lambda: directory.claimant(1))
    os.kill(claimant.pid, signal.SIGTERM)
    thread.join(60)
    assert directory.outcome(1)["state"] == "lost"
    eventually(claimant.is_dead)


def test_a_worker_may_have_very_many_files_open(make, many_files):
    """What it starts inherits a line to it, under the number that it has here."""
    plain, behind_init = make("lab_recipes.value"), make("lab_recipes.value")
    worker.run(plain.path)
    tie, ours = os.pipe()
    command = [sys.executable, "-P", "-m", "crystalmath.engines.local", behind_init.path, str(tie)]
    subprocess.run(command, pass_fds=[tie], check=True)
    os.close(tie)
    os.close(ours)
    assert {each.outcome(1)["state"] for each in (plain, behind_init)} == {"completed"}


def test_supervisors_are_started_one_after_another(make, monkeypatch):
    """Children between vfork and exec share locks, which are lost where their parent is killed."""
    met, both = [], threading.Barrier(2)

    class Meeting(subprocess.Popen):
        def __init__(self, *arguments, **options):
            with contextlib.suppress(threading.BrokenBarrierError):
                met.append(both.wait(1.0))
            super().__init__(*arguments, **options)

    directories = [make("lab_recipes.where") for _ in range(2)]
    monkeypatch.setattr(subprocess, "Popen", Meeting)
    threads = [threading.Thread(target=worker.run, args=(each.path,)) for each in directories]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert both.broken
    assert met == []
    assert {each.outcome(1)["state"] for each in directories} == {"completed"}


def test_the_job_outlives_its_worker(make, tmp_path, home):
    directory = make("lab_recipes.long_sleep", seconds=2.0)
    code = f"from crystalmath import worker; worker.run({directory.path!r})"
    owner = subprocess.Popen([sys.executable, "-c", code])
    claimant = eventually(lambda: directory.claimant(1))
    owner.kill()
    owner.wait()
    eventually(lambda: directory.decided(1))
    assert directory.outcome(1)["state"] == "completed"
    eventually(claimant.is_dead, message="a chain whose owner is gone ends after its job")


def test_claims_outlast_the_links_that_a_file_may_have(make, home, monkeypatch):
    identity = IdentityFile(home / "jobs" / ".identities", processes.own_identity())
    first, second = make("lab_recipes.value"), make("lab_recipes.value")
    real, calls = os.link, []

    def link(source, target):
        calls.append(source)
        if len(calls) == 2:
            raise OSError(31, "Too many links")
        real(source, target)

    monkeypatch.setattr(os, "link", link)
    assert first.claim(1, identity)
    assert second.claim(1, identity)
    assert second.claimant(1) == processes.own_identity()
    assert not second.claim(1, identity)


def test_files_of_a_newer_release_are_refused_in_plain_words(make):
    directory = make("lab_recipes.value")
    with open(directory.file("spec"), "w") as file:
        file.write(f'{{"format": {FORMAT + 1}}}\n{{}}')
    with pytest.raises(Exception, match="newer release"):
        directory.read_spec()


def test_a_tree_that_resists_is_ended(tmp_path):
    """TERM ignored, sessions left, double forks, respawning, an empty environment."""
    script = tmp_path / "tree.py"
    script.write_text(
        "import ctypes, os, signal, subprocess, sys, time\n"
        "ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "depth = int(sys.argv[1])\n"
        "while True:\n"
        "    if depth:\n"
        "        child = subprocess.Popen([sys.executable, __file__, str(depth - 1)],\n"
        "                                 start_new_session=True, env={})\n"
        "        child.wait()\n"
        "    else:\n"
        "        time.sleep(600)\n"
    )
    top = subprocess.Popen([sys.executable, str(script), "3"])
    eventually(lambda: len(processes.descendants(top.pid)) == 3)
    tree = [top.pid, *processes.descendants(top.pid)]
    started = {pid: processes.start_time(pid) for pid in tree}

    def living():
        return [pid for pid, start in started.items() if processes.is_alive(pid, start)] + (
            processes.descendants(top.pid)
        )

    began = time.monotonic()
    processes.end_processes(living, grace_s=0.1)
    top.wait()
    assert living() == []
    assert time.monotonic() - began < 60


def test_a_process_that_cannot_be_looked_at_for_want_of_descriptors_is_not_passed_over(monkeypatch):
    def short(path, *arguments, **options):
        if str(path).endswith("/environ"):
            raise OSError(errno.EMFILE, "Too many open files")
        return open(path, *arguments, **options)

    monkeypatch.setattr(processes, "open", short, raising=False)
    with pytest.raises(OSError, match="Too many open files"):
        processes.marked("CRYSTALMATH_ATTEMPT", "any.1")


def test_a_killed_recipe_tells_the_last_few_lines_of_its_log(make):
    directory = make("lab_recipes.talk_and_die", lines=300)
    worker.run(directory.path)
    first, *rest = directory.outcome(1)["error"].splitlines()
    assert "SIGKILL" in first
    assert rest == ["the end of its log:", *(f"line {number}" for number in range(295, 300))]
    with open(directory.log(1)) as log:
        assert log.readline() == "line 0\n"
