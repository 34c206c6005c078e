"""Jobs that travel: an archive of their records, results and files, which another home takes in.

A zip file: ``archive.json`` names the format and the jobs, and each job has ``ID/record.json`` and
``ID/files/...``, its run directory. POTCARs never travel, and no environment does: it may hold
secrets, and says nothing on another machine.

What comes from elsewhere is not trusted. Names, kinds and sizes are judged before anything is
written, records are held against what is declared, and a result may only name what recipes return.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import stat
import zipfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from crystalmath.errors import CrystalMathError, InvalidJob, shown
from crystalmath.jobs.potcars import is_potcar
from crystalmath.jobs.rundir import RunDirectory, is_job_id
from crystalmath.jobs.worktree import files_below
from crystalmath.models import Job, JobState, NewJob
from crystalmath.models.checks import checked
from crystalmath.models.fields import properties
from crystalmath.recipes import codec
from crystalmath.service.ended_elsewhere import complete_directory
from crystalmath.service.rebuild import row_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from crystalmath.quacc.store import JobMetadata
    from crystalmath.service.job_service import JobService

__all__ = ["Imported", "import_archive", "write_archive"]

_FORMAT = 1
_HEAD = "archive.json"
_RECORD = "record.json"
_FILES = "files"
#: What of a run directory belongs to a home, and not to the job.
_OWN = ("spec", "cancel")
_OWN_ENDS = (".claim", ".handle", ".asked_to_stop")
#: Of a record, in bytes: a structure and parameters have at most 64 MiB.
_LARGEST_RECORD = 80 * 2**20
#: Of a result that is looked through.
_LARGEST_RESULT = 512 * 2**20
_MOST_FILES = 2_000_000
#: What is said of jobs whose run directory is not there.
_WITHOUT_FILES = {"all", "gone"}
#: What stays free of the disk, in bytes.
_FREE = 512 * 2**20
_CHUNK = 2**20
#: After so many files others may come between.
_STEPS = 50
#: Whose objects results hold.
_TRUSTED = {"numpy", "pymatgen", "ase", "quacc", "emmet", "pathlib", "datetime", "builtins"}


@frozen
class Imported:
    """The ids of the jobs that were taken in, and of those that were there already."""

    job_ids: tuple[str, ...]
    known: tuple[str, ...]


# --- out -------------------------------------------------------------------------------------


def write_archive(
    service: JobService, path: Path, job_ids: Sequence[str]
) -> Generator[None, None, int]:
    """Write jobs that have ended into a new file; gives the number of their files.

    Raises
    ------
    InvalidJob
        The file is there already, or a job has not ended. Nothing was written.
    """
    jobs = service.some_jobs(job_ids)
    missing = set(job_ids) - {job.job_id for job in jobs}
    if missing:
        raise InvalidJob(f"there is no job {min(missing)} to be archived")
    for job in jobs:
        if not job.state.is_terminal():
            raise InvalidJob(
                f"job {job.job_id} is {job.state.value}; only jobs that have ended are archived"
            )
    if path.exists():
        raise InvalidJob(f"{path} is there already, and is not overwritten; name another file")
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    count = 0
    try:
        with zipfile.ZipFile(part, "x", zipfile.ZIP_DEFLATED, compresslevel=3) as archive:
            head = {"format": _FORMAT, "jobs": [job.job_id for job in jobs]}
            archive.writestr(_HEAD, json.dumps(head))
            for job in jobs:
                archive.writestr(f"{job.job_id}/{_RECORD}", json.dumps(_record(service, job)))
                directory = service.config.jobs_directory / job.job_id
                for name in _travelling(directory):
                    # A file that is removed meanwhile is none of the job's any more.
                    with contextlib.suppress(FileNotFoundError):
                        archive.write(directory / name, f"{job.job_id}/{_FILES}/{name}")
                        count += 1
                    yield
        os.link(part, path)  # never over a file that was made meanwhile
    except FileExistsError as error:
        raise InvalidJob(f"{path} is there already, and is not overwritten") from error
    except OSError as error:
        raise CrystalMathError(f"cannot write {path}: {error}") from error
    finally:
        part.unlink(missing_ok=True)
    return count


def _record(service: JobService, job: JobMetadata) -> dict[str, Any]:
    header, _, document = service.specification(job.job_id).partition("\n")
    told = {**json.loads(header), "environment": {}, "replaced": {}}
    return {
        "job": job.document(),
        "traceback": job.traceback,
        "specification": f"{json.dumps(told)}\n{document}",
        "potcars": service.pseudopotentials(job.job_id),
    }


def _travelling(directory: Path) -> Iterator[str]:
    for file in files_below(str(directory)):
        own = file.path in _OWN or file.path.startswith(".") or file.path.endswith(_OWN_ENDS)
        if own or file.is_link or is_potcar(file.path) or not _is_name(file.path):
            continue
        yield file.path


def _is_name(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:  # no text; an archive cannot name it
        return False
    return "\\" not in path


# --- in --------------------------------------------------------------------------------------


def import_archive(service: JobService, path: Path) -> Generator[None, None, Imported]:
    """Take in the jobs of an archive, with their records, results and files.

    Those that are there already stay as they are. Keys stay behind.

    Raises
    ------
    InvalidJob
        It is no such archive, or something in it is not as it should be. No job was taken in.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(archive, path)
            jobs = service.config.jobs_directory
            jobs.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_room(members, path, jobs)
            records = {}
            for job_id in members:
                records[job_id] = _read_record(archive, job_id, path)
                yield
            known = {job.job_id for job in service.some_jobs(list(records))}
            known |= {job_id for job_id in records if (jobs / job_id).exists()}
            fresh = {job_id: each for job_id, each in records.items() if job_id not in known}
            aside = jobs / f".import.{secrets.token_hex(6)}"
            aside.mkdir(mode=0o700)
            try:
                for job_id, (job, row, trace) in fresh.items():
                    if job.removed not in _WITHOUT_FILES:
                        yield from _extract(archive, members[job_id], aside / job_id, path)
                        _check_result(RunDirectory(aside / job_id), job, path)
                        complete_directory(RunDirectory(aside / job_id), job, row, trace)
                for directory in list(aside.iterdir()):
                    directory.rename(jobs / directory.name)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise InvalidJob(f"{path} cannot be read as an archive of jobs: {error}") from error
    service.record_ended(list(fresh.values()))
    return Imported(tuple(fresh), tuple(sorted(known)))


def _members(archive: zipfile.ZipFile, path: Path) -> dict[str, list[zipfile.ZipInfo]]:
    """Give what there is of each job, once names, kinds and sizes are found to be sound."""
    listed = archive.infolist()
    if len(listed) > _MOST_FILES:
        raise InvalidJob(f"{path} has {len(listed)} files; the limit is {_MOST_FILES}")
    names = [info.filename for info in listed]
    if len(set(names)) != len(names):
        raise InvalidJob(f"{path} has a file twice; it was not made by crystalmath export")
    if not names or names[0] != _HEAD or listed[0].file_size > _LARGEST_RECORD:
        raise InvalidJob(f"{path} is no archive of jobs: it does not begin with {_HEAD}")
    head = _loaded(archive.read(_HEAD), f"{_HEAD} of {path}")
    if head.get("format") != _FORMAT:
        raise InvalidJob(
            f"{path} has the format {shown(head.get('format'))}, and this release reads {_FORMAT}; "
            "import it with the release that has written it, or a later one"
        )
    found: dict[str, list[zipfile.ZipInfo]] = {}
    for info in listed[1:]:
        found.setdefault(_job_of(info, path), []).append(info)
    for job_id, infos in found.items():
        if infos[0].filename != f"{job_id}/{_RECORD}":
            raise InvalidJob(f"{path} has no record of job {job_id}")
    return found


def _job_of(info: zipfile.ZipInfo, path: Path) -> str:
    """Give the job that a member belongs to; `InvalidJob` for what can be none of ours."""
    name = info.filename
    parts = name.split("/")
    kind = stat.S_IFMT(info.external_attr >> 16)
    sound = (
        is_job_id(parts[0])
        and (parts[1:] == [_RECORD] or (parts[1:2] == [_FILES] and len(parts) > 2))  # noqa: PLR2004
        and not any(part in {"", ".", ".."} for part in parts)
        and not any(character in name for character in "\\\0")
        and PurePosixPath(name).parts == tuple(parts)
    )
    if not sound:
        raise InvalidJob(f"{path} has a file {name!r:.200}, which can be none of a job's")
    if kind not in {0, stat.S_IFREG}:
        raise InvalidJob(f"{name!r:.200} in {path} is a link or no regular file, and is not taken")
    if info.flag_bits & 1:
        raise InvalidJob(f"{name!r:.200} in {path} is encrypted")
    inside = "/".join(parts[2:])
    if is_potcar(name) or inside in _OWN or inside.endswith(_OWN_ENDS) or inside.startswith("."):
        raise InvalidJob(f"{name!r:.200} in {path} never travels with a job")
    if parts[1] == _RECORD and info.file_size > _LARGEST_RECORD:
        raise InvalidJob(f"{name} in {path} has {info.file_size} bytes, too many for a record")
    return parts[0]


def _check_room(members: dict[str, list[zipfile.ZipInfo]], path: Path, directory: Path) -> None:
    wanted = sum(info.file_size for infos in members.values() for info in infos)
    free = shutil.disk_usage(directory).free - _FREE
    if wanted > free:
        raise InvalidJob(
            f"the files in {path} take {wanted} bytes, and {directory} has room for {max(free, 0)}"
        )


def _loaded(data: bytes, place: str) -> dict[str, Any]:
    try:
        told = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidJob(f"{place} is damaged: {error}") from error
    if not isinstance(told, dict):
        raise InvalidJob(f"{place} is damaged: it is no object")
    return told


def _read_record(
    archive: zipfile.ZipFile, job_id: str, path: Path
) -> tuple[Job, NewJob, str | None]:
    """Read the record of a job: what it is on record, its new row, its traceback."""
    place = f"{job_id}/{_RECORD} of {path}"
    told = _loaded(archive.read(f"{job_id}/{_RECORD}"), place)
    try:
        job = Job.read(checked(told["job"], {"properties": properties(Job)}))
        specification, trace = told["specification"], told["traceback"]
        if not isinstance(specification, str) or not isinstance(trace, str | None):
            raise InvalidJob("the specification and the traceback must be texts")
        header, _, body = specification.partition("\n")
        given = {**_loaded(header.encode(), place), "environment": {}, "replaced": {}}
        codec.decode_request(json.loads(body)["parameters"])
        row = row_of(given, body, job.created_at)
    except (CrystalMathError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise InvalidJob(f"{place} is damaged: {error}") from error
    if row.job_id != job_id or job.job_id != job_id or not job.state.is_terminal():
        raise InvalidJob(f"{place} is not that of job {job_id}, or the job has not ended")
    potcars = [each for each in told.get("potcars") or () if isinstance(each, dict)]
    row = evolve(
        row, key=None, formula=job.formula, warnings=job.warnings, pseudopotentials=potcars
    )
    return job, row, trace


def _extract(
    archive: zipfile.ZipFile, infos: Sequence[zipfile.ZipInfo], target: Path, path: Path
) -> Generator[None, None, None]:
    target.mkdir(mode=0o700)
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
        return datetime(*info.date_time).timestamp()  # noqa: DTZ001 - zip has local times
    except (ValueError, OverflowError, OSError):
        return 0.0


def _check_result(directory: RunDirectory, job: Job, path: Path) -> None:
    """Refuse a result that would have somebody's module imported when it is read."""
    if job.state is not JobState.COMPLETED or not directory.decided(job.attempt):
        return
    place = f"the result of job {job.job_id} in {path}"
    try:
        directory.outcome(job.attempt)
        with directory.open_payload(job.attempt) as file:
            text = bytearray()
            for chunk in codec.result_chunks(file):
                text += chunk
                if len(text) > _LARGEST_RESULT:
                    raise InvalidJob("it is too large to be looked through")
        value = json.loads(text)
    except (CrystalMathError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise InvalidJob(f"{place} is damaged: {error}") from error
    _check_named(value, place)


def _check_named(value: Any, place: str) -> None:
    """Refuse what names anything that no recipe of quacc returns."""
    left: list[Any] = [value]
    while left:
        node = left.pop()
        if isinstance(node, list):
            left += node
        if not isinstance(node, dict):
            continue
        named = [str(node.get(tag, "builtins")) for tag in ("@module", "@bound")]
        strange = [each for each in named if each.partition(".")[0] not in _TRUSTED]
        if strange or "@callable" in node or "@object_reference" in node:
            told = shown((strange or ["a function"])[0])
            raise InvalidJob(f"{place} names {told}, which no recipe of quacc returns")
        left += node.values()
