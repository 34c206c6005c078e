"""Read the structures of a command: files, single frames, patterns, and those of jobs."""

from __future__ import annotations

import glob
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalmath.cli.shared.output import refuse
from crystalmath.errors import InvalidJob
from crystalmath.recipes.job_structure import JobStructure, read_job_text

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Sequence

    from ase import Atoms

#: A structure as ``jobs.submit`` takes it.
Document = str | dict[str, Any]
# A name, the file, and which of its frames.
_File = tuple[str, Path, int | None]

_LONGEST_NAME = 255
_PATTERN = re.compile(r"[*?[]")
#: The key in a frame's info for the labels of a row of an ASE database.
PAIRS = "key_value_pairs"
_DATABASES = (".db", ".json")
# The indices that mean the only frame of a POSCAR.
_ONLY = (None, 0, -1)


def fit(name: str) -> str:
    """Return a valid name of a job from a file name, so that no job is refused for it."""
    return "".join(filter(str.isprintable, name))[-_LONGEST_NAME:] or "structure"


def names_one(texts: Sequence[str]) -> bool:
    """Return whether one file or job is named, and no pattern."""
    if len(texts) != 1:
        return False
    return read_job_text(texts[0]) is not None or not _is_pattern(_split(texts[0])[0])


def read_document(text: str) -> tuple[str, Document]:
    """Read one structure as a document for ``jobs.submit``, and make a name for it.

    A file with several structures is an error without an index. ASE would take the last one, and
    users may mean another, or all.
    """
    if (of_job := read_job_text(text)) is not None:
        return _of_job(of_job)
    path, index = _split(text)
    plain = _poscar(path) if index in _ONLY else None
    if plain is not None:
        return fit(_stem(path)), plain
    _require(path)
    frames = _frames(path, index)
    if len(frames) > 1:
        raise InvalidJob(
            f"{path} holds {len(frames)} structures and this command takes one; "
            f"choose with {path}@N, counted from 0, or {path}@-1 for the last"
        )
    name, atoms = frames[0]
    document = _document(atoms)
    if isinstance(document, InvalidJob):
        raise document
    return fit(name), document


def read_documents(
    texts: Sequence[str], *, pairs: bool = False
) -> Iterator[tuple[str, Document | InvalidJob]]:
    """Read all structures of files, patterns and jobs, each with a name.

    A structure has the name of its file, with the number of its frame if there are several. A name
    from a pattern begins where the pattern varies: ``runs/*/POSCAR`` gives ``Al/POSCAR`` and
    ``Cu/POSCAR``. Files that would share a name are named by their whole paths. A job's structure
    has the job's name. With `pairs`, structures of an ASE database have its `PAIRS` in their info.
    """
    sources = [each for text in texts for each in _named(text)]
    files = [each for each in sources if isinstance(each, tuple)]
    places = dict.fromkeys((name, path) for name, path, _ in files)
    shared = {name for name, count in Counter(name for name, _ in places).items() if count > 1}
    return _documents(sources, shared, pairs=pairs)


def _named(text: str) -> list[_File | JobStructure]:
    of_job = read_job_text(text)
    return [*_files(text)] if of_job is None else [of_job]


def put_together(read: Sequence[tuple[str, Document | InvalidJob]]) -> tuple[str, list[Document]]:
    """Return all structures together with a name, or raise the error of one."""
    if not read:
        refuse("name at least one structure", "--together")
    structures: list[Document] = []
    for _, structure in read:
        if isinstance(structure, InvalidJob):
            raise structure
        structures.append(structure)
    return read[0][0] if len(read) == 1 else f"{len(read)} structures", structures


def _of_job(structure: JobStructure) -> tuple[str, Document]:
    """Return a reference to a job's structure, with the job's name."""
    from crystalmath.cli.shared.common_arguments import any_client

    with any_client() as client:
        if isinstance(structure.job_id, str):
            jobs = [client.job(client.find(structure.job_id))]
            structure = structure.of(jobs[0].job_id)
        else:
            # The server resolves the filters later; a retry has the same name.
            jobs = list(client.list(limit=1, **structure.job_id))
    known = [job.name or job.formula or job.job_id[:8] for job in jobs]
    frame = "" if structure.frame is None else f"-{structure.frame}"
    return fit(f"{''.join(known)}{frame}"), structure.document()


def _documents(
    sources: Sequence[_File | JobStructure], shared: Container[str], *, pairs: bool
) -> Iterator[tuple[str, Document | InvalidJob]]:
    for each in sources:
        if isinstance(each, JobStructure):
            yield _of_job(each)
            continue
        own, path, index = each
        name = str(path) if own in shared else own
        text = _poscar(path) if index in _ONLY else None
        if text is not None:
            yield fit(name), text
            continue
        try:
            frames = _frames(path, index, pairs=pairs)
        except InvalidJob as error:
            yield fit(name), error
            continue
        for frame, atoms in frames:
            # The frame's number follows the file's own name.
            yield fit(name + frame[len(_stem(path)) :]), _document(atoms)


def _document(atoms: Atoms | InvalidJob) -> Document | InvalidJob:
    from crystalmath.recipes.structures import to_ase_json

    if isinstance(atoms, InvalidJob):
        return atoms
    try:
        return to_ase_json(atoms)
    except InvalidJob as error:
        return error


def _files(text: str) -> list[_File]:
    path, index = _split(text)
    if not _is_pattern(path):
        _require(path)
        return [(_stem(path), path, index)]
    matches = map(Path, sorted(glob.glob(str(path), recursive=True)))  # noqa: PTH207 - absolute too
    files = [file for file in matches if file.is_file()]
    if not files:
        refuse(f"no file fits {str(path)!r}", "STRUCTURE")
    fixed = sum(1 for _ in _before_pattern(path))
    return [(str(Path(*file.parts[fixed:-1], _stem(file))), file, index) for file in files]


def _before_pattern(path: Path) -> Iterator[str]:
    for part in path.parts:
        if _PATTERN.search(part):
            return
        yield part


def _split(text: str) -> tuple[Path, int | None]:
    chosen = re.fullmatch(r"(.+)@(-?[0-9]{1,9})", text, re.DOTALL)
    if chosen and not Path(text).exists():
        return Path(chosen[1]), int(chosen[2])
    return Path(text), None


def _is_pattern(path: Path) -> bool:
    return bool(_PATTERN.search(str(path))) and not path.exists()


def _require(path: Path) -> None:
    if path.is_file():
        return
    if path.is_dir():
        pattern = str(path / "*")
        message = f"{str(path)!r} is a folder; name a file in it, or several by {pattern!r}"
    else:
        message = f"there is no file {str(path)!r}"
        if path.name.endswith(("_job", "_flow")):
            message += "; if that is the recipe, it comes before the structure"
        file = str(path).rpartition("@")[0]
        if file and Path(file).is_file():
            message += f"; {file}@N is one of its structures, counted from 0"
    refuse(message, "STRUCTURE")


def _frames(
    path: Path, index: int | None, *, pairs: bool = False
) -> list[tuple[str, Atoms | InvalidJob]]:
    from crystalmath.recipes.structures import read_structures

    frames = read_structures(path)
    if pairs and path.suffix in _DATABASES:
        from ase.db import connect

        for (_, atoms), row in zip(frames, connect(path, serial=True).select(), strict=True):
            if not isinstance(atoms, InvalidJob):
                atoms.info[PAIRS] = row.key_value_pairs
    if index is None:
        return frames
    try:
        return [frames[index]]
    except IndexError:
        raise InvalidJob(
            f"{path} holds {len(frames)} structures; there is none numbered {index}"
        ) from None


def _stem(path: Path) -> str:
    return path.name.split(".")[0] or path.name


def _poscar(path: Path) -> str | None:
    """Return the text of a file that is clearly a POSCAR; ``None`` for other files.

    The server parses the text, so that this process saves the import of ASE, half a second.
    """
    if not re.search(r"(?i:\.poscar)$|(POSCAR|CONTCAR)[^.]*$", path.name):
        return None
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    return text if _POSCAR.match(text) else None


_VECTOR = r"[ \t]*(?:[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?[ \t]+){2}[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?.*\n"
_POSCAR = re.compile(
    r".*\n[ \t]*[-+]?[0-9.]+[ \t]*\n"
    + 3 * _VECTOR
    + r"[ \t]*[A-Z][a-z]?(?:[ \t]+[A-Z][a-z]?)*[ \t]*\n[ \t]*[0-9]+(?:[ \t]+[0-9]+)*[ \t]*\n"
)
