"""Copies of folders, so that programs run in their job's own work directory.

Quantum ESPRESSO's programs write into the folder that ``prev_outdir`` names. If it lies outside the
job's work directory, the job makes a copy of it there, and its programs run in the copy. All
calculations of a job that name one folder share one copy, as they would share the folder.

The copy contains the files of earlier jobs: parents, and their parents in turn. The last completed
one that ran in a copy of the same folder counts. So a chain of jobs that name one folder has the
same results as if all of them ran there.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
import time
from collections import deque
from itertools import chain, count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalmath.errors import BadFile, one_line
from crystalmath.jobs import outdirs
from crystalmath.jobs.outdirs import Outdir
from crystalmath.jobs.rundir import RunDirectory, is_job_id
from crystalmath.jobs.written_spec import WrittenSpec
from crystalmath.worker.disk_space import FULL

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

#: The module of the class that writes the inputs of Quantum ESPRESSO's programs.
ESPRESSO = "quacc.calculators.espresso.espresso"
#: The roles of parents that a job repeats, and whose copies it does not continue. A calculation
#: that is read again is not repeated.
_REPEATED = frozenset(("retry", "taken"))
#: The number of earlier jobs that are searched.
_MOST_BEFORE = 10_000

_entered: list[OwnOutdirs] = []


class OwnOutdirs:
    """The folders in which the programs of one attempt run.

    Parameters
    ----------
    directory : RunDirectory
        The job's run directory.
    attempt : int
        The number of the attempt.
    spec : WrittenSpec
        The job's specification, with its parents.
    """

    def __init__(self, directory: RunDirectory, attempt: int, spec: WrittenSpec) -> None:
        self._directory = directory
        self._work = Path(directory.work(attempt)).resolve()
        self._spec = spec
        self._lock = threading.Lock()
        self._outdirs: dict[Path, Outdir] = {}

    def own(self, folder: str | os.PathLike[str], calculation: str) -> str:
        """Return the folder to run in if a recipe names this one.

        Parameters
        ----------
        folder : path-like
            The folder that the recipe names.
        calculation : str
            The name of the calculation's own folder.

        Returns
        -------
        str
            The folder itself if it lies in the work directory, else the job's copy.
        """
        with self._lock:
            place = outdirs.place_of(folder)
            if place.is_relative_to(self._work):
                return str(place)
            if place not in self._outdirs:
                self._outdirs[place] = self._copied(place)
            used = self._outdirs[place] = outdirs.used_by(self._outdirs[place], calculation)
            outdirs.write(self._work, self._outdirs.values())
            return str(self._work / used.name)

    def _copied(self, place: Path) -> Outdir:
        names = chain([outdirs.NAME], (f"{outdirs.NAME}-{number}" for number in count(2)))
        # The recipe may have made a folder of that name in the work directory.
        name = next(name for name in names if not os.path.lexists(self._work / name))
        source = self._last_state(place)
        _log(f"copies {source}, to run in a folder of its own")
        began = time.monotonic()
        try:
            copied = outdirs.copy(source, self._work / name)
        except OSError as error:
            if error.errno in FULL:
                raise _no_room(error, source, self._work) from error
            raise
        how = " that share their blocks" if copied.shared else ""
        _log(f"copied {copied.size / 1e6:.1f} MB{how} in {time.monotonic() - began:.1f} s")
        return Outdir(str(place), name)

    def _last_state(self, place: Path) -> Path:
        """Return the copy in which the last earlier job ran, else the place itself."""
        candidates = []
        for spec, role in self._before(self._spec):
            copy = None if role in _REPEATED else self._copy_of(place, spec)
            if copy is not None and (role == "reread" or self._is_completed(spec)):
                candidates.append((spec, copy))
        for spec, copy in candidates:
            later = (self._before(other) for other, _ in candidates if other is not spec)
            if not any(spec.job_id == each.job_id for jobs in later for each, _ in jobs):
                return copy
        return place

    def _before(self, spec: WrittenSpec) -> Iterator[tuple[WrittenSpec, str]]:
        """Yield the jobs before a job, the nearest first, each with its role."""
        return islice(self._all_before(spec), _MOST_BEFORE)

    def _all_before(self, spec: WrittenSpec) -> Iterator[tuple[WrittenSpec, str]]:
        seen: set[str] = set()
        unvisited = deque([spec])
        while unvisited:
            # If two jobs are equally near, the one named last counts as the later one.
            for parent in reversed(unvisited.popleft().parents):
                job_id = parent.get("taken_from", parent["job_id"])
                if job_id in seen or not is_job_id(job_id):
                    continue
                seen.add(job_id)
                try:
                    before = WrittenSpec.read(self._beside(job_id))
                except FileNotFoundError:
                    continue  # it was pruned, or belongs to another home
                unvisited.append(before)
                yield before, parent["role"]

    def _copy_of(self, place: Path, spec: WrittenSpec) -> Path | None:
        work = Path(self._beside(spec.job_id).work(spec.attempt)).resolve()
        copies = (work / each.name for each in outdirs.read(work) if each.of == str(place))
        return next(copies, None)

    def _is_completed(self, spec: WrittenSpec) -> bool:
        outcome = self._beside(spec.job_id).outcome(spec.attempt)
        return outcome is not None and outcome["state"] == "completed"

    def _beside(self, job_id: str) -> RunDirectory:
        return RunDirectory(f"{os.path.dirname(self._directory.path)}/{job_id}")


def _log(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # the recipe may have closed it
        sys.stderr.write(f"crystalmath: {text}\n")


def _no_room(error: OSError, source: Path, work: Path) -> OSError:
    needed = ""
    with contextlib.suppress(OSError, BadFile):
        needed = f" of {outdirs.size(source) / 1e6:.0f} MB"
    return OSError(
        error.errno,
        f"{os.strerror(error.errno or 0)}: a job runs in its own copy{needed} of the folder "
        f"{one_line(str(source))}, and the disk of {one_line(str(work))} has no room for it; free "
        "some, or name a larger disk in config.toml ([storage] runs), and retry the job",
    )


@contextlib.contextmanager
def own_outdirs(directory: RunDirectory, attempt: int, spec: WrittenSpec) -> Iterator[None]:
    """Make the programs of an attempt run in folders of its own."""
    if (module := sys.modules.get(ESPRESSO)) is not None:
        watch(module)
    _entered.append(OwnOutdirs(directory, attempt, spec))
    try:
        yield
    finally:
        _entered.pop()


def watch(module: ModuleType) -> None:
    """Patch quacc's class to ask for the folder to run in just before it writes an input."""
    template = module.EspressoTemplate
    original = template.write_input
    if getattr(original, "asks_for_own", False):
        return

    @functools.wraps(original)
    def write_input(
        self: Any, profile: Any, directory: str | os.PathLike[str], *args: Any, **keywords: Any
    ) -> Any:
        if _entered and self.outdir:
            calculation = os.path.basename(os.path.normpath(directory))
            self.outdir = _entered[-1].own(self.outdir, calculation)
        return original(self, profile, directory, *args, **keywords)

    vars(write_input)["asks_for_own"] = True
    template.write_input = write_input
