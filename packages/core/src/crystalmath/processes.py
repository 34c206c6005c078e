"""Processes of this host: who is alive, who descends from whom, and how to end a whole tree.

Linux only: it reads ``/proc``. A process is named by its pid and its start time, because pids are
used again.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import signal
import socket
import time
from typing import TYPE_CHECKING, Any

from attrs import asdict, frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = [
    "Identity",
    "boot_id",
    "children",
    "descendants",
    "end_processes",
    "is_alive",
    "marked",
    "own_identity",
    "start_time",
]

#: How long children that end and come again are killed without a pause, in seconds.
CHASE_S = 0.05


@frozen
class Identity:
    """Which process of which boot of which host; the same words mean the same for ever.

    Parameters
    ----------
    host : str
        The host's name.
    boot_id : str
        The kernel's id of this boot.
    pid : int
        Process id.
    start_time : int
        Clock ticks between boot and the process's start.
    namespace : str
        The kernel's name of the pid namespace: a container has pids of its own.
    """

    host: str
    boot_id: str
    pid: int
    start_time: int
    namespace: str = ""

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> Identity:
        """Make it from what :meth:`as_dict` gave, and perhaps more; `KeyError` for less."""
        return cls(
            host=fields["host"],
            boot_id=fields["boot_id"],
            pid=fields["pid"],
            start_time=fields["start_time"],
            namespace=fields.get("namespace", ""),
        )

    def is_here(self) -> bool:
        """Tell whether it is, or was, a process whose pid means something here."""
        return self.host == socket.gethostname() and self.namespace in {"", _namespace()}

    def is_dead(self) -> bool:
        """Tell whether it is known to have ended; ``False`` where this host cannot know."""
        if not self.is_here():
            return False
        return self.boot_id != boot_id() or not is_alive(self.pid, self.start_time)

    def as_dict(self) -> dict[str, str | int]:
        """Give the fields, for a file or a table."""
        return asdict(self)


@functools.cache
def boot_id() -> str:
    """Tell the kernel's id of this boot."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


@functools.cache
def _namespace() -> str:
    return os.readlink("/proc/self/ns/pid")


def own_identity() -> Identity:
    """Name this process."""
    return _identity_of(os.getpid())


@functools.cache
def _identity_of(pid: int) -> Identity:
    return Identity(socket.gethostname(), boot_id(), pid, start_time(pid) or 0, _namespace())


def start_time(pid: int) -> int | None:
    """Tell when a process started, in clock ticks since boot; ``None`` if it has ended."""
    fields = _stat(pid)
    return None if fields is None or _has_ended(fields) else int(fields[19])


def is_alive(pid: int, started: int) -> bool:
    """Tell whether this very process runs (a zombie does not)."""
    return start_time(pid) == started


def _stat(pid: int) -> list[str] | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command's name stands in parentheses and may hold anything, parentheses too.
    return text[text.rindex(b")") + 2 :].decode("ascii").split()


def _has_ended(fields: list[str]) -> bool:
    # A `Z` counts itself as a thread. One with more has lost its main thread; the others run on.
    return fields[0] == "X" or (fields[0] == "Z" and int(fields[17]) <= 1)


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def children(pid: int) -> list[int]:
    """List the direct children of a process, zombies included."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with (
                contextlib.suppress(FileNotFoundError, ProcessLookupError),
                open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file,
            ):
                found += map(int, file.read().split())
    except (FileNotFoundError, ProcessLookupError):
        return []
    return found


def descendants(pid: int) -> list[int]:
    """List all living descendants of a process, by one pass over the process table."""
    offspring: dict[int, list[int]] = {}
    for other in _pids():
        fields = _stat(other)
        if fields is not None and not _has_ended(fields):
            offspring.setdefault(int(fields[1]), []).append(other)
    found: list[int] = []
    queue = [pid]
    while queue:
        brood = offspring.get(queue.pop(), [])
        found += brood
        queue += brood
    return found


def marked(variable: str, value: str) -> list[int]:
    """List the processes that were started with this value of an environment variable."""
    mark = f"{variable}={value}".encode()
    found = []
    for pid in _pids():
        with contextlib.suppress(OSError):
            if mark in _environment(pid).split(b"\0") and start_time(pid) is not None:
                found.append(pid)
    return [pid for pid in found if pid != os.getpid()]


def _environment(pid: int) -> bytes:
    """Read the environment that a process was started with; any of its threads shows it."""
    with open(f"/proc/{pid}/environ", "rb") as file:
        block = file.read()
    fields = None if block else _stat(pid)
    if fields is not None and fields[0] == "Z" and not _has_ended(fields):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/environ", "rb") as file:
                block = block or file.read()
    return block


def end_processes(
    living: Callable[[], Iterable[int]],
    *,
    grace_s: float = 1.0,
    reap: bool = False,
    limit_s: float = math.inf,
) -> bool:
    """End all processes that ``living`` names, until it names none.

    First SIGTERM and a time of grace; then SIGSTOP to all, so that none can fork out of reach,
    and SIGKILL, again and again.

    Parameters
    ----------
    living : callable
        Gives the pids that are still alive.
    grace_s : float
        How long they may take to end by themselves, in seconds.
    reap : bool
        What is to end are all descendants of this process, a child subreaper: collect the exit
        codes of our children, and go on until there are none.
    limit_s : float
        When to give up, in seconds: one that waits for a dead file system cannot be ended.

    Returns
    -------
    bool
        Whether none is left.
    """
    end = time.monotonic() + limit_s
    _send(living(), signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    pause = 0.005
    while True:
        # One pass over the process table misses who forks and exits meanwhile; `waitpid` does not.
        left = reap and reap_children()
        pids = list(living())
        if not (pids or left):
            return True
        if time.monotonic() >= end:
            return False
        if time.monotonic() >= deadline:
            _send(pids, signal.SIGSTOP)
            _send(living(), signal.SIGKILL)
            if reap:
                _kill_children()
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)


def reap_children() -> bool:
    """Collect the exit codes of children that have ended; tell whether there are others."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
        return True
    return False


def _kill_children() -> None:
    """Kill our own children as fast as they come, for a moment.

    Of a process that forks and exits in a loop, whoever lives just now is always a child of its
    subreaper, and is another one by the end of a pass over the process table.
    """
    deadline = time.monotonic() + CHASE_S
    while reap_children() and time.monotonic() < deadline:
        _send(children(os.getpid()), signal.SIGKILL)


def _send(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        # A program of another user (setuid) cannot be signalled; it must not stop the others' end.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
