"""The attempt that a supervisor runs: its time, its log, and the end that it comes to."""

from __future__ import annotations

import math
import os
import time
from typing import TYPE_CHECKING, Any

from crystalmath import config
from crystalmath.jobs.potcars import replace_potcars
from crystalmath.worker.disk_space import when_there_is_room
from crystalmath.worker.logfile import LogFile
from crystalmath.worker.stopping import ask_to_stop

if TYPE_CHECKING:
    from collections.abc import Callable

    from crystalmath.jobs.rundir import RunDirectory

__all__ = ["RunningJob"]

#: How long it may take until the recipe of a job with a walltime begins, at least, in seconds.
BEGIN_S = 600.0
#: How often a program is looked for that is to stop before the walltime is over, in seconds.
ASK_S = 1.0
#: How much of the end of a log goes into an error message, in bytes and in lines.
TAIL = 1000
TAIL_LINES = 5


class RunningJob:
    """The attempt that is being run.

    Parameters
    ----------
    directory : RunDirectory
        Its run directory.
    header : dict
        The header of its specification, with the number of the attempt.
    is_wanted : callable
        Whether it is still to be waited for room on a full disk.
    """

    def __init__(
        self, directory: RunDirectory, header: dict[str, Any], is_wanted: Callable[[], bool]
    ) -> None:
        self.directory = directory
        self.jobs_directory = os.path.dirname(directory.path)
        self._is_wanted = is_wanted
        self.attempt: int = header["attempt"]
        self.started: float | None = time.time()
        #: Whether others have decided it: then nobody waits for what it computes.
        self.given_up = False
        self.walltime_s: float = header["walltime_s"] or math.inf
        self._begun = False
        self._deadline = time.monotonic() + max(self.walltime_s, BEGIN_S)
        self._notice_s = config.walltime_notice(header["environment"])
        if self._notice_s >= self.walltime_s:
            self._notice_s = self.walltime_s / 2  # asked at once, it might as well not begin
        self._ask_at = 0.0
        self._asked = ""
        self.environment: dict[str, str] = header["environment"]
        self.fresh = config.is_fresh(header["recipe"], self.environment)
        self._tail = b""
        self.log = LogFile(directory.log(self.attempt), config.log_bytes(self.environment))

    def left(self, *, begun: bool) -> float:
        """Tell how much time it has, in seconds; its walltime counts from when it has begun."""
        if begun and not self._begun:
            self._begun = True
            self._deadline = time.monotonic() + self.walltime_s
        return self._deadline - time.monotonic()

    def ask_to_stop(self, left: float) -> None:
        """Ask the program to stop by itself where the time left is short, in seconds."""
        if not self._begun or left > self._notice_s or time.monotonic() < self._ask_at:
            return
        self._ask_at = time.monotonic() + ASK_S
        urgent = left <= self._notice_s / 2
        path = ask_to_stop(self.directory.work(self.attempt), urgent=urgent)
        if path is not None:
            name = os.path.basename(path)
            self._asked = f"; {name} had asked its program to stop"
            self.directory.note_asked_to_stop(self.attempt, name)
            told = f"crystalmath: {left:.0f} s are left of the walltime: wrote {path}\n"
            self.write_log(told.encode())

    def overdue(self) -> str:
        """Say which time is over."""
        if self._begun:
            return f"stopped: the walltime of {self.walltime_s:g} s is over{self._asked}"
        return (
            f"stopped: the recipe had not begun after {max(self.walltime_s, BEGIN_S):g} s; look at "
            "what its module does when it is imported, and at the file system of the libraries"
        )

    def write_log(self, data: bytes) -> None:
        """Append to the log."""
        self.log.write(data)
        self._tail = (self._tail + data)[-TAIL:]

    def last_words(self) -> str:
        """Give the end of its log as a part of an error message."""
        said = self._tail.decode(errors="replace").strip().splitlines()[-TAIL_LINES:]
        return "\n".join(["\nthe end of its log:", *said]) if said else ""

    def publish(self, state: str, error: str) -> None:
        """Publish an end that is not the recipe's own; none of its processes is alive."""
        replace_potcars(self.directory.work(self.attempt))
        header = {
            "state": state,
            "error": error,
            "started": self.started,
            "finished": time.time(),
            "summary": None,
            "begun_from": self.directory.begun_from(self.attempt),
        }
        when_there_is_room(
            lambda: self.directory.publish(self.attempt, header),
            self.jobs_directory,
            is_wanted=self._is_wanted,
        )
