"""Tests that jobs survive their killed owner, and that declared `Capabilities` hold."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import attrs
import psutil
import pytest

from crystalmath.errors import UnknownJob
from crystalmath.models import Capabilities
from crystalmath.testing.attempts import attempt_of
from crystalmath.testing.contract.base import Base, still_unbegun
from crystalmath.testing.oracle import alive
from crystalmath.testing.owner import Owner
from crystalmath.testing.waiting import eventually, within

if TYPE_CHECKING:
    from crystalmath.models import Attempt
    from crystalmath.quacc.engine import EngineRunner
    from crystalmath.testing.contract.base import Kit
    from crystalmath.testing.oracle import Oracle


#: How long after the begin of a submission its process is killed, in seconds. ``None`` is after its
#: answer, so that there are jobs on every machine.
MOMENTS_S = (0.0, 0.01, None)
#: How long another process's job is watched, in seconds.
WATCH_S = 1.5
#: How long a cancel may take to end a running job, in seconds.
CANCEL_S = 60.0


class Restarts(Base):
    """Jobs of killed processes, which this process or a second one takes over."""

    guide: ClassVar[str] = "Ids and handles"

    @pytest.fixture
    def busy(self, kit: Kit) -> Owner:
        """Return a process whose workers all wait for `gate`."""
        busy: Owner = kit.owner()
        occupy(busy, kit, str(kit.gate))
        return busy

    @pytest.fixture
    def estate(self, kit: Kit) -> Estate:
        """Return the jobs of a killed process; the tests of the class share them."""
        return kit.once("estate", lambda: Estate(kit))

    # --- jobs of a killed owner --------------------------------------------------------------

    def test_running_job_of_a_killed_process(self, kit: Kit) -> None:
        """It goes on, runs once, and the next owner gets its result."""
        first = kit.owner()
        (job_id,) = first.ask("submit", "count_and_wait", **kit.counted)
        kit.started(job_id)
        first.kill()
        second = kit.owner()
        assert second.ask("status", job_id) == "running"
        kit.gate.touch()
        kit.eventually(lambda: second.ask("status", job_id) == "completed", "it did not finish")
        assert isinstance(second.ask("result", job_id)["pid"], int)
        ran_once(kit.oracle, job_id, kit.counted)

    @pytest.mark.parametrize("how", ["submitted", "launched", "written"])
    def test_queued_job_of_a_killed_process(self, kit: Kit, estate: Estate, how: str) -> None:
        """The next owner runs it once, whether it was only written or already launched."""
        if how == "launched":
            kit.needs_room(LAUNCHED_ROOM)
        # The handle of the "launched" job was never recorded.
        job_id, counted = estate.jobs[how]
        if not estate.gate.exists():
            assert not kit.runner.get_status(job_id).is_terminal()
            assert kit.runner.get_result(job_id) is None
        estate.gate.touch()
        assert kit.finish(job_id)[0] == "completed"
        ran_once(kit.oracle, job_id, counted)

    def test_killed_at_any_moment_of_a_submission(self, kit: Kit) -> None:
        """A job that was written down then runs once."""
        kit.gate.touch()
        before = kit.oracle.jobs()
        # They are started together, because each takes a second to start.
        owners = [kit.owner() for _ in MOMENTS_S]
        for moment, each in zip(MOMENTS_S, owners, strict=True):
            each.ask("threads")
            known = kit.oracle.jobs()
            each.tell("submit", "count_and_wait", 2, **kit.counted)
            what = "no job was written"
            eventually(partial(_new_jobs, kit.oracle, known), each.timeout_s, what)
            if moment is None:
                each.receive("submit")
            else:
                time.sleep(moment)
            each.kill()
        jobs = [job_id for job_id in kit.oracle.jobs() - before if _is_known(kit.runner, job_id)]
        assert jobs
        for job_id in jobs:
            assert kit.finish(job_id)[0] == "completed"
            assert kit.oracle.attempts(job_id) == 1
        assert len(count(kit.counted)) == len(jobs)

    # --- who takes over ----------------------------------------------------------------------

    def test_job_of_a_living_process_is_left_to_it(self, kit: Kit, busy: Owner) -> None:
        """Another process reads its state, and does not take it over."""
        (job_id,) = busy.ask("submit", "count_and_wait", **kit.counted)
        theirs = kit.oracle.spec(job_id)["owner"]
        assert theirs["pid"] == busy.process.pid
        state = kit.runner.get_status(job_id)
        assert kit.runner.get_result(job_id) is None
        # This process has idle workers, which would begin the job at once.
        is_waiting = still_unbegun(kit.oracle, job_id, WATCH_S)
        is_theirs = kit.oracle.spec(job_id)["owner"] == theirs
        assert is_theirs, "a job of a living process was taken over"
        if not is_waiting:
            kit.busy.skip()
        assert state == "pending"
        kit.gate.touch()
        kit.eventually(lambda: kit.runner.get_status(job_id) == "completed", "it did not finish")
        kit.eventually(lambda: busy.ask("status", job_id) == "completed", "its owner is blind")
        ran_once(kit.oracle, job_id, kit.counted)

    def test_lost_attempt_of_a_killed_process(self, kit: Kit) -> None:
        """If its supervisor is killed as well, the next owner runs a second attempt."""
        kit.needs("workers_here")
        first = kit.owner()
        (job_id,) = first.ask("submit", "count_and_wait", **kit.counted)
        kit.started(job_id)
        first.kill()
        supervisor = psutil.Process(kit.oracle.supervisor(job_id))
        tree = [supervisor, *supervisor.children(recursive=True)]
        supervisor.kill()
        # The recipe's process ends soon after it. Otherwise it would see the file and complete.
        limit = kit.engine.linger_s + 10 * kit.engine.turn_s
        eventually(lambda: not alive(tree), limit, "a killed supervisor's recipe goes on")
        kit.gate.touch()
        assert kit.finish(job_id)[0] == "completed"
        assert kit.oracle.attempts(job_id) == 2
        assert [kit.oracle.state(job_id, each) for each in (1, 2)] == ["lost", "completed"]

    # --- cancel from another process ---------------------------------------------------------

    @pytest.mark.parametrize("killed", [False, True], ids=["alive", "killed"])
    def test_cancel_by_another_process(self, kit: Kit, *, killed: bool) -> None:
        """It ends the job and all its processes, whether the owner is alive or killed."""
        kit.needs("workers_here")
        first = kit.owner()
        (job_id,) = first.ask("submit", "grandchild", pids=str(kit.pids))
        processes = kit.grandchildren()
        if killed:
            first.kill()
        assert kit.runner.cancel(job_id) is True
        what = "the cancelled job has no outcome"
        assert kit.oracle.ended(job_id, CANCEL_S, what)["state"] == "cancelled"
        assert alive(processes) == []
        assert kit.oracle.processes(job_id) == []
        eventually(lambda: kit.runner.get_status(job_id) == "cancelled", CANCEL_S, "no word of it")
        assert kit.runner.get_result(job_id) == {"error": "cancelled"}
        if not killed:
            what = "its own process does not know"
            eventually(lambda: first.ask("status", job_id) == "cancelled", CANCEL_S, what)

    def test_cancel_of_a_queued_job_of_a_killed_process(self, kit: Kit, busy: Owner) -> None:
        """The job reads cancelled, and never runs."""
        (job_id,) = busy.ask("submit", "count_and_wait", **kit.counted)
        kit.busy.require_waiting(job_id)
        busy.kill()
        assert kit.runner.cancel(job_id) is True
        eventually(lambda: kit.runner.get_status(job_id) == "cancelled", CANCEL_S, "no word of it")
        assert kit.runner.get_result(job_id) == {"error": "cancelled"}
        kit.gate.touch()
        time.sleep(WATCH_S)
        assert count(kit.counted) == "", "it was cancelled, and was run"
        outcome = kit.oracle.outcome(job_id) or {}
        assert (outcome["state"], outcome["started"]) == ("cancelled", None)


def _is_known(runner: EngineRunner, job_id: str) -> bool:
    """Return whether a job was written down completely; otherwise nobody was told its id."""
    try:
        runner.get_status(job_id)
    except UnknownJob:
        return False
    return True


def _new_jobs(oracle: Oracle, known: set[str]) -> set[str]:
    return oracle.jobs() - known


#: How many attempts wait in the engine's queue once a job is launched directly.
LAUNCHED_ROOM = 2
#: How long core may take to record the handle of a launched job, in seconds. It records none if the
#: handle is the attempt's id.
_RECORD_S = 2.0


class Estate:
    """The jobs of a killed process, some of which its engine had queued."""

    def __init__(self, kit: Kit) -> None:
        # A fresh folder: if a first estate could not be made, the next test tries again.
        folder = Path(tempfile.mkdtemp(dir=kit.home, prefix="estate-"))
        self.gate = folder / "gate"
        self.jobs: dict[str, tuple[str, dict[str, str]]] = {}
        kit.at_the_end(self.gate.touch)
        try:
            self._begin(kit, folder)
        except BaseException:
            self.gate.touch()  # otherwise its jobs would keep workers busy
            raise

    def _begin(self, kit: Kit, folder: Path) -> None:
        engine, path = kit.engine, str(self.gate)
        with Owner(engine.name, dict(os.environ), cluster=engine.cluster) as owner:
            occupy(owner, kit, path)
            for how in ("submitted", "launched", "written"):
                counted = {"count": str(folder / how), "path": path}
                past_core = how in {"launched", "written"}
                method = "write" if past_core else "submit"
                answer = owner.ask(method, "count_and_wait", **counted)
                self.jobs[how] = (answer if past_core else answer[0], counted)
            if kit.room:
                handle = kit.oracle.directory(self.jobs["submitted"][0]) / "1.handle"
                within(handle.exists, _RECORD_S)
            if kit.room >= LAUNCHED_ROOM:
                job_id, _ = self.jobs["launched"]
                kit.door.launch(attempt_of(kit.home, job_id, cluster=engine.cluster), by=owner)


def occupy(owner: Owner, kit: Kit, path: str) -> None:
    """Keep all workers of a process's engine busy until a file exists."""
    kit.started(*owner.ask("submit", "wait_for", kit.engine.workers, path=path))


def count(counted: dict[str, str]) -> str:
    """Return one mark for each run of a recipe."""
    marks = Path(counted["count"])
    return marks.read_text(encoding="ascii") if marks.exists() else ""


def ran_once(oracle: Oracle, job_id: str, counted: dict[str, str]) -> None:
    """Check that a job ran once, and completed."""
    assert count(counted) == "x"
    assert oracle.attempts(job_id) == 1
    assert oracle.state(job_id) == "completed"


#: How long the queue of a dead process is watched, in seconds.
QUEUE_S = 5.0
#: How long the processes of a dead supervisor are watched, in seconds.
LEFT_S = 10.0


class Honesty(Base):
    """Declared capabilities hold; the test of one that is not declared is skipped."""

    guide: ClassVar[str] = "What capabilities promise"

    def test_capabilities_are_sane(self, kit: Kit) -> None:
        """`capabilities` is a `Capabilities` of the right types, on each cluster."""
        for capabilities in (
            kit.runner.capabilities,
            *map(kit.runner.capabilities_of, kit.runner.clusters()),
        ):
            assert isinstance(capabilities, Capabilities)
            assert type(capabilities.max_queued) is int
            assert capabilities.max_queued >= 1
            for each in attrs.fields(Capabilities):
                if each.type in {bool, "bool"}:  # it is had or not
                    assert type(getattr(capabilities, each.name)) is bool, each.name
        workers = kit.runner.workers()
        assert workers is None or (type(workers) is int and workers >= 1)

    def test_workers_here(self, kit: Kit) -> None:
        """With `workers_here`, jobs run on this host and in this namespace of processes."""
        kit.needs("workers_here")
        attempt = kit.door.write("wait_for", path=str(kit.gate))
        kit.door.launch(attempt)
        kit.door.started(attempt)
        claimant = kit.oracle.claimant(attempt.job_id)
        assert claimant["host"] == socket.gethostname()
        assert psutil.pid_exists(claimant["pid"])
        kit.gate.touch()
        kit.door.ended(attempt)

    @pytest.fixture
    def queue(self, kit: Kit) -> tuple[list[Attempt], Attempt]:
        """Return the running attempts and the queued one of a killed process."""
        kit.needs_room(1)
        running = [
            kit.door.write("wait_for", path=str(kit.gate)) for _ in range(kit.engine.workers)
        ]
        queued = kit.door.write("echo")
        doomed = kit.owner()
        kit.door.launch(*running, by=doomed)
        kit.door.started(*running)
        kit.door.launch(queued, by=doomed)
        seen = partial(kit.door.seen, queued, by=doomed)
        kit.busy.require_waiting(queued.job_id, seen)
        doomed.kill()
        return running, queued

    def test_queue_dies_with_owner(self, kit: Kit, request: pytest.FixtureRequest) -> None:
        """With `queue_dies_with_owner`, no queued attempt of a killed process begins."""
        kit.needs("queue_dies_with_owner")
        running, queued = request.getfixturevalue("queue")
        kit.gate.touch()
        assert kit.door.ended(*running) == ["completed"] * len(running)
        assert still_unbegun(kit.oracle, queued.job_id, QUEUE_S), "it was begun without an owner"

    def test_probe_after_restart(self, kit: Kit, queue: tuple[list[Attempt], Attempt]) -> None:
        """A queued attempt of a killed process that `probe` calls `gone` never begins."""
        running, queued = queue
        # No handle was recorded, so the engine must know the attempts by their ids.
        jobs = [attempt.job_id for attempt in (*running, queued)]
        state, reason = kit.door.probe(jobs)[queued.job_id]
        kit.gate.touch()
        assert kit.door.ended(*running) == ["completed"] * len(running)
        if state == "gone":
            assert still_unbegun(kit.oracle, queued.job_id, QUEUE_S), "it was gone, and was begun"
        elif state == "unknown":
            pytest.skip(f"the engine does not know its state (its reason: {reason})")
        else:
            assert kit.door.ended(queued) == ["completed"]

    def test_gone_means_dead(self, kit: Kit) -> None:
        """With `gone_means_dead`, no process of an attempt is alive once it is `gone`."""
        kit.needs("gone_means_dead")
        kit.needs("workers_here")
        attempt = kit.door.write("grandchild", pids=str(kit.pids))
        kit.door.launch(attempt)
        kit.grandchildren()
        psutil.Process(kit.oracle.supervisor(attempt.job_id)).kill()
        deadline = time.monotonic() + LEFT_S
        while time.monotonic() < deadline:
            state = kit.door.seen(attempt)
            left = kit.oracle.processes(attempt.job_id)
            assert not (state == "gone" and left), f"the engine says gone, and {left} are alive"
            time.sleep(0.1)
