"""Bring files over: whole, checked, and only into the folder that was named."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import secrets
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from crystalmath import server
from crystalmath.errors import BadFile, CrystalMathError, InvalidJob, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from io import BufferedRandom

    from crystalmath.wire.answers import FilePart, JobFile, TransferPart

#: Bytes of one request, and requests at a time.
PART, TOGETHER = 4 * 2**20, 4
#: How long the other side may take to answer, in seconds: it reads a large file to check it.
ANSWER_S = 3600.0
#: The end of the name of a file that is not whole yet.
UNFINISHED = ".crystalmath-part"


class Downloaded(NamedTuple):
    """A file that is here: its path below the folder, size in bytes, and checksum."""

    file: str
    size: int
    sha256: str


def download(
    ask: server.Ask, job_id: str, directory: Path, names: Collection[str] = ()
) -> list[Downloaded]:
    """Write the files of a job's work directory into a folder, with the folders between.

    A file is whole when it has its name. A later call goes on where one was interrupted, and
    fetches no file again that is the same. Links are left out. `names` are as in `chosen_files`.

    Raises
    ------
    BadFile
        A file is there already and differs, or what came is not what was asked for.
    CrystalMathError
        There is no room, there are more files than an answer lists, or a name fits none.
    """
    listed = ask(server.JOBS_FILES, job_id=job_id)
    if listed["more"] and not {one["file"] for one in listed["files"]}.issuperset(names or [""]):
        raise CrystalMathError(
            f"the job has {listed['more']} more files than are listed; `crystalmath logs ID FILE` "
            "prints one, and scp copies the folder"
        )
    files = [one for one in chosen_files(listed["files"], names) if not one["is_link"]]
    places = {one["file"]: _place(directory, one["file"]) for one in files}
    directory.mkdir(parents=True, exist_ok=True)
    _require_room(sum(one["size"] for one in files), directory)
    threads, waits = ThreadPoolExecutor(TOGETHER), True
    try:
        tasks = [threads.submit(_fetch, ask, job_id, one, places[one["file"]]) for one in files]
        return [task.result() for task in tasks]
    except KeyboardInterrupt:
        waits = False  # requests under way end when their connections are closed
        raise
    finally:
        threads.shutdown(wait=waits, cancel_futures=True)


def chosen_files(files: Sequence[JobFile], names: Collection[str]) -> list[JobFile]:
    """Return the files whose path, or its end, is one of the names or fits one as a pattern.

    Without names these are all files. `CrystalMathError`: a name fits none.
    """
    fitting = {name: [one for one in files if _fits(one["file"], name)] for name in names}
    for name, some in fitting.items():
        if not some:
            ends = {
                part for one in files for part in (one["file"], PurePosixPath(one["file"]).name)
            }
            raise CrystalMathError(
                f"no file of the job fits {name!r}; "
                f"{did_you_mean(name, ends, '`crystalmath files ID` lists them')}"
            )
    wanted = {one["file"] for some in fitting.values() for one in some}
    return [one for one in files if not names or one["file"] in wanted]


def _fits(file: str, name: str) -> bool:
    try:
        return file == name or PurePosixPath(file).match(name)
    except ValueError:  # the name is empty
        return False


def _place(directory: Path, name: str) -> Path:
    """Return the place of a file; `BadFile`: its name leads out of the folder."""
    path = PurePosixPath(name)
    odd = path.is_absolute() or not path.parts or ".." in path.parts or "\0" in name
    place = directory / path
    # A link that is there already may lead elsewhere.
    if odd or not place.parent.resolve().is_relative_to(directory.resolve()) or place.is_symlink():
        raise BadFile(
            f"a file is called {name!r}, which is not below {directory}: nothing is fetched"
        )
    return place


def _fetch(ask: server.Ask, job_id: str, listed: JobFile, place: Path) -> Downloaded:
    """Fetch one file, unless it is there already."""
    name = listed["file"]

    def read(offset: int, most: int, size: int) -> FilePart:
        part = _which(offset, most, size)
        return ask(server.JOBS_FILE, timeout=ANSWER_S, job_id=job_id, file=name, **part)

    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        return _same(read, name, place)
    return Downloaded(name, *_written(read, listed["size"], place))


def fetch_transfer(ask: server.Ask, transfer: str, place: Path) -> None:
    """Write a file that the other side has made for this, such as an archive, to a new place.

    `CrystalMathError`: there is no room.
    """

    def read(offset: int, most: int, size: int) -> TransferPart:
        part = _which(offset, most, size)
        return ask(server.TRANSFERS_READ, timeout=ANSWER_S, transfer=transfer, **part)

    size = read(0, 1, 2)["size"]
    _require_room(size, place.parent)
    _written(read, size, place)


def _require_room(size: int, directory: Path) -> None:
    free = shutil.disk_usage(directory).free
    if size > free:
        raise CrystalMathError(f"the files have {size} bytes, and {directory} has room for {free}")


def send_transfer(ask: server.Ask, place: Path) -> str:
    """Send an archive to the other side, and return the name that it has there."""
    transfer, offset = secrets.token_hex(16), 0
    try:
        file = place.open("rb")
    except OSError as error:  # the words of a home here
        why = f"{place.absolute()} cannot be read as an archive of jobs: {error.strerror}"
        raise InvalidJob(why) from error
    with file:
        while (data := file.read(PART)) or not offset:
            text = base64.b64encode(data).decode()
            which = {"transfer": transfer, "offset": offset, "data": text}
            offset = ask(server.TRANSFERS_WRITE, timeout=ANSWER_S, **which)["offset"]
            if not data:
                break
    return transfer


#: Reads from an offset, at most a number of bytes, of a file of a size.
_Read: TypeAlias = "Callable[[int, int, int], FilePart | TransferPart]"


def _which(offset: int, most: int, size: int) -> dict[str, int | None]:
    """Return the parameters of a request, which is for the checksum, too, if it may be the last."""
    return {"offset": offset, "max_bytes": most, "sha256": offset + most >= size or None}


def _written(read: _Read, size: int, place: Path) -> tuple[int, str]:
    """Write a file under another name, which it loses when it is whole."""
    unfinished = place.with_name(place.name + UNFINISHED)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    with os.fdopen(os.open(unfinished, flags, 0o666), "r+b") as file:
        written = _filled(read, place.name, size, file)
    unfinished.rename(place)
    return written


def _filled(read: _Read, name: str, size: int, file: BufferedRandom) -> tuple[int, str]:
    """Add the parts that a file lacks, and return its size and checksum."""
    digest = hashlib.file_digest(file, "sha256")
    offset = file.tell()
    if offset > size:  # it was another file
        file.truncate(0)
        file.seek(0)
        offset, digest = 0, hashlib.sha256()
    while True:
        most = min(PART, max(1, size - offset))
        part = read(offset, most, size)
        data = _bytes(part, name, offset, most if size else 0)
        digest.update(data)
        file.write(data)
        offset += len(data)
        if offset >= size:
            break
        if not data:
            raise BadFile(f"{name} was {size} bytes long, and now is {offset}: fetch it again")
    if part.get("sha256") != digest.hexdigest():
        file.truncate(0)  # the next call must not go on from it
        raise BadFile(f"{name} has changed while it was fetched: fetch it again")
    return offset, digest.hexdigest()


def _bytes(part: FilePart | TransferPart, name: str, offset: int, most: int) -> bytes:
    """Return the bytes of a part; `BadFile`: they are not the ones that were asked for."""
    try:
        data = base64.b64decode(part["data"], validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise BadFile(f"the bytes of {name} cannot be read: {error}") from error
    if len(data) > most or part["offset"] != offset + len(data):
        raise BadFile(f"more of {name} came than was asked for, and it was not written")
    return data


def _same(read: _Read, name: str, place: Path) -> Downloaded:
    """Return the file that is there already; `BadFile`: it differs from that of the job."""
    with place.open("rb") as file:
        digest, size = hashlib.file_digest(file, "sha256").hexdigest(), file.tell()
    part = read(size, 1, size)
    if part["size"] != size or part.get("sha256") != digest:
        raise BadFile(f"{place} is there already, and differs from that of the job; name another")
    return Downloaded(name, size, digest)
