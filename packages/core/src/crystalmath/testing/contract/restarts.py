"""The process that submitted is killed: its jobs outlive it, and are taken over by who asks."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import psutil
import pytest

from crystalmath.errors import UnknownJob
from crystalmath.testing.attempts import hand_over
from crystalmath.testing.contract.base import Base, still_unbegun
from crystalmath.testing.oracle import alive, found
from crystalmath.testing.owner import Owner
from crystalmath.testing.passing import TRANSIENT
from crystalmath.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crystalmath.quacc.engine import EngineRunner
    from crystalmath.testing.contract.base import Call
    from crystalmath.testing.contract.busy_workers import BusyWorkers
    from crystalmath.testing.oracle import Oracle
    from crystalmath.testing.subject import EngineUnderTest

#: Moments after a submission has begun at which its process is killed, in seconds; the last when it
#: has answered, so that there are jobs on every machine.
MOMENTS_S = (0.0, 0.01, None)
#: How long another process's job is watched, in seconds.
WATCH_S = 1.5
#: How long it may take until what ran has ended after a cancel, in seconds.
CANCEL_S = 60.0

_ESTATE = pytest.StashKey["Estate"]()


class Restarts(Base):
    """The present process is the one that asks, and so takes over; some tests use another."""

    guide: ClassVar[str] = "Ids and handles"

    @pytest.fixture
    def counted(self, shared: Path, gate: Path) -> dict[str, str]:
        """Return the parameters of `count_and_wait`: it marks each run, and waits for `gate`."""
        return {"count": str(shared / "count"), "path": str(gate)}

    @pytest.fixture
    def busy(self, engine: EngineUnderTest, owner: Call, oracle: Oracle, gate: Path) -> Owner:
        """Return a process all of whose workers wait for `gate`."""
        busy: Owner = owner()
        occupy(busy, engine, oracle, str(gate))
        return busy

    @pytest.fixture
    def estate(
        self,
        engine: EngineUnderTest,
        contract_home: Path,
        oracle: Oracle,
        request: pytest.FixtureRequest,
        room: int,
    ) -> Estate:
        """Return what a killed process had in its queue; the tests of a class share it."""
        node = request.node.getparent(pytest.Class)
        estate: Estate | None = node.stash.get(_ESTATE, None)
        if estate is None:
            estate = node.stash[_ESTATE] = Estate(engine, oracle, contract_home, room)
            node.addfinalizer(estate.gate.touch)
        return estate

    # --- what the dead leave behind ----------------------------------------------------------

    def test_running_job_of_a_killed_process(
        self,
        owner: Call,
        started: Call,
        oracle: Oracle,
        counted: dict[str, str],
        engine: EngineUnderTest,
    ) -> None:
        first = owner()
        (job_id,) = first.ask("submit", "count_and_wait", **counted)
        started(job_id)
        first.kill()
        second = owner()
        assert second.ask("status", job_id) == "running"
        touch(counted["path"])
        limit = engine.start_s + 10 * engine.turn_s
        _completes(second, job_id, limit)
        assert isinstance(second.ask("result", job_id)["pid"], int)
        ran_once(oracle, job_id, counted)

    @pytest.mark.parametrize("how", ["submitted", "launched", "written"])
    def test_queued_job_of_a_killed_process(
        self,
        estate: Estate,
        runner: EngineRunner,
        finish: Call,
        oracle: Oracle,
        needs_room: Call,
        how: str,
    ) -> None:
        if how == "launched":
            needs_room(LAUNCHED_ROOM)
        # What was launched past core has a handle that nobody recorded.
        job_id, counted = estate.jobs[how]
        if not estate.gate.exists():
            assert not runner.get_status(job_id).is_terminal()
            assert runner.get_result(job_id) is None
        estate.gate.touch()
        assert finish(job_id)[0] == "completed"
        ran_once(oracle, job_id, counted)

    def test_killed_at_any_moment_of_a_submission(
        self,
        owner: Call,
        runner: EngineRunner,
        finish: Call,
        oracle: Oracle,
        counted: dict[str, str],
    ) -> None:
        touch(counted["path"])
        before = oracle.jobs()
        # They take a second to start: one must not wait for the other.
        owners = [owner() for _ in MOMENTS_S]
        for moment, each in zip(MOMENTS_S, owners, strict=True):
            each.ask("threads")
            known = oracle.jobs()
            each.tell("submit", "count_and_wait", 2, **counted)
            what = "no job was written"
            eventually(lambda known=known: oracle.jobs() - known, each.timeout_s, what)  # type: ignore[misc]
            if moment is None:
                each.receive("submit")
            else:
                time.sleep(moment)
            each.kill()
        jobs = [job_id for job_id in oracle.jobs() - before if _is_known(runner, job_id)]
        assert jobs
        for job_id in jobs:
            assert finish(job_id)[0] == "completed"
            assert oracle.attempts(job_id) == 1
        assert len(count(counted)) == len(jobs)

    # --- who takes over ----------------------------------------------------------------------

    def test_job_of_a_living_process_is_left_to_it(
        self,
        busy: Owner,
        runner: EngineRunner,
        oracle: Oracle,
        counted: dict[str, str],
        engine: EngineUnderTest,
        busy_workers: BusyWorkers,
    ) -> None:
        (job_id,) = busy.ask("submit", "count_and_wait", **counted)
        theirs = oracle.spec(job_id)["owner"]
        assert theirs["pid"] == busy.process.pid
        state = runner.get_status(job_id)
        assert runner.get_result(job_id) is None
        # This process has idle workers: they would begin it at once.
        is_waiting = still_unbegun(oracle, job_id, WATCH_S)
        is_theirs = oracle.spec(job_id)["owner"] == theirs
        assert is_theirs, "a job of a living process was taken over"
        if not is_waiting:
            busy_workers.skip()
        assert state == "pending"
        touch(counted["path"])
        limit = engine.start_s + 10 * engine.turn_s
        eventually(lambda: runner.get_status(job_id) == "completed", limit, "it did not finish")
        eventually(lambda: busy.ask("status", job_id) == "completed", limit, "its owner is blind")
        ran_once(oracle, job_id, counted)

    def test_lost_attempt_of_a_killed_process(
        self,
        engine: EngineUnderTest,
        needs: Call,
        owner: Call,
        started: Call,
        finish: Call,
        oracle: Oracle,
        counted: dict[str, str],
    ) -> None:
        needs("workers_here")
        first = owner()
        (job_id,) = first.ask("submit", "count_and_wait", **counted)
        started(job_id)
        first.kill()
        supervisor = psutil.Process(oracle.supervisor(job_id))
        tree = [supervisor, *supervisor.children(recursive=True)]
        supervisor.kill()
        # What runs the recipe ends soon after it, and would else see the file and complete.
        limit = engine.linger_s + 10 * engine.turn_s
        eventually(lambda: not alive(tree), limit, "a killed supervisor's recipe goes on")
        touch(counted["path"])
        assert finish(job_id)[0] == "completed"
        assert oracle.attempts(job_id) == 2
        lost, completed = oracle.outcome(job_id, 1), oracle.outcome(job_id, 2)
        assert lost is not None
        assert lost["state"] == "lost"
        assert completed is not None
        assert completed["state"] == "completed"

    # --- cancel from another process ---------------------------------------------------------

    @pytest.fixture
    def tree(
        self, engine: EngineUnderTest, owner: Call, shared: Path
    ) -> Iterator[tuple[Owner, str, list[psutil.Process]]]:
        """Yield a process, its job, and what that job has started."""
        pids = shared / "pids"
        first = owner()
        (job_id,) = first.ask("submit", "grandchild", pids=str(pids))
        eventually(pids.exists, engine.start_s + 10 * engine.turn_s, "it started no process")
        processes = found(map(int, pids.read_text().split()))
        yield first, job_id, processes
        for process in processes:
            with contextlib.suppress(*TRANSIENT):
                process.kill()

    @pytest.mark.parametrize("killed", [False, True], ids=["alive", "killed"])
    def test_cancel_by_another_process(
        self,
        needs: Call,
        runner: EngineRunner,
        oracle: Oracle,
        request: pytest.FixtureRequest,
        *,
        killed: bool,
    ) -> None:
        needs("workers_here")
        first, job_id, processes = request.getfixturevalue("tree")
        if killed:
            first.kill()
        assert runner.cancel(job_id) is True
        what = "the cancelled job has no outcome"
        outcome = eventually(lambda: oracle.outcome(job_id), CANCEL_S, what)
        assert outcome is not None
        assert outcome["state"] == "cancelled"
        assert alive(processes) == []
        assert oracle.processes(job_id) == []
        eventually(lambda: runner.get_status(job_id) == "cancelled", CANCEL_S, "no word of it")
        assert runner.get_result(job_id) == {"error": "cancelled"}
        if not killed:
            what = "its own process does not know"
            eventually(lambda: first.ask("status", job_id) == "cancelled", CANCEL_S, what)

    def test_cancel_of_a_queued_job_of_a_killed_process(
        self,
        busy: Owner,
        runner: EngineRunner,
        oracle: Oracle,
        counted: dict[str, str],
        busy_workers: BusyWorkers,
    ) -> None:
        (job_id,) = busy.ask("submit", "count_and_wait", **counted)
        busy_workers.require_waiting(job_id)
        busy.kill()
        assert runner.cancel(job_id) is True
        eventually(lambda: runner.get_status(job_id) == "cancelled", CANCEL_S, "no word of it")
        assert runner.get_result(job_id) == {"error": "cancelled"}
        touch(counted["path"])
        time.sleep(WATCH_S)
        assert count(counted) == "", "it was cancelled, and was run"
        outcome = oracle.outcome(job_id)
        assert outcome is not None
        assert outcome["state"] == "cancelled"
        assert outcome["started"] is None


def _is_known(runner: EngineRunner, job_id: str) -> bool:
    """Return whether a job was written down; one that was not was not answered for either."""
    try:
        runner.get_status(job_id)
    except UnknownJob:
        return False
    return True


def _completes(owner: Owner, job_id: str, limit: float) -> None:
    eventually(lambda: owner.ask("status", job_id) == "completed", limit, "it did not finish")


#: So many wait in the engine's queue once the job is there that is launched past core.
LAUNCHED_ROOM = 2
#: How long the process may take to record the handle of a job that it has launched, in seconds: the
#: engine gives none, or the attempt's own id, if there is none then.
_RECORD_S = 2.0


class Estate:
    """What a killed process leaves: jobs that its engine had queued, or had not even got.

    Parameters
    ----------
    engine : EngineUnderTest
        The engine.
    oracle : Oracle
        Tells when its workers are busy.
    room : int
        How many core lets the engine have beside those that run.
    home : pathlib.Path
        The home; the files of the jobs go there, too.
    """

    def __init__(self, engine: EngineUnderTest, oracle: Oracle, home: Path, room: int) -> None:
        # A fresh one: where a first estate could not be made, the next test tries again.
        folder = Path(tempfile.mkdtemp(dir=home, prefix="estate-"))
        self.gate = folder / "gate"
        self._room = room
        self.jobs: dict[str, tuple[str, dict[str, str]]] = {}
        try:
            self._begin(engine, oracle, folder)
        except BaseException:
            self.gate.touch()  # else its jobs would hold workers for as long as they wait
            raise

    def _begin(self, engine: EngineUnderTest, oracle: Oracle, folder: Path) -> None:
        path = str(self.gate)
        with Owner(engine.name, dict(os.environ), cluster=engine.cluster) as owner:
            occupy(owner, engine, oracle, path)
            for how in ("submitted", "launched", "written"):
                counted = {"count": str(folder / how), "path": path}
                past_core = how in {"launched", "written"}
                method = "write" if past_core else "submit"
                answer = owner.ask(method, "count_and_wait", **counted)
                self.jobs[how] = (answer if past_core else answer[0], counted)
            if self._room:
                _wait_for_handle(oracle.directory(self.jobs["submitted"][0]))
            if self._room >= LAUNCHED_ROOM:
                hand_over(owner, engine, [self.jobs["launched"][0]])


def _wait_for_handle(directory: Path) -> None:
    deadline = time.monotonic() + _RECORD_S
    while not (directory / "1.handle").exists() and time.monotonic() < deadline:
        time.sleep(0.01)


def occupy(owner: Owner, engine: EngineUnderTest, oracle: Oracle, path: str) -> None:
    """Have all workers of a process's engine wait for a file."""
    limit = engine.start_s + 10 * engine.turn_s
    for job_id in owner.ask("submit", "wait_for", engine.workers, path=path):
        what = f"{job_id} was not begun"
        eventually(lambda id_=job_id: oracle.claimed(id_), limit, what)  # type: ignore[misc]


def touch(path: str) -> None:
    """Make a file that recipes wait for."""
    with open(path, "ab"):  # noqa: PTH123 - a parameter of a recipe, and so a string
        pass


def count(counted: dict[str, str]) -> str:
    """Return the marks that the runs have left."""
    try:
        with open(counted["count"], encoding="ascii") as file:  # noqa: PTH123
            return file.read()
    except FileNotFoundError:
        return ""


def ran_once(oracle: Oracle, job_id: str, counted: dict[str, str]) -> None:
    """Check that a job ran once, and completed."""
    assert count(counted) == "x"
    assert oracle.attempts(job_id) == 1
    outcome = oracle.outcome(job_id)
    assert outcome is not None
    assert outcome["state"] == "completed"
