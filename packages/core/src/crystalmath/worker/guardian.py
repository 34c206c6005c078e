"""The guardian: one more link above a supervisor, where no control group can be had.

A process that forked before anything was imported or started, and does nothing but wait. It is a
child subreaper, too: whatever a killed supervisor leaves becomes its child, and it ends that. If it
is itself killed, the supervisor finishes its job and ends, so that no other job runs without one.
(Both killed during one job, and a child of the job without its environment: the documented limit.)
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

from crystalmath import processes
from crystalmath.worker.child import become_subreaper, end_descendants

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import FrameType


def go_below_guardian(inherited: int) -> processes.Identity:
    """Go on as a child of this process, which stays as the guardian and never returns.

    Parameters
    ----------
    inherited : int
        A file descriptor that is the child's alone.

    Returns
    -------
    Identity
        Who the guardian is.
    """
    become_subreaper()
    guardian = processes.own_identity()
    # One that comes before the guardian can pass it on waits for that.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return guardian
    os.close(inherited)
    try:
        _guard(child, before)
    finally:
        os._exit(0)


def _guard(supervisor: int, mask: Iterable[int]) -> None:
    def pass_on(number: int, _: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(supervisor, number)

    signal.signal(signal.SIGTERM, pass_on)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    os.waitpid(supervisor, 0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end_descendants()
