"""Import the jobs of an archive: all of them, or none.

Files are written aside first. Each run directory is moved to its place, and then its job is
recorded. If the process is killed in between, a directory without a job is left; the next import
overwrites it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from crystalmath._permissions import make_own
from crystalmath.archive.contents import check_outcome, read_members, read_record
from crystalmath.errors import CrystalMathError, InvalidJob
from crystalmath.jobs.changes import Change
from crystalmath.jobs.documents import to_disk
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.models import JobState
from crystalmath.processes import is_locked
from crystalmath.reading.flow_steps import link_steps

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

    from crystalmath.archive.contents import Ended
    from crystalmath.models import Job, NewJob
    from crystalmath.service.job_service import JobService

#: The prefix of folders, beside the run directories, for jobs that are being imported, and a file
#: in each that is locked during the import.
_ASIDE = ".import."
_HELD = ".held"
#: A file in a run directory that is not on record yet.
_MARK = ".import"
#: The lock, beside the run directories, for moving folders to their places.
_LOCK = ".archive.lock"
_LOCK_S = 60.0
#: The values of `removed` for jobs without a run directory.
_WITHOUT_FILES = {"all", "gone"}
#: The disk space that an import leaves free, in bytes.
_FREE = 512 * 2**20
_CHUNK = 2**20
#: After this number of files other work can run.
_STEPS = 50
#: The errors that reading a damaged archive, or another file, raises.
_DAMAGED = (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, ValueError)


@frozen
class Imported:
    """The ids of the imported jobs, and of those that existed already.

    The jobs in `without_key` were imported without their keys, which other jobs have here.
    """

    job_ids: tuple[str, ...]
    known: tuple[str, ...]
    without_key: tuple[str, ...]


def import_archive(service: JobService, path: Path) -> Generator[None, None, Imported]:
    """Import the jobs of an archive, with their records, results and files.

    Existing jobs stay as they are, and keep their keys. `InvalidJob`: the file is no such archive,
    or is damaged. `CrystalMathError`: the home cannot take the jobs at the moment. After an error,
    no job was imported.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, *_DAMAGED) as error:
        raise _unreadable(path, error) from error
    with archive:
        try:
            return (yield from _import(service, archive, path))
        except CrystalMathError:
            raise
        except _DAMAGED as error:
            raise _unreadable(path, error) from error
        except OSError as error:
            raise CrystalMathError(f"cannot take in the jobs of {path}: {error}") from error


def _unreadable(path: Path, error: Exception) -> InvalidJob:
    reason = getattr(error, "strerror", None) or error
    return InvalidJob(f"{path} cannot be read as an archive of jobs: {reason}")


def _import(
    service: JobService, archive: zipfile.ZipFile, path: Path
) -> Generator[None, None, Imported]:
    members = read_members(archive, path)
    records: dict[str, Ended] = {}
    for job_id in members:
        records[job_id] = read_record(archive, job_id, path, service.config.recipes_allow)
        yield
    records, without_key = _own_keys(service, records)
    jobs = service.config.jobs_directory
    make_own(jobs)
    with _folder_aside(jobs) as aside:
        fresh = [each for each in _fresh(service, records) if _has_files(records[each])]
        _check_room([info for job_id in fresh for info in members[job_id]], path, jobs)
        for job_id in fresh:
            job, row, trace = records[job_id]
            yield from _extract(archive, members[job_id], aside / job_id, path)
            directory = RunDirectory(aside / job_id)
            check_outcome(directory, job, path)
            complete_directory(directory, job, row, trace)
            if job.started_at is not None:  # no archive has an empty folder
                Path(directory.work(job.attempt)).mkdir(0o700, parents=True, exist_ok=True)
            for outcome in (aside / job_id).glob("*.outcome"):
                to_disk(outcome)  # the record of a completed job must not outlive it
            to_disk(aside / job_id)
        taken = _take_in(service, aside, records)
    known = sorted(set(records) - set(taken))
    return Imported(tuple(taken), tuple(known), tuple(sorted(without_key & set(taken))))


def _own_keys(
    service: JobService, records: Mapping[str, Ended]
) -> tuple[dict[str, Ended], set[str]]:
    """Remove keys that other jobs of this home have; return also the jobs that lost theirs."""
    known = service.by_key([row.key for _, row, _ in records.values() if row.key is not None])
    taken = {
        job_id
        for job_id, (_, row, _) in records.items()
        if row.key in known and known[row.key].job_id != job_id
    }
    kept = {
        job_id: (job, _without_key(row) if job_id in taken else row, trace)
        for job_id, (job, row, trace) in records.items()
    }
    return kept, taken


def _without_key(row: NewJob) -> NewJob:
    header, _, body = row.specification.partition("\n")
    terms = json.loads(header)
    terms.pop("key", None)
    if (flow := terms.get("flow")) is not None:  # it has the terms of the flow, apart from its pass
        flow["asked"].pop("key", None)
    return evolve(row, key=None, specification=f"{json.dumps(terms)}\n{body}")


def _has_files(ended: Ended) -> bool:
    job, *_ = ended
    return job.removed not in _WITHOUT_FILES


def _fresh(service: JobService, records: Mapping[str, Ended]) -> list[str]:
    """Name the jobs that are not on record; `InvalidJob`: one's run directory is there."""
    known = {job.job_id for job in service.some_jobs(list(records))}
    fresh = [job_id for job_id in records if job_id not in known]
    for job_id in fresh:
        place = service.config.jobs_directory / job_id
        if os.path.lexists(place) and not os.path.lexists(place / _MARK):
            raise InvalidJob(
                f"{place} is there, and its job is not on record; crystalmath doctor --rebuild "
                "records it, or move the folder away"
            )
    return fresh


def _take_in(service: JobService, aside: Path, records: Mapping[str, Ended]) -> list[str]:
    """Move run directories to their places, and put the jobs on record; name those."""
    jobs = service.config.jobs_directory
    moved: list[str] = []
    with _alone(jobs):
        fresh = _fresh(service, records)  # somebody may have been faster
        try:
            for job_id in fresh:
                if (jobs / job_id).exists():
                    (jobs / job_id).rename(aside / f"{_ASIDE}{job_id}")
                if _has_files(records[job_id]):
                    (aside / job_id).rename(jobs / job_id)
                    moved.append(job_id)
            to_disk(jobs)
            # Lists go by the order in which jobs were recorded.
            ended = sorted((records[each] for each in fresh), key=lambda one: one[0].created_at)
            service.record_ended([(_row(job, row), _end(job, trace)) for job, row, trace in ended])
        except BaseException:
            _take_back(service, aside, moved)
            raise
        for job_id in moved:
            with contextlib.suppress(OSError):  # it says nothing of what is on record
                (jobs / job_id / _MARK).unlink()
        for flow in (job for job in service.some_jobs(moved) if job.stage is not None):
            with contextlib.suppress(OSError):
                link_steps(service, flow)
    return fresh


def _take_back(service: JobService, aside: Path, moved: Sequence[str]) -> None:
    """Take run directories from their places again, but for those of jobs that are on record."""
    with contextlib.suppress(CrystalMathError, OSError):  # then the next import does
        kept = {job.job_id for job in service.some_jobs(moved)}
        for job_id in moved:
            if job_id not in kept:
                (service.config.jobs_directory / job_id).rename(aside / job_id)


@contextlib.contextmanager
def _folder_aside(jobs: Path) -> Iterator[Path]:
    """Make a folder for what is not taken in yet, and remove it, with what others have left."""
    folder = jobs / f"{_ASIDE}{secrets.token_hex(6)}"
    held = None
    try:
        with _alone(jobs):
            left = [each for each in jobs.glob(f"{_ASIDE}*") if is_locked(each / _HELD) is False]
            folder.mkdir(mode=0o700)
            held = os.open(folder / _HELD, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with contextlib.suppress(OSError):  # a file system without locks: nobody can know
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for each in left:
            shutil.rmtree(each, ignore_errors=True)
        yield folder
    finally:
        if held is not None:
            os.close(held)  # first: a network file system keeps what is open in its folder
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _alone(jobs: Path) -> Iterator[None]:
    """Keep other imports out."""
    from filelock import FileLock, Timeout

    lock = FileLock(jobs / _LOCK, timeout=_LOCK_S, mode=0o600)
    try:
        lock.acquire()
    except Timeout as error:
        raise CrystalMathError(
            f"another process has held {jobs / _LOCK} for {_LOCK_S:.0f} s; see whether another "
            "crystalmath hangs"
        ) from error
    try:
        yield
    finally:
        lock.release()


# --- the files -------------------------------------------------------------------------------


def _check_room(infos: Sequence[zipfile.ZipInfo], path: Path, directory: Path) -> None:
    wanted = sum(info.file_size for info in infos)
    free = shutil.disk_usage(directory).free - _FREE
    if wanted > free:
        raise InvalidJob(
            f"the files in {path} take {wanted} bytes, and {directory} has room for {max(free, 0)}"
        )


def _extract(
    archive: zipfile.ZipFile, infos: Sequence[zipfile.ZipInfo], target: Path, path: Path
) -> Generator[None, None, None]:
    target.mkdir(mode=0o700)
    (target / _MARK).touch(mode=0o600)
    for number, info in enumerate(infos[1:]):
        place = target.joinpath(*info.filename.split("/")[2:])
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with archive.open(info) as source, place.open("xb") as file:
            while chunk := source.read(_CHUNK):
                file.write(chunk)
                if shutil.disk_usage(target).free < _FREE:
                    raise InvalidJob(f"the disk of {target} is nearly full; {path} has no room")
        at = _time_of(info)
        os.utime(place, (at, at))
        if number % _STEPS == 0:
            yield


def _time_of(info: zipfile.ZipInfo) -> float:
    from datetime import datetime

    try:
        return datetime(*info.date_time, tzinfo=None).astimezone().timestamp()  # local times
    except (ValueError, OverflowError, OSError):
        return 0.0


# --- the record ------------------------------------------------------------------------------


def _row(job: Job, row: NewJob) -> NewJob:
    # "gone" is the state of the disk, and never on record.
    if job.removed not in {"heavy", "all"} or job.removed_at is None:
        return row
    return evolve(row, removed=job.removed, removed_at=job.removed_at)


def _end(job: Job, trace: str | None) -> Change:
    return Change(
        job_id=job.job_id,
        state=job.state,
        at=_ended_at(job),
        reason=job.reason,
        attempt=job.attempt,
        error=job.error,
        traceback=trace,
        summary=job.summary,
        started_at=job.started_at,
    )


def _ended_at(job: Job) -> float:
    return job.created_at if job.finished_at is None else job.finished_at


def complete_directory(directory: RunDirectory, job: Job, row: NewJob, trace: str | None) -> None:
    """Write the outcome of an imported job that has not completed, as its record tells it.

    Rows are made again from run directories, and a job without an outcome is one to be run.
    """
    if job.state is not JobState.COMPLETED:
        end = {
            "state": job.state.value,
            "error": job.error,
            "traceback": trace,
            "started": job.started_at,
            "finished": _ended_at(job),
            "summary": None,
        }
        directory.replace_outcome(job.attempt, end)
    header, _, body = row.specification.partition("\n")
    more = {"attempt": job.attempt, "owner": {}, "created_at": job.created_at}
    spec = {**json.loads(header), **more}
    directory.write_spec(spec, body)
