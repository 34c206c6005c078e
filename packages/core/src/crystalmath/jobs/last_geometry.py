"""The last whole geometry that a job's calculations have left in its run directory."""

from __future__ import annotations

import io
import itertools
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from crystalmath.errors import InvalidJob
from crystalmath.jobs.workfiles import read_chunks
from crystalmath.jobs.worktree import files_below

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ase import Atoms

    from crystalmath.jobs.rundir import RunDirectory

#: Larger texts are passed over, in bytes: whoever writes them has a CONTCAR or a trajectory, too.
_LARGEST = 64 * 2**20
#: So many of the last frames of a trajectory may be torn.
_TORN_FRAMES = 3
#: What quacc calls its link to a folder that lies in ``SCRATCH_DIR``.
_LINK = "symlink-"
#: Where ASE writes how it has sorted the atoms for VASP, and the files that are sorted so.
_SORTED = "ase-sort.dat"
_SORTING = ("CONTCAR", "vasprun.xml")
_POSCAR_HEAD = 8  # lines before the first position
_NAMED = 5


@frozen
class LastGeometry:
    """A geometry, and the file that it was read from, relative to the run directory."""

    atoms: Atoms
    file: str


@frozen(order=True)
class _Candidate:
    """A file that may hold a geometry; of a folder's, CONTCAR is the newest geometry."""

    rank: int
    path: Path
    modified_at: float


def last_geometry(directory: RunDirectory, attempt: int, given: Atoms) -> LastGeometry:
    """Find the last whole geometry of a job, with all else as the job was given it.

    Positions, cell and, where they are written, momenta are of the file. Constraints, tags,
    magnetic moments, charges and the order of the atoms are of `given`. Files that are torn, or
    hold other atoms, are passed over; where an attempt has left none, the one before is searched.
    `InvalidJob` names what was passed over, if there is no geometry.
    """
    passed_over: list[str] = []
    for number in range(attempt, 0, -1):
        for candidate in _candidates(directory.work(number)):
            file = str(candidate.path.relative_to(directory.path))
            atoms = _read(candidate, given)
            if atoms is not None:
                return LastGeometry(atoms, file)
            passed_over.append(file)
    torn = ""
    if passed_over:
        more = f" and {len(passed_over) - _NAMED} more" if len(passed_over) > _NAMED else ""
        named = ", ".join(passed_over[:_NAMED])
        torn = f"; torn, or of other atoms: {named}{more}"
    raise InvalidJob(
        f"there is no whole geometry in {directory.path} (CONTCAR, vasprun.xml, trajectories of "
        f"ASE, output of pw.x){torn}"
    )


def _candidates(work: str) -> Iterator[_Candidate]:
    """Yield the files that may hold a geometry: of the newest folder first, the best first."""
    found = sorted(itertools.chain.from_iterable(map(_below, [work, *_linked(work)])))
    newest: dict[Path, float] = {}
    for each in found:
        folder = each.path.parent
        newest[folder] = max(each.modified_at, newest.get(folder, 0.0))
    for folder in sorted(newest, key=lambda folder: (newest[folder], folder), reverse=True):
        yield from (each for each in found if each.path.parent == folder)


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


def _read(candidate: _Candidate, given: Atoms) -> Atoms | None:
    """Read a file; ``None`` for one that is torn, or holds other atoms."""
    import numpy as np

    from crystalmath.recipes.ase_json import check_atoms

    _, reader = _READERS[candidate.rank]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            atoms = check_atoms(reader(candidate.path))
        if candidate.path.name.startswith(_SORTING):
            order = _order(candidate.path.parent, len(atoms))
            atoms = atoms if order is None else atoms[order]
    except Exception:  # noqa: BLE001 - readers fail in their own ways
        return None
    return _with(given, atoms) if np.array_equal(atoms.numbers, given.numbers) else None


def _with(given: Atoms, found: Atoms) -> Atoms:
    atoms = given.copy()
    atoms.set_cell(found.cell)
    atoms.set_positions(found.positions, apply_constraint=False)
    if found.has("momenta"):
        atoms.set_momenta(found.get_momenta(), apply_constraint=False)
    return atoms


def _order(folder: Path, count: int) -> list[int] | None:
    """Return where each atom stands in VASP's files, where ASE has sorted them by element."""
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
    # A number that is cut short is a number too.
    if text.count("\n") < _POSCAR_HEAD + len(atoms):
        raise InvalidJob(f"{path} ends in the middle of a line")
    return atoms


def _trajectory(path: Path) -> Atoms:
    from ase.io.trajectory import Trajectory

    source = io.BytesIO(_bytes(path)) if path.suffix == ".gz" else path
    with Trajectory(source) as frames:
        count = len(frames)
        for index in range(count - 1, max(-1, count - 1 - _TORN_FRAMES), -1):
            try:
                return frames[index]
            except Exception:  # noqa: BLE001, S112 - cut anywhere
                continue
    raise InvalidJob(f"{path} holds no whole frame")


def _last_of(kind: str) -> Callable[[Path], Atoms]:
    def read(path: Path) -> Atoms:
        import ase.io

        last = None
        try:
            for atoms in ase.io.iread(io.StringIO(_text(path)), index=":", format=kind):
                last = atoms
        except Exception:
            # What came before the place where it is torn is whole.
            if last is None:
                raise
        if last is None:
            raise InvalidJob(f"{path} holds no structure")
        return last

    return read


def _named(*names: str) -> Callable[[str], bool]:
    return lambda name: name in names


#: By name, the best first: CONTCAR is where the next step would have begun.
_READERS: Sequence[tuple[Callable[[str], bool], Callable[[Path], Atoms]]] = (
    (_named("CONTCAR"), _contcar),
    (lambda name: name.endswith(".traj"), _trajectory),
    (_named("vasprun.xml"), _last_of("vasp-xml")),
    (lambda name: name == "pw.out" or name.endswith(".pwo"), _last_of("espresso-out")),
)
