"""The geometries in a job's run directory: the last one, and all frames."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

from crystalmath.errors import InvalidJob
from crystalmath.jobs.workfiles import find, opened, read_chunks
from crystalmath.jobs.worktree import as_text, files_below

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

    from ase import Atoms
    from numpy.typing import NDArray

    from crystalmath.jobs.rundir import RunDirectory

#: Larger texts are skipped, in bytes: programs that write them also write smaller files.
_LARGEST = 64 * 2**20
#: The number of frames at the end of a trajectory that may be torn.
_TORN_FRAMES = 3
#: The prefix of quacc's link to a folder in ``SCRATCH_DIR``.
_LINK = "symlink-"
#: The file with ASE's order of the atoms for VASP, and the files that have this order.
_SORTED = "ase-sort.dat"
_SORTING = ("CONTCAR", "vasprun.xml")
_POSCAR_HEAD = 8  # lines before the first position
_NAMED = 5
#: The numbers that are read for each atom in a frame, in bytes: position, force and moment.
_ATOM_BYTES = 7 * 8


@frozen
class LastGeometry:
    """A geometry, and the file that it was read from, relative to the run directory."""

    atoms: Atoms
    file: str


@frozen(order=True)
class _Candidate:
    """A file that may hold a geometry; a folder's newest geometry is in its CONTCAR."""

    rank: int
    path: Path
    modified_at: float


def last_geometry(directory: RunDirectory, attempt: int, submitted: Atoms) -> LastGeometry:
    """Find the last whole geometry of a job.

    Positions, cell and, if written, momenta come from the file. Constraints, tags, magnetic
    moments, charges and the order of the atoms come from `submitted`. Torn files, and files with
    other atoms, are skipped; if an attempt has no other, the one before is searched. If there is no
    geometry, `InvalidJob` names the skipped files.
    """
    passed_over: list[str] = []
    for number in range(attempt, 0, -1):
        for candidate in _candidates(directory.work(number)):
            file = str(candidate.path.relative_to(directory.path))
            atoms = _read(candidate, submitted)
            if atoms is not None:
                return LastGeometry(atoms, file)
            passed_over.append(file)
    torn = ""
    if passed_over:
        more = f" and {len(passed_over) - _NAMED} more" if len(passed_over) > _NAMED else ""
        named = ", ".join(passed_over[:_NAMED])
        torn = f"; torn, or with other atoms: {named}{more}"
    raise InvalidJob(
        f"there is no whole geometry in {directory.path} (CONTCAR, vasprun.xml, trajectories of "
        f"ASE, output of pw.x){torn}"
    )


def _candidates(work: str) -> Iterator[_Candidate]:
    """Yield the files that may hold a geometry: the newest folder first, in it the best first."""
    candidates = sorted(itertools.chain.from_iterable(map(_below, [work, *_linked(work)])))
    newest: dict[Path, float] = {}
    for each in candidates:
        folder = each.path.parent
        newest[folder] = max(each.modified_at, newest.get(folder, 0.0))
    for folder in sorted(newest, key=lambda folder: (newest[folder], folder), reverse=True):
        yield from (each for each in candidates if each.path.parent == folder)


def _below(folder: str) -> Iterator[_Candidate]:
    for file in files_below(folder):
        path = Path(folder, file.path)
        rank = _rank(path.name.removesuffix(".gz"))
        if rank is not None and not file.is_link:
            yield _Candidate(rank, path, file.modified_at)


def _linked(work: str) -> Iterator[str]:
    """Yield the folders in ``SCRATCH_DIR`` to which quacc has made links."""
    try:
        with os.scandir(work) as entries:
            for entry in entries:
                if entry.name.startswith(_LINK) and entry.is_symlink() and entry.is_dir():
                    yield entry.path
    except OSError:
        return


def _rank(name: str) -> int | None:
    for rank, (matches, _) in enumerate(_READERS):
        if matches(name):
            return rank
    return None


def _read(candidate: _Candidate, submitted: Atoms) -> Atoms | None:
    """Read a file; ``None`` if it is torn or holds other atoms."""
    import numpy as np

    from crystalmath.recipes.ase_json import check_atoms

    _, reader = _READERS[candidate.rank]
    # Readers fail in their own ways.
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        atoms = check_atoms(reader(candidate.path))
        if candidate.path.name.startswith(_SORTING):
            order = _order(candidate.path.parent, len(atoms))
            atoms = atoms if order is None else atoms[order]
        if np.array_equal(atoms.numbers, submitted.numbers):
            return _with(submitted, atoms)
    return None


def _with(submitted: Atoms, frame: Atoms) -> Atoms:
    atoms = submitted.copy()
    atoms.set_cell(frame.cell)
    atoms.set_positions(frame.positions, apply_constraint=False)
    if frame.has("momenta"):
        atoms.set_momenta(frame.get_momenta(), apply_constraint=False)
    return atoms


def _order(folder: Path, count: int) -> list[int] | None:
    """Return the place of each atom in VASP's files if ASE has sorted them by element."""
    for name in (_SORTED, f"{_SORTED}.gz"):
        if (folder / name).is_file():
            order = [int(line.split()[1]) for line in _text(folder / name).splitlines()]
            if sorted(order) != list(range(count)):
                raise InvalidJob(f"{folder / name} is damaged")
            return order
    return None


def _text(path: Path) -> str:
    return _bytes(path).decode("utf-8", "replace")


def _bytes(path: Path) -> bytes:
    read = bytearray()
    for chunk in read_chunks(path):
        read += chunk
        if len(read) > _LARGEST:
            raise InvalidJob(f"{path} is too large")
    return bytes(read)


def _contcar(path: Path) -> Atoms:
    from crystalmath.recipes.structures import parse_structure

    text = _text(path)
    atoms = parse_structure(text)
    # A number that is cut short is still a number.
    if text.count("\n") < _POSCAR_HEAD + len(atoms):
        raise InvalidJob(f"{path} ends in the middle of a line")
    return atoms


def _last_frame(path: Path) -> Atoms:
    with _frames(path) as frames:
        return frames[_count_whole(path, frames) - 1]


def _count_whole(path: Path, frames: Sequence[Atoms]) -> int:
    """Return the number of frames without the torn ones at the end."""
    count = len(frames)
    for whole in range(count, max(0, count - _TORN_FRAMES), -1):
        with contextlib.suppress(Exception):  # a frame may be cut anywhere
            frames[whole - 1]
            return whole
    raise InvalidJob(f"{path} holds no whole frame")


def _named(*names: str) -> Callable[[str], bool]:
    return lambda name: name in names


#: Files of many frames, by name, the best first; each with ASE's name of the format.
_OF_FRAMES: Sequence[tuple[Callable[[str], bool], str]] = (
    (lambda name: name.endswith(".traj"), "traj"),
    (_named("vasprun.xml"), "vasp-xml"),
    (lambda name: name == "pw.out" or name.endswith(".pwo"), "espresso-out"),
)
#: Readers by name of the file, the best first: the next step would begin from the CONTCAR.
_READERS: Sequence[tuple[Callable[[str], bool], Callable[[Path], Atoms]]] = (
    (_named("CONTCAR"), _contcar),
    *((matches, _last_frame) for matches, _ in _OF_FRAMES),
)


def first_and_last(work: str) -> tuple[Atoms, Atoms] | None:
    """Return the first and the last whole frame of the newest file of frames below `work`."""
    path = next((each.path for each in _candidates(work) if _kind(each.path)), None)
    if path is None:
        return None
    with _frames(path) as frames:
        return frames[0], frames[_count_whole(path, frames) - 1]


# --- frames ----------------------------------------------------------------------------------


def _kind(path: Path) -> str | None:
    name = path.name.removesuffix(".gz")
    return next((kind for matches, kind in _OF_FRAMES if matches(name)), None)


@contextlib.contextmanager
def _frames(path: Path) -> Iterator[Sequence[Atoms]]:
    """Open a file of frames; a torn text has the frames before the tear."""
    if (kind := _kind(path)) == "traj":
        from ase.io.trajectory import Trajectory

        with io.BytesIO(_bytes(path)) if path.suffix == ".gz" else opened(path) as source:
            yield Trajectory(source)
        return
    import ase.io

    frames: list[Atoms] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # The frames before an error stay in the list.
            frames.extend(ase.io.iread(io.StringIO(_text(path)), index=":", format=kind))
    except Exception:
        if not frames:
            raise
    yield frames


@frozen(kw_only=True)
class Frames:
    """Frames of one file, from the one numbered `start` on.

    The first axis of each of the `arrays` counts frames: ``positions`` and ``cells`` (Å),
    ``energies`` (eV), ``forces`` (eV/Å) and ``magmoms`` (μB); missing numbers are NaN.
    """

    file: str
    #: Further files of frames, by their paths below the work directory.
    others: list[str]
    #: How many whole frames the file holds.
    count: int
    start: int
    #: The first requested frame that is not here.
    next: int | None
    numbers: list[int]
    pbc: list[bool]
    arrays: Mapping[str, NDArray[Any]]


def read_frames(
    work: str, file: str | None, *, start: int, stop: int | None, stride: int, most: int
) -> Generator[None, None, Frames]:
    """Read frames below a work directory, also while a program writes them.

    `start` and `stop` are as in a slice. The frames come from the newest calculation, or from
    `file`, by its name or the end of its path. At most `most` bytes are read, but at least one
    frame. `InvalidJob`: no such file, or it cannot be read, or its frames have other atoms.
    """
    import numpy as np

    from crystalmath.recipes.ase_json import check_atoms

    paths = [each.path for each in _candidates(work) if _kind(each.path)]
    yield
    path = paths[0] if paths else Path(work)
    if file is not None:
        path = (yield from find(Path(work), file)).path
    if _kind(path) is None:
        raise InvalidJob(
            f"{path} holds no frames; these are read from trajectories of ASE (opt.traj), "
            "vasprun.xml and the output of pw.x (pw.out)"
        )
    number: int | str = "any"
    try:
        with _frames(path) as frames:
            count = _count_whole(path, frames)
            last = check_atoms(frames[count - 1])
            order = _order(path.parent, len(last)) if path.name.startswith(_SORTING) else None
            requested = range(*slice(start, stop, stride).indices(count))
            taken = requested[: max(1, most // (len(last) * _ATOM_BYTES))]
            of_atoms = (len(taken), len(last))
            shapes = {"positions": (*of_atoms, 3), "forces": (*of_atoms, 3), "magmoms": of_atoms}
            shapes |= {"cells": (len(taken), 3, 3), "energies": of_atoms[:1]}
            arrays = {name: np.full(shape, np.nan) for name, shape in shapes.items()}
            for row, number in enumerate(taken):
                for name, value in _numbers(frames[number], last, order).items():
                    if np.shape(value) == arrays[name].shape[1:]:
                        arrays[name][row] = value
                yield
    except Exception as error:  # readers fail in their own ways
        raise InvalidJob(f"frame {number} of {path} cannot be read: {error}") from error
    return Frames(
        file=str(path),
        others=[as_text(os.path.relpath(each, work)) for each in paths if each != path],
        count=count,
        start=requested.start,
        next=requested[len(taken)] if len(taken) < len(requested) else None,
        numbers=(last.numbers if order is None else last.numbers[order]).tolist(),
        pbc=last.pbc.tolist(),
        arrays=arrays,
    )


def _numbers(atoms: Atoms, last: Atoms, order: list[int] | None) -> dict[str, Any]:
    """Return the numbers of a frame, in the order of the submitted atoms."""
    import numpy as np

    from crystalmath.recipes.ase_json import check_atoms

    if not np.array_equal(check_atoms(atoms).numbers, last.numbers):
        raise InvalidJob("it has other atoms than the last one")
    results = getattr(atoms.calc, "results", {})
    of_atoms = {name: results[name] for name in ("forces", "magmoms") if name in results}
    of_atoms["positions"] = atoms.positions
    if order is not None:
        of_atoms = {name: values[order] for name, values in of_atoms.items()}
    return {**of_atoms, "cells": atoms.cell.array, "energies": results.get("energy", float("nan"))}
