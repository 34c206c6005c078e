"""Ids, refusals, states, and that nobody waits who need not."""

from __future__ import annotations

import statistics
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from crystalmath.quacc import JobState
from crystalmath.testing.contract.base import AL, Base
from crystalmath.testing.owner import RECIPES
from crystalmath.testing.waiting import eventually, own_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from crystalmath.quacc.engine import EngineRunner
    from crystalmath.testing.contract.base import Call
    from crystalmath.testing.oracle import Oracle
    from crystalmath.testing.subject import EngineUnderTest

#: How long one call may take while the engine is busy: most of them, and the slowest, in seconds.
#: Most of them tell of the engine; one alone may have waited for a disk, or for a busy machine.
SUBMIT_S = (0.1, 10.0)
STATUS_S = (0.01, 5.0)
CANCEL_S = (0.1, 10.0)
#: How long a launch may take to begin, and how long one is held up, in seconds.
ENTERED_S, HELD_S = 60.0, 20.0
#: So many jobs are submitted at once.
JOBS = 100


class Submission(Base):
    """What `submit` promises, and the two that must never wait for an engine."""

    guide: ClassVar[str] = "Who calls what"

    @pytest.fixture
    def calm(self, oracle: Oracle) -> Iterator[None]:
        """Check that a test leaves no job behind."""
        before = oracle.jobs()
        yield
        assert oracle.jobs() == before

    def test_a_slow_launch_slows_nobody(
        self, runner: EngineRunner, submit: Call, finish: Call, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Held up where it looks at its attempts, with what it may have locked by then."""
        launch, entered, let_go = runner.launch, threading.Event(), threading.Event()

        def slow(attempts: Any) -> Any:
            try:
                return launch(_Held(attempts, entered, let_go))
            finally:
                entered.set()

        monkeypatch.setattr(runner, "launch", slow)
        jobs = [submit("echo")]
        try:
            assert entered.wait(ENTERED_S), "nothing was launched"
            _timed("submit", SUBMIT_S, [lambda: jobs.append(submit("echo"))] * 5)
            _timed("get_status", STATUS_S, [partial(runner.get_status, job_id) for job_id in jobs])
            _timed("get_result", STATUS_S, [partial(runner.get_result, job_id) for job_id in jobs])
            _timed("cancel", CANCEL_S, [partial(runner.cancel, job_id) for job_id in jobs[3:]])
        finally:
            let_go.set()
        assert [finish(job_id)[0].value for job_id in jobs[:3]] == ["completed"] * 3

    def test_100_jobs_from_several_threads(
        self,
        engine: EngineUnderTest,
        submit: Call,
        runner: EngineRunner,
        oracle: Oracle,
        shared: Path,
    ) -> None:
        """Each has a UUID of its own, runs once, and gives its own result."""
        count, before = shared / "count", oracle.jobs()
        with ThreadPoolExecutor(4) as pool:
            jobs = list(pool.map(lambda n: submit("mark", path=str(count), number=n), range(JOBS)))
        for job_id in jobs:
            assert (str(uuid.UUID(job_id)), uuid.UUID(job_id).version) == (job_id, 4)
        assert len(set(jobs)) == JOBS
        assert oracle.jobs() - before == set(jobs)
        limit = engine.start_s + JOBS * engine.turn_s
        eventually(
            lambda: all(runner.get_status(job_id).is_terminal() for job_id in jobs),
            limit,
            f"{JOBS} jobs did not finish",
        )
        assert {runner.get_status(job_id) for job_id in jobs} == {JobState.COMPLETED}
        assert [runner.get_result(each) for each in jobs] == [{"number": n} for n in range(JOBS)]
        assert sorted(map(int, count.read_text().split())) == list(range(JOBS))

    def test_the_default_cluster_is_local(self, runner: EngineRunner, finish: Call) -> None:
        assert "local" in runner.clusters()
        assert finish(runner.submit(f"{RECIPES}.echo", AL))[0] is JobState.COMPLETED

    @pytest.mark.usefixtures("calm")
    def test_an_unknown_cluster_is_refused(self, runner: EngineRunner) -> None:
        with pytest.raises(ValueError, match="no-such-cluster") as caught:
            runner.submit(f"{RECIPES}.echo", AL, "no-such-cluster")
        assert all(cluster in str(caught.value) for cluster in runner.clusters())

    @pytest.mark.usefixtures("calm")
    def test_a_parameter_that_cannot_be_written_down_is_refused(self, submit: Call) -> None:
        """The message names its place."""
        with pytest.raises(ValueError, match=r"options\.deep"):
            submit("echo", options={"deep": object()})

    @pytest.mark.usefixtures("calm")
    @pytest.mark.parametrize("method", ["get_status", "get_result", "cancel"])
    def test_an_unknown_id_is_a_key_error(self, runner: EngineRunner, method: str) -> None:
        for job_id in ("no such job", str(uuid.uuid4())):
            with pytest.raises(KeyError):
                getattr(runner, method)(job_id)

    def test_states_change_as_they_may_and_end_for_good(
        self, runner: EngineRunner, submit: Call, engine: EngineUnderTest, oracle: Oracle
    ) -> None:
        """Watched closely from the submission to a while after the end."""
        expected = {
            submit("echo"): "completed",
            submit("fail", message="x"): "failed",
            submit("mark", path="/dev/null", seconds=0.3): "completed",
        }
        seen = {job_id: ["pending"] for job_id in expected}

        def look() -> bool:
            for job_id, states in seen.items():
                result, state = runner.get_result(job_id), runner.get_status(job_id).value
                assert result is None or JobState(state).is_terminal()
                if state != states[-1]:
                    states.append(state)
            return all(JobState(states[-1]).is_terminal() for states in seen.values())

        eventually(look, engine.start_s + 10 * engine.turn_s, "the jobs did not finish")
        results = {job_id: runner.get_result(job_id) for job_id in expected}
        for job_id in expected:
            assert runner.cancel(job_id) is False
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            look()
            time.sleep(0.02)
        for job_id, states in seen.items():
            last = expected[job_id]
            assert states in (["pending", last], ["pending", "running", last])
            assert runner.get_result(job_id) == results[job_id]
            assert (oracle.outcome(job_id) or {}).get("state") == last


class _Held(list[Any]):
    """Attempts that come only once they are let go, to whoever looks at them."""

    def __init__(
        self, attempts: Iterable[Any], entered: threading.Event, let_go: threading.Event
    ) -> None:
        super().__init__(attempts)
        self._entered = entered
        self._let_go = let_go

    def _hold(self) -> None:
        self._entered.set()
        self._let_go.wait(HELD_S)

    def __iter__(self) -> Iterator[Any]:
        self._hold()
        return super().__iter__()

    def __getitem__(self, which: Any) -> Any:
        self._hold()
        return super().__getitem__(which)

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)  # as another process gets them


def _timed(what: str, limits: tuple[float, float], calls: Iterable[Callable[[], object]]) -> None:
    """Make calls, and check how long they take."""
    most, slowest = limits
    times: list[float] = []
    for call in calls:
        start = own_time()
        call()
        times.append(own_time() - start)
        assert times[-1] <= slowest, f"one call of {what} took too long"
    assert statistics.median(times) <= most, f"half of the calls of {what} took longer"
