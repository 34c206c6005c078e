"""Whatever a job starts is gone when its end is told, however it hides from the process table."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from conftest import eventually
from crystalmath import worker
from crystalmath.models import JobState
from ends import lab_job, opened

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("chains_end")]

HIDDEN = ["FORKS_AND_EXITS", "HAS_NO_MAIN_THREAD"]


@pytest.fixture
def begun(make):
    """Run a job in a thread of its own."""

    def begun(recipe, /, **parameters):
        directory = make(f"lab_recipes.{recipe}", **parameters)
        thread = threading.Thread(target=worker.run, args=(directory.path,))
        thread.start()
        jobs.append((directory, thread))
        return directory

    jobs = []
    yield begun
    for directory, thread in jobs:
        directory.request_cancel()
        thread.join()


def assert_silent(*marks):
    """Nobody writes any more."""
    sizes = [file.stat().st_size for file in marks]
    time.sleep(0.3)
    assert [file.stat().st_size for file in marks] == sizes, "some live on"


@pytest.mark.parametrize("script", HIDDEN)
def test_nothing_hides_from_a_subreaper(tmp_path, script):
    """Five times, each with one hidden process more."""
    code = (
        "import sys\n"
        "from lab_recipes import start_hidden\n"
        "from crystalmath.worker import child\n"
        "child.become_subreaper()\n"
        "for number in range(5):\n"
        "    for other in range(number + 1):\n"
        "        start_hidden(sys.argv[1], f'{sys.argv[2]}/{number}.{other}')\n"
        "    child.end_descendants(0.05)\n"
    )
    subprocess.run([sys.executable, "-c", code, script, str(tmp_path)], check=True, timeout=300)
    assert_silent(*tmp_path.iterdir())


@pytest.mark.parametrize("script", HIDDEN)
def test_nothing_hides_from_a_cancel(begun, tmp_path, script):
    marks = tmp_path / "marks"
    directory = begun("leave_hidden", script=script, marks=str(marks), go=str(tmp_path / "go"))
    eventually(lambda: marks.exists() and marks.stat().st_size > 100)
    directory.request_cancel()
    eventually(lambda: directory.decided(1))
    assert_silent(marks)
    assert directory.outcome(1)["state"] == "cancelled"


@pytest.mark.parametrize("script", HIDDEN)
def test_nothing_hides_from_the_end_of_a_job(make, tmp_path, script):
    marks = tmp_path / "marks"
    directory = make("lab_recipes.leave_hidden", script=script, marks=str(marks))
    worker.run(directory.path)
    assert_silent(marks)
    assert directory.outcome(1)["state"] == "completed", directory.outcome(1)
    assert "left running" in Path(directory.log(1)).read_text()


def test_a_program_may_be_given_time_to_tidy_up(home, tmp_path):
    """Two seconds are more than it has where nothing is said."""
    (home / "config.toml").write_text(
        '[recipes]\nallow = ["lab_recipes"]\n[cancel]\ngrace_s = 60\n'
    )
    path = tmp_path / "file"
    with opened(home, "local") as service:
        parameters = {"path": str(path), "seconds": 2}
        job_id = service.submit(lab_job("tidy_up", parameters=parameters)).job_id
        eventually(path.exists)
        assert service.cancel(job_id)
        eventually(lambda: service.job(job_id).state is JobState.CANCELLED)
    assert path.read_text() == "tidy"
