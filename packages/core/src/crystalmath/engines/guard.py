"""A guard between a process and its owner: it ends all processes below it when the owner ends.

A library's processes do not know their starter, and a killed process notifies no other. So a guard
is forked off before anything is imported or started. It waits for the end of the owner, which the
kernel signals at once, or of the process below. As a child subreaper it also reaches processes that
detach themselves. Supervisors, and the processes of jobs below them, go on without worker and
guard.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from crystalmath import processes
from crystalmath.worker import become_subreaper, end_with_parent
from crystalmath.worker.starting import end_as

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["end_in_turn", "end_with_owner"]

#: How long processes that tidy up may take once all others have ended, in seconds.
TIDY_S = 10.0
_SUPERVISOR = b"crystalmath.worker.supervisor"
#: This process removes semaphores and shared memory of killed ones, and ends after them.
_TIDIES_UP = b"resource_tracker"


def end_with_owner(
    owner: int,
    started: int,
    *,
    line: int | None = None,
    at_end: Callable[[], None] | None = None,
) -> None:
    """Fork, and return in the child; the parent stays as the guard and never returns.

    Call it before threads are started. All processes that the caller starts afterwards end with
    the owner, and after the caller; the guard ends last, with the caller's exit status.

    Parameters
    ----------
    owner : int
        The owner's pid.
    started : int
        The owner's start time (`crystalmath.processes.start_time`), in clock ticks since boot.
    line : int, optional
        File descriptor of a socket to the owner. When the owner closes its end, all ends, too.
    at_end : callable, optional
        The guard's last call.
    """
    become_subreaper()
    guard = os.getpid()
    child = os.fork()
    if child == 0:
        end_with_parent(guard)
        return
    status = None
    try:
        status = _Watch(child, line).until_end(owner, started)
        end_in_turn(_below, grace_s=0.0)
        if at_end is not None:
            at_end()
    finally:
        if status is not None:
            end_as(status)
        os._exit(0)


class _Watch:
    """Wait for ends: of the process below, of the owner, and of this process (SIGTERM)."""

    def __init__(self, child: int, line: int | None) -> None:
        self._child = child
        self._line = line
        self._must_end = False
        self._wake, written = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(written, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._end)

    def _end(self, *_: object) -> None:
        self._must_end = True

    def until_end(self, owner: int, started: int) -> int | None:
        """Return the exit status of the process below; ``None`` if it must be ended."""
        try:
            owner_end = os.pidfd_open(owner)
        except ProcessLookupError:
            return None
        ends = select.poll()
        ends.register(owner_end, select.POLLIN)
        ends.register(self._wake, select.POLLIN)
        if self._line is not None:
            ends.register(self._line, select.POLLRDHUP)
        # The pid may have been another's before it was opened.
        if not processes.is_alive(owner, started):
            return None
        while not self._must_end:
            if (status := self._collect()) is not None:
                return status
            if {descriptor for descriptor, _ in ends.poll()} != {self._wake}:
                return None
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake, 4096)
        return None

    def _collect(self) -> int | None:
        # Orphaned processes are our children, too.
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid in {0, self._child}:
                return status if pid else None


def end_in_turn(living: Callable[[], list[int]], *, grace_s: float) -> None:
    """End all processes that `living` returns, and last those that tidy up after the others."""
    processes.end_processes(
        lambda: [pid for pid in living() if not _tidies_up(pid)], grace_s=grace_s
    )
    processes.end_processes(living, grace_s=TIDY_S)


def _below() -> list[int]:
    processes.reap_children()
    me = os.getpid()
    # A process that was orphaned during the first look is found by the second.
    return [*_living(me)] or [*_living(me)]


def _living(pid: int) -> Iterator[int]:
    for child in processes.children(pid):
        if _SUPERVISOR in _command(child).split(b"\0"):
            continue
        if processes.start_time(child) is not None:
            yield child
        yield from _living(child)


def _tidies_up(pid: int) -> bool:
    return _TIDIES_UP in _command(pid)


def _command(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""
