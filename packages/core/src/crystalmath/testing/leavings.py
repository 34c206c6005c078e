"""What nobody needs any more once a process has ended: sockets, pipes and shared memory."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from crystalmath.testing.passing import listed

_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - where Linux has it


def is_channel(path: Path) -> bool:
    """Tell whether a file is a socket or a pipe."""
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
    """Tell whether shared memory is newer than a time, and belongs to nobody any more."""
    try:
        found = os.stat(segment)  # noqa: PTH116 - it is a name as the kernel tells it
    except FileNotFoundError:
        return False
    return found.st_ctime >= since and not _is_open(segment)


def _is_open(segment: str) -> bool:
    """Tell whether a living process has mapped shared memory."""
    return any(segment in segments(each.name) for each in listed("/proc") if each.name.isdecimal())
