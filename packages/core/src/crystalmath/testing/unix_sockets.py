"""Unix sockets by which processes can be reached, by a path or by an abstract name."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from crystalmath.testing.oracle import shown
from crystalmath.testing.passing import TRANSIENT, links

if TYPE_CHECKING:
    from collections.abc import Iterable

    import psutil

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
    """Give the names of all Unix sockets of this machine that some process has."""
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
    """Give the rows of the kernel's table of Unix sockets that have a name."""
    try:
        table = Path("/proc/net/unix").read_text(errors="replace")
    except OSError:
        return []
    rows = (line.split(maxsplit=_COLUMNS) for line in table.splitlines()[1:])
    return [row for row in rows if len(row) > _COLUMNS]


def _accepts(row: list[str]) -> bool:
    return bool(int(row[_FLAGS], 16) & _ACCEPTS)
