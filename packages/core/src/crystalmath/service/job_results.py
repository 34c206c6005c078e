"""Give what was asked of a job, as it is stored, and what came of it."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from crystalmath.errors import FilesRemoved
from crystalmath.jobs.moved import move_of
from crystalmath.models import JobState
from crystalmath.recipes import stored_result
from crystalmath.recipes.json_text import json_part
from crystalmath.service.current_jobs import CurrentJobs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crystalmath.jobs.moved import Move
    from crystalmath.models.answers import Potcar
    from crystalmath.store.records import JobMetadata


class JobResults(CurrentJobs):
    """Specifications, results and where the files of a job are."""

    def specification(self, job_id: str) -> str:
        """Return the text that was recorded of a job; see :mod:`crystalmath.recipes.codec`."""
        return self._existing(job_id).specification(job_id)

    def specification_size(self, job_id: str) -> int:
        """Return how many bytes at most the text has that was recorded of what was asked for."""
        return self._existing(job_id).specification_size(job_id)

    def pseudopotentials(self, job_id: str) -> list[Potcar]:
        """Name the pseudopotential files that the job was found to read when it was submitted."""
        return cast("list[Potcar]", self._existing(job_id).pseudopotentials(job_id))

    def result(self, job_id: str) -> dict[str, Any] | None:
        """Return what the recipe returned, as `JobRunner.get_result` does."""
        from crystalmath.recipes import codec

        job = self.job(job_id)
        if not job.state.is_terminal():
            return None
        if job.state is JobState.COMPLETED:
            value = codec.decode_result_json(b"".join(self.result_chunks(job)))
            return value if isinstance(value, dict) else {"value": value}
        more = {"traceback": job.traceback} if job.traceback else {}
        return {"error": job.error, **more}

    def result_json(self, job_id: str) -> bytes | None:
        """Return the stored JSON of a result, undecoded; ``None`` unless the job completed."""
        job = self.job(job_id)
        if job.state is not JobState.COMPLETED:
            return None
        return b"".join(self.result_chunks(job))

    def result_size(self, job: JobMetadata) -> int:
        """Return how many bytes the stored JSON of a completed job's result has."""
        with self._opened(job) as (file, header):
            move, size = self._move(job), header.get("text")
            chunks = stored_result.result_chunks(file, stored_result.block_size(header))
            if size is None or move is None:
                return sum(map(len, chunks)) if size is None else int(size)
            return int(size) + move.growth(chunks)

    def result_chunks(self, job: JobMetadata) -> Iterator[bytes]:
        """Yield the stored JSON of a completed job's result piece by piece, undecoded.

        Where its home has moved since, paths in it lead to where its files are now.
        """
        with self._opened(job) as (file, header):
            move = self._move(job)
            chunks = stored_result.result_chunks(file, stored_result.block_size(header))
            yield from move.texts(chunks) if move else chunks

    def locate(self, job: JobMetadata, field: str) -> stored_result.Located:
        """Find in which stretch of a completed job's result a field stands."""
        with self._opened(job) as (file, header):
            if header.get("index"):
                return stored_result.ResultIndex(file, header).locate(field)
        return stored_result.Located(0, self.result_size(job), field)

    def result_part(self, job: JobMetadata, place: stored_result.Located) -> bytes:
        """Read the JSON of a field that was located; the rest of a large result is not unpacked.

        Raises
        ------
        InvalidJob
            There is no such field.
        """
        with self._opened(job) as (file, header):
            if not header.get("index"):
                return json_part(b"".join(self.result_chunks(job)), place.left)
            text = stored_result.ResultIndex(file, header).text(place)
        return self._moved(job, json_part(text, place.left, place.way))

    def brief_result(self, job: JobMetadata) -> bytes:
        """Read what a table has of a completed job's result, as JSON; a small one is whole."""
        with self._opened(job) as (file, header):
            if not header.get("index"):
                return b"".join(self.result_chunks(job))
            found = stored_result.ResultIndex(file, header).brief
        return self._moved(job, json.dumps(found).encode())

    def _moved(self, job: JobMetadata, text: bytes) -> bytes:
        """Write paths anew where the home has moved."""
        move = self._move(job)
        return b"".join(move.texts([text])) if move else text

    @contextlib.contextmanager
    def _opened(self, job: JobMetadata) -> Iterator[tuple[BinaryIO, dict[str, Any]]]:
        with _readable(job):
            file, header = self._directory(job.job_id).open_outcome(job.attempt)
            with file:
                yield file, header

    def _move(self, job: JobMetadata) -> Move | None:
        written = (job.summary or {}).get("work_dir")
        return move_of(written, self._directory(job.job_id).path)

    def work_directory(self, job_id: str) -> Path:
        """Return the working directory of a job's present attempt; it may not exist yet."""
        return Path(self._directory(job_id).work(self.job(job_id).attempt))


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
