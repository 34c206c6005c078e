"""Jobs that travel: an archive of their records, results and files, which another home takes in.

A zip file: ``archive.json`` names the format and the jobs, and each job has ``ID/record.json`` and
``ID/files/...``, its run directory. POTCARs never travel, and no environment does: it may hold
secrets, and says nothing on another machine. :mod:`.archive_import` takes it in.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import stat
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

from crystalmath.errors import BadFile, CrystalMathError, InvalidJob
from crystalmath.jobs.potcars import is_potcar
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.jobs.worktree import as_text, files_below
from crystalmath.models import JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from crystalmath.quacc.store import JobMetadata
    from crystalmath.service.job_service import JobService

FORMAT = 1
HEAD = "archive.json"
RECORD = "record.json"
FILES = "files"
#: Files of a run directory that belong to the home, not to the job.
OWN = ("spec", "cancel")
OWN_ENDS = (".claim", ".handle", ".parcel", ".asked_to_stop", ".ended")
_OUTCOME = re.compile(r"\d+\.outcome", re.ASCII)
#: The most files that are listed as left out, with the reasons.
_MOST_LEFT_OUT = 100
#: Files of at least this size, in bytes, are not packed if that made them this many times smaller.
_LARGE = 64 * 2**20
_HOLLOW = 50


@frozen
class Archived:
    """The number of files in an archive, and the files that were left out, with the reasons."""

    files: int
    left_out: tuple[str, ...]


def write_archive(
    service: JobService, path: Path, job_ids: Sequence[str]
) -> Generator[None, None, Archived]:
    """Write jobs that have ended into a new file.

    `InvalidJob`: the file exists, or a job has not ended; nothing was written.
    """
    jobs = _ended(service, job_ids)
    if path.exists():
        raise InvalidJob(f"{path} is there already, and is not overwritten; name another file")
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    count, left_out = 0, []
    try:
        # A zip has no times before 1980.
        with zipfile.ZipFile(
            part, "x", zipfile.ZIP_DEFLATED, compresslevel=3, strict_timestamps=False
        ) as archive:
            head = {"format": FORMAT, "jobs": [job.job_id for job in jobs]}
            archive.writestr(HEAD, json.dumps(head))
            for job in jobs:
                record = _record(service, job)
                with service.files(job.job_id, copied=True) as run:
                    directory = Path(run.path)
                    lost = _lost_result(job, directory)
                    record["job"] |= {"removed": "gone"} if lost else {}
                    archive.writestr(f"{job.job_id}/{RECORD}", json.dumps(record))
                    files = lost or _written(archive, job.job_id, directory)
                    for name, why in files:
                        count += why is None
                        if why is not None:
                            left_out.append(f"{job.job_id}/{name}: {why}")
                        yield
                    has_begun = job.started_at is not None
                    if has_begun and job.removed is None and not directory.exists():
                        left_out.append(f"{job.job_id}: its run directory was removed meanwhile")
        _put_in_place(part, path)
    except FileExistsError as error:
        raise InvalidJob(f"{path} is there already, and is not overwritten") from error
    except OSError as error:
        raise CrystalMathError(f"cannot write {path}: {error}") from error
    finally:
        part.unlink(missing_ok=True)
    if len(left_out) > _MOST_LEFT_OUT:
        left_out[_MOST_LEFT_OUT:] = [f"and {len(left_out) - _MOST_LEFT_OUT} more"]
    return Archived(count, tuple(left_out))


def _lost_result(job: JobMetadata, directory: Path) -> list[tuple[str, str | None]]:
    """Return the name of a completed job's outcome, and why it is lost; nothing if it is not."""
    known = job.state is JobState.COMPLETED and job.removed in {None, "heavy"}
    if not (known and directory.exists()):
        return []
    name, files = f"{job.attempt}.outcome", RunDirectory(directory)
    try:
        if files.outcome(job.attempt) is None:
            return [(name, "it is gone; the record alone travels")]
        files.check_outcome(job.attempt)
    except BadFile as error:  # no home would take it in, nor the jobs beside it
        return [(name, f"{error}; the record alone travels")]
    return []


def _ended(service: JobService, job_ids: Sequence[str]) -> list[JobMetadata]:
    """Return the jobs with some ids; `InvalidJob` unless all have ended."""
    jobs = service.some_jobs(job_ids)
    missing = set(job_ids) - {job.job_id for job in jobs}
    if missing:
        raise InvalidJob(f"there is no job {min(missing)} to be archived")
    for job in jobs:
        if not job.state.is_terminal():
            raise InvalidJob(
                f"job {job.job_id} is {job.state.value}; only jobs that have ended are archived"
            )
    return jobs


def _record(service: JobService, job: JobMetadata) -> dict[str, Any]:
    head, _, document = service.specification(job.job_id).partition("\n")
    header = json.loads(head)
    # The last pass of a flow has its own terms, which a submission may not have.
    header |= (header.get("flow") or {}).get("asked", {})
    header |= {"environment": {}, "replaced": {}, "settings": {}}
    return {
        "job": job.document(),
        # A remembered job has no traceback.
        "traceback": None if job.state is JobState.COMPLETED else service.job(job.job_id).traceback,
        "specification": f"{json.dumps(header)}\n{document}",
        "potcars": service.pseudopotentials(job.job_id),
    }


def _written(
    archive: zipfile.ZipFile, job_id: str, directory: Path
) -> Iterator[tuple[str, str | None]]:
    """Write a job's files; yield each file and unreadable folder, with why it is left out."""
    unread: list[tuple[str, str | None]] = []

    def note(folder: str, error: OSError) -> None:
        unread.append((as_text(folder), error.strerror))

    for name in _travelling(directory, note):
        try:
            if (why := _why_not(directory, name)) is None and _OUTCOME.fullmatch(name):
                own = RunDirectory(directory).journaled(int(name.partition(".")[0]))
            else:
                own = None
            if own is not None:
                archive.writestr(f"{job_id}/{FILES}/{name}", own)
            elif why is None:
                kind = zipfile.ZIP_STORED if _is_hollow(directory / name) else None
                archive.write(directory / name, f"{job_id}/{FILES}/{name}", kind)
        except FileNotFoundError:
            why = "it was removed meanwhile"
        except BadFile as error:
            why = str(error)
        yield as_text(name), why
    yield from unread


def _is_hollow(file: Path) -> bool:
    """Return whether a large file is nearly all zeros; packed, it would look like a zip bomb."""
    size = file.stat().st_size
    if size < _LARGE:
        return False
    with file.open("rb") as opened:
        opened.seek(size // 2)
        return len(zlib.compress(opened.read(_LARGE // 64), 1)) < _LARGE // 64 // _HOLLOW


def _travelling(directory: Path, on_error: Callable[[str, OSError], None]) -> Iterator[str]:
    for file in files_below(str(directory), on_error):
        own = file.path in OWN or file.path.startswith(".") or file.path.endswith(OWN_ENDS)
        if not (own or file.is_link or is_potcar(file.path)):
            yield file.path


def _why_not(directory: Path, name: str) -> str | None:
    """Return why a file cannot travel; ``None`` where it can."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return "its name is no UTF-8"
    if "\\" in name:
        return "its name has a backslash"
    file = directory / name
    if not stat.S_ISREG(file.lstat().st_mode):
        return "it is no regular file"
    try:
        # Opening must not block if the file has become a pipe.
        os.close(os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
    except PermissionError:
        return "it must not be read"
    return None


def _put_in_place(part: Path, path: Path) -> None:
    """Rename a file that is whole; `FileExistsError` if somebody was first."""
    try:
        os.link(part, path)
    except FileExistsError:
        # A network may have lost the answer to a link that was made.
        if not part.samefile(path):
            raise
    except OSError:
        # Some file systems, such as those of USB disks, have no hard links. The process that
        # creates the name may overwrite it.
        path.touch(exist_ok=False)
        try:
            part.replace(path)
        except OSError:
            path.unlink()
            raise
