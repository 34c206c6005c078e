"""Read the ends of files that somebody's program wrote: pipes, terabytes and bombs among them."""

from __future__ import annotations

import contextlib
import gzip
import os
import stat
import zlib
from collections import deque

#: A compressed file is read from its beginning: to here, in bytes, and no further.
_UNPACKED = 64 << 20


def lines_of(path: str, size: int, width: int) -> list[str]:
    """Return the last lines of a file, printable and none of them empty.

    Parameters
    ----------
    path : str
        The file; ``.gz`` is unpacked. Of one that cannot be read there are none.
    size : int
        So many bytes are looked at.
    width : int
        So much is kept of each line.
    """
    data = b""
    with contextlib.suppress(OSError, EOFError, zlib.error):  # broken, or no gzip at all
        data = tail(path, size)
    text = data.decode("utf-8", errors="replace").replace("\t", " ")
    lines = ["".join(filter(str.isprintable, line)).rstrip() for line in text.splitlines()]
    return [line[:width] for line in lines if line]


def tail(path: str, size: int) -> bytes:
    """Return the end of a file.

    Parameters
    ----------
    path : str
        The file; ``.gz`` is unpacked.
    size : int
        So many bytes at most.
    """
    # A FIFO must not be waited for.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return b""
        if path.endswith(".gz"):
            with gzip.GzipFile(fileobj=file) as unpacked:
                return _end_of(unpacked, size)
        file.seek(max(0, status.st_size - size))
        return file.read(size)


def _end_of(unpacked: gzip.GzipFile, size: int) -> bytes:
    chunks: deque[bytes] = deque(maxlen=2)
    for _ in range(_UNPACKED // size):
        # Until it is full: a short chunk is the last one.
        if not (chunk := unpacked.read(size)):
            break
        chunks.append(chunk)
    else:
        return b"(too long to be unpacked)"
    return b"".join(chunks)[-size:]
