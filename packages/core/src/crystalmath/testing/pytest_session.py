"""One run of the kit in a process of its own: ``-m crystalmath.testing.pytest_session FOLDER``.

The engine is started, killed and counted there, not in the process of whoever asks; and pytest is
set up as the kit needs it, whatever the user's own plugins and options are.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from crystalmath.errors import CrystalMathError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from crystalmath.testing.subject import EngineUnderTest

__all__ = ["Reporter", "SessionError", "run_kit", "run_pytest"]

_MODULE = """\
import json

import pytest

from crystalmath.testing import EngineUnderTest, RunnerContract


class TestEngine(RunnerContract):
    @pytest.fixture
    def engine(self):
        return EngineUnderTest(**json.loads({subject!r}))
"""
_EVENTS = "events"
_OUTPUT = "output"
#: How often the news of the other process are read, in seconds.
_TICK = 0.1
#: How long it may take to put things away after Ctrl-C, in seconds.
_LEAVE_S = 60.0
_INTERNAL, _USAGE, _NOTHING = 3, 4, 5


class SessionError(CrystalMathError):
    """The tests could not be run; the end of pytest's output."""

    code = "conform"

    def __init__(self, message: str, *, usage: bool = False) -> None:
        super().__init__(message)
        self.usage = usage


def run_kit(
    subject: EngineUnderTest, folder: Path, keyword: str | None = None
) -> Iterator[dict[str, Any]]:
    """Run the kit on one engine; give what happens, as it happens.

    Parameters
    ----------
    subject : EngineUnderTest
        The engine.
    folder : pathlib.Path
        An empty one, for all files of the tests.
    keyword : str, optional
        Which tests, as pytest's ``-k``.

    Yields
    ------
    dict
        ``{"event": "collected", "count"}``, then for each test ``{"event": "started", "name"}``
        and ``{"event": "finished", "class", "name", "topic", "outcome", "phase", "reason",
        "details", "seconds"}``; the outcome is ``passed``, ``failed``, ``skipped`` or ``xfailed``.

    Raises
    ------
    SessionError
        No test was run.
    """
    fields = attrs.asdict(subject)
    module = folder / "test_conform.py"
    module.write_text(_MODULE.format(subject=json.dumps(fields)), encoding="utf-8")
    return run_pytest(folder, [str(module), *(["-k", keyword] if keyword else [])])


def run_pytest(folder: Path, arguments: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Run pytest with these arguments, as :func:`run_kit` does."""
    # Else pytest would look for a configuration in the folders above.
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="ascii")
    with (folder / _OUTPUT).open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, str(folder), *arguments],
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield from _follow(process, folder)
    finally:
        _end(process)


def _environment() -> dict[str, str]:
    # What makes pytest somebody's own must not decide whether an engine passes.
    environment = {name: v for name, v in os.environ.items() if not name.startswith("PYTEST_")}
    return environment | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def _follow(process: subprocess.Popen[bytes], folder: Path) -> Iterator[dict[str, Any]]:
    running: str | None = None
    seen = False
    for event in _events(process, folder / _EVENTS):
        running = event["name"] if event["event"] == "started" else None
        seen = seen or running is not None
        yield event
    code = process.wait()
    if running is not None:
        yield _cut_short(running, code, _tail(folder))
    elif code == _NOTHING:
        raise SessionError("no test of the kit was chosen", usage=True)
    elif code == _USAGE or not seen:
        message = f"pytest ended with code {code}:\n{_tail(folder)}"
        raise SessionError(message, usage=code == _USAGE)


def _events(process: subprocess.Popen[bytes], path: Path) -> Iterator[dict[str, Any]]:
    path.touch()
    with path.open("rb") as file:
        rest = b""
        ended = False
        while not ended:
            ended = process.poll() is not None
            *lines, rest = (rest + file.read()).split(b"\n")
            yield from map(json.loads, lines)
            if not ended:
                time.sleep(_TICK)


def _cut_short(name: str, code: int, tail: str) -> dict[str, Any]:
    how = f"with code {code}" if code >= 0 else f"by signal {signal.Signals(-code).name}"
    reason = f"the process of the tests was ended {how}"
    return {
        "event": "finished",
        "class": None,
        "name": name,
        "topic": "",
        "outcome": "failed",
        "phase": "call",
        "reason": reason,
        "details": f"{reason}; the end of its output:\n{tail}",
        "seconds": 0.0,
    }


def _tail(folder: Path) -> str:
    lines = (folder / _OUTPUT).read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(lines[-30:])


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        # Ctrl-C has reached it, too, unless only this process was told.
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_LEAVE_S)
        process.kill()
    process.wait()


class Reporter:
    """A pytest plugin: appends what happens to a file, a line of JSON each.

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
        self._tell("collected", count=len(self._items))

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
            **{"class": item.cls.__name__ if item.cls else None},
            name=item.name,
            topic=_topic(item),
            outcome=outcome,
            phase=report.when,
            reason=_reason(report),
            details=report.longreprtext if report.failed else None,
            seconds=round(sum(each.duration for each in self._reports), 3),
        )

    def _tell(self, event: str, **more: Any) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"event": event, **more}) + "\n")


def _topic(item: Any) -> str:
    from crystalmath.testing import RunnerContract

    # A test that is marked xfail is defined twice; the topic is the original's.
    function = getattr(RunnerContract, item.originalname, item.function)
    return str(function.__module__.rpartition(".")[2])


def _reason(report: Any) -> str | None:
    if report.passed:
        return None
    if hasattr(report, "wasxfail"):
        return str(report.wasxfail).removeprefix("reason: ")
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    where = "" if report.when == "call" else f"in {report.when}: "
    return where + str(crash.message if crash else report.longreprtext)


def _main() -> int:
    import pytest

    folder = Path(sys.argv[1])
    fixed = ["-p", "no:cacheprovider", f"--rootdir={folder}", f"--basetemp={folder / 'tmp'}"]
    return pytest.main([*fixed, *sys.argv[2:]], plugins=[Reporter(folder / _EVENTS)])


if __name__ == "__main__":
    sys.exit(_main())
