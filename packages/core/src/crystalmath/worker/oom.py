"""Whether the kernel's out-of-memory killer was at work where a process runs.

The kernel counts those that it killed: in ``memory.events`` of their control group (version 2), in
its ``memory.oom_control`` (version 1), and of the whole machine in ``/proc/vmstat``.
"""

from __future__ import annotations

import contextlib
import os

from crystalmath.jobs.cgroups import memberships

_EVENTS = ("memory.events", "memory.oom_control")


class OomKills:
    """The count of the processes that were killed for want of memory, around one process.

    Parameters
    ----------
    pid : int
        The process; it lives.
    proc : str
        Where the ``proc`` file system is.
    """

    def __init__(self, pid: int, proc: str = "/proc") -> None:
        #: The file that counts.
        self.file = _counter(pid, proc)
        self.note()

    def note(self) -> None:
        """Count from now on."""
        self._seen = _read(self.file)

    def grown(self) -> bool:
        """Return whether the kernel has killed somebody since."""
        return _read(self.file) > self._seen


def _read(file: str) -> int:
    with contextlib.suppress(OSError, ValueError), open(file, encoding="ascii") as lines:
        for line in lines:
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    return 0


def _counter(pid: int, proc: str) -> str:
    # A group without the memory controller is counted with those around it.
    for group in memberships(pid, proc):
        if group.unified or "memory" in group.controllers:
            for place in group.upwards():
                for name in _EVENTS:
                    if os.path.exists(f"{place}/{name}"):
                        return f"{place}/{name}"
    return f"{proc}/vmstat"
