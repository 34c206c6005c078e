"""Tests that jobs go on after mishaps of the process that submits, and outages of the engine."""

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
    """The troubles of a job after each mishap of its process, in words, or ``None``.

    The mishaps are the removal of the working directory, the end of a forked child, and Ctrl-C. A
    process that had trouble is replaced.
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
            # Other tests report errors of its end.
            with contextlib.suppress(OwnerError):
                self._owner.ask("close")

    def _new(self) -> Owner:
        """Start a process that has imported everything, and whose engine has not started."""
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
        # A job first, so that the child has a copy of all that the engine makes.
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
            return f"a running job was lost, and begun anew: it took {attempts} attempts"
        return self._one_job()

    def _one_job(self) -> str | None:
        """Run a job that does nothing; return its trouble, or ``None`` if it completed."""
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
    """Mishaps of one process; each test is about one of them."""

    guide: ClassVar[str] = "What your engine survives"

    @pytest.fixture
    def troubles(self, kit: Kit) -> Troubles:
        """Return the troubles after all mishaps; the tests of the class share them."""
        return kit.once("troubles", lambda: Troubles(kit))

    def test_its_owner_loses_its_working_directory(self, troubles: Troubles) -> None:
        """Jobs run although the working directory was removed before the first launch."""
        _survived(
            troubles.directory,
            "the working directory of the process that submits was removed before the first launch",
            "Work in a folder of your own, and use no relative path",
        )

    def test_its_owner_has_a_child_that_ends(self, troubles: Troubles) -> None:
        """Jobs go on after the end of a forked child, which has a copy of the engine."""
        _survived(
            troubles.fork,
            "a child that the process that submits has forked ended as scripts end",
            "The child also runs your exit functions (`atexit`, `weakref.finalize`, "
            "`tempfile.TemporaryDirectory`): do nothing there if `os.getpid()` has changed",
        )

    def test_ctrl_c_is_for_its_owner(self, troubles: Troubles) -> None:
        """Jobs go on after Ctrl-C, which a terminal sends to the whole process group."""
        _survived(
            troubles.interrupt,
            "Ctrl-C was pressed, and the process that submits caught it",
            "Start workers in a session of their own (`start_new_session=True`), or in an agent",
        )


def _survived(trouble: str | None, mishap: str, remedy: str) -> None:
    assert trouble is None, (
        f"after {mishap}, running jobs must go on and others must begin. {remedy}. But {trouble}"
    )


#: How long an outage lasts, in seconds: core probes a silent engine every 5 s.
OUTAGE_S = 7.0
#: How long a submission may take in an outage, in seconds: it does not wait for the engine.
SUBMIT_S = 5.0
#: How long an outage may hold up a job after its end, in seconds: core waits up to 10 s before it
#: tries again.
RETRY_S = 30.0
#: How many probes an engine gets in an outage, and for how long at most, in seconds.
PROBES, PROBES_S = 10, 30.0


class Outages(Base):
    """Outages, made with `EngineUnderTest.outage`; without it these tests are skipped."""

    guide: ClassVar[str] = "What exceptions mean"

    @behind_busy_workers
    def test_outage_changes_no_state(self, kit: Kit, request: pytest.FixtureRequest) -> None:
        """In an outage `submit` returns, and no state changes; afterwards each job runs once."""
        outage = kit.outage
        go: Path = request.getfixturevalue("blocked")
        counted = kit.counted
        kit.gate.touch()
        jobs = [kit.submit("count_and_wait", **counted) for _ in range(2)]
        with outage():
            # Time in which this process had no core does not count.
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
        """`probe` calls no attempt `gone` while the engine cannot be reached."""
        outage = kit.outage
        occupied = request.getfixturevalue("occupied")
        queued = kit.door.write("echo")
        kit.door.launch(queued)
        with outage():
            for attempt in (*occupied, queued):
                with contextlib.suppress(AwayError):
                    word = kit.door.ask(attempt)
                    assert word != "gone", "an engine that is unreachable cannot say gone"
        assert not kit.oracle.claimed(queued.job_id)

    def test_an_outage_costs_nothing(self, kit: Kit) -> None:
        """A probe that does not reach the engine leaves no thread and no descriptor behind."""
        outage = kit.outage
        attempt = kit.door.write("echo")
        kit.door.launch(attempt)
        kit.door.ended(attempt)
        pid = kit.door.owner.process.pid

        def probe(times: int) -> int:
            deadline = time.monotonic() + PROBES_S
            for count in range(times):
                if time.monotonic() > deadline:  # each probe may wait for an answer
                    return count
                with contextlib.suppress(AwayError):
                    kit.door.ask(attempt)
            return times

        with outage():
            probe(PROBES)
            before = traces.held(pid)
            count = probe(PROBES)
            if count < PROBES:
                pytest.skip(f"in an outage only {count} probes returned in {PROBES_S:g} s")

            eventually(
                lambda: not traces.grown(pid, before, PROBES),
                kit.engine.turn_s,
                lambda: (
                    f"in an outage probe was called {PROBES} times, and the process that submits "
                    f"has {' and '.join(traces.grown(pid, before, PROBES))} "
                    "(docs/engine-contract.md, 'What your engine leaves as it was')"
                ),
            )
