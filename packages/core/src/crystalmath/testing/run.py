"""Run the kit by pytest in processes of its own, and judge each test and promise.

Engines are started, killed and counted there, and pytest is set up as the kit needs it, without the
user's plugins and options.
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

#: The page with the sections that `Verdict.guide` names.
GUIDE = "docs/engine-contract.md"
#: The title above the engine's last messages before a failure.
SAID = "What the engine said last"
_FIRST = "test_one_job_ends"
#: For how many tests a second engine is started, to run them side by side.
_MANY = 20
#: How long pytest may take to end after Ctrl-C, in seconds.
_LEAVE_S = 60.0
#: The end of a message that pytest has shortened, from release 9.1 on.
_SHORTENED = "; full report in element text]"
_RAN, _NOTHING = {0, 1, 2}, 5


class SessionError(CrystalMathError):
    """An error of pytest, which could not run the tests; `usage` is set for wrong arguments."""

    code = "conform"

    def __init__(self, message: str, *, usage: bool = False) -> None:
        super().__init__(message)
        self.usage = usage


@frozen
class Case:
    """The result of one test."""

    #: The test class.
    owner: str
    #: The test, with its parameters in brackets.
    name: str
    outcome: Literal["passed", "failed", "skipped", "xfailed"]
    #: Its duration, with its fixtures.
    seconds: float = 0.0
    #: Why it has not passed, and pytest's whole report of its failure.
    reason: str | None = None
    details: str | None = None
    #: The phase that failed: ``setup``, ``call`` or ``teardown``.
    phase: str = "call"

    @property
    def function(self) -> str:
        """The test without its parameters."""
        return self.name.partition("[")[0]


@frozen
class Verdict:
    """The verdict on one promise, which one test checks, perhaps in several cases."""

    topic: str
    #: The test, to run it alone: ``-k TEST``.
    test: str
    #: The promise, which the engine has to keep.
    promise: str
    #: The section of the guide that tells an author how to keep it.
    guide: str
    state: Literal["kept", "broken", "not tried"] = "not tried"
    #: Why it is not kept: the message of the first case.
    reason: str | None = None


@frozen
class KitRun:
    """The result of a run of the kit; `cases` has the tests that have finished."""

    pace: Pace | None
    cases: list[Case]
    verdicts: list[Verdict]
    seconds: float


def original(cls: type, name: str) -> Callable[..., Any]:
    """Return the kit's version of a test that a subclass replaces, or the subclass's own test."""
    definitions = [vars(each)[name] for each in cls.__mro__ if name in vars(each)]
    ours = [test for test in definitions if test.__module__.startswith(_CONTRACT)]
    test: Callable[..., Any] = (ours or definitions)[0]
    return test


def described(name: str, cls: type | None = None) -> Verdict:
    """Return the verdict on a test of the kit, or of a subclass, that has not run."""
    from crystalmath.testing import RunnerContract

    test = original(cls or RunnerContract, name.partition("[")[0])
    summary = (inspect.getdoc(test) or "").partition("\n\n")[0].replace("\n", " ")
    promise = test.__name__.removeprefix("test_").replace("_", " ")
    owner = test.__qualname__.partition(".")[0]
    topic = re.sub(r"(?<!^)(?=[A-Z])", "_", owner).lower()
    guide = getattr(
        getattr(sys.modules[test.__module__], owner, None), "guide", "What an engine is"
    )
    return Verdict(
        topic, test.__name__, f"{promise}: {summary}" if summary else promise, str(guide)
    )


def list_kit(subject: EngineUnderTest, folder: Path, keyword: str | None = None) -> list[str]:
    """Return the names of the tests that :func:`run_kit` would run.

    `SessionError` is raised if there is none, or the keyword is no expression.
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
    """Measure an engine, unless its author names both limits, and run the kit on it.

    If no job completes, no test is run. Tests run side by side, in a process on each core, if each
    process has workers of its own. Pytest writes to standard error. Workers see the empty `folder`
    under the same path. `keyword` chooses tests like pytest's ``-k``, and `stops` ends the run at
    the first failure. `tell` takes messages before the tests begin. `SessionError` is raised if no
    test was run.
    """
    began = time.monotonic()
    chosen = list_kit(subject, folder, keyword)
    pace, lanes = None, 1
    if not subject.has_limits:
        tell(f"{len(chosen)} tests; at first one job is measured")
        # Processes share the nodes of a cluster.
        is_shared = len(chosen) >= _MANY and not subject.clusters
        home = folder / "pace"
        home.mkdir()
        try:
            pace = measure(subject, home, share=is_shared)
        except PaceError as error:
            cases = [Case("TestEngine", _FIRST, "failed", reason=str(error), details=str(error))]
            names = dict.fromkeys([_FIRST, *chosen])
            why = "no job completed; with --start and --turn the tests are run nevertheless"
            return KitRun(None, cases, _judge(names, cases, why), time.monotonic() - began)
        lanes = len(os.sched_getaffinity(0)) if pace.apart else 1
        tell(_estimate(pace, len(chosen), lanes))
        subject.pace = pace
    # Also with one process: if the engine ends it, only the present test is lost.
    arguments = ["-p", "xdist.plugin", f"--numprocesses={lanes}", "--dist=worksteal", "-v"]
    arguments += ["-x"] if stops else []
    arguments += _chosen(subject.limited(), folder, keyword)
    cases = run_pytest(folder, arguments)
    verdicts = _judge(chosen, cases, "the run had ended before its turn")
    return KitRun(pace, cases, verdicts, time.monotonic() - began)


def run_pytest(folder: Path, arguments: Sequence[str], output: IO[str] | None = None) -> list[Case]:
    """Run pytest in a folder with arguments that choose tests; return the result of each.

    Its output goes to `output`, by default to standard error. `SessionError` is raised if pytest
    was interrupted or used wrongly, or has failed itself.
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
        # Ctrl-C in a terminal has reached it, too, but a signal to this process alone has not.
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_LEAVE_S)
        finally:
            process.kill()
        raise
    if code not in _RAN or not report.exists():
        raise SessionError(f"pytest ended with code {code}")
    cases: dict[tuple[str, str], Case] = {}
    for each in ET.parse(report).iter("testcase"):  # noqa: S314 - pytest has just written it
        case = _read(each)
        # A test that failed and then left something behind is listed twice.
        cases.setdefault((case.owner, case.name), case)
    return list(cases.values())


def _pytest(folder: Path, arguments: Sequence[str]) -> list[str]:
    """Return the command that runs pytest as the kit needs it."""
    # Otherwise pytest would look for a configuration in the folders above.
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="ascii")
    fixed = ["-p", "no:cacheprovider", f"--rootdir={folder}", f"--basetemp={folder / 't'}"]
    # Failures are shown whole; pytest before 8.4 does not know these options.
    fixed += ["-o", "truncation_limit_lines=0", "-o", "truncation_limit_chars=0"]
    return [sys.executable, "-P", "-m", "pytest", *fixed, *arguments]


def _environment() -> dict[str, str]:
    # The user's settings of pytest must not decide whether an engine passes.
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
            is_expected = element.get("type") == "pytest.xfail"
            return Case(owner, name, "xfailed" if is_expected else "skipped", seconds, message)
    return Case(owner, name, "passed", seconds)


def _reason(message: str, details: str) -> str:
    """Return why a test failed: pytest's whole message, and the engine's last one."""
    if _SHORTENED in message:
        *_, end = re.finditer(r"(?:^E .*\n?)+", details, re.MULTILINE)
        message = textwrap.dedent(re.sub("^E", "", end[0], flags=re.MULTILINE)).strip()
    if said := re.search(rf"^-+ {SAID} -+\n(?:.*\n)*?(.+)\n*(?:^-|\Z)", details, re.MULTILINE):
        message = f"{message}\nthe engine said last: {said[1]}"
    return message


def _judge(chosen: Iterable[str], cases: Sequence[Case], why: str) -> list[Verdict]:
    """Return the verdicts on chosen tests; `why` is the reason of those that have not run."""
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
