"""Processes that compute though there is nothing to do: somebody waits in them without sleeping."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from crystalmath.testing.oracle import shown
from crystalmath.testing.passing import TRANSIENT, listed

if TYPE_CHECKING:
    from collections.abc import Callable

    import psutil

#: How long it is looked at a time, and how long in all, in seconds.
_WINDOW_S, _MOST_S = 1.0, 60.0
#: For how long somebody must have computed without a pause to be named, in seconds of a core.
_ENOUGH_S = 3.0
#: What part of its time a process computes that does nothing else: of all of it, on a machine on
#: which many want a core, and of that in which it was not kept waiting for one.
_OF_ALL, _OF_ITS_OWN = 0.1, 0.5
#: What core starts for jobs is no engine's.
_CORE = "crystalmath.worker."


@frozen
class _Used:
    """What a process has had of the machine so far, in seconds."""

    cores_s: float
    starved_s: dict[str, float]


def restless(look: Callable[[], list[psutil.Process]]) -> list[str]:
    """Name the processes that compute all the time; one quiet second is enough to be none.

    Parameters
    ----------
    look : callable
        Gives the processes.
    """
    processes = {each.pid: each for each in look() if not _is_core(each)}
    began = time.monotonic()
    first = before = {pid: _used(pid) for pid in processes}
    since = began
    while processes:
        time.sleep(_WINDOW_S)
        now = time.monotonic()
        after = {pid: _used(pid) for pid in processes}
        for pid in list(processes):
            if not _computes(before[pid], after[pid], now - since):
                del processes[pid]
        spent = {pid: after[pid].cores_s - first[pid].cores_s for pid in processes}
        if spent and min(spent.values()) >= _ENOUGH_S:
            return [
                f"{shown(each)} has computed for {spent[pid]:.1f} s of {now - began:.1f} s"
                for pid, each in processes.items()
            ]
        if now - began > _MOST_S:
            break
        before, since = after, now
    return []


def _computes(before: _Used, after: _Used, seconds: float) -> bool:
    used_s = after.cores_s - before.cores_s
    starved = (
        waited - before.starved_s.get(task, waited) for task, waited in after.starved_s.items()
    )
    own_s = max(seconds - max(starved, default=0.0), 0.0)
    return used_s > _OF_ALL * seconds and used_s > _OF_ITS_OWN * own_s


def _used(pid: int) -> _Used:
    """Add up what the kernel tells of the threads of a process; nothing once it has ended."""
    cores_s, starved_s = 0.0, {}
    for task in listed(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            told = Path(task, "schedstat").read_text(encoding="ascii").split()
            cores_s += int(told[0]) / 1e9
            starved_s[task.name] = int(told[1]) / 1e9
    return _Used(cores_s, starved_s)


def _is_core(process: psutil.Process) -> bool:
    try:
        return any(word.startswith(_CORE) for word in process.cmdline())
    except TRANSIENT:
        return True
