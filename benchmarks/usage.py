"""The CPU time, memory and files of a home's processes, as benchmarks report them."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from crystalmath import processes

__all__ = ["cpu_s", "files", "memory_mb", "pids"]


def pids(home: Path | str) -> list[int]:
    """Return the processes of a home except this one: its server, workers and runners.

    Parsl's workers, with all that they start, are no descendants of the server.
    """
    return processes.marked("CRYSTALMATH_HOME", str(home))


def cpu_s(home: Path | str) -> float:
    """Return the CPU time of this and the home's processes and of their dead children, in s."""
    ticks = 0
    for pid in (os.getpid(), *pids(home)):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15] if pid != os.getpid() else fields[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int) -> float:
    """Return the resident memory of a process in MB; 0 if it has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    return 0.0


def files(home: Path | str) -> tuple[int, int]:
    """Return how many entries the home has, and how many bytes they take on the disk."""
    entries, blocks = 0, {}
    for folder, folders, names in os.walk(home):
        entries += len(folders) + len(names)
        for name in (*folders, *names):
            with contextlib.suppress(FileNotFoundError):
                status = os.lstat(f"{folder}/{name}")
                # Outcomes and claims are links to one file: the disk has it once.
                blocks[status.st_dev, status.st_ino] = status.st_blocks
    return entries, 512 * sum(blocks.values())
