"""Ids, refusals, and that nobody waits who need not."""

from __future__ import annotations

import math
import statistics
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from crystalmath.quacc import JobState, get_runner
from crystalmath.testing.contract.base import AL, Base, alone
from crystalmath.testing.contract.busy_workers import behind_busy_workers
from crystalmath.testing.own_time import own_time
from crystalmath.testing.owner import RECIPES
from crystalmath.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from crystalmath.quacc.engine import EngineRunner
    from crystalmath.testing.oracle import Oracle
    from crystalmath.testing.owner import Owner
    from crystalmath.testing.subject import EngineUnderTest

#: How long one call may take while the engine is busy: most of them, and the slowest, in seconds.
#: Most of them tell of the engine; one alone may have waited for a disk, or for a busy machine.
SUBMIT_S = (0.1, 10.0)
STATUS_S = (0.01, 5.0)
CANCEL_S = (0.1, 10.0)
#: How long a launch may take to begin, and how long one is held up, in seconds.
ENTERED_S, HELD_S = 60.0, 20.0

STRANGE_IDS: list[Any] = [
    "",
    ".",
    "../../x",
    "no such job",
    "a" * 10_000,
    "7c8a3f0e-41a5-4d2b-9f3e-3b6e1c5d9a10",
    "7c8a3f0e-41a5-4d2b-9f3e-3b6e1c5d9a10\n",
    None,
    7,
]

FORBIDDEN_NAMES: list[Any] = [
    "os.system",
    "builtins.eval",
    "quacc.recipes",
    "quacc.recipes.emt.core.__doc__",
    "quacc.recipes..core.relax_job",
    "quacc.recipes.emt.core.relax_job\n",
    "quacc.recipes.emt.c\u043ere.relax_job",  # a Cyrillic o
    f"{RECIPES}x.echo",
    f"{RECIPES}.__builtins__.eval",
    "../../x",
    "",
    None,
]


def _endless() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


UNWRITABLE: dict[str, Any] = {
    "an object": object(),
    "a function": lambda: None,
    "a lock": threading.Lock(),
    "a generator": (letter for letter in "ab"),
    "an exception": ValueError("x"),
    "not a number": math.nan,
    "infinite": [math.inf],
    "inside itself": _endless(),
}


class Submission(Base):
    """What `submit` promises, and the two that must never wait for an engine."""

    guide: ClassVar[str] = "Who calls what"

    @pytest.fixture
    def calm(self, oracle: Oracle) -> Iterator[None]:
        """Check that a test leaves no job behind."""
        before = oracle.jobs()
        yield
        assert oracle.jobs() == before

    @pytest.fixture
    def wait_in_line(
        self,
        engine: EngineUnderTest,
        runner: EngineRunner,
        blocked: Path,
        submit: Callable[..., str],
        finish: Callable[..., Any],
    ) -> Iterator[Callable[[], str]]:
        """Submit a job behind busy workers; it is gone again after the test."""
        jobs: list[str] = []

        def wait_in_line() -> str:
            job_id = submit("echo")
            jobs.append(job_id)
            return job_id

        yield wait_in_line
        for job_id in jobs:
            runner.cancel(job_id)
        blocked.touch()
        # An engine that cannot drop what is queued has to go through all of it.
        finish(submit("echo"), engine.start_s + (len(jobs) + 10) * engine.turn_s)

    def test_an_id_is_a_uuid4(self, submit: Callable[..., str], oracle: Oracle) -> None:
        job_id = submit("echo")
        assert isinstance(job_id, str)
        assert str(uuid.UUID(job_id)) == job_id
        assert uuid.UUID(job_id).version == 4
        assert job_id in oracle.jobs()

    def test_ids_are_unique_over_threads(
        self, wait_in_line: Callable[[], str], oracle: Oracle
    ) -> None:
        before = oracle.jobs()
        with ThreadPoolExecutor(4) as pool:
            jobs = list(pool.map(lambda _: wait_in_line(), range(12)))
        assert len(set(jobs)) == len(jobs)
        assert oracle.jobs() - before == set(jobs)

    def test_ids_are_unique_over_processes(
        self, owner: Callable[[], Owner], submit: Callable[..., str], oracle: Oracle
    ) -> None:
        """Two processes that begin at the same point must not draw the same ids."""
        before = oracle.jobs() | {submit("echo")}
        first, second = owner(), owner()
        theirs = first.ask("submit", "echo", 2)
        others = second.ask("submit", "echo", 2)
        assert len({*theirs, *others} - before) == 4
        for process, jobs in ((first, theirs), (second, others)):
            for job_id in jobs:
                process.ask("cancel", job_id)
            process.leave()

    def test_get_runner_gives_the_same_object(
        self, engine: EngineUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also to threads that ask for it first, all at once."""
        engine.configure(tmp_path)
        monkeypatch.setenv("CRYSTALMATH_HOME", str(tmp_path))
        barrier = threading.Barrier(4)

        def get(_: int) -> Any:
            barrier.wait()
            return get_runner(engine.name)

        with ThreadPoolExecutor(4) as pool:
            runners = list(pool.map(get, range(4)))
        assert all(runner is runners[0] for runner in runners)
        assert get_runner(engine.name) is runners[0]

    @alone
    @behind_busy_workers
    def test_submit_and_status_do_not_wait_for_busy_workers(
        self, wait_in_line: Callable[[], str], runner: EngineRunner, oracle: Oracle
    ) -> None:
        """100 jobs wait: a submit takes 0.1 s (at most 10 s), a status 10 ms (at most 5 s)."""
        jobs: list[str] = []
        _timed("submit", SUBMIT_S, [lambda: jobs.append(wait_in_line())] * 100)
        _timed("get_status", STATUS_S, [partial(runner.get_status, job_id) for job_id in jobs])
        _timed("get_result", STATUS_S, [partial(runner.get_result, job_id) for job_id in jobs])
        assert {runner.get_status(job_id) for job_id in jobs} == {JobState.PENDING}
        assert not any(map(oracle.claimed, jobs))

    @alone
    def test_a_slow_launch_slows_nobody(
        self,
        runner: EngineRunner,
        submit: Callable[..., str],
        finish: Callable[..., Any],
        monkeypatch: pytest.MonkeyPatch,
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
        submit: Callable[..., str],
        runner: EngineRunner,
        shared: Path,
    ) -> None:
        """Each runs once, and each id gives its own job's result."""
        count = shared / "count"
        with ThreadPoolExecutor(4) as pool:
            jobs = list(pool.map(lambda n: submit("mark", path=str(count), number=n), range(100)))
        limit = engine.start_s + 100 * engine.turn_s
        eventually(
            lambda: all(runner.get_status(job_id).is_terminal() for job_id in jobs),
            limit,
            "100 jobs did not finish",
        )
        assert {runner.get_status(job_id) for job_id in jobs} == {JobState.COMPLETED}
        assert [runner.get_result(job_id) for job_id in jobs] == [{"number": n} for n in range(100)]
        assert sorted(map(int, count.read_text().split())) == list(range(100))

    def test_the_default_cluster_is_local(
        self, runner: EngineRunner, finish: Callable[..., Any]
    ) -> None:
        assert "local" in runner.clusters()
        assert finish(runner.submit(f"{RECIPES}.echo", AL))[0] is JobState.COMPLETED

    @pytest.mark.usefixtures("calm")
    def test_an_unknown_cluster_is_refused(self, runner: EngineRunner) -> None:
        with pytest.raises(ValueError, match="no-such-cluster") as caught:
            runner.submit(f"{RECIPES}.echo", AL, "no-such-cluster")
        assert all(cluster in str(caught.value) for cluster in runner.clusters())

    @pytest.mark.usefixtures("calm")
    @pytest.mark.parametrize("name", FORBIDDEN_NAMES)
    def test_a_recipe_that_is_not_permitted_is_refused(
        self, runner: EngineRunner, name: Any
    ) -> None:
        with pytest.raises(ValueError, match="not permitted"):
            runner.submit(name, AL, "local")

    @pytest.mark.usefixtures("calm")
    @pytest.mark.parametrize("what", UNWRITABLE)
    def test_a_parameter_that_cannot_be_written_down_is_refused(
        self, submit: Callable[..., str], what: str
    ) -> None:
        """The message names its place."""
        with pytest.raises(ValueError, match=r"options\.deep"):
            submit("echo", options={"deep": UNWRITABLE[what]})

    @pytest.mark.usefixtures("calm")
    @pytest.mark.parametrize("atoms", [None, "Al", {"symbols": "Al"}])
    def test_what_is_no_structure_is_refused(self, runner: EngineRunner, atoms: Any) -> None:
        with pytest.raises((ValueError, TypeError, AttributeError)):
            runner.submit(f"{RECIPES}.echo", atoms, "local")

    def test_a_recipe_that_takes_no_structure(
        self, runner: EngineRunner, finish: Callable[..., Any]
    ) -> None:
        """Its first argument is a parameter as any other; a structure is refused."""
        name = f"{RECIPES}.without_structure"
        _, result = finish(runner.submit(name, number=2, files=["a"]))
        assert result == {"files": ["a"], "number": 2}
        with pytest.raises(ValueError, match="takes no structure"):
            runner.submit(name, AL)

    @pytest.mark.usefixtures("calm")
    def test_a_structure_that_is_missing_is_refused(self, runner: EngineRunner) -> None:
        """The message names the recipe's argument."""
        with pytest.raises(ValueError, match=r"needs a structure.*'atoms'"):
            runner.submit(f"{RECIPES}.echo")

    @pytest.mark.parametrize("method", ["get_status", "get_result", "cancel"])
    @pytest.mark.parametrize("job_id", STRANGE_IDS, ids=lambda value: repr(value)[:20])
    @pytest.mark.usefixtures("calm")
    def test_an_unknown_id_is_a_key_error(
        self, runner: EngineRunner, method: str, job_id: Any
    ) -> None:
        with pytest.raises(KeyError):
            getattr(runner, method)(job_id)

    def test_states_change_as_they_may_and_end_for_good(
        self,
        runner: EngineRunner,
        submit: Callable[..., str],
        engine: EngineUnderTest,
        oracle: Oracle,
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
                if (state := runner.get_status(job_id).value) != states[-1]:
                    states.append(state)
            return all(JobState(states[-1]).is_terminal() for states in seen.values())

        eventually(look, engine.start_s + 10 * engine.turn_s, "the jobs did not finish")
        for job_id in expected:
            runner.get_result(job_id)
            assert runner.cancel(job_id) is False
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            look()
            time.sleep(0.02)
        for job_id, states in seen.items():
            last = expected[job_id]
            assert states in (["pending", last], ["pending", "running", last])
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
