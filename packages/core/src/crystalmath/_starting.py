"""Starting processes from several threads: one at a time.

`subprocess` uses vfork: until a child executes its program, it is in its parent's memory, and takes
the locks of the C library there (glibc 2.41 has one for SIGABRT). Of two such children one may hold
what the other waits for. If their parent is killed at that moment, nobody is known any more to hold
it: a child waits for ever, and keeps open, and locked, what its parent had.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

_STDERR = 2

_turn = threading.Lock()


def start_process(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a process, once no other thread is about to."""
    with _turn:
        return subprocess.Popen(command, **options)  # noqa: S603 - whoever calls answers for it


def start_tied(
    module: str, *arguments: str, **options: Any
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start a module of ours in a session of its own, and return it and our end of a socket.

    Its first argument is the number of its end, which it reads to know that we live.
    """
    with contextlib.ExitStack() as unless_started:
        ours, theirs = (
            unless_started.enter_context(_beside_streams(end)) for end in socket.socketpair()
        )
        number = theirs.fileno()
        process = start_process(
            # -P: a file of the working directory must never stand in for a library.
            [sys.executable, "-P", "-m", module, str(number), *arguments],
            pass_fds=[number, *options.pop("pass_fds", ())],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
            **options,
        )
        theirs.close()
        unless_started.pop_all()
    return process, ours


def _beside_streams(end: socket.socket) -> socket.socket:
    """Return a socket in the place of no standard stream, where a worker has closed those."""
    if end.fileno() > _STDERR:
        return end
    with end:
        return socket.socket(fileno=fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, _STDERR + 1))


def _take_turns_anew() -> None:
    global _turn  # noqa: PLW0603 - a lock held at the fork would stay held for ever
    _turn = threading.Lock()


os.register_at_fork(after_in_child=_take_turns_anew)
