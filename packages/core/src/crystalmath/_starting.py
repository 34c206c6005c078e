"""Starting processes from several threads: one at a time.

`subprocess` uses vfork: until a child executes its program, it is in its parent's memory, and takes
the locks of the C library there (glibc 2.41 has one for SIGABRT). Of two such children one may hold
what the other waits for. If their parent is killed at that moment, nobody is known any more to hold
it: a child waits for ever, and keeps open, and locked, what its parent had.
"""

from __future__ import annotations

import os
import subprocess
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["start_process"]

_turn = threading.Lock()


def start_process(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a process, once no other thread is about to.

    Parameters
    ----------
    command : sequence of str
        The program and its arguments.
    **options
        As of `subprocess.Popen`, in bytes.

    Returns
    -------
    subprocess.Popen
        The process; it has executed its program.
    """
    with _turn:
        return subprocess.Popen(command, **options)  # noqa: S603 - whoever calls answers for it


def _take_turns_anew() -> None:
    global _turn  # noqa: PLW0603 - a lock held at the fork would stay held for ever
    _turn = threading.Lock()


os.register_at_fork(after_in_child=_take_turns_anew)
