"""Runs of the kit in processes of their own, and what happens there, as it happens.

Engines are started, killed and counted there, not in the process of whoever asks; and pytest is set
up as the kit needs it, whatever the user's own plugins and options are.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from crystalmath.errors import CrystalMathError
from crystalmath.testing.pytest_plugins import ENDED, EVENTS, SHARES

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from pathlib import Path

    from crystalmath.testing.subject import EngineUnderTest

_MODULE = """\
import json

import pytest

from crystalmath.testing import EngineUnderTest, RunnerContract


class TestEngine(RunnerContract):
    @pytest.fixture
    def engine(self):
        return EngineUnderTest(**json.loads({subject!r}))
"""
_PROGRAM = "crystalmath.testing.pytest_plugins"
_OUTPUT = "output"
#: How often the reports of the other processes are read, in seconds.
_TICK = 0.1
#: How long it may take to put things away after Ctrl-C, in seconds.
_LEAVE_S = 60.0
_USAGE, _NOTHING = 4, 5


class SessionError(CrystalMathError):
    """The tests could not be run; the end of pytest's output."""

    code = "conform"

    def __init__(self, message: str, *, usage: bool = False) -> None:
        super().__init__(message)
        self.usage = usage


def list_kit(
    subject: EngineUnderTest, folder: Path, keyword: str | None = None
) -> list[dict[str, Any]]:
    """Give the tests that :func:`run_kit` would run, and run none."""
    folder.mkdir()
    arguments = [*_chosen(subject, folder, keyword), "--collect-only"]
    (event,) = run_pytest(folder, arguments)
    tests: list[dict[str, Any]] = event["tests"]
    return tests


def run_kit(
    subject: EngineUnderTest,
    folder: Path,
    keyword: str | None = None,
    *,
    lanes: int = 1,
    stops: bool = False,
) -> Iterator[dict[str, Any]]:
    """Run the kit on one engine; give what happens, as it happens.

    Parameters
    ----------
    subject : EngineUnderTest
        The engine.
    folder : pathlib.Path
        For all files of the tests.
    keyword : str, optional
        Which tests, as pytest's ``-k``.
    lanes : int
        How many processes share the tests, each with an engine of its own.
    stops : bool
        Whether the first failure ends all of them.

    Yields
    ------
    dict
        For each test ``{"event": "started", "name"}`` and ``{"event": "finished", "class", "name",
        "function", "topic", "promise", "guide", "outcome", "phase", "reason", "details",
        "seconds"}``; the outcome is ``passed``, ``failed``, ``skipped`` or ``xfailed``. Before
        that, for each process, ``{"event": "collected", "tests"}``.

    Raises
    ------
    SessionError
        No test was run.
    """
    arguments = [*_chosen(subject, folder, keyword), *(["-x"] if stops else [])]
    (folder / SHARES).mkdir()
    children = []
    for number in range(lanes):
        place = folder / str(number)
        place.mkdir()
        children.append(_Child(place, arguments, number, lanes))
    with contextlib.closing(_run(children)) as events:
        for event in events:
            yield event
            if stops and event["event"] == "finished" and event["outcome"] == "failed":
                return


def run_pytest(folder: Path, arguments: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Run pytest with these arguments, as :func:`run_kit` does."""
    return _run([_Child(folder, arguments)])


def _chosen(subject: EngineUnderTest, folder: Path, keyword: str | None) -> list[str]:
    module = folder / "test_conform.py"
    text = _MODULE.format(subject=json.dumps(subject.as_plain()))
    module.write_text(text, encoding="utf-8")
    return [str(module), *(["-k", keyword] if keyword else [])]


class _Child:
    """A process that runs pytest, and how far its reports were read."""

    def __init__(
        self, folder: Path, arguments: Sequence[str], number: int = 0, of: int = 1
    ) -> None:
        self._folder = folder
        self._arguments = [str(folder), str(number), str(of), *arguments]
        self._ended = folder.parent / SHARES / ENDED.format(number) if of > 1 else None
        self._process: subprocess.Popen[bytes] | None = None
        self._running: dict[str, Any] | None = None
        self._tests: dict[str, dict[str, Any]] = {}
        self._rest = b""
        self._position = 0
        self.has_begun = False
        self.code: int | None = None

    def start(self) -> None:
        """Start it."""
        # Else pytest would look for a configuration in the folders above.
        (self._folder / "pytest.ini").write_text("[pytest]\n", encoding="ascii")
        (self._folder / EVENTS).touch()
        with (self._folder / _OUTPUT).open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", _PROGRAM, *self._arguments],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def reports(self) -> Iterator[dict[str, Any]]:
        """Give what has happened; `code` is set once it has ended."""
        assert self._process is not None
        code = self._process.poll()
        with (self._folder / EVENTS).open("rb") as file:
            file.seek(self._position)
            *lines, self._rest = (self._rest + file.read()).split(b"\n")
            self._position = file.tell()
        for event in map(json.loads, lines):
            self._note(event)
            yield event
        if code is not None and self.code is None:
            self.code = code
            if self._ended is not None:
                self._ended.touch()
            if self._running is not None:
                yield _cut_short(self._running, code, self.tail())

    def _note(self, event: dict[str, Any]) -> None:
        if event["event"] == "collected":
            self._tests = {test["name"]: test for test in event["tests"]}
        is_start = event["event"] == "started"
        self._running = self._tests.get(event["name"], event) if is_start else None
        self.has_begun = self.has_begun or is_start

    def tail(self) -> str:
        """Give the end of what it wrote."""
        path = self._folder / _OUTPUT
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-30:])

    def end(self) -> None:
        """End it, wherever it is."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            # Ctrl-C has reached it, too, unless only this process was told.
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_LEAVE_S)
            process.kill()
        process.wait()


def _environment() -> dict[str, str]:
    # What makes pytest somebody's own must not decide whether an engine passes.
    environment = {name: v for name, v in os.environ.items() if not name.startswith("PYTEST_")}
    return environment | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def _run(children: Sequence[_Child]) -> Generator[dict[str, Any]]:
    try:
        for child in children:
            child.start()
        while any(child.code is None for child in children):
            for child in children:
                yield from child.reports()
            time.sleep(_TICK)
    finally:
        for child in children:
            child.end()
    has_begun = any(child.has_begun for child in children)
    for child in children:
        if child.code == _NOTHING:
            raise SessionError("no test of the kit was chosen", usage=True)
        if child.code == _USAGE or (child.code and not has_begun):
            message = f"pytest ended with code {child.code}:\n{child.tail()}"
            raise SessionError(message, usage=child.code == _USAGE)


def _cut_short(test: dict[str, Any], code: int, tail: str) -> dict[str, Any]:
    how = f"with code {code}" if code >= 0 else f"by signal {signal.Signals(-code).name}"
    reason = f"the process of the tests was ended {how}"
    return {
        **test,
        "event": "finished",
        "outcome": "failed",
        "phase": "call",
        "reason": reason,
        "details": f"{reason}; the end of its output:\n{tail}",
        "seconds": 0.0,
    }
