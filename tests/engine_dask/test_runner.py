"""The example's engine: the queue that its workers share, and what strangers see of it."""

import contextlib
import http.client
import time
from typing import Any

import psutil
import pytest
from ase.build import bulk

from conftest import eventually
from crystalmath.quacc import JobState, get_runner

pytest.importorskip("crystalmath_engine_dask", reason="the example's engine is not installed")
pytest.importorskip("distributed", reason="Dask is not installed")

#: Dask expects a job to take twice as long as it has taken until now. Beside one that has run for
#: so many seconds, a worker process with two new jobs counts as idle.
LONG_S = 25.0


@pytest.fixture
def submit(home, lab, tmp_path):
    """Submit jobs, each of which runs until the file of its name is there."""
    (home / "config.toml").write_text("[engines.dask]\nworkers = 2\n", encoding="ascii")
    runner: Any = get_runner("dask")
    yield lambda name: Job(runner, tmp_path / name)
    runner.close()


class Job:
    def __init__(self, runner, go):
        self._runner, self._go = runner, go
        self._id = runner.submit("lab_recipes.wait_for", bulk("Al"), "local", path=str(go))

    def runs(self):
        return self._runner.get_status(self._id) is JobState.RUNNING

    def let_go(self):
        self._go.touch()
        eventually(lambda: self._runner.get_status(self._id) is JobState.COMPLETED)


def test_no_job_waits_behind_another_while_a_worker_is_free(submit):
    long = submit("long")
    eventually(long.runs)
    time.sleep(LONG_S)
    others = [submit("short"), submit("last")]
    long.let_go()
    eventually(lambda: all(job.runs() for job in others))
    for job in others:
        job.let_go()


def test_no_port_shows_pages_about_jobs(submit):
    job = submit("job")
    eventually(job.runs)
    pages = {}
    for port in ports():
        for path in ("/json/counts.json", "/info/main/workers.html", "/metrics", "/health"):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            with contextlib.suppress(OSError, http.client.HTTPException):  # it takes TLS alone
                connection.request("GET", path)
                pages[port, path] = connection.getresponse().status
            connection.close()
    assert pages
    assert set(pages.values()) == {404}
    job.let_go()


def ports():
    """Return the ports on which the processes below this one listen."""
    processes = psutil.Process().children(recursive=True)
    sockets = [socket for process in processes for socket in process.net_connections("tcp")]
    return {socket.laddr.port for socket in sockets if socket.status == psutil.CONN_LISTEN}
