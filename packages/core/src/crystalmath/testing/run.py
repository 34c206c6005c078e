"""Runs of the kit in processes of their own, by pytest: what became of each test and promise.

Engines are started, killed and counted there; and pytest is set up as the kit needs it, whatever
the user's own plugins and options are.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from typing import IO, TYPE_CHECKING, Any, Literal
from xml.etree import ElementTree as ET

from attrs import evolve, frozen

from crystalmath.errors import CrystalMathError
from crystalmath.testing.pace import PaceError, measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from crystalmath.testing.subject import EngineUnderTest, Pace

_MODULE = """\
import json

import pytest

from crystalmath.testing import EngineUnderTest, RunnerContract


class TestEngine(RunnerContract):
    @pytest.fixture
    def engine(self):
        return EngineUnderTest(**json.loads({subject!r}))
"""
_CONTRACT = "crystalmath.testing.contract"

#: Where the sections are that `section` names.
GUIDE = "docs/writing-an-engine.md"
#: Above what an engine said before a failure.
SAID = "What the engine said last"
_FIRST = "test_one_job_ends"
#: How many tests are worth that a second engine is started for them.
_MANY = 20
#: How long pytest may take to put things away after Ctrl-C, in seconds.
_LEAVE_S = 60.0
#: So ends a message that pytest has shortened, from release 9.1 on.
_SHORTENED = "; full report in element text]"
_RAN, _NOTHING = {0, 1, 2}, 5


class SessionError(CrystalMathError):
    """Pytest could not run the tests; `usage` tells whether its arguments are at fault."""

    code = "conform"

    def __init__(self, message: str, *, usage: bool = False) -> None:
        super().__init__(message)
        self.usage = usage


@frozen
class Case:
    """What became of one test."""

    #: The test class.
    owner: str
    #: The test, with its parameters in brackets.
    name: str
    outcome: Literal["passed", "failed", "skipped", "xfailed"]
    #: How long it took, with its fixtures.
    seconds: float = 0.0
    #: Why it has not passed, and all that pytest shows of its failure.
    reason: str | None = None
    details: str | None = None
    #: What failed: ``setup``, ``call`` or ``teardown``.
    phase: str = "call"

    @property
    def function(self) -> str:
        """The test without its parameters."""
        return self.name.partition("[")[0]


@frozen
class Verdict:
    """One promise, which one test asks about, perhaps in several cases."""

    topic: str
    #: The test, to look closer: ``-k TEST``.
    test: str
    #: What is asked of the engine.
    promise: str
    #: The section of the guide that says what an author does for it.
    guide: str
    state: Literal["kept", "broken", "not tried"] = "not tried"
    #: Why it is not kept: what the first case said.
    reason: str | None = None


@frozen
class KitRun:
    """What a run of the kit has measured and found; `cases` has the tests that have finished."""

    pace: Pace | None
    cases: list[Case]
    verdicts: list[Verdict]
    seconds: float


def original(cls: type, name: str) -> Callable[..., Any]:
    """Return a test as the kit has it, also where a subclass marks it ``xfail``; else its own."""
    definitions = [vars(each)[name] for each in cls.__mro__ if name in vars(each)]
    ours = [test for test in definitions if test.__module__.startswith(_CONTRACT)]
    test: Callable[..., Any] = (ours or definitions)[0]
    return test


def described(name: str, cls: type | None = None) -> Verdict:
    """Describe what a test asks, of the kit or of a subclass, which has not been tried."""
    from crystalmath.testing import RunnerContract

    test = original(cls or RunnerContract, name.partition("[")[0])
    summary = (inspect.getdoc(test) or "").partition("\n\n")[0].replace("\n", " ")
    promise = test.__name__.removeprefix("test_").replace("_", " ")
    owner = test.__qualname__.partition(".")[0]
    topic = re.sub(r"(?<!^)(?=[A-Z])", "_", owner).lower()
    # The section of the guide that says what an author has to do for it.
    guide = getattr(
        getattr(sys.modules[test.__module__], owner, None), "guide", "What an engine is"
    )
    return Verdict(
        topic, test.__name__, f"{promise}: {summary}" if summary else promise, str(guide)
    )


def list_kit(subject: EngineUnderTest, folder: Path, keyword: str | None = None) -> list[str]:
    """Return the names of the tests that :func:`run_kit` would run, and run none.

    `SessionError`: there is none, or the keyword is no expression.
    """
    command = _pytest(folder, [*_chosen(subject, folder, keyword), "--collect-only", "-q"])
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)
    if done.returncode == _NOTHING:
        raise SessionError("no test of the kit was chosen", usage=True)
    if done.returncode:
        raise SessionError(f"{done.stdout}\n{done.stderr}".strip(), usage=True)
    lines = [line for line in done.stdout.splitlines() if "::test_" in line]
    return [line.partition("::TestEngine::")[2] for line in lines]


def run_kit(
    subject: EngineUnderTest,
    folder: Path,
    keyword: str | None = None,
    *,
    stops: bool = False,
    tell: Callable[[str], object],
) -> KitRun:
    """Measure an engine, unless both its limits are given, and run the kit on it.

    If no job comes through, no test is run. Tests run side by side, in a process on each core,
    where two processes have workers each of their own. Pytest writes to standard error. Workers see
    the empty `folder` under the same path; `keyword` chooses tests as pytest's ``-k``, `stops` ends
    the run at the first failure, and `tell` takes what is known before the tests begin.
    `SessionError`: no test was run.
    """
    began = time.monotonic()
    chosen = list_kit(subject, folder, keyword)
    pace, lanes = None, 1
    if not subject.has_limits:
        tell(f"{len(chosen)} tests; at first one job is measured")
        # The nodes of a cluster are everybody's.
        is_shared = len(chosen) >= _MANY and not subject.clusters
        home = folder / "pace"
        home.mkdir()
        try:
            pace = measure(subject, home, share=is_shared)
        except PaceError as error:
            cases = [Case("TestEngine", _FIRST, "failed", reason=str(error), details=str(error))]
            names = dict.fromkeys([_FIRST, *chosen])
            why = "no job came through; --start and --turn have it tried all the same"
            return KitRun(None, cases, _judge(names, cases, why), time.monotonic() - began)
        lanes = len(os.sched_getaffinity(0)) if pace.apart else 1
        tell(_estimate(pace, len(chosen), lanes))
        subject.pace = pace
    # Also for one: a process that the engine ends costs the test alone in which it did.
    arguments = ["-p", "xdist.plugin", f"--numprocesses={lanes}", "--dist=worksteal", "-v"]
    arguments += ["-x"] if stops else []
    arguments += _chosen(subject.limited(), folder, keyword)
    cases = run_pytest(folder, arguments)
    verdicts = _judge(chosen, cases, "the run had ended before its turn")
    return KitRun(pace, cases, verdicts, time.monotonic() - began)


def run_pytest(folder: Path, arguments: Sequence[str], output: IO[str] | None = None) -> list[Case]:
    """Run pytest in a folder with arguments that choose tests; return what became of each.

    `output` takes what it writes; by default standard error does. `SessionError`: pytest was
    interrupted or used wrongly, or has failed itself.
    """
    report = folder / "report.xml"
    command = _pytest(folder, [f"--junit-xml={report}", *arguments])
    process = subprocess.Popen(
        command,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=output or sys.stderr,
        stderr=subprocess.STDOUT,
    )
    try:
        code = process.wait()
    except BaseException:
        # Ctrl-C has reached it, too, unless only this process was told.
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_LEAVE_S)
        finally:
            process.kill()
        raise
    if code not in _RAN or not report.exists():
        raise SessionError(f"pytest ended with code {code}")
    cases: dict[tuple[str, str], Case] = {}
    for each in ET.parse(report).iter("testcase"):  # noqa: S314 - it is ours
        case = _read(each)
        # What has failed, and then left something behind, is there twice.
        cases.setdefault((case.owner, case.name), case)
    return list(cases.values())


def _pytest(folder: Path, arguments: Sequence[str]) -> list[str]:
    """Return the command that runs pytest as the kit needs it."""
    # Else pytest would look for a configuration in the folders above.
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="ascii")
    fixed = ["-p", "no:cacheprovider", f"--rootdir={folder}", f"--basetemp={folder / 't'}"]
    # What a failure shows is told whole; releases before 8.4 do not know these.
    fixed += ["-o", "truncation_limit_lines=0", "-o", "truncation_limit_chars=0"]
    return [sys.executable, "-P", "-m", "pytest", *fixed, *arguments]


def _environment() -> dict[str, str]:
    # What makes pytest somebody's own must not decide whether an engine passes.
    environment = {name: v for name, v in os.environ.items() if not name.startswith("PYTEST_")}
    return environment | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def _chosen(subject: EngineUnderTest, folder: Path, keyword: str | None) -> list[str]:
    module = folder / "test_conform.py"
    text = _MODULE.format(subject=json.dumps(subject.as_plain()))
    module.write_text(text, encoding="utf-8")
    return [str(module), *(["-k", keyword] if keyword else [])]


def _estimate(pace: Pace, tests: int, lanes: int) -> str:
    beside = f", {lanes} side by side" if lanes > 1 else ""
    seconds = pace.estimate_s(tests, lanes)
    return (
        f"a job takes {pace.cold_s:.1f} s on the cold engine, {pace.warm_s:.1f} s on the warm one: "
        f"all tests{beside} take about {seconds:.0f} s"
    )


def _read(case: ET.Element) -> Case:
    """Read one test of pytest's report."""
    owner = case.get("classname", "").rpartition(".")[2]
    name, seconds = case.get("name", ""), float(case.get("time", 0))
    for element in case:
        message = element.get("message", "")
        if element.tag in {"failure", "error"}:
            phase = message.split(" ", 3)[2] if element.tag == "error" else "call"
            details = element.text or ""
            return Case(owner, name, "failed", seconds, _reason(message, details), details, phase)
        if element.tag == "skipped":
            outcome = "xfailed" if element.get("type") == "pytest.xfail" else "skipped"
            return Case(owner, name, outcome, seconds, message)  # type: ignore[arg-type]
    return Case(owner, name, "passed", seconds)


def _reason(message: str, details: str) -> str:
    """Return why a test failed: pytest's message, whole, and the engine's last word."""
    if _SHORTENED in message:
        *_, end = re.finditer(r"(?:^E .*\n?)+", details, re.MULTILINE)
        message = textwrap.dedent(re.sub("^E", "", end[0], flags=re.MULTILINE)).strip()
    if said := re.search(rf"^-+ {SAID} -+\n(?:.*\n)*?(.+)\n*(?:^-|\Z)", details, re.MULTILINE):
        message = f"{message}\nthe engine said last: {said[1]}"
    return message


def _judge(chosen: Iterable[str], cases: Sequence[Case], why: str) -> list[Verdict]:
    """Judge the promises of chosen tests by those that have finished; `why` others have not."""
    ended: dict[str, list[Case]] = {}
    for case in cases:
        ended.setdefault(case.function, []).append(case)
    functions = dict.fromkeys(name.partition("[")[0] for name in chosen)
    return [_verdict(described(name), ended.get(name, []), why) for name in functions]


def _verdict(verdict: Verdict, cases: Sequence[Case], why: str) -> Verdict:
    outcomes = {case.outcome: case for case in reversed(cases)}  # the first of each
    if broken := outcomes.get("failed") or outcomes.get("xfailed"):
        return evolve(verdict, state="broken", reason=broken.reason)
    if "passed" in outcomes:
        return evolve(verdict, state="kept")
    return evolve(verdict, reason=cases[0].reason if cases else why)
