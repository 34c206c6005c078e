"""The parent of a process and of all that it leaves behind; :mod:`.owner` is the other side.

Started as ``python -I -S keeper_process.py LINE KEPT...``. LINE is the number of a socket, and KEPT
are the descriptors that are for the process alone. A message on the socket has the command and the
environment of the process; its pid and its exit code are the answers. Nothing of ours is imported,
so that it starts at once.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
import threading

_PR_SET_CHILD_SUBREAPER = 36


def _main() -> None:
    line = socket.socket(fileno=int(sys.argv[1]))
    line.set_inheritable(False)
    kept = [int(number) for number in sys.argv[2:]]
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot become a child subreaper; Linux is needed")
    with line.makefile() as lines:
        command, environment = json.loads(lines.readline())
    child = os.fork()
    if child == 0:
        os.setsid()
        for each in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these
            signal.signal(each, signal.SIG_DFL)
        os.execve(command[0], command, environment)  # noqa: S606 - no shell is wanted
    for number in kept:
        os.close(number)
    line.sendall(f"{child}\n".encode())
    threading.Thread(target=_end_with, args=[line], daemon=True).start()
    try:
        while True:
            # Orphans become our children, too, and as zombies they would seem to be alive.
            pid, status = os.waitpid(-1, 0)
            if pid == child:
                line.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    except ChildProcessError:
        signal.pause()  # no child is left


def _end_with(line: socket.socket) -> None:
    line.recv(1)
    os._exit(0)


if __name__ == "__main__":
    _main()
