"""Bring the files of a job over: whole, checked, and only into the folder that was named."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from crystalmath import server
from crystalmath.errors import BadFile, CrystalMathError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from crystalmath.wire.answers import FilePart, JobFile

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


def download(ask: server.Ask, job_id: str, directory: Path) -> list[Downloaded]:
    """Write the files of a job's work directory into a folder, with the folders between.

    A file is whole when it has its name. A later call goes on where one was interrupted, and
    fetches no file again that is the same. Links are left out.

    Raises
    ------
    BadFile
        A file is there already and differs, or what came is not what was asked for.
    CrystalMathError
        There is no room, or there are more files than an answer lists.
    """
    listed = ask(server.JOBS_FILES, job_id=job_id)
    if listed["more"]:
        raise CrystalMathError(
            f"the job has {listed['more']} more files than are listed; `crystalmath logs ID FILE` "
            "prints one, and scp copies the folder"
        )
    files = [one for one in listed["files"] if not one["is_link"]]
    places = {one["file"]: _place(directory, one["file"]) for one in files}
    directory.mkdir(parents=True, exist_ok=True)
    size, free = sum(one["size"] for one in files), shutil.disk_usage(directory).free
    if size > free:
        raise CrystalMathError(f"the files have {size} bytes, and {directory} has room for {free}")
    with ThreadPoolExecutor(TOGETHER) as threads:
        tasks = [threads.submit(_fetch, ask, job_id, one, places[one["file"]]) for one in files]
        try:
            return [task.result() for task in tasks]
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


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
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        return _same(ask, job_id, name, place)
    unfinished = place.with_name(place.name + UNFINISHED)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    with os.fdopen(os.open(unfinished, flags, 0o666), "r+b") as file:
        size, ours = _filled(ask, job_id, listed, file)
    unfinished.rename(place)
    return Downloaded(name, size, ours)


def _filled(ask: server.Ask, job_id: str, listed: JobFile, file: BinaryIO) -> tuple[int, str]:
    """Add the parts that a file lacks, and return its size and checksum."""
    name, size = listed["file"], listed["size"]
    digest = hashlib.sha256()
    for chunk in _chunks(file):
        digest.update(chunk)
    offset = file.tell()
    if offset > size:  # it was another file
        file.truncate(0)
        file.seek(0)
        offset, digest = 0, hashlib.sha256()
    while True:
        most = min(PART, max(1, size - offset))
        part = _part(ask, job_id, name, offset, most, is_last=offset + most >= size)
        data = _bytes(part, offset, most if size else 0)
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


def _part(
    ask: server.Ask, job_id: str, name: str, offset: int, most: int, *, is_last: bool
) -> FilePart:
    return ask(
        server.JOBS_FILE,
        timeout=ANSWER_S,
        job_id=job_id,
        file=name,
        offset=offset,
        max_bytes=most,
        sha256=is_last or None,
    )


def _bytes(part: FilePart, offset: int, most: int) -> bytes:
    """Return the bytes of a part; `BadFile`: they are not the ones that were asked for."""
    try:
        data = base64.b64decode(part["data"], validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise BadFile(f"the bytes of {part['file']} cannot be read: {error}") from error
    if len(data) > most or part["offset"] != offset + len(data):
        raise BadFile(f"more of {part['file']} came than was asked for, and it was not written")
    return data


def _same(ask: server.Ask, job_id: str, name: str, place: Path) -> Downloaded:
    """Return the file that is there already; `BadFile`: it differs from that of the job."""
    digest, size = hashlib.sha256(), place.stat().st_size
    with place.open("rb") as file:
        for chunk in _chunks(file):
            digest.update(chunk)
    part = _part(ask, job_id, name, size, 1, is_last=True)
    if part["size"] != size or part.get("sha256") != digest.hexdigest():
        raise BadFile(f"{place} is there already, and differs from that of the job; name another")
    return Downloaded(name, size, digest.hexdigest())


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(2**20):
        yield chunk
