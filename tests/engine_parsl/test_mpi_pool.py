"""Which nodes of a pilot job a task over several of them gets, and when."""

import os
import pickle
import queue
import subprocess
import sys

import pytest

pytest.importorskip("crystalmath_engine_parsl", reason="the Parsl engine is not installed")

from crystalmath_engine_parsl import mpi_pool


class Tasks(queue.SimpleQueue):
    """What workers take, and what they have: no process of their own is needed."""

    def taken(self):
        return [self.get(block=False) for _ in range(self.qsize())]


@pytest.fixture
def four_nodes(tmp_path, monkeypatch):
    """Have a pilot job of four nodes."""
    scontrol = tmp_path / "bin/scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text("#!/bin/sh\nprintf 'n1\\nn2\\nn3\\nn4\\n'\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_NODELIST", "n[1-4]")


def test_tasks_that_do_not_fit_yet_wait_and_no_result_is_lost(four_nodes):
    tasks, results = Tasks(), Tasks()
    scheduler = mpi_pool.NodeScheduler(tasks, results)
    nodes, order = [2, 1, 3, 2, 4, 1], []
    for number, count in enumerate(nodes):
        spec = {"resource_spec": {"num_nodes": count}}
        scheduler.put_task({"task_id": number, "context": spec})
    running = {task["task_id"]: task for task in tasks.taken()}
    while running:
        taken = [task["context"]["resource_spec"]["MPI_NODELIST"] for task in running.values()]
        used = ",".join(taken).split(",")
        assert len(used) == len(set(used)) == sum(nodes[each] for each in running)
        ended = min(running)
        order.append(ended)
        del running[ended]
        result = pickle.dumps({"type": "result", "task_id": ended})
        results.put(result)
        assert scheduler.get_result() == result
        running |= {task["task_id"]: task for task in tasks.taken()}
    assert sorted(order) == list(range(len(nodes)))


def test_the_pool_of_a_pilot_job_takes_this_scheduler(tmp_path):
    script = tmp_path / "pool.py"
    script.write_text(
        "import sys\n"
        "from parsl.executors.high_throughput.mpi_resource_management import MPITaskScheduler\n"
        "print(MPITaskScheduler.__name__, __name__, sys.argv, sys.path[0])\n"
    )
    command = [sys.executable, mpi_pool.__file__, script, "--enable_mpi_mode"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    argv = [str(script), "--enable_mpi_mode"]
    assert done.stdout.strip() == f"NodeScheduler __main__ {argv} {tmp_path}"
