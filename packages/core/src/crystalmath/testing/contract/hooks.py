"""Hooks of pytest around each test: explain a failure, and skip a test if workers are free."""

from __future__ import annotations

import collections
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import pytest

from crystalmath.testing.owner import Owner, OwnerError
from crystalmath.testing.run import GUIDE, SAID, described, original
from crystalmath.testing.waiting import within

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from crystalmath.testing.oracle import Oracle
    from crystalmath.testing.subject import EngineUnderTest


_WRITTEN = "What the processes of the test wrote"
_PROMISE = "What is asked of the engine"
_LINES = 20
_PLUGIN = "crystalmath-kit"
_Test = TypeVar("_Test", bound="Callable[..., None]")


class _Attendant(logging.Handler):
    """A pytest plugin that also receives core's log messages about the engine."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._records: collections.deque[str] = collections.deque(maxlen=_LINES)
        self._test: pytest.Item | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message, with its traceback."""
        self._records.append(self.format(record))

    def begin(self, test: pytest.Item) -> None:
        """Forget all messages from before a test."""
        self._test = test
        self._records.clear()
        for owner in tuple(Owner.made):
            owner.new_output()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Add sections to the report of a test that failed."""
        report = yield
        shown: Any = report.longrepr
        if report.failed and item is self._test and hasattr(shown, "addsection"):
            for title, text in self._sections(item):
                if text:
                    shown.addsection(title, text, "-")
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_pyfunc_call(self, pyfuncitem: Any) -> Generator[None, object, object]:
        """Skip a test that fails because workers are free."""
        try:
            return (yield)
        except OwnerError:
            raise  # the engine raised, or did not answer
        except AssertionError:
            busy = pyfuncitem.stash.get(BUSY, None)
            if busy is not None:  # it is a test of ours
                test = original(pyfuncitem.cls, pyfuncitem.originalname)
                if test in _WAITING_FOR_WORKERS and busy.are_exceeded():
                    busy.skip()
            raise

    def _sections(self, item: Any) -> list[tuple[str, str]]:
        verdict = described(item.originalname, item.cls)
        notes = [text for owner in tuple(Owner.made) for text in owner.excerpts()]
        return [
            (SAID, "\n".join(self._records)),
            (_WRITTEN, "\n\n".join(notes)),
            (_PROMISE, f"{verdict.promise}\nSee {verdict.guide!r} in {GUIDE}."),
        ]


class BusyWorkers:
    """The jobs that keep the workers of a test busy, unless more jobs run at once."""

    def __init__(self, engine: EngineUnderTest, oracle: Oracle) -> None:
        self._engine = engine
        self._oracle = oracle
        # Within so long an engine begins a job if a worker is free: twice a measured job's time.
        self._look_s = engine.turn_s / 2
        self._others = oracle.jobs()
        self._busy: set[str] = set()

    def add(self, jobs: Iterable[str]) -> None:
        """Note jobs that have begun, and that go on until the test lets them end."""
        self._busy.update(jobs)
        # Jobs that have ended by now made room for these.
        others = self._oracle.jobs() - self._others
        self._others.update(filter(self._oracle.outcome, others))

    def require_waiting(self, job_id: str, seen: Callable[[], str] = str) -> None:
        """Skip the test if a job begins that must wait; `seen` probes the engine about it."""
        # A worker may have the job and not have begun it yet.
        if within(partial(self._oracle.claimed, job_id), self._look_s) or seen() == "running":
            self.skip()

    def are_exceeded(self) -> bool:
        """Return whether more jobs run than there are workers, or began while all were busy."""
        # The busy jobs may have ended. One that shows it may still begin a little later.
        return within(self._is_one_too_many, self._engine.turn_s)

    def _is_one_too_many(self) -> bool:
        begun = [each for each in self._oracle.jobs() - self._others if self._oracle.claimed(each)]
        outcomes = {each: self._oracle.outcome(each) for each in begun}
        if sum(outcome is None for outcome in outcomes.values()) > self._engine.workers:
            return True
        ends = [end["finished"] for each in self._busy if (end := outcomes.get(each))]
        starts = [
            end["started"] for each, end in outcomes.items() if end and each not in self._busy
        ]
        # A job that was cancelled before it began has no start.
        return any(start is not None and start < min(ends, default=start + 1) for start in starts)

    def skip(self) -> NoReturn:
        """Skip the test."""
        pytest.skip(
            f"more than {self._engine.workers} jobs run at once, the number in "
            "EngineUnderTest.workers: set the right number (crystalmath conform --workers N), or "
            "configure the engine so that no more run; if the number is unknown, as on a cluster "
            f"with idle nodes, this cannot be tested ({GUIDE}, 'When a test cannot hold')"
        )


BUSY = pytest.StashKey[BusyWorkers]()
#: The tests in which a job waits for busy workers.
_WAITING_FOR_WORKERS: set[Callable[..., Any]] = set()


def behind_busy_workers(test: _Test) -> _Test:
    """Mark a test in which a job waits for busy workers; it is skipped if more run at once."""
    _WAITING_FOR_WORKERS.add(test)
    return test


def attend(request: pytest.FixtureRequest) -> None:
    """Register the plugin for a test, which explains its failure or skips it."""
    manager = request.config.pluginmanager
    plugin: _Attendant | None = manager.get_plugin(_PLUGIN)
    if plugin is None:
        plugin = _Attendant()
        manager.register(plugin, _PLUGIN)
        logging.getLogger("crystalmath").addHandler(plugin)
        request.config.add_cleanup(lambda: logging.getLogger("crystalmath").removeHandler(plugin))
    plugin.begin(request.node)
