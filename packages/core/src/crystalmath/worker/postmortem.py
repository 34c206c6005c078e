"""What to say of a recipe that failed: its cause, the last words of the code it ran, and where.

quacc wraps what a calculator raised into a ``JobFailure`` and renames the directory of the
calculation; what VASP or Quantum ESPRESSO said themselves stands in files there.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import stat
import zlib
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["describe"]

#: The files in which codes speak, in the order in which their ends are shown; or compressed.
_SPEAKING = ("vasp.out", "std_err.txt", "OUTCAR", "*.out", "*.err", "CRASH")
#: Of each so many lines are shown, each of them so long.
_LINES = 8
_WIDTH = 160
#: Of each file so many bytes are read, from its end.
_TAIL = 4096
#: A compressed file is read from its beginning: to here, in bytes, and no further.
_UNPACKED = 64 << 20
#: A cause is cut here. Some errors carry a whole file.
_CAUSE = 4000
#: So many entries of a working directory are looked at.
_ENTRIES = 20_000


def describe(error: BaseException, work: str) -> str:
    """Describe why a recipe failed. It never raises, whatever the error or the files are.

    Parameters
    ----------
    error : BaseException
        What the recipe raised.
    work : str
        The working directory of the job.

    Returns
    -------
    str
        The cause; and, where the recipe ran a code that wrote files, the directory with these,
        which exists, and their last lines.
    """
    place, last_words = None, []
    # The cause must be told, whatever the disk looks like.
    with contextlib.suppress(Exception):
        place = _place(error, work)
        last_words = _last_words(place) if place else []
    if isinstance(error, SystemExit):
        cause = f"the recipe called sys.exit({error.code!r})"
    elif isinstance(parent := _of(error, "parent_error"), BaseException):
        # What quacc itself says then is where the files are; the calculator knew another name.
        cause = f"{_said(parent)} ({_said(error)})"
        if place:
            head, name = os.path.split(place)
            old = os.path.join(head, name.replace("failed-", "tmp-", 1))
            cause = _said(parent).replace(old, place)
    else:
        cause = _said(error)
    where = [f"the calculation's files are in {place}"] if place else []
    return "\n".join([cause, *where, *last_words])


def _of(error: BaseException, name: str) -> object:
    # Somebody's exception may fail even at that.
    with contextlib.suppress(Exception):
        return getattr(error, name, None)
    return None


def _said(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - somebody's exception may not even be able to speak
        text = "(its message cannot be shown)"
    if len(text) > _CAUSE:
        text = f"{text[:_CAUSE]} ..."
    return f"{type(error).__name__}: {text}"


def _place(error: BaseException, work: str) -> str | None:
    """Give the directory of the calculation that failed, or else of the last one."""
    directory = _of(error, "directory")
    if isinstance(directory, (str, os.PathLike)) and os.path.isdir(directory):
        return os.fspath(os.path.abspath(directory))
    newest = max(_outputs(work), default=None)
    return newest[1] if newest else None


def _outputs(work: str) -> Iterator[tuple[float, str]]:
    """Find files in which a code speaks: when each was written, and where it is."""
    seen = 0
    for directory, _, names in os.walk(work):
        for name in names:
            seen += 1
            if seen > _ENTRIES:
                return
            if any(_is_called(name, each) for each in _SPEAKING):
                with contextlib.suppress(OSError):
                    yield os.lstat(f"{directory}/{name}").st_mtime, directory


def _is_called(name: str, pattern: str) -> bool:
    name = name.removesuffix(".gz")
    return name.endswith(pattern[1:]) if pattern[0] == "*" else name == pattern


def _last_words(place: str) -> list[str]:
    said: list[str] = []
    left = sorted(os.listdir(place))
    for pattern in _SPEAKING:
        for name in [name for name in left if _is_called(name, pattern)]:
            left.remove(name)
            lines: list[str] = []
            with contextlib.suppress(OSError, EOFError, zlib.error):  # broken, or no gzip at all
                lines = [f"  {line}" for line in _printable(_tail(f"{place}/{name}"))]
            if lines:
                said += [f"the end of {name}:", *lines]
    return said[: 5 * (_LINES + 1)]


def _tail(path: str) -> bytes:
    # A FIFO must not be waited for.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return b""
        if path.endswith(".gz"):
            with gzip.GzipFile(fileobj=file) as unpacked:
                return _end_of(unpacked)
        file.seek(max(0, status.st_size - _TAIL))
        return file.read(_TAIL)


def _end_of(unpacked: gzip.GzipFile) -> bytes:
    chunks: deque[bytes] = deque(maxlen=2)
    for _ in range(_UNPACKED // _TAIL):
        # Until it is full: a short chunk is the last one.
        if not (chunk := unpacked.read(_TAIL)):
            break
        chunks.append(chunk)
    else:
        return b"(too long to be unpacked)"
    return b"".join(chunks)[-_TAIL:]


def _printable(data: bytes) -> list[str]:
    text = data.decode("utf-8", errors="replace").replace("\t", " ")
    lines = ["".join(filter(str.isprintable, line)).rstrip() for line in text.splitlines()]
    return [line[:_WIDTH] for line in lines if line][-_LINES:]
