"""Find the calculations of a job, and read how far they have come."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import defaultdict, deque
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from crystalmath.errors import InvalidJob
from crystalmath.jobs.workfiles import as_stored, read_chunks, read_end
from crystalmath.jobs.worktree import at_once, calculation_files
from crystalmath.models.progress import IonicStep, Progress
from crystalmath.plugins.progress_reader import LastLines, Reading

if TYPE_CHECKING:
    import os
    from collections.abc import Generator, Iterable, Mapping, Sequence

    from crystalmath.plugins.progress_reader import ProgressReader, StepCollector

_logger = logging.getLogger("crystalmath.progress")
_FAILURE = "the progress reader %s cannot read %s"

_T = TypeVar("_T")
_Work: TypeAlias = "Generator[None, None, _T]"

#: Only so much of a file's end is read, in bytes: a table of the forces on some 10,000 atoms.
END = 2**20
#: A reading is kept only if the file had not changed for so long, in seconds.
_SETTLED_S = 2.0
#: The number of calculations whose last reading is kept.
_KEPT = 2000
#: Only the last steps of a job are returned.
MOST_STEPS = 2000
#: Only so much of a file is read for its steps, in bytes after decompression.
_MOST_READ = 2**28
#: A file with a longer line is no text, in bytes.
_LONGEST_LINE = 2**20
#: By the file of a calculation: its signature, and the last reading.
_known: dict[Path, tuple[tuple[int, int, int], Reading]] = {}


def read_progress(
    work: Path, readers: Mapping[str, ProgressReader], *, history: bool = False
) -> _Work[Progress | None]:
    """Read how far the newest calculation below an attempt's work directory has come.

    `readers` has each reader by the name of its file; the result is ``None`` if none of these
    files exists. With `history` the ionic steps of all calculations are read, too. Only quacc's
    link to its scratch directory is followed.
    """
    files = yield from calculation_files(str(work), lambda name: _shown(name) in readers)
    if not files:
        return None
    paths = [(at, Path(path)) for at, path in files]
    calculations = [(at, path, readers[_shown(path.name)]) for at, path in paths]
    _, path, reader = max(calculations, key=lambda each: each[0])
    try:
        seen = path.stat()
    except FileNotFoundError:  # it has just been compressed; the next call reads it
        return None
    reading = _read_newest(path, reader, seen)
    yield
    updated_at = seen.st_mtime
    steps = (yield from read_history(calculations)) if history else None
    return Progress(
        program=reader.program,
        calculation=len({each.parent for _, each, _ in calculations}),
        file=str(path.relative_to(work) if path.is_relative_to(work) else path),
        updated_at=updated_at,
        ionic_step=reading.ionic_step,
        electronic_step=reading.electronic_step,
        energy_ev=reading.energy_ev,
        max_force_ev_ang=reading.max_force_ev_ang,
        history=steps,
    )


def _read_newest(path: Path, reader: ProgressReader, seen: os.stat_result) -> Reading:
    """Read a calculation's file if it has changed since the last reading."""
    signature = (seen.st_mtime_ns, seen.st_size, seen.st_ino)
    known, reading = _known.get(path, (None, None))
    if reading is not None and known == signature:
        return reading
    names = {reader.file, *reader.others}
    try:
        reading = reader.read(
            lambda name: at_once(_lines(path.parent, name)) if name in names else LastLines()
        )
    except Exception:  # a plugin's may raise anything; the job is shown without progress
        _logger.warning(_FAILURE, _kind(reader), path, exc_info=True)
        reading = Reading()
    # A second write within the resolution of file times would not change the signature.
    if time.time() - seen.st_mtime > _SETTLED_S:
        while len(_known) >= _KEPT:
            _known.pop(next(iter(_known)), None)
        _known[path] = signature, reading
    return reading


def _shown(name: str) -> str:
    """Return the name that a file had before quacc compressed it."""
    return name.removesuffix(".gz")


def _lines(folder: Path, name: str) -> _Work[LastLines]:
    for path in as_stored(folder, name):
        with contextlib.suppress(InvalidJob):  # broken
            data = yield from read_end(path, END)
            # A line that is being written may end within a number.
            return LastLines(data[: data.rfind(b"\n") + 1])
    return LastLines()


def read_history(
    calculations: Iterable[tuple[float, Path, ProgressReader]],
) -> _Work[tuple[IonicStep, ...]]:
    """Read the last `MOST_STEPS` ionic steps of calculations, the oldest first.

    Each calculation is the time of its last change, the file by which it is known and its reader.
    Links that leave its folder are not followed.
    """
    folders: dict[Path, dict[str, ProgressReader]] = defaultdict(dict)
    for _, path, reader in sorted(calculations, key=lambda each: (each[0], each[1])):
        folders[path.parent][reader.file] = reader
    steps: deque[IonicStep] = deque(maxlen=MOST_STEPS)
    for number, (folder, readers) in enumerate(folders.items(), 1):
        read: Sequence[Reading] = ()
        for reader in readers.values():
            readings = yield from _read_steps(folder, reader)
            # If ASE moves the atoms, its log has all steps; the program's own file has one.
            read = max(read, readings, key=len)
        steps += (
            IonicStep(
                calculation=number,
                ionic_step=step.ionic_step or 0,
                energy_ev=step.energy_ev,
                max_force_ev_ang=step.max_force_ev_ang,
            )
            for step in read
        )
    return tuple(steps)


def _read_steps(folder: Path, reader: ProgressReader) -> _Work[Sequence[Reading]]:
    collector = reader.collector()
    if collector is None:
        return ()
    try:
        for name in (reader.file, *reader.others):
            for path in as_stored(folder, name):
                yield from _collect(path, name, collector)
                break
        return collector.steps()
    except Exception:  # a plugin's may raise anything; the other calculations have steps, too
        _logger.warning(_FAILURE, _kind(reader), folder / reader.file, exc_info=True)
        return ()


def _kind(reader: ProgressReader) -> str:
    return f"{type(reader).__module__}.{type(reader).__qualname__}"


def _collect(path: Path, name: str, collector: StepCollector) -> _Work[None]:
    size, rest = 0, b""
    try:
        for chunk in read_chunks(path):
            # A line without its end may be cut within a number.
            whole, _, rest = (rest + chunk).rpartition(b"\n")
            if whole:
                collector.take(name, whole.decode("utf-8", "replace").split("\n"))
            size += len(chunk)
            if size > _MOST_READ or len(rest) > _LONGEST_LINE:
                return
            yield
    except InvalidJob:  # cut while it is compressed, or gone
        return
