"""What outlives processes, or lets others reach them: Unix sockets, pipes and shared memory."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from crystalmath.testing.oracle import shown
from crystalmath.testing.passing import TRANSIENT, links, listed

if TYPE_CHECKING:
    from collections.abc import Iterable

    import psutil

_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - where Linux has it


def is_channel(path: Path) -> bool:
    """Return whether a file is a socket or a pipe."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return False
    return stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode)


def segments(pid: int | str) -> set[str]:
    """List the shared memory that a process has mapped."""
    try:
        lines = Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines()
    except OSError:
        return set()
    # Five columns, then the file, which may have blanks.
    return {line.split(maxsplit=5)[5] for line in lines if f" {_SHARED_MEMORY}/" in line}


def is_leaked(segment: str, since: float) -> bool:
    """Return whether shared memory is newer than a time, and belongs to nobody any more."""
    try:
        found = os.stat(segment)  # noqa: PTH116 - it is a name as the kernel tells it
    except FileNotFoundError:
        return False
    return found.st_ctime >= since and not _is_open(segment)


def _is_open(segment: str) -> bool:
    """Return whether a living process has mapped shared memory."""
    return any(segment in segments(each.name) for each in listed("/proc") if each.name.isdecimal())


#: The flag of a socket that takes connections.
_ACCEPTS = 0x10000
#: The columns of the table up to the name, which may have blanks; two of them are asked for.
_COLUMNS, _FLAGS, _INODE = 7, 3, 6


@frozen
class UnixSocket:
    """A Unix socket that takes connections, and who has it.

    Parameters
    ----------
    name : str
        Its path, or its abstract name behind an ``@``.
    process : str
        Who has it, in words.
    """

    name: str
    process: str

    @property
    def is_abstract(self) -> bool:
        """Whether it has no path, and so no permissions."""
        return self.name.startswith("@")


def names_in_use() -> set[str]:
    """Return the names of all Unix sockets of this machine that some process has."""
    return {row[-1] for row in _rows()}


def listening_unix_sockets(processes: Iterable[psutil.Process]) -> list[UnixSocket]:
    """List the Unix sockets that take connections in some processes, each once."""
    names = {f"socket:[{row[_INODE]}]": row[-1] for row in _rows() if _accepts(row)}
    found: dict[str, UnixSocket] = {}
    for process in processes:
        with contextlib.suppress(*TRANSIENT):
            for name in names.keys() & set(links(f"/proc/{process.pid}/fd")):
                found.setdefault(name, UnixSocket(names[name], shown(process)))
    return list(found.values())


def _rows() -> list[list[str]]:
    """Return the rows of the kernel's table of Unix sockets that have a name."""
    try:
        table = Path("/proc/net/unix").read_text(errors="replace")
    except OSError:
        return []
    rows = (line.split(maxsplit=_COLUMNS) for line in table.splitlines()[1:])
    return [row for row in rows if len(row) > _COLUMNS]


def _accepts(row: list[str]) -> bool:
    return bool(int(row[_FLAGS], 16) & _ACCEPTS)
