"""Judges what stands in an archive of jobs, which comes from elsewhere and is not trusted.

Names, kinds and sizes are judged before anything is written, and records are held against what is
declared and what a submission may say.
"""

from __future__ import annotations

import json
import math
import stat
import zipfile
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, cast

from attrs import evolve

from crystalmath.archive.writing import FILES, FORMAT, HEAD, OWN, OWN_ENDS, RECORD
from crystalmath.engines.registry import is_engine_name
from crystalmath.errors import CrystalMathError, InvalidJob, shown
from crystalmath.jobs.potcars import is_potcar
from crystalmath.jobs.rundir import is_job_id
from crystalmath.models import Job, JobSpec, JobState, NewJob, Terms
from crystalmath.models.checks import check_fields, checked
from crystalmath.models.fields import declared, properties
from crystalmath.models.job_notes import FindingDocument, Parent
from crystalmath.recipes import codec
from crystalmath.recipes.lookup import check_name
from crystalmath.recipes.stored_result import block_size, result_chunks
from crystalmath.running.rebuild import row_of
from crystalmath.wire.answers import Potcar, Summary
from crystalmath.wire.schemas import fields_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from crystalmath.jobs.rundir import RunDirectory

    #: A job as it is on record, its new row, and its traceback.
    Ended: TypeAlias = tuple[Job, NewJob, str | None]

#: The most bytes of a record; a structure and parameters have at most 64 MiB.
_LARGEST_RECORD = 80 * 2**20
#: The most bytes of an unpacked result.
_LARGEST_RESULT = 512 * 2**20
_MOST_FILES = 2_000_000
#: The most bytes of all records, which are in memory until the last has been read.
_LARGEST_RECORDS = 2**30
#: Larger files, in bytes, may unpack to at most `_RATIO` times their size; numbers to three times.
_LARGE = 64 * 2**20
_LARGE_RECORD = 4 * 2**20
_RATIO = 200
#: The methods of compression that our archives use.
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}

_LARGEST_INTEGER = 2**53
#: Until the end of the year 9999.
_TIME = {"type": "number", "minimum": 0, "maximum": 253_402_300_000}
#: Schemas for fields that the declaration of a job leaves open.
_JOB = {
    "attempt": {"type": "integer", "minimum": 1, "maximum": 1000},
    **dict.fromkeys(("created_at", "started_at", "finished_at", "removed_at"), _TIME),
}
#: Fields of a header that are never imported, with their values instead.
_NOT_TAKEN: Mapping[str, Any] = {
    "owner": None,
    **{name: {} for name in ("environment", "replaced", "settings")},
}
_SPEC = {one.name: one.schema for one in declared(JobSpec)}
_TERMS = {one.name for one in declared(Terms)}


# --- members ---------------------------------------------------------------------------------


def read_members(archive: zipfile.ZipFile, path: Path) -> dict[str, list[zipfile.ZipInfo]]:
    """Return the checked members of each job, its record first.

    `InvalidJob`: a name, a kind or a size is wrong, or the jobs are not those of the head.
    """
    listed = archive.infolist()
    if len(listed) > _MOST_FILES:
        raise InvalidJob(f"{path} has {len(listed)} files; the limit is {_MOST_FILES}")
    names = [info.filename for info in listed]
    if len(set(names)) != len(names):
        raise InvalidJob(f"{path} has a file twice; it was not made by crystalmath export")
    if not names or names[0] != HEAD or listed[0].file_size > _LARGEST_RECORD:
        raise InvalidJob(f"{path} is no archive of jobs: it does not begin with {HEAD}")
    head = _loaded(archive.read(HEAD), f"{HEAD} of {path}")
    if head.get("format") != FORMAT or isinstance(head["format"], bool):
        raise InvalidJob(
            f"{path} has the format {shown(head.get('format'))}, and this release reads {FORMAT}; "
            "import it with the release that has written it, or a later one"
        )
    members: dict[str, list[zipfile.ZipInfo]] = {}
    for info in listed[1:]:
        members.setdefault(_job_of(info, path), []).append(info)
    records = sum(info.file_size for info in listed if info.filename.endswith(f"/{RECORD}"))
    if records > _LARGEST_RECORDS:
        raise InvalidJob(f"the records in {path} take {records} bytes; archive fewer jobs at once")
    for job_id, infos in members.items():
        if infos[0].filename != f"{job_id}/{RECORD}":
            raise InvalidJob(f"{path} has no record of job {job_id}")
    if head.get("jobs") != list(members):
        raise InvalidJob(
            f"{path} is damaged: the jobs in it are not those that {HEAD} names, "
            f"{shown(head.get('jobs'))}"
        )
    return members


def _job_of(info: zipfile.ZipInfo, path: Path) -> str:
    """Return the job of a member; `InvalidJob` if no archive of ours has such a member."""
    name = info.filename
    parts = name.split("/")
    is_record, is_file = parts[1:] == [RECORD], parts[1:2] == [FILES] and bool(parts[2:])
    kind = stat.S_IFMT(info.external_attr >> 16)
    sound = (
        is_job_id(parts[0])
        and (is_record or is_file)
        and not any(part in {"", ".", ".."} for part in parts)
        and not any(character in name for character in "\\\0")
        and PurePosixPath(name).parts == tuple(parts)
    )
    if not sound:
        raise InvalidJob(f"{path} has a file {name!r:.200}, which can be none of a job's")
    if kind not in {0, stat.S_IFREG}:
        raise InvalidJob(f"{name!r:.200} in {path} is a link or no regular file, and is not taken")
    if info.flag_bits & 1 or info.compress_type not in _METHODS:
        raise InvalidJob(f"{name!r:.200} in {path} is encrypted, or packed in a way we never do")
    inside = "/".join(parts[2:])
    if is_potcar(name) or inside in OWN or inside.endswith(OWN_ENDS) or inside.startswith("."):
        raise InvalidJob(f"{name!r:.200} in {path} never travels with a job")
    if is_record and info.file_size > _LARGEST_RECORD:
        raise InvalidJob(f"{name} in {path} has {info.file_size} bytes, too many for a record")
    try:
        # Unpacking stops at the declared size.
        _check_ratio(info.file_size, info.compress_size, _LARGE_RECORD if is_record else _LARGE)
    except InvalidJob as error:
        raise InvalidJob(f"{name!r:.200} in {path} is not taken: {error}") from error
    return parts[0]


# --- a record --------------------------------------------------------------------------------


def read_record(archive: zipfile.ZipFile, job_id: str, path: Path, allow: Sequence[str]) -> Ended:
    """Read the record of a job, which must pass the checks of a submission (`InvalidJob`)."""
    place = f"{job_id}/{RECORD} of {path}"
    record = _loaded(archive.read(f"{job_id}/{RECORD}"), place)
    try:
        job, row = _job_and_row(record, place)
        trace = record["traceback"]
        if not isinstance(trace, str | None):
            raise InvalidJob("the traceback must be a text")
    except _UNSOUND as error:
        raise InvalidJob(f"{place} is damaged: {error}") from error
    try:
        _check_as_submission(row, allow)
    except CrystalMathError as error:
        raise InvalidJob(f"{place} is not taken in: {error}") from error
    if row.job_id != job_id or job.job_id != job_id or not job.state.is_terminal():
        raise InvalidJob(f"{place} is not that of job {job_id}, or the job has not ended")
    return job, row, trace


#: The errors that reading a foreign record may raise.
_UNSOUND = (
    CrystalMathError,
    AttributeError,
    KeyError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
)


def _job_and_row(record: Mapping[str, Any], place: str) -> tuple[Job, NewJob]:
    document = checked(record["job"], {"properties": properties(Job)})
    _check_parts(document, _JOB, required=("attempt", "created_at"))
    _check_parts(document.get("result", {}), fields_of(Summary))
    for finding in document.get("warnings", ()):
        _check_parts(finding, fields_of(FindingDocument), required=("severity", "code", "message"))
    job = Job.read(document)
    specification = record["specification"]
    if not isinstance(specification, str):
        raise InvalidJob("the specification must be a text")
    head, _, body = specification.partition("\n")
    whole = {**_loaded(head.encode(), place), **_NOT_TAKEN}
    header = {name: value for name, value in whole.items() if value is not None}
    _check_parts(header, _SPEC, required=("job_id", "recipe", "engine"))
    for parent in header.get("parents", ()):
        _check_parts(parent, fields_of(Parent), required=("job_id", "role"))
    potcars = record.get("potcars")
    checked({"potcars": potcars}, {"properties": {"potcars": {"type": "array", "items": {}}}})
    for potcar in potcars or ():
        _check_parts(potcar, fields_of(Potcar), required=("symbol", "setup", "path", "sha256"))
    parameters = json.loads(body)["parameters"]
    checked({"params": parameters}, {"properties": {"params": _SPEC["parameters"]}})
    codec.decode_request(parameters)
    return job, evolve(
        row_of(header, body, job.created_at),
        warnings=[
            cast("FindingDocument", {**dict.fromkeys(FindingDocument.__annotations__), **each})
            for each in job.warnings
        ],
        pseudopotentials=[
            {**dict.fromkeys(Potcar.__annotations__), **each} for each in potcars or ()
        ],
    )


def _check_as_submission(row: NewJob, allow: Sequence[str]) -> None:
    """Refuse names and terms that this home would not take from a submission."""
    from crystalmath.store.rows import check as check_row

    check_name(row.recipe, allow)
    # The engine need not be installed here, but messages and paths may name it.
    if not is_engine_name(row.engine):
        raise InvalidJob(f"the engine {shown(row.engine)} has a name that no engine can have")
    check_fields(row, _TERMS)
    check_row(row)
    for parent in row.parents:
        if not is_job_id(parent["job_id"]):
            raise InvalidJob(f"the parent {shown(parent['job_id'])} is no job's id")


def _check_parts(table: object, schemas: Mapping[str, Any], required: tuple[str, ...] = ()) -> None:
    """Check the known fields of a table against their schemas."""
    if not isinstance(table, dict):
        raise InvalidJob(f"{shown(table)} must be an object")
    known = {name: table[name] for name in schemas if name in table}
    checked(known, {"properties": schemas, "required": required})


def _loaded(data: bytes, place: str) -> dict[str, Any]:
    try:
        document = json.loads(data, parse_constant=_finite, parse_float=_finite, parse_int=_small)
    except (ValueError, RecursionError) as error:
        raise InvalidJob(f"{place} is damaged: {error}") from error
    if not isinstance(document, dict):
        raise InvalidJob(f"{place} is damaged: it is no object")
    return document


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text:.40} is no number that can be stored")
    return number


def _small(text: str) -> int:
    number = int(text)
    if abs(number) > _LARGEST_INTEGER:
        raise ValueError(f"{text:.40} is no number that can be stored")
    return number


# --- an outcome ------------------------------------------------------------------------------


def check_outcome(directory: RunDirectory, job: Job, path: Path) -> None:
    """Refuse a job whose record and outcome differ, or whose result is a zip bomb.

    The names in a result need no check: :class:`crystalmath.recipes.decoding.ResultDecoder` imports
    only listed ones.
    """
    place = f"{job.job_id}/{FILES}/{job.attempt}.outcome of {path}"
    completed = job.state is JobState.COMPLETED
    try:
        outcome = directory.outcome(job.attempt)
        if completed and outcome is not None:
            directory.check_outcome(job.attempt)
            file, header = directory.open_outcome(job.attempt)
            with file:
                _check_size(file, header)
    except _UNSOUND as error:
        if not completed:
            return  # its record takes the place of the outcome
        raise InvalidJob(f"{place} is damaged: {error}") from error
    state = None if outcome is None else outcome.get("state")
    if completed != (state == JobState.COMPLETED.value):
        there = "is not there" if outcome is None else f"says {shown(state)}"
        raise InvalidJob(f"the job is on record as {job.state.value}, and {place} {there}")
    if (
        completed
        and outcome is not None
        and _comparable(outcome["summary"]) != _comparable(job.summary)
    ):
        raise InvalidJob(f"the summary of job {job.job_id} differs from that in {place}")


def _comparable(summary: Any) -> dict[str, Any]:
    """Return a summary without empty values and its folder, which moves with a home."""
    return {name: summary[name] for name in summary if name != "work_dir" and summary[name]}


def _check_size(file: BinaryIO, header: Mapping[str, Any]) -> None:
    size, packed = 0, block_size(header)
    for chunk in result_chunks(file, packed):
        size += len(chunk)
        _check_ratio(size, packed, _LARGE)
        if size > _LARGEST_RESULT:
            raise InvalidJob(f"its result has more than {_LARGEST_RESULT} bytes")
    if header.get("text", size) != size:
        raise InvalidJob(f"its result has {size} bytes, and its header says {header['text']}")


def _check_ratio(size: int, packed: int, large: int) -> None:
    """Refuse large data that unpacks to many times its size, a zip bomb."""
    if size > large and size > _RATIO * packed:
        raise InvalidJob(f"{packed} bytes of it are {size} bytes and more when they are unpacked")
