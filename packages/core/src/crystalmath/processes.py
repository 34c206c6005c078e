"""Processes of this host: their life, their descent, and how to start and end them.

Linux only: it reads ``/proc``. A process is named by its pid and its start time, because pids are
used again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import math
import os
import signal
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = [
    "Identity",
    "available_cores",
    "boot_id",
    "children",
    "descendants",
    "end_processes",
    "inherited",
    "is_alive",
    "is_locked",
    "machine_id",
    "marked",
    "own_identity",
    "start_time",
    "starved_s",
]

#: The time for which forking children are killed without a pause, in seconds.
CHASE_S = 0.05
#: For `waitpid`: the children of the calling thread alone (Linux).
_WNOTHREAD = 0x20000000


@dataclass(frozen=True)
class Identity:
    """The identity of a process among all boots of all hosts.

    A host is its machine id (``/etc/machine-id``, empty if it has none) and its boot id. The name
    is for people, and may change while it runs. `start_time` is in clock ticks since boot;
    `namespace` is the kernel's name of the pid namespace, as a container has pids of its own;
    `lock` names the file that the process holds a lock on for its life, empty if none.
    """

    host: str
    boot_id: str
    pid: int
    start_time: int
    namespace: str
    machine_id: str
    lock: str = field(default="", compare=False)  # it names a file, and no other process

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> Identity:
        """Read an identity that :meth:`as_dict` wrote; raise `KeyError` for a missing field."""
        return cls(
            host=fields["host"],
            boot_id=fields["boot_id"],
            pid=fields["pid"],
            start_time=fields["start_time"],
            namespace=fields["namespace"],
            machine_id=fields["machine_id"],
            lock=fields["lock"],
        )

    def is_here(self) -> bool:
        """Return whether its pid means, or meant, something here: same host, boot and namespace."""
        same_boot = self.boot_id == boot_id() and self.namespace == _namespace()
        # A machine without an id may have got one since.
        same_machine = self.machine_id == machine_id() or not (self.machine_id and machine_id())
        return same_boot and same_machine

    def is_of_this_boot(self) -> bool:
        """Return whether it is, or was, a process of this kernel, also in another container."""
        return self.boot_id == boot_id()

    def is_alive(self, lock: str | os.PathLike[str] | None = None) -> bool | None:
        """Return whether it lives; ``None`` if this host cannot know.

        The process table decides for a process of this host. For others the kernel's lock on the
        file decides: a held lock has a living holder on some host. The holder of a free lock is
        dead if it was a process of this kernel (of another container, say). Without `lock`, or
        without working locks, only the process table counts.
        """
        if self.is_here():
            return is_alive(self.pid, self.start_time)
        return self.is_alive_if(held=is_locked(lock) if lock else None)

    def is_alive_if(self, *, held: bool | None) -> bool | None:
        """Return whether it lives, by its lock: held, free, or unknown (``None``)."""
        if self.is_here():
            return is_alive(self.pid, self.start_time)
        if held:
            return True
        free_here = held is False and self.is_of_this_boot()
        return False if free_here or self._was_rebooted() else None

    def is_dead(self, lock: str | os.PathLike[str] | None = None) -> bool:
        """Return whether it is known to have ended; see :meth:`is_alive`."""
        return self.is_alive(lock) is False

    def _was_rebooted(self) -> bool:
        """Return whether it was a process of this host before it was booted again.

        Nodes that are copies of each other may have one name, or one machine id. If they share
        both, only the lock tells them from one that was booted again.
        """
        same = self.machine_id == machine_id() and self.host == socket.gethostname()
        return same and self.boot_id != boot_id()

    def as_dict(self) -> dict[str, str | int]:
        """Return the fields, for a file or a table."""
        return dict(vars(self))


@functools.cache
def boot_id() -> str:
    """Return the kernel's id of this boot."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


@functools.cache
def machine_id() -> str:
    """Return the id of this installation of an operating system; empty if it has none."""
    try:
        with open("/etc/machine-id", "rb") as file:
            text = file.read(64).strip().decode("ascii", "replace")
    except OSError:
        return ""
    return "" if text == "uninitialized" else text  # an image that was never booted


@functools.cache
def _namespace() -> str:
    return os.readlink("/proc/self/ns/pid")


def own_identity() -> Identity:
    """Return the identity of this process."""
    return _identity_of(os.getpid())


@functools.cache
def _identity_of(pid: int) -> Identity:
    return Identity(
        socket.gethostname(), boot_id(), pid, start_time(pid) or 0, _namespace(), machine_id()
    )


def is_locked(path: str | os.PathLike[str]) -> bool | None:
    """Return whether a living process holds the lock on a file; ``None`` if that is unknown.

    A missing file is not held: a process that saw its holder dead has removed it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        # A shared lock, freed at once, looks held to no other caller.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None  # a file system without locks
    finally:
        os.close(descriptor)
    return False


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; ``None`` if it has ended."""
    fields = _stat(pid)
    return None if fields is None or _has_ended(fields) else int(fields[19])


def starved_s(thread: int | str) -> float:
    """Return how long a thread could have run so far and had no core, in seconds.

    `thread` is a process, whose main thread counts, or ``"thread-self"``. The answer is 0 if it has
    ended, or the kernel does not count the time.
    """
    try:
        with open(f"/proc/{thread}/schedstat", "rb") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def is_alive(pid: int, started: int) -> bool:
    """Return whether this very process runs (a zombie does not)."""
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
    # A `Z` counts itself as a thread. With more threads only its main thread has ended.
    return fields[0] == "X" or (fields[0] == "Z" and int(fields[17]) <= 1)


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def children(pid: int, thread: int | None = None) -> list[int]:
    """List the direct children of a process, or of one of its threads, zombies included."""
    pids: list[int] = []
    try:
        for each in os.listdir(f"/proc/{pid}/task") if thread is None else [thread]:
            with (
                contextlib.suppress(FileNotFoundError, ProcessLookupError),
                open(f"/proc/{pid}/task/{each}/children", "rb", buffering=0) as file,
            ):
                pids += map(int, file.read().split())
    except (FileNotFoundError, ProcessLookupError):
        return []
    return pids


def descendants(pid: int) -> list[int]:
    """List all living descendants of a process, by one pass over the process table."""
    offspring: dict[int, list[int]] = {}
    for other in _pids():
        fields = _stat(other)
        if fields is not None and not _has_ended(fields):
            offspring.setdefault(int(fields[1]), []).append(other)
    pids: list[int] = []
    queue = [pid]
    while queue:
        brood = offspring.get(queue.pop(), [])
        pids += brood
        queue += brood
    return pids


def marked(variable: str, value: str) -> list[int]:
    """List the processes that were started with this value of an environment variable."""
    mark = f"{variable}={value}".encode()
    pids = []
    for pid in _pids():
        try:
            if mark in _environment(pid).split(b"\0") and start_time(pid) is not None:
                pids.append(pid)
        except OSError as error:
            # Without descriptors a marked process could be overlooked, and live on.
            if error.errno in {errno.EMFILE, errno.ENFILE}:
                raise
    return [pid for pid in pids if pid != os.getpid()]


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

    It sends SIGTERM and waits for the time of grace. Then it sends SIGSTOP to all, so that none can
    fork out of reach, and SIGKILL, again and again. After `limit_s` seconds it gives up, as a
    process that waits for a dead file system cannot be ended. It returns whether none is left.

    With `reap` it ends the descendants of this process, a child subreaper: it collects the exit
    codes of this thread's children until there are none. Only the main thread inherits orphans. A
    child of another thread stays alive unless ``living`` names it.
    """
    end = time.monotonic() + limit_s
    _send(living(), signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    pause = 0.005
    while True:
        # A pass over the process table misses processes that fork and exit meanwhile.
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
    """Collect the exit codes of this thread's ended children; return whether others live."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG | _WNOTHREAD)[0]:
            pass
        return True
    return False


def _kill_children() -> None:
    """Kill our own children as fast as they come, for a moment.

    A process that forks and exits in a loop always has its living one as a child of the subreaper,
    but another one at the end of each pass over the process table.
    """
    deadline = time.monotonic() + CHASE_S
    while reap_children() and time.monotonic() < deadline:
        _send(children(os.getpid(), threading.get_native_id()), signal.SIGKILL)


def _send(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        # A program of another user (setuid) cannot be signalled; it must not stop the others' end.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def available_cores() -> int:
    """Count the cores that this process may use, by affinity and by its cgroup's quota."""
    cores = len(os.sched_getaffinity(0))
    try:
        group = Path("/proc/self/cgroup").read_text(encoding="ascii").strip().split("::")[-1]
        quota, period = Path(f"/sys/fs/cgroup{group}/cpu.max").read_text(encoding="ascii").split()
        return max(1, min(cores, int(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroup v2, or its quota is "max"
        return cores


# --- starting them, from several threads ----------------------------------------------------------
#
# `subprocess` uses vfork: until a child executes its program, it is in its parent's memory, and
# takes the locks of the C library there (glibc 2.41 has one for SIGABRT). One of two such children
# may hold a lock that the other waits for. If their parent is killed at that moment, nobody frees
# the lock: the child waits for ever, and keeps the files and locks of its parent.

_STDERR = 2
#: Processes start one at a time.
_turn = threading.Lock()


def start_process(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a process, one at a time."""
    import subprocess

    with _turn:
        return subprocess.Popen(command, **options)  # noqa: S603 - the caller chooses the program


def start_tied(
    module: str, *arguments: str, **options: Any
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start a module of ours in a session of its own; return the process and our end of a socket.

    The first argument is the descriptor of its end, which closes when this process dies.
    """
    import subprocess
    import sys

    with contextlib.ExitStack() as unless_started:
        ours, theirs = (
            unless_started.enter_context(_beside_streams(end)) for end in socket.socketpair()
        )
        number = theirs.fileno()
        process = start_process(
            # -P: a file of the working directory must never stand in for a library.
            [sys.executable, "-P", "-m", module, str(number), *arguments],
            pass_fds=[number],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
            **options,
        )
        theirs.close()
        unless_started.pop_all()
    return process, ours


def inherited(number: int) -> int:
    """Move an inherited descriptor to the lowest number, as `select` takes none beyond 1023."""
    descriptor = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, _STDERR + 1)
    os.close(number)
    return descriptor


def _beside_streams(end: socket.socket) -> socket.socket:
    """Return the socket, moved if it took the number of a closed standard stream."""
    if end.fileno() > _STDERR:
        return end
    with end:
        return socket.socket(fileno=fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, _STDERR + 1))


def _take_turns_anew() -> None:
    global _turn  # noqa: PLW0603 - a lock held at the fork would stay held for ever
    _turn = threading.Lock()


os.register_at_fork(after_in_child=_take_turns_anew)
