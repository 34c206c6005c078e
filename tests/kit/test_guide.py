"""The batch engine of `docs/writing-an-engine.md`, typed in from the page, passes the kit.

Its commands are those of a small queue of this host, on which jobs really run; the session `slurm`
runs the same engine on Slurm. (`tests/test_docs.py` compares the Dask example with its files, and
the session `contract(dask)` runs the kit on these.)
"""

from __future__ import annotations

import os
from pathlib import Path

from crystalmath.testing.pytest_session import run_pytest
from crystalmath.testing.waiting import eventually
from guide_page import type_in

#: What takes most of the time, and what the queue of this host ends by a signal of its own, is left
#: to the engines' own sessions; ``GUIDE_TESTS`` chooses others.
CHOSEN = "not quacc and not cancel and not clos and not exit and not script and not exception"
LIGHT = Path(__file__).parents[1] / "light"


def test_the_batch_engine_passes(queue, tmp_path, monkeypatch):
    site = type_in("batch", tmp_path / "site")
    # Each job is a fresh Python: hundreds of them would import quacc.
    paths = [str(site), str(LIGHT), os.environ["PYTHONPATH"]]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    folder = tmp_path / "k"
    folder.mkdir()
    chosen = [str(site / "test_batch.py"), "-k", os.environ.get("GUIDE_TESTS", CHOSEN)]
    events = [event for event in run_pytest(folder, chosen) if event["event"] == "finished"]
    told = [f"{each['name']}: {each['details']}" for each in events if each["outcome"] == "failed"]
    assert not told, "\n".join(told)
    assert sum(each["outcome"] == "passed" for each in events) > 0
    assert os.listdir(queue / "pending") == []
    # What is over lies there until the queue has seen that nothing of it is alive.
    eventually(lambda: not os.listdir(queue / "running"), 60, "a job is left in the queue")
