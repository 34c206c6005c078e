"""The results of completed jobs, as their files have them; and paths of homes that have moved."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from crystalmath.errors import FilesRemoved
from crystalmath.jobs.worktree import at_once
from crystalmath.recipes import stored_result
from crystalmath.recipes.json_text import json_part

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from crystalmath.jobs.rundir import RunDirectory
    from crystalmath.store.records import JobMetadata


class StoredResults:
    """Read results from the run directories of a home, undecoded."""

    def __init__(self, directory_of: Callable[[str], RunDirectory]) -> None:
        self._directory_of = directory_of

    def measured(self, job: JobMetadata) -> Generator[None, None, int]:
        """Count the bytes of a completed job's stored JSON; while it is unpacked, yield."""
        with self._opened(job) as (_, header):
            if self._move(job) is None and header.get("text") is not None:
                return int(header["text"])
        size = 0
        for chunk in self.chunks(job):
            size += len(chunk)
            yield
        return size

    def small(self, job: JobMetadata, most: int) -> bytes | None:
        """Read the stored JSON of a completed job's result if it has few bytes; else ``None``."""
        with self._opened(job) as (file, header):
            size = header.get("text")
            if size is None or int(size) > most or self._move(job) is not None:
                return None
            return b"".join(stored_result.result_chunks(file, stored_result.block_size(header)))

    def chunks(self, job: JobMetadata) -> Iterator[bytes]:
        """Yield a result's stored JSON undecoded, in pieces, with paths of the home as it is."""
        with self._opened(job) as (file, header):
            move = self._move(job)
            chunks = stored_result.result_chunks(file, stored_result.block_size(header))
            yield from move.texts(chunks) if move else chunks

    def locate(self, job: JobMetadata, field: str) -> stored_result.Located:
        """Find in which stretch of a completed job's result a field stands."""
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
        """Read what a table has of a completed job's result, as JSON, and whether that is all."""
        with self._opened(job) as (file, header):
            if not header.get("index"):
                return b"".join(self.chunks(job)), True
            found = stored_result.ResultIndex(file, header).brief
        return self._moved(job, json.dumps(found).encode()), False

    def _moved(self, job: JobMetadata, text: bytes) -> bytes:
        """Write paths anew where the home has moved."""
        move = self._move(job)
        return b"".join(move.texts([text])) if move else text

    @contextlib.contextmanager
    def _opened(self, job: JobMetadata) -> Iterator[tuple[BinaryIO, dict[str, Any]]]:
        with _readable(job):
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


@contextlib.contextmanager
def _readable(job: JobMetadata) -> Iterator[None]:
    """Say in plain words that the files of a finished job are gone."""
    try:
        yield
    except FileNotFoundError as error:
        said = job.without_files()
        raise FilesRemoved(
            said or f"the result of job {job.job_id} is gone: {error.filename} was removed"
        ) from error


class Move(NamedTuple):
    """Where a run directory was when its job ran, and where it is."""

    old: str
    new: str

    def path(self, path: str) -> str:
        """Return a path below the run directory as it is now; any other stays as it is."""
        below = path.removeprefix(self.old)
        return self.new + below if below != path and below[:1] in {"", "/"} else path

    def texts(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield a JSON text, which comes in pieces, with the new place of the run directory."""
        old, new = _in_json(self.old), _in_json(self.new)
        rest = b""
        for chunk in chunks:
            *whole, rest = (rest + chunk).split(old)
            # The old place may begin at the end of this piece.
            certain = max(0, len(rest) - len(old) + 1)
            yield b"".join(part + new for part in whole) + rest[:certain]
            rest = rest[certain:]
        yield rest


def move_of(path: str | None, directory: str) -> Move | None:
    """Return from where a run directory was moved, by a `path` below it; ``None`` if it was not."""
    name = directory.rpartition("/")[2]
    before, found, below = (path or "").rpartition(f"/{name}")
    if not found or below[:1] not in {"", "/"}:
        return None
    old = before + found
    return None if old == directory else Move(old, directory)


def _in_json(text: str) -> bytes:
    return json.dumps(text)[1:-1].encode()
