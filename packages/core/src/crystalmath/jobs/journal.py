"""Journals: files with several small outcomes of a parcel's jobs, written to the disk at once.

One supervisor writes a journal, ``jobs/.journals/<name>``, and holds the lock on it while it lives.
A record is the document of an outcome behind a line with its attempt, length and checksum; the
first record names the writer. An outcome is published once its record is synced, by a hard link of
the journal to ``N.outcome``. The first end of an attempt that gets this name counts.

The name of a journal is removed once these links are on the disk, too. So the journal of a dead
writer may hold outcomes that a power cut or a kill has left unpublished. The process that takes
over the jobs publishes them first (:meth:`crystalmath.jobs.host.Host.publish_left`). Records after
a torn one do not count.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import zlib
from typing import TYPE_CHECKING

from attrs import frozen

from crystalmath._permissions import make_own
from crystalmath.errors import BadFile
from crystalmath.jobs.documents import RECORD_MARK, document, read_header, to_disk, write_all
from crystalmath.jobs.identities import LITTER_S
from crystalmath.processes import Identity, is_locked

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: The folder, beside the run directories, of the journals.
JOURNALS = ".journals"
_LINE = b"%b%-52b %08d %08x\n"
_HEAD = len(_LINE % (RECORD_MARK, b"", 0, 0))
#: The number of folders that are synced side by side; the disk flushes several at once.
_SYNCS = 4


def record(attempt: str, content: bytes) -> bytes:
    """Return the record of an outcome with this document."""
    name = attempt.encode()
    return (
        _LINE % (RECORD_MARK, name, len(content), zlib.crc32(content, zlib.crc32(name))) + content
    )


def records(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the attempts and documents of a journal, up to the first torn one."""
    for name, begin, end, checksum in _frames(content):
        if zlib.crc32(content[begin:end], zlib.crc32(name)) != checksum:
            return
        yield name.decode(), content[begin:end]


def find(content: bytes, attempt: str) -> bytes | None:
    """Return the document of an attempt; ``None`` if it is missing or torn."""
    name = attempt.encode()
    begins = b"%b%-52b " % (RECORD_MARK, name)  # faster than reading all records
    at = content.find(begins)
    while at >= 0:
        if frame := next(_frames(content, at), None):
            _, begin, end, checksum = frame
            outcome = content[begin:end]
            if zlib.crc32(outcome, zlib.crc32(name)) == checksum:
                return outcome
        at = content.find(begins, at + 1)
    return None


def _frames(content: bytes, at: int = 0) -> Iterator[tuple[bytes, int, int, int]]:
    while content.startswith(RECORD_MARK, at) and content[at + _HEAD - 1 : at + _HEAD] == b"\n":
        name, _, rest = content[at + len(RECORD_MARK) : at + _HEAD].partition(b" ")
        try:
            length, checksum = rest.split()
            begin, end = at + _HEAD, at + _HEAD + int(length)
            frame = name, begin, end, int(checksum, 16)
        except ValueError:
            return
        if end > len(content) or not name.isascii():
            return
        yield frame
        at = end


class Journal:
    """A journal that this process writes; it has claimed the attempts as `claimant`."""

    def __init__(self, jobs_directory: str, claimant: Identity) -> None:
        folder = f"{jobs_directory}/{JOURNALS}"
        make_own(folder)
        to_disk(jobs_directory)  # another process may just have made it
        self.path = f"{folder}/{claimant.lock}.{os.urandom(4).hex()}"
        #: How many bytes and outcomes it holds.
        self.size = self.count = 0
        self._directories: set[str] = set()
        temporary = f"{folder}/.{os.urandom(8).hex()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._descriptor = os.open(temporary, flags, 0o600)
        try:
            # The journal is locked before it has its name.
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            own = record("claimant", document(claimant.as_dict(), b""))
            write_all(self._descriptor, own, durable=True)
            os.replace(temporary, self.path)
            to_disk(folder)
        except BaseException:
            os.close(self._descriptor)
            for path in (temporary, self.path):
                with contextlib.suppress(OSError):
                    os.unlink(path)
            raise

    def append(self, outcomes: Sequence[tuple[str, str, bytes]]) -> None:
        """Write outcomes to the disk: run directory, attempt and document of each.

        After an `OSError`, append nothing more: the last record may be torn.
        """
        content = b"".join(record(attempt, each) for _, attempt, each in outcomes)
        write_all(self._descriptor, content, durable=False)
        os.fdatasync(self._descriptor)
        self._directories |= {directory for directory, _, _ in outcomes}
        self.size += len(content)
        self.count += len(outcomes)

    def close(self, *, published: bool = True) -> None:
        """Close the journal, and remove its name if its outcomes are published and synced."""
        with contextlib.suppress(OSError):
            if published:
                sync_all(self._directories)
                os.unlink(self.path)
        os.close(self._descriptor)


def sync_all(directories: set[str]) -> None:
    """Sync the names in many folders; removed folders are skipped."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(_SYNCS) as pool:
        list(pool.map(_sync, directories))


def _sync(directory: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        to_disk(directory)


def remove_unfinished(jobs_directory: str, now: float) -> None:
    """Remove unfinished journals of killed writers.

    `now` is the time in seconds since the epoch.
    """
    folder = f"{jobs_directory}/{JOURNALS}"
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(folder):
            path = f"{folder}/{name}"
            if name.startswith(".") and now - os.stat(path).st_mtime > LITTER_S:
                os.unlink(path)


@frozen
class Left:
    """A journal without a living writer, by its lock."""

    path: str
    writer: Identity
    #: Attempts, and their documents.
    outcomes: tuple[tuple[str, bytes], ...]


def left(jobs_directory: str, of: str = "") -> Iterator[Left]:
    """Yield the journals whose locks are free, or all that the claimant `of` has written.

    Raise `OSError` at the end if one of them cannot be read.
    """
    trouble: list[OSError] = []
    yield from _left(jobs_directory, of, trouble)
    if trouble:
        raise trouble[0]


def unreadable(jobs_directory: str) -> list[str]:
    """Return why journals that may hold outcomes cannot be read, each with its path."""
    trouble: list[OSError] = []
    for _ in _left(jobs_directory, "", trouble):
        pass
    return [str(error.strerror) for error in trouble]


def _left(jobs_directory: str, of: str, trouble: list[OSError]) -> Iterator[Left]:
    folder = f"{jobs_directory}/{JOURNALS}"
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return
    except OSError as error:
        trouble.append(_unreadable(folder, error))
        return
    for name in names:
        path = f"{folder}/{name}"
        if name.startswith(".") or (not name.startswith(f"{of}.") if of else is_locked(path)):
            continue
        try:
            with contextlib.suppress(FileNotFoundError, BadFile, KeyError, TypeError, ValueError):
                with open(path, "rb") as file:
                    first, *others = records(file.read())
                writer = Identity.read(read_header(first[1].partition(b"\n")[0], path))
                yield Left(path, writer, tuple(others))
        except OSError as error:
            trouble.append(_unreadable(path, error))


def _unreadable(path: str, error: OSError) -> OSError:
    why = f"the journal {path}, which may hold outcomes, cannot be read ({error.strerror})"
    return OSError(error.errno, f"{why}; its jobs wait until it can be read or was removed")
