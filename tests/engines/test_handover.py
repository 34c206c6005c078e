"""What is between the driver and an engine, where the moment counts."""

from __future__ import annotations

import logging
import threading
from types import SimpleNamespace

from crystalmath.engines.handover import Handover
from crystalmath.jobs.facts import JobState
from crystalmath.quacc.engine import Attempt, Sighting


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
