"""What pytest does around each test of the kit: explain a failure, skip where workers are free."""

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
    """A pytest plugin, which also receives what core logs of the engine in this process."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._records: collections.deque[str] = collections.deque(maxlen=_LINES)
        self._test: pytest.Item | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message, with its traceback."""
        self._records.append(self.format(record))

    def begin(self, test: pytest.Item) -> None:
        """Forget what was before a test."""
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
                if hasattr(test, "waits_for_workers") and busy.are_exceeded():
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
    """What keeps the workers of a test busy, and whether more run at once all the same."""

    def __init__(self, engine: EngineUnderTest, oracle: Oracle) -> None:
        self._engine = engine
        self._oracle = oracle
        # The engine begins what there is room for: twice as long as a job took that was measured.
        self._look_s = engine.turn_s / 2
        self._others = oracle.jobs()
        self._busy: set[str] = set()

    def add(self, jobs: Iterable[str]) -> None:
        """Take note of jobs that are begun, and go on until the test lets them end."""
        self._busy.update(jobs)
        # What has ended by now made way for them.
        others = self._oracle.jobs() - self._others
        self._others.update(filter(self._oracle.outcome, others))

    def require_waiting(self, job_id: str, seen: Callable[[], str] = str) -> None:
        """Skip the test if a job is begun that is to wait; `seen` asks the engine about it."""
        # A worker may have it that has not begun it yet.
        if within(partial(self._oracle.claimed, job_id), self._look_s) or seen() == "running":
            self.skip()

    def are_exceeded(self) -> bool:
        """Return whether more run at once, or another was begun while all of them were busy."""
        # Those that were busy may have ended: what shows it may begin a while later, all the same.
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
        # What was ended before it began, as by a cancel, has no start.
        return any(start is not None and start < min(ends, default=start + 1) for start in starts)

    def skip(self) -> NoReturn:
        """Skip the test."""
        pytest.skip(
            f"more than {self._engine.workers} jobs run at once, which is what "
            "EngineUnderTest.workers says: name as many as do (crystalmath conform --workers N), "
            "or give the engine options with which no more do; where nobody can tell how many, as "
            f"on a cluster with idle nodes, this cannot be tried ({GUIDE}, '8. Test it')"
        )


BUSY = pytest.StashKey[BusyWorkers]()


def behind_busy_workers(test: _Test) -> _Test:
    """Mark a test in which something waits for busy workers; skip it if more run at once."""
    test.waits_for_workers = True  # type: ignore[attr-defined]
    return test


def attend(request: pytest.FixtureRequest) -> None:
    """Have a test explained if it fails, or skipped if that is for the engine's room for more."""
    manager = request.config.pluginmanager
    plugin: _Attendant | None = manager.get_plugin(_PLUGIN)
    if plugin is None:
        plugin = _Attendant()
        manager.register(plugin, _PLUGIN)
        logging.getLogger("crystalmath").addHandler(plugin)
        request.config.add_cleanup(lambda: logging.getLogger("crystalmath").removeHandler(plugin))
    plugin.begin(request.node)
