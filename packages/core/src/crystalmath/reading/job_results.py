"""The stored results of completed jobs, also of homes that have moved."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, TypeAlias

from crystalmath.errors import BadFile, FilesRemoved
from crystalmath.jobs.worktree import at_once
from crystalmath.recipes import stored_result
from crystalmath.recipes.json_text import json_part

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from crystalmath.jobs.rundir import RunDirectory
    from crystalmath.store.records import JobMetadata

    #: Inode, size in bytes and time of change of a file in ns; ``None`` where it is not there.
    _Signature: TypeAlias = tuple[int, int, int] | None


class StoredResults:
    """Read results from the run directories of a home, undecoded."""

    def __init__(self, directory_of: Callable[[str], RunDirectory]) -> None:
        self._directory_of = directory_of
        # Why results could not be read, by job and attempt, and the signature of the file then.
        self._damaged: dict[tuple[str, int], tuple[_Signature, str]] = {}

    def measured(self, job: JobMetadata) -> Generator[None, None, int]:
        """Return the size of a completed job's stored JSON in bytes; yield while it is unpacked."""
        with self._opened(job) as (_, header):
            if self._move(job) is None and header.get("text") is not None:
                return int(header["text"])
        size = 0
        for chunk in self.chunks(job):
            size += len(chunk)
            yield
        return size

    def small(self, job: JobMetadata, most: int) -> bytes | None:
        """Return the stored JSON of a result, or ``None`` if it has more than `most` bytes."""
        with self._opened(job) as (file, header):
            size = header.get("text")
            if size is None or int(size) > most or self._move(job) is not None:
                return None
            return b"".join(stored_result.result_chunks(file, stored_result.block_size(header)))

    def chunks(self, job: JobMetadata) -> Iterator[bytes]:
        """Yield the pieces of a result's stored JSON, with the present paths of the home."""
        with self._opened(job) as (file, header):
            move = self._move(job)
            chunks = stored_result.result_chunks(file, stored_result.block_size(header))
            yield from move.texts(chunks) if move else chunks

    def locate(self, job: JobMetadata, field: str) -> stored_result.Located:
        """Return the place of a field in the stored JSON of a result."""
        with self._opened(job) as (file, header):
            if header.get("index"):
                return stored_result.ResultIndex(file, header).locate(field)
        return stored_result.Located(0, at_once(self.measured(job)), field)

    def part(self, job: JobMetadata, place: stored_result.Located) -> bytes:
        """Read the JSON of a located field alone; `InvalidJob`: there is no such field."""
        with self._opened(job) as (file, header):
            if not header.get("index"):
                return json_part(b"".join(self.chunks(job)), place.left)
            text = stored_result.ResultIndex(file, header).text(place)
        return self._moved(job, json_part(text, place.left, place.way))

    def brief(self, job: JobMetadata) -> tuple[bytes, bool]:
        """Return the values of a result for tables, as JSON, and whether that is all of it."""
        with self._opened(job) as (file, header):
            if not header.get("index"):
                return b"".join(self.chunks(job)), True
            values = stored_result.ResultIndex(file, header).brief
        return self._moved(job, json.dumps(values).encode()), False

    def _moved(self, job: JobMetadata, text: bytes) -> bytes:
        """Return a text with the present paths of a home that has moved."""
        move = self._move(job)
        return b"".join(move.texts([text])) if move else text

    def damage(self, job: JobMetadata) -> str | None:
        """Return why a result could not be read before; ``None`` if its file has changed since."""
        known = self._damaged.get(key := (job.job_id, job.attempt))
        if known is None:
            return None
        signature, why = known
        if signature != self._signature(job):
            self._damaged.pop(key, None)
            return None
        return why

    def verify(self, job: JobMetadata) -> str | None:
        """Read the stored result of a job, and return why it cannot be used, or ``None``.

        `OSError` is raised if it cannot be read at the moment.
        """
        with contextlib.suppress(FilesRemoved, BadFile), self._readable(job):
            self._directory_of(job.job_id).check_outcome(job.attempt)
        return self.damage(job)

    def _signature(self, job: JobMetadata) -> _Signature:
        try:
            now = Path(self._directory_of(job.job_id).file(f"{job.attempt}.outcome")).stat()
        except OSError:
            return None
        return now.st_ino, now.st_size, now.st_mtime_ns

    @contextlib.contextmanager
    def _readable(self, job: JobMetadata) -> Iterator[None]:
        """Translate the errors of reading a result, and remember them."""
        try:
            yield
        except FileNotFoundError as error:
            if reason := job.without_files():
                raise FilesRemoved(reason) from error
            raise FilesRemoved(
                self._noted(job, f"is gone: {error.filename} was removed")
            ) from error
        except IsADirectoryError as error:
            raise BadFile(self._noted(job, f"is gone: {error.filename} is a folder")) from error
        except BadFile as error:
            raise BadFile(self._noted(job, f"cannot be read: {error}")) from error

    def _noted(self, job: JobMetadata, why: str) -> str:
        """Remember why a result cannot be read; return that with the remedy."""
        if (known := self.damage(job)) is None:
            known = f"the result of job {job.job_id} {why}"
            self._damaged[job.job_id, job.attempt] = self._signature(job), known
        return recomputed(known, job.job_id)

    @contextlib.contextmanager
    def _opened(self, job: JobMetadata) -> Iterator[tuple[BinaryIO, dict[str, Any]]]:
        with self._readable(job):
            directory = self._directory_of(job.job_id)
            if not directory.decided(job.attempt):  # after a power cut, perhaps
                from crystalmath.jobs.host import Host

                Host(Path(directory.path).parent).publish_left()
            file, header = directory.open_outcome(job.attempt)
            with file:
                yield file, header

    def _move(self, job: JobMetadata) -> Move | None:
        written = (job.summary or {}).get("work_dir")
        return move_of(written, self._directory_of(job.job_id).path)


def recomputed(why: str, job_id: str) -> str:
    """Add the remedy to the reason why a result cannot be used."""
    return f"{why}; crystalmath retry {job_id[:8]} computes it again"


class Move(NamedTuple):
    """The run directory at the time when the job ran, and the present one."""

    old: str
    new: str

    def path(self, path: str) -> str:
        """Return the present path below the run directory; other paths do not change."""
        below = path.removeprefix(self.old)
        return self.new + below if below != path and below[:1] in {"", "/"} else path

    def texts(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the pieces of a JSON text, with the present run directory."""
        old, new = _in_json(self.old), _in_json(self.new)
        rest = b""
        for chunk in chunks:
            *whole, rest = (rest + chunk).split(old)
            # The old path may begin at the end of this piece.
            certain = max(0, len(rest) - len(old) + 1)
            yield b"".join(part + new for part in whole) + rest[:certain]
            rest = rest[certain:]
        yield rest


def move_of(path: str | None, directory: str) -> Move | None:
    """Return how a run directory moved, by an old `path` below it; ``None`` if it did not."""
    name = directory.rpartition("/")[2]
    before, separator, below = (path or "").rpartition(f"/{name}")
    if not separator or below[:1] not in {"", "/"}:
        return None
    old = before + separator
    return None if old == directory else Move(old, directory)


def _in_json(text: str) -> bytes:
    return json.dumps(text)[1:-1].encode()
