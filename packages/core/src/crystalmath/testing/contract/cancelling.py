"""A cancelled job is gone, and one that was not cancelled in time is what it had become."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ClassVar

import pytest

from crystalmath.quacc import JobState
from crystalmath.testing.contract.base import Base
from crystalmath.testing.contract.busy_workers import behind_busy_workers
from crystalmath.testing.oracle import alive, found
from crystalmath.testing.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    import psutil

    from crystalmath.quacc.engine import EngineRunner
    from crystalmath.testing.contract.base import Call
    from crystalmath.testing.oracle import Oracle
    from crystalmath.testing.subject import EngineUnderTest

#: How long it may take until a running job and all its processes are gone, in seconds.
GONE_S = 30.0
#: How long a launch may take to begin, in seconds.
ENTERED_S = 60.0


class Cancelling(Base):
    """`cancel`, at every moment of a job's life."""

    guide: ClassVar[str] = "Release and stop"

    @pytest.fixture
    def gone_s(self, engine: EngineUnderTest, runner: EngineRunner) -> float:
        """Return how long it may take until a running job is gone, in seconds.

        Where jobs are on other hosts the engine has the last word, after a turn of its own.
        """
        return (
            GONE_S
            if runner.capabilities_of(engine.cluster).workers_here
            else GONE_S + engine.turn_s
        )

    @behind_busy_workers
    def test_a_waiting_job_never_runs(
        self,
        runner: EngineRunner,
        submit: Call,
        blocked: Path,
        finish: Call,
        oracle: Oracle,
        shared: Path,
        gone_s: float,
    ) -> None:
        """It is ended at once, though all workers are busy."""
        count = shared / "count"
        job_id = submit("mark", path=str(count))
        after = submit("echo")
        assert runner.cancel(job_id) is True
        assert finish(job_id, gone_s) == (JobState.CANCELLED, {"error": "cancelled"})
        assert (oracle.outcome(job_id) or {}).get("state") == "cancelled"
        blocked.touch()
        # Whoever takes jobs in turn has been past the cancelled one.
        assert finish(after)[0] is JobState.COMPLETED
        assert finish(submit("echo"))[0] is JobState.COMPLETED
        assert not count.exists()

    def test_a_running_job_is_gone_with_all_its_processes(
        self,
        engine: EngineUnderTest,
        needs: Call,
        runner: EngineRunner,
        submit: Call,
        oracle: Oracle,
        shared: Path,
    ) -> None:
        """One left the session, ignores SIGTERM and cleared its child's environment."""
        needs("workers_here")
        pids = shared / "pids"
        job_id = submit("grandchild", pids=str(pids))
        eventually(pids.exists, engine.start_s + 10 * engine.turn_s, "the recipe did not begin")
        tree = found(map(int, pids.read_text().split()))
        assert len(alive(tree)) == 2
        assert runner.cancel(job_id) is True
        left: list[psutil.Process] = []

        def ended() -> bool:
            # The state first: nothing may be alive once it is read.
            if runner.get_status(job_id) is not JobState.CANCELLED:
                return False
            left.extend(alive(tree) + oracle.processes(job_id))
            return True

        eventually(ended, GONE_S, "the job was not cancelled")
        assert not left
        assert runner.get_result(job_id) == {"error": "cancelled"}
        assert oracle.end(job_id) == "cancelled"

    def test_a_finished_job_stays_what_it_is(
        self, runner: EngineRunner, submit: Call, finish: Call, oracle: Oracle
    ) -> None:
        job_id = submit("echo")
        state, result = finish(job_id)
        outcome = oracle.outcome(job_id)
        assert runner.cancel(job_id) is False
        # Long enough for whoever looks at files now and then.
        time.sleep(0.5)
        assert runner.get_status(job_id) is state
        assert runner.get_result(job_id) == result
        assert oracle.outcome(job_id) == outcome

    def test_twice_and_by_several_at_once(
        self,
        engine: EngineUnderTest,
        runner: EngineRunner,
        submit: Call,
        finish: Call,
        oracle: Oracle,
        shared: Path,
        gone_s: float,
    ) -> None:
        """The job ends once, and is not run again; whoever comes late is told."""
        count = shared / "count"
        job_id = submit("count_and_wait", count=str(count), path=str(shared / "never"))
        limit = engine.start_s + 10 * engine.turn_s
        eventually(lambda: _has_mark(count), limit, "the recipe did not begin")
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: runner.cancel(job_id), range(8)))
        assert True in answers
        assert set(answers) <= {True, False}
        assert finish(job_id, gone_s) == (JobState.CANCELLED, {"error": "cancelled"})
        assert runner.cancel(job_id) is False
        assert finish(submit("echo"))[0] is JobState.COMPLETED
        assert runner.get_status(job_id) is JobState.CANCELLED
        assert count.read_text() == "x"
        assert oracle.attempts(job_id) == 1

    def test_the_neighbours_go_on(
        self,
        runner: EngineRunner,
        submit: Call,
        started: Call,
        finish: Call,
        oracle: Oracle,
        shared: Path,
        gone_s: float,
    ) -> None:
        """Jobs that run beside a cancelled one, and those that wait."""
        go, count = shared / "go", shared / "count"
        victim = submit("wait_for", path=str(shared / "never"))
        started(victim)
        others = [
            submit("count_and_wait", count=str(count), path=str(go)),
            submit("count_and_wait", count=str(count), path=str(go)),
        ]
        runner.cancel(victim)
        assert finish(victim, gone_s)[0] is JobState.CANCELLED
        go.touch()
        assert [finish(job_id)[0] for job_id in others] == [JobState.COMPLETED] * 2
        assert count.read_text() == "xx"
        assert [oracle.attempts(job_id) for job_id in others] == [1, 1]


def _has_mark(count: Path) -> bool:
    """Return whether a recipe has left its mark: a file is there before anything stands in it."""
    return count.exists() and count.stat().st_size > 0
