"""Whether the kernel's out-of-memory killer was at work where a process runs.

The kernel counts those that it killed: in ``memory.events`` of their control group (version 2), in
its ``memory.oom_control`` (version 1), and of the whole machine in ``/proc/vmstat``.
"""

from __future__ import annotations

import contextlib
import os

__all__ = ["OomKills"]

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
        """Tell whether the kernel has killed somebody since."""
        return _read(self.file) > self._seen


def _read(file: str) -> int:
    with contextlib.suppress(OSError, ValueError), open(file, encoding="ascii") as lines:
        for line in lines:
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    return 0


def _counter(pid: int, proc: str) -> str:
    with contextlib.suppress(OSError, ValueError):
        for place in _groups(pid, proc):
            for name in _EVENTS:
                if os.path.exists(f"{place}/{name}"):
                    return f"{place}/{name}"
    return f"{proc}/vmstat"


def _groups(pid: int, proc: str) -> list[str]:
    """Give the directories of the control groups that may count memory, inner ones first."""
    with open(f"{proc}/{pid}/cgroup", encoding="utf-8") as file:
        lines = [line.rstrip("\n").split(":", 2) for line in file]
    paths = {kind: path for _, kinds, path in lines for kind in kinds.split(",")}
    found = []
    with open(f"{proc}/self/mountinfo", encoding="utf-8") as file:
        for line in file:
            fields, _, rest = line.partition(" - ")
            kind, _, options = rest.split()[:3]
            root, mount = fields.split()[3:5]
            name = "" if kind == "cgroup2" else "memory"
            counts = kind == "cgroup2" or (kind == "cgroup" and "memory" in options.split(","))
            if counts and (path := paths.get(name)) is not None:
                # In a container the mount may show only a part of the tree.
                below = path.removeprefix(root.rstrip("/")) if path.startswith(root) else ""
                # A group without the memory controller is counted with those around it.
                while below.strip("/"):
                    found.append(mount + below)
                    below = os.path.dirname(below)
                found.append(mount)
    return found
