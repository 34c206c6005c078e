"""The attempt that a supervisor runs: its time, its log, and its end."""

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

#: How often the supervisor looks for a program to ask to stop, in seconds.
ASK_S = 1.0
#: How much of the end of a log goes into an error message, in bytes and in lines.
TAIL = 1000
TAIL_LINES = 5
#: How much is copied at a time, in bytes.
_PIECE = 1 << 20
#: A longer line may be cut in the middle, in bytes.
_LINE = 1 << 16


class RunningJob:
    """The running attempt.

    `is_wanted` is called while the disk is full. With `shared`, other jobs run in the allocation,
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
        #: Whether another process has decided the attempt, so that its result is not needed.
        self.given_up = False
        #: Whether a small outcome goes into a journal.
        self.is_journaled = False
        #: Whether another job of its parcel ran before it.
        self.follows = False
        #: Whether it is ended with the engine worker.
        self.tied = False
        #: Whether it has ended as a failed one.
        self.failed = False
        #: The reasons why the runner was replaced for it, and how often each.
        self.replaced: dict[str, int] = {}
        #: Whether it has a walltime of its own.
        self.has_walltime = spec.walltime_s is not None
        #: The time that it has left.
        self.time = TimeLeft(spec.walltime_s, environment, shared=shared)
        self._ask_at = 0.0
        self._asked_note = ""
        self._is_overdue = False
        self.environment = environment
        self.recipe = spec.recipe
        self.fresh = config.is_fresh(self.recipe, self.environment)
        self._tail = b""
        self.log = LogFile(directory.log(self.attempt), config.log_bytes(self.environment))

    def left(self, *, begun: bool) -> float:
        """Return how much time it has, in seconds; its walltime counts from when it has begun."""
        return self.time.left(begun=begun)

    def ask_to_stop(self, left: float) -> None:
        """Ask the program to stop by itself if little time is left, in seconds."""
        if not self.time.is_short(left) or time.monotonic() < self._ask_at:
            return
        self._ask_at = time.monotonic() + ASK_S
        work = self.directory.work(self.attempt)
        path = ask_to_stop(work, urgent=self.time.is_urgent(left))
        if path is not None:
            name = os.path.basename(path)
            self._asked_note = f"; {name} had asked its program to stop"
            self.directory.note_asked_to_stop(
                self.attempt, file=name, time=self.time.name, end=self.time.end
            )
            line = f"crystalmath: {left:.0f} s are left of {self.time.name}: wrote {path}\n"
            self.write_log(line.encode())

    def overdue(self) -> dict[str, str]:
        """Return state and error of a job whose time is over."""
        self._is_overdue = True
        return {"state": self.time.end, "error": f"{self.time.over()}{self._asked_note}"}

    def note_replaced(self, why: str) -> None:
        """Count a replacement of the runner for this job."""
        self.replaced[why] = self.replaced.get(why, 0) + 1

    def write_log(self, data: bytes) -> None:
        """Append to the log."""
        self.log.write(data)
        self._tail = (self._tail + data)[-TAIL:]

    def last_words(self) -> str:
        """Return the end of its log as a part of an error message."""
        lines = self._tail.decode(errors="replace").strip().splitlines()[-TAIL_LINES:]
        return "\n".join(["\nthe end of its log:", *lines]) if lines else ""

    def publish(self, state: str, error: str) -> None:
        """Publish an end that is not the recipe's own; none of its processes may be alive.

        Unless the job is cancelled, an outcome that the recipe's process had prepared comes first.
        """
        self.failed = state == "failed"
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

    If the log grows beyond `most` bytes, its middle is left out. The first half of that size stays,
    a line with the number of missing bytes follows, and then the last quarter. So each byte of
    endless output is copied once more, and the file always ends with the last output.
    """

    def __init__(self, path: str, most: float) -> None:
        self._path = path
        self._most = most
        self._descriptor: int | None = None
        self._size = 0
        self._missing = 0

    def write(self, data: bytes) -> None:
        """Append; if that fails, as on a full disk, the job goes on."""
        with contextlib.suppress(OSError):
            if self._descriptor is None:
                # A job may replace the file by a link, or by a FIFO without a reader.
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
        # From the second time on, the line about missing bytes is in the file.
        before = len(_left_out_line(0, most)) if self._missing else 0
        self._missing += kept_from - head - before
        line = _left_out_line(self._missing, most)
        end = head + os.pwrite(descriptor, line, head)
        while piece := os.pread(descriptor, _PIECE, kept_from):
            end += os.pwrite(descriptor, piece, end)
            kept_from += len(piece)
        os.ftruncate(descriptor, end)
        self._size = end


def _left_out_line(missing: int, most: int) -> bytes:
    # Its length is always the same.
    return b"%b%15d bytes; a log has at most %d]\n" % (LEFT_OUT, missing, most)


def _line_after(descriptor: int, offset: int) -> int:
    """Return where the next line begins, if it is near; else the offset itself."""
    return offset + os.pread(descriptor, _LINE, offset).find(b"\n") + 1
