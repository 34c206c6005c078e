"""The start of a job's processes: signals, parent, mark, and a fork beside this process."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

#: Python itself ignores these.
_IGNORED = {signal.SIGPIPE, signal.SIGXFSZ}
_PR_SET_PDEATHSIG = 1
_NAME = b"CRYSTALMATH_ATTEMPT="
#: A placeholder as long as an attempt's id.
PLACE = "-" * 48
#: More digits than a pid has.
_PID = 16
#: The field of ``/proc/self/stat`` with the address of the environment, counted behind the name.
_ENV_START = 47


def begin_below(parent: int) -> None:
    """Set this process up to end with its parent, and before it when memory runs out."""
    end_with_parent(parent)
    receive_all_signals()
    # When memory runs out, the kernel must kill the recipe, not its supervisor.
    with (
        contextlib.suppress(OSError),
        open("/proc/self/oom_score_adj", "w", encoding="ascii") as file,
    ):
        file.write("500")
    os.umask(0o077)


def fork_beside(parent: int, tell: Callable[[int], object]) -> bool:
    """Fork a child of our own parent, a child subreaper; return whether this process is that child.

    A process between the two ends at once, so that the child passes to the subreaper. Once it has,
    `tell` is called with its pid, for the subreaper to see its end however early that comes. Only
    then does the child go on, in a session of its own, and begin below the parent (`begin_below`).
    """
    ours, theirs = socket.socketpair()
    between = os.fork()
    if between:
        theirs.close()
        _, status = os.waitpid(between, 0)
        if status:
            end_as(status)
        with ours, contextlib.suppress(ConnectionError):  # the child was killed
            tell(int(ours.recv(_PID)))
            ours.send(b"\n")
        return False
    try:
        child = os.fork()
    except OSError as error:
        sys.stderr.write(f"crystalmath: cannot fork a runner: {error}\n")
        os._exit(1)
    if child:
        theirs.send(str(child).encode())
        os._exit(0)
    ours.close()
    go = b""
    with theirs, contextlib.suppress(ConnectionResetError):
        go = theirs.recv(1)
    if not go:  # our starter was killed
        os.kill(os.getpid(), signal.SIGKILL)
    os.setsid()
    begin_below(parent)
    return True


def end_as(status: int) -> None:
    """End in the same way as a child, by its status of `os.waitpid`, for our parent to see."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number not in {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status))


def receive_all_signals() -> None:
    """Stop ignoring and blocking signals.

    Both are inherited: below ``nohup``, behind ``&`` in a script, or from a worker that ignores
    Ctrl-C. Programs with these settings could not be interrupted or stopped.
    """
    for number in signal.valid_signals() - _IGNORED:
        if signal.getsignal(number) is signal.SIG_IGN:
            is_int = number == signal.SIGINT
            signal.signal(number, signal.default_int_handler if is_int else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends; at once if it has ended already.

    A process that a library starts for workers calls it first. Its parent must have started it on a
    thread that lives as long as the parent itself: the kernel takes the end of that thread for the
    parent's.

    Parameters
    ----------
    parent : int
        The parent's pid, handed over by the parent (``os.getpid()`` there). ``os.getppid()``
        here could return another process's pid once the parent has ended.

    Raises
    ------
    OSError
        The kernel knows no parent-death signal; Linux is needed.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot end with the parent process; Linux is needed")
    # A parent that ended before that line has sent no signal.
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


class Mark:
    """The mark of an attempt on the warm runner itself, which its forks inherit.

    ``/proc/PID/environ`` shows the environment at the start of a process. A variable that is set
    later shows only in programs that the process starts; a mere fork would have no mark, and could
    outlive a lost attempt unseen. So the runner starts with a placeholder, and overwrites it in
    place. It is the last variable: readers may take the zero bytes after a short mark for the end.
    """

    def __init__(self) -> None:
        os.environ.pop("CRYSTALMATH_ATTEMPT", None)
        block = Path("/proc/self/environ").read_bytes()
        offset = (b"\0" + block).find(b"\0" + _NAME + PLACE.encode())
        fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
        self._address = int(fields[_ENV_START]) + offset + len(_NAME) if offset >= 0 else None

    def write(self, attempt: str) -> None:
        """Mark this process and all later children."""
        os.environ["CRYSTALMATH_ATTEMPT"] = attempt
        self._put(attempt.encode())

    def withdraw(self) -> None:
        """Stop marking new programs; this process stays marked."""
        os.environ.pop("CRYSTALMATH_ATTEMPT", None)

    def clear(self) -> None:
        """Remove the mark until the next job."""
        self.withdraw()
        self._put(b"")

    def _put(self, value: bytes) -> None:
        if self._address is not None and len(value) <= len(PLACE):
            ctypes.memmove(self._address, value.ljust(len(PLACE), b"\0"), len(PLACE))
