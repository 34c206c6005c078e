"""What a job printed: one file, made at the first byte, and bounded."""

from __future__ import annotations

import contextlib
import os

from crystalmath.jobs.rundir import LEFT_OUT

#: How much is copied at a time, in bytes.
_PIECE = 1 << 20
#: A line that is longer than so many bytes may be cut in the middle.
_LINE = 1 << 16


class LogFile:
    """The log of one attempt.

    Where it grows beyond its bound, its middle is left out: the first half of the bound stays, with
    a line that says how much is missing, and the last quarter of it. So a job that prints without
    end costs each of its bytes one more copy, and the file always ends with what came last.

    Parameters
    ----------
    path : str
        The file. It is made at the first byte.
    most : float
        Its bound, in bytes; infinity for none.
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
