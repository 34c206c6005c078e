"""The time that an attempt has left, by its walltime and by the end of its allocation.

When little time is left, the attempt's program is asked to stop; when it is over, the attempt ends.
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
    from collections.abc import Mapping

#: Variable of a worker: the end of its allocation, in seconds since the epoch.
ENDS = "CRYSTALMATH_ALLOCATION_ENDS"
#: The time in which the recipe of a job with a walltime must begin, at least, in seconds.
BEGIN_S = 600.0
#: A job ends this long before its allocation, apart from the time that its processes need to end,
#: in seconds. Afterwards no process could record its outcome.
MARGIN_S = 15.0
#: The files that grow while VASP or Quantum ESPRESSO runs.
_VASP = "OSZICAR"
_OUTPUTS = frozenset((_VASP, "pw.out"))
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
        self._allocations = now + lasts
        self.begin_anew()
        # A job without a walltime of its own may get a fresh allocation: the attempt is lost, and
        # another one begins.
        self._allocations_end = "lost" if shared and not walltime_s else "failed"
        notice_s, all_of_it = config.walltime_notice(environment), min(self._walltime_s, lasts)
        # With a longer notice, the program would be asked to stop at once.
        self._notice_s = notice_s if notice_s < all_of_it else all_of_it / 2

    def begin_anew(self) -> None:
        """Have the walltime count from now on, or from when the recipe will have begun."""
        self._own = time.monotonic() + max(self._walltime_s, BEGIN_S)
        self._begun = False

    def left(self, *, begun: bool) -> float:
        """Return the time left, in seconds; the walltime counts from the recipe's beginning."""
        if begun and not self._begun:
            self._begun = True
            self._own = time.monotonic() + self._walltime_s
        return min(self._own, self._allocations) - time.monotonic()

    def is_short(self, left: float) -> bool:
        """Return whether to ask the program to stop, with this time left, in seconds."""
        return (self._begun or self.is_allocations) and left <= self._notice_s

    def is_urgent(self, left: float) -> bool:
        """Return whether the program should stop as soon as it can."""
        return left <= self._notice_s / 2

    @property
    def name(self) -> str:
        """The time that is over first, in words."""
        return "the walltime of its allocation" if self.is_allocations else "the walltime"

    @property
    def end(self) -> str:
        """The state of an attempt whose time is up: ``failed`` or ``lost``."""
        return self._allocations_end if self.is_allocations else "failed"

    def over(self) -> str:
        """Return the error of an attempt whose time is over."""
        if self.is_allocations:
            return f"stopped: {self.name} is over"
        if self._begun:
            return f"stopped: {self.name} of {self._walltime_s:g} s is over"
        waited_s = max(self._walltime_s, BEGIN_S)
        return (
            f"stopped: the recipe had not begun after {waited_s:g} s; look at what its module does "
            "when it is imported, and at the file system of the libraries"
        )

    @property
    def is_allocations(self) -> bool:
        """Whether the allocation ends before the walltime is over."""
        return self._allocations < self._own


def least_left(directory: str | os.PathLike[str]) -> float:
    """Return the time that a shared allocation must have left for a job to begin, in seconds.

    With less, the job would be stopped at once. So the next attempt of a job that was just stopped
    does not begin in the rest of the same allocation. The job of the run directory has no walltime.
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
    """Return how long the allocation lasts from now on, in seconds; infinite if unknown."""
    try:
        lasts = float(environ.get(ENDS) or math.inf) - time.time()
    except ValueError:
        return math.inf
    return max(lasts, 0.0)


def ask_to_stop(work: str, *, urgent: bool) -> str | None:
    """Ask the program of a job's newest calculation to stop and write complete results.

    VASP looks for ``STOPCAR``: ``LSTOP`` ends it after the present ionic step, ``LABORT`` after the
    present electronic one (VASP wiki, STOPCAR). Quantum ESPRESSO looks for ``prefix.EXIT`` in its
    directory and ends after the present electronic step (INPUT_PW, "max_seconds").

    With `urgent`, the program stops as soon as it can; else after its present ionic step. Return
    the new file; ``None`` if it exists already, or no known program runs.
    """
    outputs = at_once(calculation_files(work, _OUTPUTS.__contains__))
    if not outputs:
        return None
    folder, output = os.path.split(max(outputs)[1])
    if output == _VASP:
        name, text = "STOPCAR", f"{'LABORT' if urgent else 'LSTOP'} = .TRUE.\n"
    else:
        name, text = _exit_file(folder), ""
    path = os.path.join(folder, name)
    with contextlib.suppress(OSError):  # a full disk, or the calculation has just ended
        if _read(path) != text:
            # Replace the path itself: an existing link may lead anywhere.
            with open(f"{path}.new", "x", encoding="ascii") as file:
                file.write(text)
            os.replace(f"{path}.new", path)
            return path
    return None


def _exit_file(folder: str) -> str:
    prefix = _PREFIX.search(_read(os.path.join(folder, "pw.in")) or "")
    return f"{prefix[1] if prefix else 'pwscf'}.EXIT"


def _read(path: str) -> str | None:
    """Read a small file, which a job may have replaced by anything."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, encoding="ascii", errors="replace") as file:
            return file.read(1 << 20)
    except OSError:
        return None


def reached(work: str) -> str:
    """Return a line about the last output of a job's newest calculation; empty if unknown."""
    # Few jobs need these modules, and imports delay every supervisor.
    from crystalmath.progress.readers import AseLog, AseMdLog, Oszicar, PwOutput
    from crystalmath.progress.search import read_progress

    # Readers of plugins are left out: a supervisor runs no foreign code.
    own = (Oszicar(), PwOutput(), AseLog(), AseMdLog())
    readers = {reader.file: reader for reader in own}
    progress = None
    with contextlib.suppress(Exception):  # no file may keep the job's end from being reported
        progress = at_once(read_progress(Path(work), readers))
    return "" if progress is None else f"\nwhat it had reached: {progress}"
