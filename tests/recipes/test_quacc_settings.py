"""What a caller changes of quacc's settings reaches the job."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import quacc
from ase.build import bulk
from quacc import change_settings
from quacc.settings import QuaccSettings

from conftest import eventually
from crystalmath.client import in_process
from crystalmath.quacc import get_runner
from crystalmath.quacc.engines import close_all, get_workflow_engine
from crystalmath.recipes.quacc_settings import changed_settings

pytestmark = pytest.mark.processes

STATIC = "quacc.recipes.emt.core.static_job"
CHANGES = {
    "ESPRESSO_PSEUDO": "/tmp",
    "ESPRESSO_PARALLEL_CMD": ("mpirun -np 2", "-nk 2"),
    "ESPRESSO_BINARIES": {"pw": "my-pw.x"},
    "VASP_CUSTODIAN_HANDLERS": [],
    "VASP_CUSTODIAN_WALL_TIME": 60,
    "VASP_MAG_CUTOFF": 0.5,
    "VASP_PARALLEL_CMD": "mpirun -np 4",
    "CREATE_UNIQUE_DIR": False,
    "SCRATCH_DIR": None,
}


@pytest.fixture(autouse=True)
def own_settings():
    """Have quacc read its settings anew for each test."""
    quacc._internally_set_settings(reset=True)
    yield
    quacc._internally_set_settings(reset=True)


def test_nothing_is_told_where_nothing_was_changed():
    assert changed_settings() == {}


@pytest.mark.parametrize("name", CHANGES)
def test_quacc_reads_what_is_told_as_it_was_changed(name, monkeypatch, tmp_path):
    config = tmp_path / "quacc.yaml"
    config.write_text(f"SCRATCH_DIR: {tmp_path}\n")
    monkeypatch.setenv("QUACC_CONFIG_FILE", str(config))
    with change_settings({name: CHANGES[name]}):
        told = changed_settings()
        expected = getattr(quacc.get_settings(), name)
    assert f"QUACC_{name}" in told
    for variable, text in told.items():
        monkeypatch.setenv(variable, text)
    assert getattr(QuaccSettings(), name) == expected


def test_a_variable_that_was_set_later_holds(monkeypatch):
    """Quacc was imported before: its own settings do not know."""
    monkeypatch.setenv("QUACC_VASP_CMD", "vasp_of_the_shell")
    assert "QUACC_VASP_CMD" not in changed_settings()
    with change_settings({"VASP_CMD": "vasp_changed"}):
        assert changed_settings()["QUACC_VASP_CMD"] == "vasp_changed"


def test_a_variable_that_quacc_does_not_start_with(monkeypatch):
    """It was set after quacc was imported: the job is refused for it, unless the script helps."""
    with monkeypatch.context() as later:
        later.setenv("QUACC_VASP_PRESET_DIR", "~nobody-of-that-name/presets")
        assert changed_settings() == {}
        with change_settings({"VASP_CMD": "vasp_changed", "SCRATCH_DIR": None}):
            told = changed_settings()
        assert told == {"QUACC_VASP_CMD": "vasp_changed", "QUACC_SCRATCH_DIR": "None"}
        # A thread that quacc has read no settings for, as those that answer in this process.
        with ThreadPoolExecutor() as threads:
            assert threads.submit(get_workflow_engine).result() is None
        with change_settings({"VASP_PRESET_DIR": "~/presets"}):
            told = changed_settings()
        assert told["QUACC_VASP_PRESET_DIR"] == str(Path("~/presets").expanduser())


@pytest.mark.parametrize("where", ["environment", "file"])
def test_a_setting_that_is_changed_back_to_its_default_is_told(where, monkeypatch, tmp_path):
    if where == "environment":
        monkeypatch.setenv("QUACC_CHECK_CONVERGENCE", "False")
    else:
        (tmp_path / "quacc.yaml").write_text("CHECK_CONVERGENCE: false\n")
        monkeypatch.setenv("QUACC_CONFIG_FILE", str(tmp_path / "quacc.yaml"))
    quacc._internally_set_settings(reset=True)
    assert changed_settings() == {}
    with change_settings({"CHECK_CONVERGENCE": True}):
        assert changed_settings() == {"QUACC_CHECK_CONVERGENCE": "true"}
    assert changed_settings() == {}


def test_settings_are_those_of_the_thread_that_submits():
    told = []
    with change_settings({"VASP_CMD": "vasp_changed"}):
        thread = threading.Thread(target=lambda: told.append(changed_settings()))
        thread.start()
        thread.join()
    assert told == [{}]


def test_jobs_of_a_runner_and_of_a_client_see_them(home):
    atoms = bulk("Cu")
    runner = get_runner("local")
    with change_settings({"CREATE_UNIQUE_DIR": False, "GZIP_FILES": False}):
        job_id = runner.submit(STATIC, atoms)
    result = eventually(lambda: runner.get_result(job_id), 120)
    assert Path(result["dir_name"]).name == "1.work", result
    close_all()
    with in_process() as client:
        with change_settings({"CREATE_UNIQUE_DIR": False}):
            future = client.submit(STATIC, atoms, engine="local")
        assert Path(future.result(120)["dir_name"]).name == "1.work"
