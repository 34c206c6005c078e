"""Find a job's newest calculation, and read how far it has come."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from crystalmath.errors import InvalidJob
from crystalmath.jobs.calculation_files import calculation_files
from crystalmath.jobs.piecewise import at_once
from crystalmath.jobs.workfiles import check_inside, read_end
from crystalmath.models.progress import Progress
from crystalmath.progress.history import read_history, tell_failure
from crystalmath.progress.last_lines import LastLines
from crystalmath.progress.reader import Reading

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from crystalmath.progress.reader import ProgressReader

_T = TypeVar("_T")
_Work: TypeAlias = "Generator[None, None, _T]"

#: So much of the end of a file is read, in bytes: a table of the forces on some 10,000 atoms.
END = 2**20
#: So long ago a file must have been written for what was read of it to be remembered, in seconds.
_SETTLED_S = 2.0
#: Of so many calculations, as whoever looks on asks again and again.
_KEPT = 2000
#: By the file by which a calculation is known: what it was then, and what was read.
_known: dict[Path, tuple[tuple[int, int, int], Reading]] = {}


def read_progress(
    work: Path, readers: Mapping[str, ProgressReader], *, history: bool = False
) -> _Work[Progress | None]:
    """Read how far the newest calculation below a work directory has come.

    Parameters
    ----------
    work : pathlib.Path
        The work directory of a job's attempt. No links are followed but quacc's to its scratch
        directory.
    readers : mapping of str to ProgressReader
        The readers, by the names of their files.
    history : bool
        Read the ionic steps of all calculations, too.

    Returns
    -------
    Progress or None
        ``None`` where no calculation has written anything that a reader knows.
    """
    files = yield from calculation_files(str(work), lambda name: _shown(name) in readers)
    if not files:
        return None
    paths = [(at, Path(path)) for at, path in files]
    found = [(at, path, readers[_shown(path.name)]) for at, path in paths]
    _, path, reader = max(found, key=lambda each: each[0])
    try:
        seen = path.stat()
    except FileNotFoundError:  # it has just been compressed; whoever asks again sees it
        return None
    reading = _read(path, reader, seen)
    yield
    updated_at = seen.st_mtime
    steps = (yield from read_history(found)) if history else None
    return Progress(
        program=reader.program,
        calculation=len({each.parent for _, each, _ in found}),
        file=str(path.relative_to(work) if path.is_relative_to(work) else path),
        updated_at=updated_at,
        ionic_step=reading.ionic_step,
        electronic_step=reading.electronic_step,
        energy_ev=reading.energy_ev,
        max_force_ev_ang=reading.max_force_ev_ang,
        history=steps,
    )


def _read(path: Path, reader: ProgressReader, seen: os.stat_result) -> Reading:
    """Read what a program has written, if it has written anything since it was read last."""
    signature = (seen.st_mtime_ns, seen.st_size, seen.st_ino)
    known, reading = _known.get(path, (None, None))
    if reading is not None and known == signature:
        return reading
    names = {reader.file, *reader.others}
    try:
        reading = reader.read(
            lambda name: at_once(_lines(path.parent, name)) if name in names else LastLines()
        )
    except Exception:  # noqa: BLE001 - whatever a plugin raises is no reason to say nothing of a job
        tell_failure(reader, path)
        reading = Reading()
    # What has just been written may be written to again without that being seen in its time.
    if time.time() - seen.st_mtime > _SETTLED_S:
        while len(_known) >= _KEPT:
            _known.pop(next(iter(_known)), None)
        _known[path] = signature, reading
    return reading


def _shown(name: str) -> str:
    """Return the name of a file without what says that quacc has compressed it."""
    return name.removesuffix(".gz")


def _lines(folder: Path, name: str) -> _Work[LastLines]:
    for path in (folder / name, folder / f"{name}.gz"):
        if not os.path.lexists(path):
            continue
        try:
            data = yield from read_end(check_inside(folder, path), END)
        except (InvalidJob, FileNotFoundError):  # a link, a pipe, broken, or gone meanwhile
            continue
        # A line that is being written may end within a number.
        return LastLines(data[: data.rfind(b"\n") + 1])
    return LastLines()
