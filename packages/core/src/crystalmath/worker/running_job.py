"""The attempt that a supervisor runs: its time, its log, and the end that it comes to."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

from crystalmath import config
from crystalmath.jobs.potcars import replace_potcars
from crystalmath.jobs.rundir import LEFT_OUT
from crystalmath.worker.disk_space import when_there_is_room
from crystalmath.worker.time_left import TimeLeft, ask_to_stop, reached

if TYPE_CHECKING:
    from collections.abc import Callable

    from crystalmath.jobs.rundir import RunDirectory
    from crystalmath.jobs.written_spec import WrittenSpec

#: How often a program is looked for that is to stop before its time is up, in seconds.
ASK_S = 1.0
#: How much of the end of a log goes into an error message, in bytes and in lines.
TAIL = 1000
TAIL_LINES = 5
#: How much is copied at a time, in bytes.
_PIECE = 1 << 20
#: A line that is longer than so many bytes may be cut in the middle.
_LINE = 1 << 16


class RunningJob:
    """The attempt that is being run.

    `is_wanted` is asked while the disk is full. With `shared`, other jobs run in the allocation,
    too, one after another.
    """

    def __init__(
        self,
        directory: RunDirectory,
        spec: WrittenSpec,
        environment: dict[str, str],
        is_wanted: Callable[[], bool],
        *,
        shared: bool = False,
    ) -> None:
        self.directory = directory
        self.jobs_directory = os.path.dirname(directory.path)
        self._is_wanted = is_wanted
        self.attempt = spec.attempt
        self.started: float | None = time.time()
        #: Whether others have decided it: then nobody waits for what it computes.
        self.given_up = False
        #: Whether its outcome goes into a journal where that is small.
        self.is_journaled = False
        #: Whether another of its parcel was run before it.
        self.follows = False
        #: Whether it is ended with the engine worker.
        self.tied = False
        #: Why the runner had to be replaced for it, each with how often.
        self.replaced: dict[str, int] = {}
        self._time = TimeLeft(spec.walltime_s, environment, shared=shared)
        self._ask_at = 0.0
        self._asked = ""
        self._is_overdue = False
        self.environment = environment
        self.recipe = spec.recipe
        self.fresh = config.is_fresh(self.recipe, self.environment)
        self._tail = b""
        self.log = LogFile(directory.log(self.attempt), config.log_bytes(self.environment))

    def left(self, *, begun: bool) -> float:
        """Return how much time it has, in seconds; its walltime counts from when it has begun."""
        return self._time.left(begun=begun)

    def ask_to_stop(self, left: float) -> None:
        """Ask the program to stop by itself where the time left is short, in seconds."""
        if not self._time.is_short(left) or time.monotonic() < self._ask_at:
            return
        self._ask_at = time.monotonic() + ASK_S
        work = self.directory.work(self.attempt)
        path = ask_to_stop(work, urgent=self._time.is_urgent(left))
        if path is not None:
            name = os.path.basename(path)
            self._asked = f"; {name} had asked its program to stop"
            self.directory.note_asked_to_stop(
                self.attempt, file=name, time=self._time.name, end=self._time.end
            )
            told = f"crystalmath: {left:.0f} s are left of {self._time.name}: wrote {path}\n"
            self.write_log(told.encode())

    def overdue(self) -> dict[str, str]:
        """Return state and error of a job whose time is up, with what it reached."""
        self._is_overdue = True
        return {"state": self._time.end, "error": f"{self._time.over()}{self._asked}"}

    def note_replaced(self, why: str) -> None:
        """Count that the runner has to be replaced for it."""
        self.replaced[why] = self.replaced.get(why, 0) + 1

    def write_log(self, data: bytes) -> None:
        """Append to the log."""
        self.log.write(data)
        self._tail = (self._tail + data)[-TAIL:]

    def last_words(self) -> str:
        """Return the end of its log as a part of an error message."""
        said = self._tail.decode(errors="replace").strip().splitlines()[-TAIL_LINES:]
        return "\n".join(["\nthe end of its log:", *said]) if said else ""

    def publish(self, state: str, error: str) -> None:
        """Publish an end that is not the recipe's own; none of its processes is alive.

        An outcome that the recipe's process had prepared comes first, unless the job is cancelled.
        """
        work = self.directory.work(self.attempt)
        replace_potcars(work)
        header = {
            "state": state,
            "error": error + (reached(work) if self._is_overdue else ""),
            "started": self.started,
            "finished": time.time(),
            "summary": None,
            "begun_from": self.directory.begun_from(self.attempt),
            **({"process_replaced": self.replaced} if self.replaced else {}),
        }

        def publish() -> bool:
            if state != "cancelled" and self.directory.publish_left(self.attempt):
                return True
            return self.directory.publish(self.attempt, header)

        when_there_is_room(publish, self.jobs_directory, is_wanted=self._is_wanted)


class LogFile:
    """The log of one attempt, made at the first byte.

    Beyond its bound in bytes, its middle is left out. The first half of the bound stays, then a
    line says how much is missing, and the last quarter follows. So a job that prints without end
    costs each of its bytes one more copy, and the file always ends with the last output.
    """

    def __init__(self, path: str, most: float) -> None:
        self._path = path
        self._most = most
        self._descriptor: int | None = None
        self._size = 0
        self._missing = 0

    def write(self, data: bytes) -> None:
        """Append; where that cannot be done, as on a full disk, the job goes on all the same."""
        with contextlib.suppress(OSError):
            if self._descriptor is None:
                # A job may put a link, or a FIFO that nobody reads, in its place.
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
                self._descriptor = os.open(self._path, flags, 0o600)
                self._size = os.fstat(self._descriptor).st_size
            self._size += os.pwrite(self._descriptor, data, self._size)
            if self._size > self._most:
                self._leave_out_the_middle(self._descriptor, int(self._most))

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)

    def _leave_out_the_middle(self, descriptor: int, most: int) -> None:
        head = most // 2
        kept_from = _line_after(descriptor, max(head, self._size - most // 4))
        # The line that says so stands there from the second time on.
        before = len(_told(0, most)) if self._missing else 0
        self._missing += kept_from - head - before
        told = _told(self._missing, most)
        end = head + os.pwrite(descriptor, told, head)
        while piece := os.pread(descriptor, _PIECE, kept_from):
            end += os.pwrite(descriptor, piece, end)
            kept_from += len(piece)
        os.ftruncate(descriptor, end)
        self._size = end


def _told(missing: int, most: int) -> bytes:
    # Always of one length.
    return b"%b%15d bytes; a log has at most %d]\n" % (LEFT_OUT, missing, most)


def _line_after(descriptor: int, offset: int) -> int:
    """Return where the next line begins, if it does so soon."""
    return offset + os.pread(descriptor, _LINE, offset).find(b"\n") + 1
