"""What happens to the process that submits, and outages of the engine: jobs go on."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest

from crystalmath.testing import traces
from crystalmath.testing.contract.base import Base
from crystalmath.testing.contract.hooks import behind_busy_workers
from crystalmath.testing.contract.restarts import count
from crystalmath.testing.owner import AwayError, Owner, OwnerError
from crystalmath.testing.waiting import eventually, own_time, within

if TYPE_CHECKING:
    from collections.abc import Callable

    from crystalmath.testing.contract.base import Kit


_ENDS = frozenset({"completed", "failed", "cancelled"})


class Troubles:
    """A process whose jobs are looked at after each mishap; one that had trouble is replaced.

    It says in words what became of a job after the removal of the working directory, the end of a
    forked child, and Ctrl-C; ``None`` if it completed.
    """

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        self._folder = Path(tempfile.mkdtemp(dir=kit.home, prefix="mishaps-"))
        with contextlib.ExitStack() as stack:
            self._stack = stack
            self._owner = self._new()
            self.directory = self._tried(self._remove_directory)
            self.fork = self._tried(self._fork)
            self.interrupt = self._tried(self._interrupt)
            # What is the matter with its end, other tests say.
            with contextlib.suppress(OwnerError):
                self._owner.ask("close")

    def _new(self) -> Owner:
        """Return a process that has imported everything; its engine does not serve yet."""
        work = Path(tempfile.mkdtemp(dir=self._folder))
        owner = Owner(
            self._kit.engine.name, dict(os.environ), cluster=self._kit.engine.cluster, folder=work
        )
        self._stack.enter_context(owner)
        owner.ask("write", "echo")
        return owner

    def _tried(self, mishap: Callable[[], str | None]) -> str | None:
        try:
            trouble = mishap()
        except AssertionError as error:  # the process had trouble, or a job was not begun
            trouble = str(error)
        if trouble is not None:
            with contextlib.suppress(OwnerError):
                self._owner.ask("close")
            trouble = "\n\n".join([trouble, *self._owner.excerpts()])
            self._owner.kill()
            self._owner = self._new()
        return trouble

    def _remove_directory(self) -> str | None:
        for path in self._folder.iterdir():
            shutil.rmtree(path)
        return self._one_job()

    def _fork(self) -> str | None:
        # The child has what the engine made for its jobs.
        trouble = self._one_job()
        if trouble is None:
            self._owner.ask("fork")
            trouble = self._one_job()
        return trouble

    def _interrupt(self) -> str | None:
        gate = self._folder / "gate"
        (job_id,) = self._owner.ask("submit", "wait_for", path=str(gate))
        try:
            self._kit.started(job_id)
            self._owner.ask("interrupt")
        finally:
            gate.touch()
        if trouble := self._end_of(job_id, "that ran"):
            return trouble
        if (attempts := self._kit.oracle.attempts(job_id)) > 1:
            return f"a job that ran was lost, and begun anew: it took {attempts} attempts"
        return self._one_job()

    def _one_job(self) -> str | None:
        """Run a job that does nothing; tell what became of it unless it completed."""
        (job_id,) = self._owner.ask("submit", "echo")
        return self._end_of(job_id, "that was submitted then")

    def _end_of(self, job_id: str, which: str) -> str | None:
        state = ""

        def has_ended() -> bool:
            nonlocal state
            state = self._owner.ask("status", job_id)
            return state in _ENDS

        within(has_ended, self._kit.engine.limit_s)
        if state == "completed":
            return None
        if state not in _ENDS:
            return f"a job {which} does not end: it is {state} after {self._kit.engine.limit_s:g} s"
        return f"a job {which} {state}: {self._owner.ask('result', job_id)['error']}"


class Mishaps(Base):
    """One process goes through all of it; each test looks at one mishap."""

    guide: ClassVar[str] = "What your engine survives"

    @pytest.fixture
    def troubles(self, kit: Kit) -> Troubles:
        """Return what was noted; the tests of a class share it."""
        return kit.once("troubles", lambda: Troubles(kit))

    def test_its_owner_loses_its_working_directory(self, troubles: Troubles) -> None:
        """Before its first launch: a folder that is tidied up while a notebook is open."""
        _survived(
            troubles.directory,
            "the working directory of the process that submits was removed before the first launch",
            "Work in a folder of your own, and resolve no relative path",
        )

    def test_its_owner_has_a_child_that_ends(self, troubles: Troubles) -> None:
        """Forked, and so with a copy of the engine: that is not the child's to end."""
        _survived(
            troubles.fork,
            "a child that the process that submits has forked ended as scripts end",
            "What you undo at exit (`atexit`, `weakref.finalize`, `tempfile.TemporaryDirectory`) "
            "the child undoes, too: do so only where `os.getpid()` is what it was at first",
        )

    def test_ctrl_c_is_for_its_owner(self, troubles: Troubles) -> None:
        """It reaches the whole process group in the foreground of a terminal; jobs go on."""
        _survived(
            troubles.interrupt,
            "the user of the process that submits pressed Ctrl-C, which he caught",
            "Start workers in a session of their own (`start_new_session=True`), or in an agent",
        )


def _survived(trouble: str | None, mishap: str, remedy: str) -> None:
    assert trouble is None, (
        f"after {mishap}, jobs that run go on and others are begun. {remedy}. But {trouble}"
    )


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
    def test_outage_changes_no_state(self, kit: Kit, request: pytest.FixtureRequest) -> None:
        outage = kit.outage
        go: Path = request.getfixturevalue("blocked")
        counted = kit.counted
        kit.gate.touch()
        jobs = [kit.submit("count_and_wait", **counted) for _ in range(2)]
        with outage():
            # What this process had no core for is none of the engine's.
            began = own_time()
            jobs.append(kit.submit("count_and_wait", **counted))
            assert own_time() - began < SUBMIT_S, "submit waits for an engine that is away"
            deadline = time.monotonic() + OUTAGE_S
            while time.monotonic() < deadline:
                states = [kit.runner.get_status(job_id) for job_id in jobs]
                assert not any(state.is_terminal() for state in states), states
                time.sleep(0.1)
        go.touch()
        limit = kit.engine.limit_s + RETRY_S
        for job_id in jobs:
            assert kit.finish(job_id, limit)[0] == "completed"
        assert len(count(counted)) == len(jobs)

    @behind_busy_workers
    def test_probe_in_an_outage(self, kit: Kit, request: pytest.FixtureRequest) -> None:
        outage = kit.outage
        occupied = request.getfixturevalue("occupied")
        queued = kit.door.write("echo")
        kit.door.launch(queued)
        with outage():
            for attempt in (*occupied, queued):
                with contextlib.suppress(AwayError):
                    word = kit.door.ask(attempt)
                    assert word != "gone", "what cannot be reached cannot be known to be gone"
        assert not kit.oracle.claimed(queued.job_id)

    def test_an_outage_costs_nothing(self, kit: Kit) -> None:
        """No thread and no descriptor more for each time that the engine was not reached."""
        outage = kit.outage
        attempt = kit.door.write("echo")
        kit.door.launch(attempt)
        kit.door.ended(attempt)
        pid = kit.door.owner.process.pid

        def ask(times: int) -> int:
            deadline = time.monotonic() + ASK_S
            for count in range(times):
                if time.monotonic() > deadline:  # it waits for an answer each time
                    return count
                with contextlib.suppress(AwayError):
                    kit.door.ask(attempt)
            return times

        with outage():
            ask(ASKED)
            before = traces.held(pid)
            count = ask(ASKED)
            if count < ASKED:
                pytest.skip(
                    f"an answer takes so long in an outage that {count} were had in {ASK_S:g} s"
                )

            eventually(
                lambda: not traces.grown(pid, before, ASKED),
                kit.engine.turn_s,
                lambda: (
                    f"in an outage probe was called {ASKED} times, and the process that submits "
                    f"has {' and '.join(traces.grown(pid, before, ASKED))} "
                    "(docs/writing-an-engine.md, 'What your engine leaves as it was')"
                ),
            )
