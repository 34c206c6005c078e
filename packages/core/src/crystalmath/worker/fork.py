"""A process for one job alone, forked from the warm runner, which only waits meanwhile."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

from crystalmath.worker.isolation import begin_below

if TYPE_CHECKING:
    from collections.abc import Callable

#: More than a message has, and no more than a pipe holds, in bytes.
_LONGEST = 1 << 16


def in_fork(run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run a job in a child; where that ends without an answer, this process ends as it did.

    Parameters
    ----------
    run : callable
        Runs the job and gives the message about it.

    Returns
    -------
    dict
        The message.
    """
    parent = os.getpid()
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            begin_below(parent)
            os.write(theirs, json.dumps(run()).encode())
        finally:
            os._exit(0)
    os.close(theirs)
    # What the job left may hold the other end: the message is there when the child has ended.
    _, status = os.waitpid(child, 0)
    os.set_blocking(ours, False)
    try:
        said = os.read(ours, _LONGEST)
    except BlockingIOError:
        said = b""
    os.close(ours)
    if not said:
        end_as(status)
    message: dict[str, Any] = json.loads(said)
    return message


def end_as(status: int) -> None:
    """End as a child did (`os.waitpid` gives its status), so that our own parent sees how."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number not in {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status))
