"""A server that the commands of a module ask, and jobs on its record."""

import threading

import pytest

from crystalmath import config
from crystalmath.client import remote
from crystalmath.jobs.changes import Change
from crystalmath.models import JobState
from crystalmath.quacc.store import JobStore
from rundirs import new_job
from server.home_server import HomeServer


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Yield a server that the tests of this module share."""
    with HomeServer(tmp_path_factory.mktemp("served")) as server:
        (server.home / "config.toml").write_text("[engines.local]\nworkers = 2\n")
        yield server.start()


@pytest.fixture
def here(served, lab, tmp_path, monkeypatch):
    """Ask that server, from a folder of the test's own."""
    monkeypatch.setenv("CRYSTALMATH_HOME", str(served.home))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def asked(monkeypatch):
    """Return the methods that commands ask a server for, as they do."""
    ask, methods = remote.Connection.ask_both, []

    def noted(connection, requests, *waited):
        # A command that takes long asks in another thread what keeps its server.
        if threading.current_thread() is threading.main_thread():
            methods.extend(method for method, _ in requests)
        return ask(connection, requests, *waited)

    monkeypatch.setattr(remote.Connection, "ask_both", noted)
    return methods


@pytest.fixture(scope="module")
def listed(served):
    """Three jobs that are on record alone: two of copper that completed, one of an oxide."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRYSTALMATH_HOME", str(served.home))
        url = config.load().database_url
    with JobStore(url) as store:
        jobs = [
            new_job(
                f"00000000-0000-4000-8000-00000000000{index}",
                recipe="quacc.recipes.emt.core.static_job",
                engine="other",
                created_at=1.7e9 + index,
                name=name,
                formula=formula,
                labels={"of": "listed", "encut": encut},
            )
            for index, (name, formula, encut) in enumerate(
                [("bulk Cu", "Cu4", "400"), ("slab, Cu", "Cu8", "500"), ("oxide", "CuO", "500")]
            )
        ]
        store.insert(jobs)
        done = [{"energy_ev": -2.0, "natoms": 4}, {"energy_ev": -3.0, "natoms": 8}]
        store.apply(
            [
                Change(job_id=job.job_id, state=JobState.COMPLETED, at=1.7e9 + 60, summary=summary)
                for job, summary in zip(jobs, done, strict=False)
            ]
            + [Change(job_id=jobs[2].job_id, state=JobState.FAILED, at=1.7e9 + 9, error="boom")]
        )
    return ["--label", "of=listed"]


@pytest.fixture(scope="module")
def flow(served, listed):
    """A flow that is on record alone, with a step that completed, one that failed, one to come."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRYSTALMATH_HOME", str(served.home))
        url = config.load().database_url
    common = {"engine": "other", "labels": {"of": "flow"}}
    body = '{"parameters": {}, "atoms": null}'
    common["specification"] = f"{{}}\n{body}"
    of_flow = {"recipe": "quacc.recipes.emt.slabs.bulk_to_slabs_flow", "stage": "steps"}
    header = '{"engine": "local", "cluster": "here", "flow": {"pass": 1}}'
    job = new_job(name="Cu slabs", **of_flow, **{**common, "specification": f"{header}\n{body}"})
    steps = [
        new_job(
            recipe=f"quacc.recipes.emt.core.{name}_job",
            parents=[{"job_id": job.job_id, "role": "flow", "step": f"{name}_job#{number}"}],
            **common,
        )
        for number, name in enumerate(["relax", "static", "static"])
    ]
    ends = (("completed", None), ("failed", "boom: the slab\nhas split"))
    with JobStore(url) as store:
        store.insert([job, *steps])
        store.apply(
            [
                Change(
                    job_id=step.job_id,
                    state=JobState(state),
                    at=1.7e9,
                    error=error,
                    started_at=1.7e9,
                )
                for step, (state, error) in zip(steps, ends, strict=False)
            ]
        )
    yield [job.job_id, *(step.job_id for step in steps)]
    # The server would wait for these at its end.
    with JobStore(url) as store:
        store.apply(
            [
                Change(job_id=left.job_id, state=JobState.CANCELLED, at=1.7e9)
                for left in (steps[-1], job)
            ]
        )
