"""Read the ionic steps of a job's calculations, from the whole of their files."""

from __future__ import annotations

import logging
import os
from collections import defaultdict, deque
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from crystalmath.errors import InvalidJob
from crystalmath.jobs.workfiles import check_inside, read_chunks
from crystalmath.models.progress import IonicStep

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence
    from pathlib import Path

    from crystalmath.progress.reader import ProgressReader, Reading, StepCollector

_LOG = logging.getLogger("crystalmath.progress")

_T = TypeVar("_T")
_Work: TypeAlias = "Generator[None, None, _T]"

#: So many steps of a job are told, the last ones.
MOST_STEPS = 2000
#: So much of a file is read, decompressed, in bytes.
_MOST_READ = 2**28
#: A longer line is none of a text file, in bytes.
_LONGEST_LINE = 2**20


def read_history(
    calculations: Iterable[tuple[float, Path, ProgressReader]],
) -> _Work[tuple[IonicStep, ...]]:
    """Read the ionic steps of calculations, the oldest first.

    Parameters
    ----------
    calculations : iterable of (float, pathlib.Path, ProgressReader)
        When each was last written to, and the file by which it is known. Links that leave its
        folder are not followed.

    Returns
    -------
    tuple of IonicStep
        The last 2000.
    """
    folders: dict[Path, dict[str, ProgressReader]] = defaultdict(dict)
    for _, path, reader in sorted(calculations, key=lambda each: (each[0], each[1])):
        folders[path.parent][reader.file] = reader
    steps: deque[IonicStep] = deque(maxlen=MOST_STEPS)
    for number, (folder, readers) in enumerate(folders.items(), 1):
        read: Sequence[Reading] = ()
        for reader in readers.values():
            found = yield from _read(folder, reader)
            # Where ASE moves the atoms, the program beside its log sees one step at a time.
            read = max(read, found, key=len)
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


def _read(folder: Path, reader: ProgressReader) -> _Work[Sequence[Reading]]:
    collector = reader.collector()
    if collector is None:
        return ()
    try:
        for name in (reader.file, *reader.others):
            for path in (folder / name, folder / f"{name}.gz"):
                if os.path.lexists(path):
                    yield from _hand_over(path, name, collector)
                    break
        return collector.steps()
    except Exception:  # noqa: BLE001 - a plugin's; the other calculations have steps, too
        tell_failure(reader, folder / reader.file)
        return ()


def tell_failure(reader: ProgressReader, path: Path) -> None:
    """Log that a reader raised, by its class: it is a plugin, and may be anybody's."""
    kind = f"{type(reader).__module__}.{type(reader).__qualname__}"
    _LOG.warning("the progress reader %s cannot read %s", kind, path, exc_info=True)


def _hand_over(path: Path, name: str, collector: StepCollector) -> _Work[None]:
    size, rest = 0, b""
    try:
        for chunk in read_chunks(check_inside(path.parent, path)):
            # What has no end yet may be cut within a number.
            whole, _, rest = (rest + chunk).rpartition(b"\n")
            if whole:
                collector.take(name, whole.decode("utf-8", "replace").split("\n"))
            size += len(chunk)
            if size > _MOST_READ or len(rest) > _LONGEST_LINE:
                return
            yield
    except (InvalidJob, FileNotFoundError):  # a link, a pipe, cut while it is compressed, or gone
        return
