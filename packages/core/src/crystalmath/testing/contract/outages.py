"""An engine cannot be reached for a while: nothing is concluded from it, and nothing is lost."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar

import psutil
import pytest

from crystalmath.testing.contract.base import Base
from crystalmath.testing.contract.busy_workers import behind_busy_workers
from crystalmath.testing.contract.restarts import count
from crystalmath.testing.owner import OwnerError, is_unavailable
from crystalmath.testing.waiting import eventually, own_time

if TYPE_CHECKING:
    from pathlib import Path

    from crystalmath.quacc.engine import EngineRunner
    from crystalmath.testing.contract.base import Call
    from crystalmath.testing.contract.door import Door
    from crystalmath.testing.oracle import Oracle
    from crystalmath.testing.subject import EngineUnderTest

#: How long an outage lasts, in seconds: core asks a silent engine every 5 s.
OUTAGE_S = 7.0
#: How long a submission to an engine that is away may take, in seconds: it waits for nobody.
SUBMIT_S = 5.0
#: How long an outage may hold up a job after its end, in seconds: core waits up to 10 s before it
#: tries again.
RETRY_S = 30.0
#: How often an engine is asked in an outage, and for how long at most, in seconds.
ASKED, ASK_S = 10, 30.0


class Outages(Base):
    """The engine is made unreachable as `EngineUnderTest.outage` says; else they are skipped."""

    guide: ClassVar[str] = "What exceptions mean"

    @behind_busy_workers
    def test_outage_changes_no_state(
        self,
        engine: EngineUnderTest,
        outage: Call,
        submit: Call,
        request: pytest.FixtureRequest,
        finish: Call,
        shared: Path,
        gate: Path,
    ) -> None:
        go: Path = request.getfixturevalue("blocked")
        runner: EngineRunner = request.getfixturevalue("runner")
        counted = {"count": str(shared / "count"), "path": str(gate)}
        gate.touch()
        jobs = [submit("count_and_wait", **counted) for _ in range(2)]
        with outage():
            # What this process had no core for is none of the engine's.
            began = own_time()
            jobs.append(submit("count_and_wait", **counted))
            assert own_time() - began < SUBMIT_S, "submit waits for an engine that is away"
            deadline = time.monotonic() + OUTAGE_S
            while time.monotonic() < deadline:
                states = [runner.get_status(job_id) for job_id in jobs]
                assert not any(state.is_terminal() for state in states), states
                time.sleep(0.1)
        go.touch()
        limit = engine.start_s + 10 * engine.turn_s + RETRY_S
        for job_id in jobs:
            assert finish(job_id, limit)[0] == "completed"
        assert len(count(counted)) == len(jobs)

    @behind_busy_workers
    def test_probe_in_an_outage(
        self, outage: Call, door: Door, request: pytest.FixtureRequest, oracle: Oracle
    ) -> None:
        occupied = request.getfixturevalue("occupied")
        queued = door.write("echo")
        door.launch(queued)
        with outage():
            for attempt in (*occupied, queued):
                try:
                    word = door.ask(attempt)
                except OwnerError as error:
                    if not is_unavailable(error):
                        raise
                else:
                    assert word != "gone", "what cannot be reached cannot be known to be gone"
        assert not oracle.claimed(queued.job_id)

    def test_an_outage_costs_nothing(
        self, engine: EngineUnderTest, outage: Call, door: Door
    ) -> None:
        """No thread and no descriptor more for each time that the engine was not reached."""
        attempt = door.write("echo")
        door.launch(attempt)
        door.ended(attempt)
        process = psutil.Process(door.owner.process.pid)

        def ask(times: int) -> int:
            deadline = time.monotonic() + ASK_S
            for asked in range(times):
                if time.monotonic() > deadline:  # it waits for an answer each time
                    return asked
                try:
                    door.ask(attempt)
                except OwnerError as error:
                    if not is_unavailable(error):
                        raise
            return times

        with outage():
            ask(ASKED)
            before = process.num_threads(), process.num_fds()
            asked = ask(ASKED)
            if asked < ASKED:
                pytest.skip(
                    f"an answer takes so long in an outage that {asked} were had in {ASK_S:g} s"
                )

            def grown() -> tuple[int, int]:
                threads, descriptors = process.num_threads(), process.num_fds()
                return threads - before[0], descriptors - before[1]

            eventually(
                lambda: max(grown()) < ASKED,
                engine.turn_s,
                lambda: (
                    f"in an outage probe was called {ASKED} times, and the process that submits "
                    f"has {grown()[0]} threads and {grown()[1]} descriptors more "
                    "(docs/writing-an-engine.md, 'What your engine leaves as it was')"
                ),
            )
