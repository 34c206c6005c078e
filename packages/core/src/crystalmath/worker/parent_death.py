"""A process that ends with its parent, whenever that ends."""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends; at once where it has ended already.

    What a library starts for workers calls it first. Its parent must have started it on a thread
    that lives as long as the parent itself: the kernel takes the end of that thread for the
    parent's.

    Parameters
    ----------
    parent : int
        The parent's pid, as the parent told it (``os.getpid()`` there). Who asked here, with
        ``os.getppid()``, might be given another's, once the parent has ended.

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
