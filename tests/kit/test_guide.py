"""The batch engine of `docs/writing-an-engine.md`, typed in from the page, passes the kit.

Its commands are those of a small queue of this host, on which jobs really run; the session `slurm`
runs the same engine on Slurm. (`tests/test_docs.py` compares the Dask example with its files, and
the session `contract(dask)` runs the kit on these.)
"""

import os
import subprocess
from pathlib import Path

import pytest
import small_slurm

from crystalmath.models import Attempt, EngineSettings, Resources, Sighting
from crystalmath.testing import RunnerContract
from crystalmath.testing.run import described, run_pytest
from crystalmath.testing.waiting import eventually
from guide_page import type_in

#: What the queue of this host ends by a signal of its own is left to the engines' own sessions.
CHOSEN = "not quacc and not cancel and not clos and not exit and not script and not exception"
#: What depends on the engine; the session `guide` (``GUIDE=whole``) runs the other topics as well.
TOPICS = (
    *("first_job", "boundary", "handed_over", "turns", "honesty", "restarts", "calls", "hygiene"),
    *("resources_asked", "cluster_tables"),
)
LIGHT = Path(__file__).parents[1] / "light"


def test_the_batch_engine_passes(queue, tmp_path, monkeypatch):
    site = type_in("batch", tmp_path / "site")
    # Each job is a fresh Python: hundreds of them would import quacc.
    paths = [str(site), str(LIGHT), os.environ["PYTHONPATH"]]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    folder = tmp_path / "k"
    folder.mkdir()
    whole = os.environ.get("GUIDE") == "whole"
    names = [name for name in dir(RunnerContract) if name.startswith("test")]
    kept = [name for name in names if whole or described(name).topic in TOPICS]
    nodes = [f"{site / 'test_batch.py'}::TestBatch::{name}" for name in kept]
    cases = run_pytest(folder, [*nodes, "-k", CHOSEN])
    told = [f"{each.name}: {each.details}" for each in cases if each.outcome == "failed"]
    assert not told, "\n".join(told)
    assert "passed" in {each.outcome for each in cases}
    assert os.listdir(queue / "pending") == []
    # What is over lies there until the queue has seen that nothing of it is alive.
    eventually(lambda: not os.listdir(queue / "running"), 60, "a job is left in the queue")


@pytest.fixture
def batch(tmp_path, monkeypatch):
    """Return the guide's engine, and a queue in which nothing is ever started."""
    small_slurm.install(tmp_path / "spool", tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.syspath_prepend(type_in("batch", tmp_path / "site"))
    from crystalmath_engine_batch import BatchRunner

    return BatchRunner(EngineSettings(name="batch", home=tmp_path / "home"))


def attempt(folder, name, **resources):
    place = folder / name
    return Attempt(id=f"{name}.1", job_id=name, directory=place, resources=Resources(**resources))


def test_the_batch_engine_takes_the_others_where_one_is_refused(batch, tmp_path):
    wrong = attempt(tmp_path, "wrong", queue="no-such")
    first, last = attempt(tmp_path, "first"), attempt(tmp_path, "last", queue="main")
    assert batch.launch([first, wrong, last]) == {"first.1": "1", "last.1": "2"}
    with pytest.raises(RuntimeError, match="invalid partition specified: no-such"):
        batch.launch([wrong])
    assert batch.launch([first]) == {"first.1": "1"}


def test_the_batch_engine_knows_its_own_among_jobs_of_any_name(batch, tmp_path):
    mine = attempt(tmp_path, "mine")
    strange = ["sbatch", "--job-name=a|b|mine.1", "--chdir=/", f"--output={tmp_path / 'out'}"]
    subprocess.run(strange, input="true", text=True, check=True)
    batch.launch([mine])
    assert batch.probe([mine]) == {"mine.1": Sighting("queued", "Resources")}
    batch.release([mine])
    assert os.listdir(tmp_path / "spool/pending") == ["1"]
