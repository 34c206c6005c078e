"""Honest `Capabilities`: what an engine declares, it does."""

from __future__ import annotations

import contextlib
import socket
import time
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import psutil
import pytest

from crystalmath.models import Capabilities
from crystalmath.testing.contract.base import Base, still_unbegun
from crystalmath.testing.oracle import found
from crystalmath.testing.passing import TRANSIENT
from crystalmath.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from crystalmath.models import Attempt
    from crystalmath.quacc.engine import EngineRunner
    from crystalmath.testing.contract.base import Call
    from crystalmath.testing.contract.busy_workers import BusyWorkers
    from crystalmath.testing.contract.door import Door
    from crystalmath.testing.oracle import Oracle
    from crystalmath.testing.subject import EngineUnderTest

#: How long the queue of a dead process is watched, in seconds.
WATCH_S = 5.0
#: How long processes are watched that a dead supervisor left, in seconds.
LEFT_S = 10.0
#: The capabilities that are had or not.
BOOLEANS = (
    "gone_means_dead",
    "queue_dies_with_owner",
    "drops_queued",
    "workers_here",
    "workers_inherit",
    "starts_in_order",
)


class Honesty(Base):
    """A capability that is declared is put to the test; one that is not skips its test."""

    guide: ClassVar[str] = "What capabilities promise"

    def test_capabilities_are_sane(self, runner: EngineRunner) -> None:
        for capabilities in (runner.capabilities, *map(runner.capabilities_of, runner.clusters())):
            assert isinstance(capabilities, Capabilities)
            assert type(capabilities.max_queued) is int
            assert capabilities.max_queued >= 1
            for name in BOOLEANS:
                assert type(getattr(capabilities, name)) is bool, name
        workers = runner.workers()
        assert workers is None or (type(workers) is int and workers >= 1)

    def test_workers_here(self, needs: Call, door: Door, oracle: Oracle, gate: Path) -> None:
        needs("workers_here")
        attempt = door.write("wait_for", path=str(gate))
        door.launch(attempt)
        door.started(attempt)
        claimant = oracle.claimant(attempt.job_id)
        assert claimant["host"] == socket.gethostname()
        assert psutil.pid_exists(claimant["pid"])
        gate.touch()
        door.ended(attempt)

    @pytest.fixture
    def queue(
        self,
        engine: EngineUnderTest,
        owner: Call,
        door: Door,
        gate: Path,
        needs_room: Call,
        busy_workers: BusyWorkers,
    ) -> tuple[list[Attempt], Attempt]:
        """Kill a process whose engine runs some attempts and has another one queued."""
        needs_room(1)
        running = [door.write("wait_for", path=str(gate)) for _ in range(engine.workers)]
        queued = door.write("echo")
        doomed = owner()
        door.launch(*running, by=doomed)
        door.started(*running)
        door.launch(queued, by=doomed)
        seen = partial(door.seen, queued, by=doomed)
        busy_workers.require_waiting(queued.job_id, seen)
        doomed.kill()
        return running, queued

    def test_queue_dies_with_owner(
        self, needs: Call, request: pytest.FixtureRequest, door: Door, oracle: Oracle, gate: Path
    ) -> None:
        needs("queue_dies_with_owner")
        running, queued = request.getfixturevalue("queue")
        gate.touch()
        assert door.ended(*running) == ["completed"] * len(running)
        assert still_unbegun(oracle, queued.job_id, WATCH_S), "it was begun without an owner"

    def test_probe_after_restart(
        self, queue: tuple[list[Attempt], Attempt], door: Door, oracle: Oracle, gate: Path
    ) -> None:
        running, queued = queue
        # No handle was recorded: the engine has to know them by their ids.
        asked = [attempt.job_id for attempt in (*running, queued)]
        state, reason = door.probe(asked)[queued.job_id]
        gate.touch()
        assert door.ended(*running) == ["completed"] * len(running)
        if state == "gone":
            assert still_unbegun(oracle, queued.job_id, WATCH_S), "it was gone, and was begun"
        elif state == "unknown":
            pytest.skip(f"the engine does not know what became of it (its reason: {reason})")
        else:
            assert door.ended(queued) == ["completed"]

    @pytest.fixture
    def bereft(
        self, engine: EngineUnderTest, door: Door, oracle: Oracle, shared: Path
    ) -> Iterator[Attempt]:
        """Kill the supervisor of an attempt that has started processes; they are alive."""
        pids = shared / "pids"
        attempt = door.write("grandchild", pids=str(pids))
        door.launch(attempt)
        eventually(pids.exists, engine.start_s + 10 * engine.turn_s, "it started no process")
        left = found(map(int, pids.read_text().split()))
        psutil.Process(oracle.supervisor(attempt.job_id)).kill()
        yield attempt
        for process in left + oracle.processes(attempt.job_id):
            with contextlib.suppress(*TRANSIENT):
                process.kill()

    def test_gone_means_dead(
        self, needs: Call, request: pytest.FixtureRequest, door: Door, oracle: Oracle
    ) -> None:
        needs("gone_means_dead")
        needs("workers_here")
        attempt: Attempt = request.getfixturevalue("bereft")
        deadline = time.monotonic() + LEFT_S
        while time.monotonic() < deadline:
            state = door.seen(attempt)
            left = oracle.processes(attempt.job_id)
            assert not (state == "gone" and left), f"the engine says gone, and {left} are alive"
            time.sleep(0.1)
