"""Tests of ids, refusals, states and cancels, and that no call waits for the engine."""

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
from crystalmath.testing.attempts import aluminium
from crystalmath.testing.contract.base import Base
from crystalmath.testing.contract.hooks import behind_busy_workers
from crystalmath.testing.oracle import alive
from crystalmath.testing.owner import RECIPES
from crystalmath.testing.waiting import eventually, own_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    import psutil

    from crystalmath.testing.contract.base import Kit


#: How long calls may take while the engine is busy, in seconds: the median, and the slowest one. A
#: single call may wait for a disk, or for a busy machine.
SUBMIT_S = (0.1, 10.0)
STATUS_S = (0.01, 5.0)
CANCEL_S = (0.1, 10.0)
#: How long a launch may take to begin, and how long one is held up, in seconds.
ENTERED_S, HELD_S = 60.0, 20.0
#: How many jobs are submitted at once.
JOBS = 100


class Submission(Base):
    """`submit`, and the states and results of jobs, which must never wait for an engine."""

    guide: ClassVar[str] = "Who calls what"

    @pytest.fixture
    def calm(self, kit: Kit) -> Iterator[None]:
        """Check that a test leaves no job behind."""
        before = kit.oracle.jobs()
        yield
        assert kit.oracle.jobs() == before

    def test_a_slow_launch_slows_nobody(self, kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
        """No call of a user waits while `launch` is held up, whatever locks it has by then."""
        launch, entered, let_go = kit.runner.launch, threading.Event(), threading.Event()

        def slow(attempts: Any) -> Any:
            try:
                return launch(_Held(attempts, entered, let_go))
            finally:
                entered.set()

        monkeypatch.setattr(kit.runner, "launch", slow)
        jobs = [kit.submit("echo")]
        try:
            assert entered.wait(ENTERED_S), "nothing was launched"
            _timed("submit", SUBMIT_S, [lambda: jobs.append(kit.submit("echo"))] * 5)
            _timed(
                "get_status", STATUS_S, [partial(kit.runner.get_status, job_id) for job_id in jobs]
            )
            _timed(
                "get_result", STATUS_S, [partial(kit.runner.get_result, job_id) for job_id in jobs]
            )
            _timed("cancel", CANCEL_S, [partial(kit.runner.cancel, job_id) for job_id in jobs[3:]])
        finally:
            let_go.set()
        assert [kit.finish(job_id)[0].value for job_id in jobs[:3]] == ["completed"] * 3

    def test_100_jobs_from_several_threads(self, kit: Kit) -> None:
        """Each has a UUID of its own, runs once, and returns its own result."""
        count, before = kit.shared / "count", kit.oracle.jobs()
        with ThreadPoolExecutor(4) as pool:
            jobs = list(
                pool.map(lambda n: kit.submit("mark", path=str(count), number=n), range(JOBS))
            )
        for job_id in jobs:
            assert (str(uuid.UUID(job_id)), uuid.UUID(job_id).version) == (job_id, 4)
        assert len(set(jobs)) == JOBS
        assert kit.oracle.jobs() - before == set(jobs)
        limit = kit.engine.start_s + JOBS * kit.engine.turn_s
        eventually(
            lambda: all(kit.runner.get_status(job_id).is_terminal() for job_id in jobs),
            limit,
            f"{JOBS} jobs did not finish",
        )
        assert {kit.runner.get_status(job_id) for job_id in jobs} == {JobState.COMPLETED}
        assert [kit.runner.get_result(each) for each in jobs] == [
            {"number": n} for n in range(JOBS)
        ]
        assert sorted(map(int, count.read_text().split())) == list(range(JOBS))

    def test_the_default_cluster_is_local(self, kit: Kit) -> None:
        """A job that names no cluster runs on `local`."""
        assert "local" in kit.runner.clusters()
        job_id = kit.runner.submit(f"{RECIPES}.echo", aluminium())
        assert kit.finish(job_id)[0] is JobState.COMPLETED

    @pytest.mark.usefixtures("calm")
    def test_an_unknown_cluster_is_refused(self, kit: Kit) -> None:
        """`submit` raises a `ValueError` that names all clusters, and leaves no job behind."""
        with pytest.raises(ValueError, match="no-such-cluster") as caught:
            kit.runner.submit(f"{RECIPES}.echo", aluminium(), "no-such-cluster")
        assert all(cluster in str(caught.value) for cluster in kit.runner.clusters())

    @pytest.mark.usefixtures("calm")
    def test_a_parameter_that_cannot_be_written_down_is_refused(self, kit: Kit) -> None:
        """`submit` raises a `ValueError` that names its place, and leaves no job behind."""
        with pytest.raises(ValueError, match=r"options\.deep"):
            kit.submit("echo", options={"deep": object()})

    @pytest.mark.usefixtures("calm")
    @pytest.mark.parametrize("method", ["get_status", "get_result", "cancel"])
    def test_an_unknown_id_is_a_key_error(self, kit: Kit, method: str) -> None:
        """The method raises `KeyError` for an id that no job has."""
        for job_id in ("no such job", str(uuid.uuid4())):
            with pytest.raises(KeyError):
                getattr(kit.runner, method)(job_id)

    def test_states_change_as_they_may_and_end_for_good(self, kit: Kit) -> None:
        """A job goes from pending over running to its end, which never changes."""
        expected = {
            kit.submit("echo"): "completed",
            kit.submit("fail", message="x"): "failed",
            kit.submit("mark", path="/dev/null", seconds=0.3): "completed",
        }
        seen = {job_id: ["pending"] for job_id in expected}

        def look() -> bool:
            for job_id, states in seen.items():
                result, state = kit.runner.get_result(job_id), kit.runner.get_status(job_id).value
                assert result is None or JobState(state).is_terminal()
                if state != states[-1]:
                    states.append(state)
            return all(JobState(states[-1]).is_terminal() for states in seen.values())

        kit.eventually(look, "the jobs did not finish")
        results = {job_id: kit.runner.get_result(job_id) for job_id in expected}
        for job_id in expected:
            assert kit.runner.cancel(job_id) is False
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            look()
            time.sleep(0.02)
        for job_id, states in seen.items():
            last = expected[job_id]
            assert states in (["pending", last], ["pending", "running", last])
            assert kit.runner.get_result(job_id) == results[job_id]
            assert kit.oracle.state(job_id) == last


class _Held(list[Any]):
    """A list of attempts that holds up every reader until it is let go."""

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


#: How long a cancelled job and all its processes may take to end, in seconds.
GONE_S = 30.0


class Cancelling(Base):
    """`cancel`, at every moment of a job's life."""

    guide: ClassVar[str] = "Release and stop"

    @pytest.fixture
    def gone_s(self, kit: Kit) -> float:
        """Return how long a cancelled job may take to end, in seconds; longer on other hosts."""
        return GONE_S if kit.capabilities.workers_here else GONE_S + kit.engine.turn_s

    @behind_busy_workers
    def test_a_waiting_job_never_runs(self, kit: Kit, blocked: Path, gone_s: float) -> None:
        """A cancel ends it at once, although all workers are busy."""
        count = kit.shared / "count"
        job_id = kit.submit("mark", path=str(count))
        after = kit.submit("echo")
        assert kit.runner.cancel(job_id) is True
        assert kit.finish(job_id, gone_s) == (JobState.CANCELLED, {"error": "cancelled"})
        assert kit.oracle.state(job_id) == "cancelled"
        blocked.touch()
        # A worker that takes jobs in turn has passed the cancelled one by then.
        assert kit.finish(after)[0] is JobState.COMPLETED
        assert kit.finish(kit.submit("echo"))[0] is JobState.COMPLETED
        assert not count.exists()

    def test_a_running_job_is_gone_with_all_its_processes(self, kit: Kit) -> None:
        """A cancel ends also a process that left the session and ignores SIGTERM."""
        kit.needs("workers_here")
        job_id = kit.submit("grandchild", pids=str(kit.pids))
        tree = kit.grandchildren()
        assert len(alive(tree)) == 2
        assert kit.runner.cancel(job_id) is True
        left: list[psutil.Process] = []

        def ended() -> bool:
            # The state is read first: no process may be alive once it reads cancelled.
            if kit.runner.get_status(job_id) is not JobState.CANCELLED:
                return False
            left.extend(alive(tree) + kit.oracle.processes(job_id))
            return True

        eventually(ended, GONE_S, "the job was not cancelled")
        assert not left
        assert kit.runner.get_result(job_id) == {"error": "cancelled"}
        assert kit.oracle.end(job_id) == "cancelled"

    def test_twice_and_by_several_at_once(self, kit: Kit, gone_s: float) -> None:
        """A job that is cancelled several times ends once; a late `cancel` returns false."""
        count = kit.shared / "count"
        job_id = kit.submit("count_and_wait", count=str(count), path=str(kit.shared / "never"))
        kit.eventually(lambda: _has_mark(count), "the recipe did not begin")
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: kit.runner.cancel(job_id), range(8)))
        assert True in answers
        assert set(answers) <= {True, False}
        assert kit.finish(job_id, gone_s) == (JobState.CANCELLED, {"error": "cancelled"})
        assert kit.runner.cancel(job_id) is False
        assert kit.finish(kit.submit("echo"))[0] is JobState.COMPLETED
        assert kit.runner.get_status(job_id) is JobState.CANCELLED
        assert count.read_text() == "x"
        assert kit.oracle.attempts(job_id) == 1

    def test_the_neighbours_go_on(self, kit: Kit, gone_s: float) -> None:
        """A cancel disturbs no other job, running or waiting."""
        go, count = kit.shared / "go", kit.shared / "count"
        victim = kit.submit("wait_for", path=str(kit.shared / "never"))
        kit.started(victim)
        others = [
            kit.submit("count_and_wait", count=str(count), path=str(go)),
            kit.submit("count_and_wait", count=str(count), path=str(go)),
        ]
        kit.runner.cancel(victim)
        assert kit.finish(victim, gone_s)[0] is JobState.CANCELLED
        go.touch()
        assert [kit.finish(job_id)[0] for job_id in others] == [JobState.COMPLETED] * 2
        assert count.read_text() == "xx"
        assert [kit.oracle.attempts(job_id) for job_id in others] == [1, 1]


def _has_mark(count: Path) -> bool:
    """Return whether a recipe has left its mark; its file exists a moment before."""
    return count.exists() and count.stat().st_size > 0
