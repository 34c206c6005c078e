"""The time that an attempt has left, and what is done when little of it remains.

Its walltime, and the end of its allocation, end an attempt.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from crystalmath import config
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.jobs.worktree import at_once, calculation_files
from crystalmath.jobs.written_spec import WrittenSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Variable of a worker: when its allocation is over, in seconds since the epoch.
ENDS = "CRYSTALMATH_ALLOCATION_ENDS"
#: How long it may take until the recipe of a job with a walltime begins, at least, in seconds.
BEGIN_S = 600.0
#: A job is ended at most so long before its allocation is over, beside the time that its processes
#: need to end, in seconds. Afterwards no process could record its outcome.
MARGIN_S = 15.0
_PREFIX = re.compile(r"""^\s*prefix\s*=\s*['"]([\w.-]+)['"]""", re.IGNORECASE | re.MULTILINE)


class TimeLeft:
    """The time of one attempt, from now on.

    With `shared`, other jobs run in its allocation, too, one after another.
    """

    def __init__(
        self,
        walltime_s: float | None,
        environment: Mapping[str, str],
        *,
        shared: bool = False,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        now, lasts = time.monotonic(), _lasts(environ)
        lasts -= min(_margin(environment), lasts / 10)  # a short one would be all margin
        self._walltime_s = walltime_s or math.inf
        self._own = now + max(self._walltime_s, BEGIN_S)
        self._allocations = now + lasts
        self._begun = False
        # One that may have a fresh allocation of the same length is tried again, unless its own
        # walltime says that this was long enough.
        self._allocations_end = "lost" if shared and not walltime_s else "failed"
        notice_s, all_of_it = config.walltime_notice(environment), min(self._walltime_s, lasts)
        # Asked at once, it might as well not begin.
        self._notice_s = notice_s if notice_s < all_of_it else all_of_it / 2

    def left(self, *, begun: bool) -> float:
        """Return how much time it has, in seconds; its walltime counts from when it has begun."""
        if begun and not self._begun:
            self._begun = True
            self._own = time.monotonic() + self._walltime_s
        return min(self._own, self._allocations) - time.monotonic()

    def is_short(self, left: float) -> bool:
        """Return whether to ask the program to stop by itself, with so many seconds left."""
        return (self._begun or self._is_allocations) and left <= self._notice_s

    def is_urgent(self, left: float) -> bool:
        """Return whether that should be as soon as it can."""
        return left <= self._notice_s / 2

    @property
    def name(self) -> str:
        """Which time is over first."""
        return "the walltime of its allocation" if self._is_allocations else "the walltime"

    @property
    def end(self) -> str:
        """The state of an attempt whose time is up: ``failed`` or ``lost``."""
        return self._allocations_end if self._is_allocations else "failed"

    def over(self) -> str:
        """Return which time is over."""
        if self._is_allocations:
            return f"stopped: {self.name} is over"
        if self._begun:
            return f"stopped: {self.name} of {self._walltime_s:g} s is over"
        waited_s = max(self._walltime_s, BEGIN_S)
        return (
            f"stopped: the recipe had not begun after {waited_s:g} s; look at what its module does "
            "when it is imported, and at the file system of the libraries"
        )

    @property
    def _is_allocations(self) -> bool:
        return self._allocations < self._own


def least_left(directory: str | os.PathLike[str]) -> float:
    """Return how much of a shared allocation must be left for a job to begin in it, in seconds.

    With less, the job would be asked to stop, or ended, at once. Another attempt of a job that was
    just stopped so must not return to the rest of the same allocation. The job of the run directory
    has no walltime.
    """
    return _least_left(WrittenSpec.read(RunDirectory(directory)).environment)


def _least_left(environment: Mapping[str, str]) -> float:
    return max(config.walltime_notice(environment), _margin(environment))


def is_nearly_over(environment: Mapping[str, str]) -> bool:
    """Return whether this worker's allocation has no time for another job."""
    lasts = _lasts(os.environ)
    return math.isfinite(lasts) and lasts < _least_left(environment)


def _margin(environment: Mapping[str, str]) -> float:
    return MARGIN_S + config.cancel_grace(environment)


def _lasts(environ: Mapping[str, str]) -> float:
    """Return how long the allocation lasts from now on, in seconds, where its worker knows."""
    try:
        lasts = float(environ.get(ENDS) or math.inf) - time.time()
    except ValueError:
        return math.inf
    return max(lasts, 0.0)


def ask_to_stop(work: str, *, urgent: bool) -> str | None:
    """Ask the program of a job's newest calculation to stop, so that its results are whole.

    VASP looks for ``STOPCAR``: ``LSTOP`` ends it after the present ionic step, ``LABORT`` after the
    present electronic one (VASP wiki, STOPCAR). Quantum ESPRESSO looks for ``prefix.EXIT`` in its
    directory and ends after the present electronic step (INPUT_PW, "max_seconds").

    With `urgent`, the program stops as soon as it can; else after its present ionic step. Return
    the file that was written; ``None`` if it is there already, or no program is known to run.
    """
    outputs = at_once(calculation_files(work, _PROGRAMS.__contains__))
    if not outputs:
        return None
    folder, output = os.path.split(max(outputs)[1])
    name, text = _PROGRAMS[output](folder, urgent)
    path = os.path.join(folder, name)
    with contextlib.suppress(OSError):  # a full disk, or the calculation has just ended
        if _read(path) != text:
            # In place of whatever lies there: a link may lead anywhere.
            with open(f"{path}.new", "x", encoding="ascii") as file:
                file.write(text)
            os.replace(f"{path}.new", path)
            return path
    return None


def _stopcar(folder: str, urgent: bool) -> tuple[str, str]:  # noqa: ARG001, FBT001 - as others
    return "STOPCAR", f"{'LABORT' if urgent else 'LSTOP'} = .TRUE.\n"


def _exit_file(folder: str, urgent: bool) -> tuple[str, str]:  # noqa: ARG001, FBT001
    found = _PREFIX.search(_read(os.path.join(folder, "pw.in")) or "")
    return f"{found[1] if found else 'pwscf'}.EXIT", ""


#: By the file that grows while the program runs.
_PROGRAMS: dict[str, Callable[[str, bool], tuple[str, str]]] = {
    "OSZICAR": _stopcar,
    "pw.out": _exit_file,
}


def _read(path: str) -> str | None:
    """Read a small file that a job may have put anything in the place of."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, encoding="ascii", errors="replace") as file:
            return file.read(1 << 20)
    except OSError:
        return None


def reached(work: str) -> str:
    """Return a line about the last output of a job's newest calculation; empty if unknown."""
    # Few jobs come here, and every supervisor is waited for while it imports.
    from crystalmath.progress.readers import AseLog, AseMdLog, Oszicar, PwOutput
    from crystalmath.progress.search import read_progress

    # Those of plugins are not asked: a supervisor runs nobody else's code.
    own = (Oszicar(), PwOutput(), AseLog(), AseMdLog())
    readers = {reader.file: reader for reader in own}
    try:
        progress = at_once(read_progress(Path(work), readers))
    except Exception:  # noqa: BLE001 - whatever lies there, the job's end is to be told
        return ""
    return "" if progress is None else f"\nwhat it had reached: {progress}"
