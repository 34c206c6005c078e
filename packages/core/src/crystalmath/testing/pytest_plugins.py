"""What pytest is given in the process that runs the kit: who reports, and who shares the tests."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalmath.testing.promises import original, promise, section, topic

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The names of files: what happens, which topics are taken, and that a lane has ended.
EVENTS, SHARES, ENDED = "events", "shares", "{}.ended"
#: How often the other lanes are looked at, in seconds.
_TICK = 0.1


class Reporter:
    """Append what happens to a file, a line of JSON each.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._items: dict[str, Any] = {}
        self._reports: list[Any] = []

    def pytest_collection_finish(self, session: Any) -> None:
        self._items = {item.nodeid: item for item in session.items}
        self._tell("collected", tests=[_described(item) for item in session.items])

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._reports = []
        self._tell("started", name=self._items[nodeid].name)

    def pytest_runtest_logreport(self, report: Any) -> None:
        self._reports.append(report)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        item = self._items[nodeid]
        report = next((each for each in self._reports if not each.passed), self._reports[-1])
        outcome = report.outcome
        if hasattr(report, "wasxfail") and report.skipped:
            outcome = "xfailed"
        self._tell(
            "finished",
            **_described(item),
            outcome=outcome,
            phase=report.when,
            reason=_reason(report),
            details=_details(report) if report.failed else None,
            seconds=round(sum(each.duration for each in self._reports), 3),
        )

    def _tell(self, event: str, **more: Any) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"event": event, **more}) + "\n")


def _test(item: Any) -> Any:
    return original(item.cls, item.originalname) if item.cls else item.function


def _described(item: Any) -> dict[str, Any]:
    test = _test(item)
    return {
        "class": item.cls.__name__ if item.cls else None,
        "name": item.name,
        "function": item.originalname,
        "topic": topic(test),
        "promise": promise(test),
        "guide": section(test),
    }


def _details(report: Any) -> str:
    parts = [report.longreprtext]
    parts += [f"--- {title} ---\n{text.strip()}" for title, text in report.sections]
    return "\n\n".join(parts)


def _reason(report: Any) -> str | None:
    if report.passed:
        return None
    if hasattr(report, "wasxfail"):
        return str(report.wasxfail).removeprefix("reason: ")
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    where = "" if report.when == "call" else f"in {report.when}: "
    told = where + str(crash.message if crash else report.longreprtext)
    said = dict(report.sections).get("What the engine said last")
    return f"{told}\nthe engine said last: {said.splitlines()[-1]}" if said else told


class Lane:
    """Share the tests with the processes beside this one: each takes a topic, until none is left.

    What must have the machine to itself is run by the first of them, when the others have ended.

    Parameters
    ----------
    folder : pathlib.Path
        Where topics are taken: a file each.
    number, of : int
        Which lane this is, and of how many.
    """

    def __init__(self, folder: Path, number: int, of: int) -> None:
        self._folder = folder
        self._number = number
        self._others = [other for other in range(of) if other != number]

    def pytest_runtestloop(self, session: Any) -> bool:
        tests = self._taken(session.items)
        test = next(tests, None)
        while test is not None:
            following = next(tests, None)
            test.config.hook.pytest_runtest_protocol(item=test, nextitem=following)
            if session.shouldfail:
                raise session.Failed(session.shouldfail)
            test = following
        return True

    def _taken(self, items: list[Any]) -> Iterator[Any]:
        topics: dict[str, list[Any]] = {}
        alone = []
        for item in items:
            test = _test(item)
            if getattr(test, "runs_alone", False):
                alone.append(item)
            else:
                topics.setdefault(topic(test), []).append(item)
        for name, tests in topics.items():
            if self._takes(name):
                yield from tests
        if alone and self._number == 0:
            while not all((self._folder / ENDED.format(n)).exists() for n in self._others):
                time.sleep(_TICK)
            yield from alone

    def _takes(self, name: str) -> bool:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self._folder / name, os.O_CREAT | os.O_EXCL))
            return True
        return False


def main() -> int:
    """Run pytest in a folder: ``FOLDER NUMBER OF ARGUMENTS...``."""
    import pytest

    folder, number, of = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    fixed = ["-p", "no:cacheprovider", f"--rootdir={folder}", f"--basetemp={folder / 'tmp'}"]
    # What a failure shows is told whole; releases before 8.4 do not know these.
    fixed += ["-o", "truncation_limit_lines=0", "-o", "truncation_limit_chars=0"]
    plugins: list[object] = [Reporter(folder / EVENTS)]
    if of > 1:
        plugins.append(Lane(folder.parent / SHARES, number, of))
    return pytest.main([*fixed, *sys.argv[4:]], plugins=plugins)


if __name__ == "__main__":
    sys.exit(main())
