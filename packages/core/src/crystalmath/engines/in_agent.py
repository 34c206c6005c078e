"""An engine whose calls run in an agent, its library's own process (``[engines.NAME] agent``).

The owner's runner is made as ever, and asked as ever for clusters and capabilities; `launch`,
`probe`, `release`, `stop` and `warm` go to a runner of the same class in the agent. What that
reports comes back on a pipe: attempts to look at, and what it logs.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import pickle
import threading
from typing import TYPE_CHECKING, Any

from crystalmath.engines.agent import Agent, AgentSilent
from crystalmath.engines.agent_process import portable
from crystalmath.engines.followed import LeftJobs
from crystalmath.jobs.host import Host
from crystalmath.jobs.rundir import RunDirectory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from crystalmath.engines.driver import Driver
    from crystalmath.engines.handover import Engine
    from crystalmath.models import Attempt, EngineSettings

#: How long a call may take, in seconds: longer than a library may take to start.
CALL_S = 180.0
#: How long an engine may take to stop, in seconds.
STOP_S = 30.0
_CALLS = ("launch", "probe", "release", "warm")


class EngineInAgent:
    """The owner's side: it starts the agent at the first call, and anew where it has died.

    Parameters
    ----------
    runner : EngineRunner
        The owner's; from here on its calls go to the agent.
    driver : Driver
        What follows its jobs.
    make : callable
        What makes such a runner in the agent; it travels by its name.
    """

    def __init__(self, runner: Engine, driver: Driver, make: Callable[[], Engine]) -> None:
        self._settings, self._log = runner.settings, runner.log
        self._driver, self._make = driver, make
        self._agent = Agent(self._settings.directory / "agent.log")
        self._starting = threading.Lock()
        self._was_started = False
        self._ended = False
        for name in _CALLS:
            setattr(runner, name, functools.partial(self._call, name))
        runner.stop = self._stop  # type: ignore[method-assign]

    def _call(self, name: str, *arguments: Any) -> Any:
        with self._starting:
            if not self._agent.alive:
                self._start()
        try:
            return self._agent.ask(CALL_S, _call, name, *arguments)
        except AgentSilent:
            # Nothing else could be asked until it answers, if it ever does.
            self._agent.stop()
            raise

    def _start(self) -> None:
        if self._was_started:
            self._log.warning("the engine's agent %s; another one is started", self._agent.ending)
        reports, written = os.pipe()
        try:
            level = self._log.getEffectiveLevel()
            self._agent.pass_fds = [written]
            self._agent.start(CALL_S, _start, self._make, written, level)
        except BaseException:
            os.close(reports)
            raise
        finally:
            os.close(written)
        self._was_started = True
        threading.Thread(
            target=self._listen,
            args=(reports,),
            name=f"crystalmath-{self._settings.name}-agent",
            daemon=True,
        ).start()

    def _listen(self, reports: int) -> None:
        with os.fdopen(reports, "rb") as file, contextlib.suppress(EOFError, pickle.PickleError):
            while True:
                level, text = pickle.load(file)  # noqa: S301 - our own process wrote it
                if level is None:
                    self._driver.notice(text)
                else:
                    self._log.log(level, "%s", text)
        if not self._ended:
            self._driver.launch_lost()

    def _stop(self) -> None:
        self._ended = True
        try:
            if self._agent.alive:
                self._agent.ask(STOP_S, _stop, self._driver.left)
        finally:
            self._agent.stop()


class _Owner(logging.Handler):
    """The agent's side: it is to the runner there what the driver is to the owner's."""

    def __init__(self, settings: EngineSettings, reports: int) -> None:
        super().__init__()
        self.closed = False
        self.left = LeftJobs()
        self.host = Host(settings.home / "jobs")
        self._reports = reports
        self._writing = threading.Lock()

    def has_begun(self, attempt: Attempt) -> bool:
        """Return whether a worker has claimed an attempt, or one of its parcel."""
        (first, number), *others = self._members(attempt)
        if not others:
            return first.claimed(number)
        # Who cancels what waits claims it, too.
        return any(
            each.claimed(n) and not each.cancel_requested()
            for each, n in ((first, number), *others)
        )

    def has_ended(self, attempt: Attempt) -> bool:
        """Return whether an attempt has its outcome, and each other one of its parcel."""
        return all(each.decided(number) for each, number in self._members(attempt))

    def _members(self, attempt: Attempt) -> Iterator[tuple[RunDirectory, int]]:
        first = RunDirectory(attempt.directory)
        yield first, attempt.number
        for job_id, number in first.parcel(attempt.number):
            yield RunDirectory(attempt.directory.parent / job_id), number

    def notice(self, attempt: str) -> None:
        """Have the owner look at an attempt."""
        self._report(None, attempt)

    def emit(self, record: logging.LogRecord) -> None:
        """Pass on what the engine logs; of an exception its class alone, as it may hold secrets."""
        kind = record.exc_info and record.exc_info[0]
        self._report(record.levelno, record.getMessage() + (f": {kind.__name__}" if kind else ""))

    def _report(self, level: int | None, text: str) -> None:
        with self._writing, contextlib.suppress(OSError):  # the owner has gone, and so do we
            left = memoryview(pickle.dumps((level, text)))
            while left:
                left = left[os.write(self._reports, left) :]


#: The runner in the agent.
_runner: Any = None


def _start(make: Callable[[], Engine], reports: int, level: int) -> None:
    global _runner  # noqa: PLW0603 - an agent has one
    own = os.dup(reports)  # which no program inherits that is started here
    os.close(reports)
    _runner = make()
    owner = vars(_runner)["_driver"] = _Owner(_runner.settings, own)
    _runner.log.addHandler(owner)
    _runner.log.setLevel(level)
    _runner.log.propagate = False


def _call(name: str, *arguments: Any) -> Any:
    answer = getattr(_runner, name)(*arguments)
    if name != "launch":
        return answer
    refused = {each: why for each, why in answer.items() if isinstance(why, Exception)}
    return {**answer, **{each: portable(why) for each, why in refused.items()}}


def _stop(left: LeftJobs) -> None:
    from crystalmath.worker.chains import close_idle

    owner = vars(_runner)["_driver"]
    owner.left, owner.closed = left, True
    _runner.stop()
    close_idle()
    owner.host.rest()
    owner.host.identity.remove()
