"""The parent of a process, and of all that it leaves behind: the side of :mod:`.owner`.

Started as ``python -I -S keeper_process.py LINE KEPT...``, with the number of a socket and those of
the descriptors that are for the process alone. A message there has its command and environment; its
pid and its exit code are the answers. It imports nothing of ours, so that it is there at once.
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
        for each in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores
            signal.signal(each, signal.SIG_DFL)
        os.execve(command[0], command, environment)  # noqa: S606 - there is nothing to escape
    for number in kept:
        os.close(number)
    line.sendall(f"{child}\n".encode())
    threading.Thread(target=_end_with, args=[line], daemon=True).start()
    try:
        while True:
            # What was orphaned is our child, too; a zombie would look as if it were alive.
            pid, status = os.waitpid(-1, 0)
            if pid == child:
                line.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    except ChildProcessError:
        signal.pause()  # nothing is left, nor will anything come


def _end_with(line: socket.socket) -> None:
    line.recv(1)
    os._exit(0)


if __name__ == "__main__":
    _main()
