"""What happens to the process that submits, as it does to scripts and notebooks: jobs go on."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest

from crystalmath.testing.contract.base import Base
from crystalmath.testing.owner import Owner, OwnerError
from crystalmath.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from crystalmath.testing.oracle import Oracle
    from crystalmath.testing.subject import EngineUnderTest

_TROUBLES = pytest.StashKey["Troubles"]()
_ENDS = frozenset({"completed", "failed", "cancelled"})
_GUIDE = "docs/writing-an-engine.md"


class Troubles:
    """A process whose jobs are looked at after each mishap; one that had trouble is replaced.

    Parameters
    ----------
    engine : EngineUnderTest
        The engine.
    oracle : Oracle
        Sees the home.

    Attributes
    ----------
    directory, fork, interrupt : str or None
        What became of a job after the removal of the working directory, the end of a forked child,
        and Ctrl-C, in words; ``None`` if it completed.
    """

    def __init__(self, engine: EngineUnderTest, oracle: Oracle) -> None:
        self._engine = engine
        self._oracle = oracle
        self._folder = Path(tempfile.mkdtemp(dir=oracle.home, prefix="mishaps-"))
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
            self._engine.name, dict(os.environ), cluster=self._engine.cluster, folder=work
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
            trouble = "\n\n".join([trouble, *self._owner.told()])
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
        what = f"the job {job_id} was not begun"
        try:
            eventually(lambda: self._oracle.claimed(job_id), self._limit_s, what)
            self._owner.ask("interrupt")
        finally:
            gate.touch()
        if trouble := self._end_of(job_id, "that ran"):
            return trouble
        if (attempts := self._oracle.attempts(job_id)) > 1:
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

        with contextlib.suppress(AssertionError):
            eventually(has_ended, self._limit_s, "")
        if state == "completed":
            return None
        if state not in _ENDS:
            return f"a job {which} does not end: it is {state} after {self._limit_s:g} s"
        return f"a job {which} {state}: {self._owner.ask('result', job_id)['error']}"

    @property
    def _limit_s(self) -> float:
        return self._engine.start_s + 10 * self._engine.turn_s


class Mishaps(Base):
    """One process goes through all of it; each test looks at one mishap."""

    guide: ClassVar[str] = "What your engine survives"

    @pytest.fixture
    def troubles(
        self,
        engine: EngineUnderTest,
        oracle: Oracle,
        request: pytest.FixtureRequest,
        _environment: None,
    ) -> Troubles:
        """Return what was noted; the tests of a class share it."""
        node = request.node.getparent(pytest.Class)
        if _TROUBLES not in node.stash:
            node.stash[_TROUBLES] = Troubles(engine, oracle)
        troubles: Troubles = node.stash[_TROUBLES]
        return troubles

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
        f"after {mishap}, jobs that run go on and others are begun. {remedy} ({_GUIDE}, 'What your "
        f"engine survives'). But {trouble}"
    )
