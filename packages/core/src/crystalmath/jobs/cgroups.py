"""Control groups: the groups that a process is in, and groups of our own that end as one.

A group of version 2 below our own holds a runner and all of its descendants, even those that detach
themselves or change their environment. A process that finds the supervisor dead ends the group by
writing to ``cgroup.kill`` (Linux 5.14). ``cgroup.events`` shows when the group is empty.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from typing import TYPE_CHECKING, Any

from attrs import frozen

from crystalmath import processes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_NAME = re.compile(r"crystalmath-(\d+)-(\d+)")


@frozen
class Membership:
    """A directory of the control groups that a process is in."""

    #: Whether the hierarchy is of version 2.
    unified: bool
    #: The controllers of a hierarchy of version 1.
    controllers: tuple[str, ...]
    mount: str
    #: The group's path below the mount, with a leading slash; empty for the mount itself.
    below: str

    def upwards(self) -> Iterator[str]:
        """Yield the directories of the group and of those around it."""
        below = self.below
        while below.strip("/"):
            yield self.mount + below
            below = os.path.dirname(below)
        yield self.mount


def memberships(pid: int, proc: str = "/proc") -> list[Membership]:
    """List the control groups that a process is in; empty if there are none."""
    with contextlib.suppress(OSError, ValueError):
        with open(f"{proc}/{pid}/cgroup", encoding="utf-8") as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
        paths = {tuple(filter(None, kinds.split(","))): path for _, kinds, path in lines}
        with open(f"{proc}/self/mountinfo", encoding="utf-8") as file:
            return [each for line in file if (each := _membership(line, paths))]
    return []


def _membership(line: str, paths: dict[tuple[str, ...], str]) -> Membership | None:
    fields, _, rest = line.partition(" - ")
    kind, _, options = rest.split()[:3]
    if kind not in {"cgroup", "cgroup2"}:
        return None
    root, mount = fields.split()[3:5]
    for controllers, path in paths.items():
        if set(controllers) <= set(options.split(",")) and bool(controllers) == (kind == "cgroup"):
            # In a container the mount may show only a part of the tree.
            below = path.removeprefix(root.rstrip("/")) if path.startswith(root) else ""
            return Membership(kind == "cgroup2", controllers, mount, below.rstrip("/"))
    return None


class ControlGroup:
    """A control group of our own, by its directory."""

    def __init__(self, path: str) -> None:
        self.path = path

    @classmethod
    def make(cls) -> ControlGroup | None:
        """Make a group for this process's children; ``None`` if the machine does not allow that."""
        own = next((each for each in memberships(os.getpid()) if each.unified), None)
        if own is None:
            return None
        above, me = own.mount + own.below, processes.own_identity()
        group = cls(f"{above}/crystalmath-{me.pid}-{me.start_time}")
        with contextlib.suppress(OSError):
            _remove_dead(above)
            if group._takes() and os.access(f"{group.path}/cgroup.kill", os.W_OK):
                return group
        group.remove()
        return None

    def add(self, pid: int) -> None:
        """Move a process into the group; its later children are in it, too."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.path)
        with contextlib.suppress(ProcessLookupError):  # it has ended
            _write(f"{self.path}/cgroup.procs", str(pid))

    def end(self, limit_s: float) -> bool:
        """Kill all processes of the group and remove it; return whether it is empty in time."""
        deadline = time.monotonic() + limit_s
        with contextlib.suppress(FileNotFoundError):
            _write(f"{self.path}/cgroup.kill", "1")
            while self._is_populated():
                if time.monotonic() >= deadline:
                    return False
                time.sleep(0.005)
        self.remove()
        return True

    def remove(self) -> None:
        """Remove the group if it exists and is empty."""
        with contextlib.suppress(OSError):
            os.rmdir(self.path)

    def _is_populated(self) -> bool:
        with open(f"{self.path}/cgroup.events", encoding="ascii") as file:
            return "populated 1" in file.read()

    def _takes(self) -> bool:
        """Return whether a child can be moved into the group; permissions may forbid that."""
        child = os.fork()
        if child == 0:
            try:
                self.add(os.getpid())
            except OSError:
                os._exit(1)
            os._exit(0)
        return os.waitpid(child, 0)[1] == 0


def _remove_dead(directory: str) -> None:
    """Remove the groups of supervisors that were killed, once these are empty."""
    for name in os.listdir(directory):
        maker = _NAME.fullmatch(name)
        if maker and not processes.is_alive(int(maker[1]), int(maker[2])):
            ControlGroup(f"{directory}/{name}").remove()


def _write(path: str, text: str) -> None:
    # One write(2); a missing file is not made.
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def end_contained(containment: Mapping[str, Any], limit_s: float) -> bool:
    """End the processes that a dead supervisor of this host left; return whether none is left.

    `containment` comes from its claim: ``{"cgroup": PATH}`` is a control group, which this process
    ends. ``{"guardian": [PID, START TIME]}`` is a process that ends them itself; wait for it.
    """
    if "cgroup" in containment:
        return ControlGroup(containment["cgroup"]).end(limit_s)
    if "guardian" in containment:
        deadline = time.monotonic() + limit_s
        while processes.is_alive(*containment["guardian"]):
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.01)
    return True
