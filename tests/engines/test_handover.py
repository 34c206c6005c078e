"""What is between the driver and an engine, where the moment counts."""

from __future__ import annotations

import logging
import threading
from types import SimpleNamespace

from ase.build import bulk

from crystalmath import config
from crystalmath.engines.handover import Handover
from crystalmath.jobs.facts import JobState
from crystalmath.models import Submission
from crystalmath.quacc.engine import Attempt, Sighting
from crystalmath.service import JobService


def test_what_was_said_of_an_attempt_is_not_held_against_the_next_one(tmp_path):
    record = SimpleNamespace(launched=True, released=False)
    job = SimpleNamespace(
        job_id="a",
        cluster="local",
        record=record,
        state=JobState.PENDING,
        since=0.0,
        attempt_id="a.1",
        attempt=lambda: Attempt(id=job.attempt_id, job_id="a", directory=tmp_path),
        note=lambda reason: [],
    )
    engine = SimpleNamespace(
        log=logging.getLogger("test"),
        capabilities_of=lambda cluster: SimpleNamespace(workers_here=True),
        probe=lambda attempts: {each.id: Sighting("gone") for each in attempts},
    )
    host = SimpleNamespace(monotonic=lambda: 1000.0)
    noticed = []
    handover = Handover(
        engine,
        {"a": job},
        threading.RLock(),
        host=host,
        tell=lambda changes: None,
        notice=noticed.append,
    )
    handover._probe_silent()
    assert handover.sighting(job) == Sighting("gone")
    job.since = 0.0
    handover._probe_silent()
    job.attempt_id = "a.2"
    assert handover.sighting(job) is None
    assert noticed == ["a", "a"]


PICKY = """
from crystalmath.engines.local import LocalRunner
from crystalmath.errors import ConfigError, EngineUnavailable
from crystalmath.hookspecs import hookimpl

class Picky(LocalRunner):
    def launch(self, attempts):
        good = [each for each in attempts if each.name == "good"]
        refused = {"later": EngineUnavailable("no munge"), "wrong": ConfigError("no partition x")}
        answers = {each.id: refused[each.name] for each in attempts if each.name in refused}
        return {**answers, **super().launch(good)}

@hookimpl
def crystalmath_make_runner(settings):
    return Picky(settings)
"""


def test_each_attempt_of_a_launch_may_be_refused_for_a_reason_of_its_own(home, lab, install):
    install("engine-picky", "picky", PICKY)
    with JobService(config.load()) as service:
        asked = {"recipe": "lab_recipes.value", "atoms": bulk("Al"), "engine": "picky"}
        jobs = {
            name: service.submit(Submission(**asked, name=name)).job_id
            for name in ("later", "wrong", "good")
        }
        *_, good = service.wait([jobs["good"]], 120)
        *_, wrong = service.wait([jobs["wrong"]], 120)
        assert good.state is JobState.COMPLETED
        assert (wrong.state, wrong.reason) == (JobState.FAILED, None)
        assert "no partition x" in wrong.error
        later = service.job(jobs["later"])
        assert (later.state, later.reason) == (JobState.PENDING, "trying again: no munge")
