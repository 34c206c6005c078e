"""The answers, as JSON, of the methods that read jobs.

The handlers of the server use them, and commands that find no server. Long work is a generator,
which yields where other requests may run.
"""

from __future__ import annotations

import base64
import contextlib
import json
import math
import time
from collections.abc import Generator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from attrs import evolve, frozen

from crystalmath.errors import BadFile, CrystalMathError, InvalidJob, UnknownJob
from crystalmath.jobs.documents import cleaned
from crystalmath.jobs.worktree import at_once
from crystalmath.models.fields import declared, to_wire
from crystalmath.models.filters import read_filters
from crystalmath.models.job_notes import JobState, step_of
from crystalmath.models.submission import FlowTerms, Submission
from crystalmath.reading.job_results import move_of
from crystalmath.recipes.json_text import structure_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from crystalmath.jobs.rundir import RunDirectory
    from crystalmath.jobs.workfiles import Found
    from crystalmath.models.job_notes import Parent
    from crystalmath.reading.home_jobs import HomeJobs
    from crystalmath.reading.predecessors import Outlook
    from crystalmath.store.records import Event, JobMetadata
    from crystalmath.wire import answers
    from crystalmath.wire.answers import (
        AttemptEntry,
        Counted,
        CountedOverTime,
        Facet,
        Facets,
        FacetValue,
        FilePart,
        JobDocument,
        JobList,
        JobProgress,
        LogPart,
        Numbers,
        ProgressDocument,
        Relative,
        Specification,
        Story,
        Trajectory,
    )

#: The fields of a submission in an answer, by their names on the wire.
_SPECIFIED = tuple(
    one.wire
    for one in declared(Submission)
    if one.about.shown and one.wire not in {"environment", "key", "strict", "lax"}
)
#: Fields of a job that are paths in its run directory.
_PLACES = frozenset(("work_dir", "log", "result"))
#: The number of jobs that are described without a yield.
PAGE = 200
#: The most events, and relatives, in an answer; a job has a few.
MOST_RELATED = 1000
#: The most buckets in an answer, and their number without `start`.
MOST_BUCKETS = 10_000
_USUAL_BUCKETS = 24
_ENDS = tuple(state for state in JobState if state.is_terminal())
#: The usual size of the part of a file in an answer, in bytes.
USUAL_BYTES = 2**20
#: The most bytes of a trajectory in an answer, before base64.
_MOST_FRAMES = 16 * 2**20
#: The time between two looks at a file that is followed, in seconds.
LOOK_S = 0.25


def job_document(
    service: HomeJobs, job: JobMetadata, fields: Collection[str] | None = None
) -> JobDocument:
    """Describe a job, with the paths of its files; or only some fields (``result.energy_ev``)."""
    names = None if fields is None else {"job_id", *(each.partition(".")[0] for each in fields)}
    document = service.waiting_for_room(job).document(names)
    if fields is None or not _PLACES.isdisjoint(fields):
        directory = service.directory(job.job_id)
        places = {"work_dir": directory.work(job.attempt), "log": directory.log(job.attempt)}
        document |= {name: places[name] for name in places if name in document}
        written = job.summary.get("work_dir") if job.summary else None
        if document.get("result") and (move := move_of(written, directory.path)):
            document["result"]["work_dir"] = move.path(str(written))
    if document.get("result") and fields is not None and "result" not in fields:
        summary = document["result"]
        document["result"] = {name: summary[name] for name in summary if f"result.{name}" in fields}
    return document


def job_documents(
    service: HomeJobs, job_ids: Sequence[str]
) -> Generator[None, None, list[JobDocument]]:
    """Describe jobs in the order of their ids, with an error for each unknown one."""
    answers: list[JobDocument] = []
    known: dict[str, Outlook | None] = {}
    for start in range(0, len(job_ids), PAGE):
        page = job_ids[start : start + PAGE]
        jobs = {job.job_id: job for job in in_full(service, service.some_jobs(page), known)}
        for job_id in page:
            if job_id in jobs:
                answers.append(job_document(service, jobs[job_id]))
            else:
                answers.append(_unknown(job_id, "result"))
        yield
    return answers


def _unknown(job_id: str, lacks: str) -> Any:
    """Describe an unknown job, with ``null`` for the key `lacks`."""
    error = UnknownJob(job_id)
    document = {"job_id": job_id, "status": "error", "error": str(error), "code": error.code}
    return {**document, lacks: None}


def event_document(
    service: HomeJobs, event: Event, job: JobMetadata | None = None
) -> answers.Event:
    """Describe an event, and its job if there is one."""
    document: answers.Event = {
        "seq": event.seq,
        "job_id": event.job_id,
        "at": event.at,
        "from": None if event.from_state is None else event.from_state.value,
        "to": event.to_state.value,
        "reason": event.reason,
    }
    if job is not None:
        document["job"] = job_document(service, job)
    return document


def in_full(
    service: HomeJobs,
    jobs: Sequence[JobMetadata],
    known: dict[str, Outlook | None] | None = None,
) -> list[JobMetadata]:
    """Add the states of the steps of flows, and the predecessors that hold up waiting jobs.

    `known` remembers the predecessors from one page of jobs to the next.
    """
    outlooks: Mapping[str, Outlook] = {}
    if any(job.waits and job.stage is None for job in jobs):
        from crystalmath.reading.predecessors import Predecessors

        outlooks = Predecessors(service).held_up(jobs, known)
    return [
        evolve(job, held_up_by=one.held_up_by, reason=one.reason)
        if (one := outlooks.get(job.job_id))
        else job
        for job in service.with_steps(jobs)
    ]


#: The fields of a job that depend on other jobs.
_OF_OTHERS = {"steps", "held_up_by", "reason"}

# --- lists and counts ------------------------------------------------------------------------


def listed(service: HomeJobs, params: Any) -> Generator[None, None, JobList]:
    """List jobs, newest first, and count all matches with `totals`."""
    limit, before = params.pop("limit", 100), params.pop("cursor", None)
    sort, counted = params.pop("sort", None), params.pop("totals", False)
    skip, fields = params.pop("skip", 0), params.pop("fields", None)
    filters = read_filters(params)
    documents: list[JobDocument] = []
    known: dict[str, Outlook | None] = {}
    while True:
        left = limit - len(documents)
        page = min(left, PAGE)
        jobs = service.jobs(limit=page + 1, before=before, skip=skip, sort=sort, **filters)
        shown = jobs[:page]
        if fields is None or not _OF_OTHERS.isdisjoint(fields):
            shown = in_full(service, shown, known)
        documents += [job_document(service, job, fields) for job in shown]
        more = len(jobs) > page > 0
        before, skip = documents[-1]["job_id"] if more else None, 0
        if not more or len(documents) == limit:
            break
        yield
    totals = service.totals(**filters) if counted else None
    return {
        "jobs": documents,
        "cursor": before,
        "totals": None
        if totals is None
        else {state.value: count for state, count in totals.items()},
        "error": None,
    }


def summary(service: HomeJobs, params: Mapping[str, Any]) -> Counted:
    """Count jobs by state, and failures by their error."""
    states, errors = service.summary(**read_filters(params))
    return {
        "states": {state.value: count for state, count in states.items()},
        "errors": [
            {"error": one.error, "count": one.count, "job_ids": list(one.job_ids)} for one in errors
        ],
        "error": None,
    }


def facets(service: HomeJobs, params: Any) -> Facets:
    """Count jobs by their values of filters, the most frequent values first."""
    limit = params.pop("limit", 50)
    by_filter: list[Facet] = []
    for (name, label), values in service.facets(**read_filters(params)).items():
        first = sorted(values.items(), key=lambda item: (-item[1], item[0]))[:limit]
        entries: list[FacetValue] = [{"value": value, "count": count} for value, count in first]
        more = len(values) - len(entries)
        by_filter.append({"filter": name, "label": label, "values": entries, "more": more})
    labels = [each for each in by_filter if each["label"] is not None]
    labels.sort(key=lambda each: (each["more"] > 0, each["label"]))
    others = [each for each in by_filter if each["label"] is None]
    more = max(0, len(labels) - limit)
    return {"facets": others + labels[:limit], "more": more, "error": None}


def counts(service: HomeJobs, params: Any) -> CountedOverTime:
    """Count how many jobs ended in which state over time."""
    bucket_s = float(params.pop("bucket_s", 3600))
    start, end = params.pop("start", None), params.pop("end", None)
    last = math.floor((time.time() if end is None else end) / bucket_s)
    first = max(0, last - _USUAL_BUCKETS + 1) if start is None else math.floor(start / bucket_s)
    if start is not None and first > last:
        raise InvalidJob(f"'start' ({start:g}) is after 'end' ({(last + 1) * bucket_s:g})")
    count = last - first + 1
    if count > MOST_BUCKETS:
        raise InvalidJob(
            f"from 'start' to 'end' there are {count} buckets of {bucket_s:g} s, and an answer has "
            f"at most {MOST_BUCKETS}; take a larger 'bucket_s', or a later 'start'"
        )
    filters = read_filters(params)
    states = filters.pop("state", _ENDS)
    ends = (last + 1) * bucket_s
    changes = service.counts(states, start=first * bucket_s, end=ends, bucket_s=bucket_s, **filters)
    return {
        "bucket_s": bucket_s,
        "buckets": [
            {
                "at": (first + number) * bucket_s,
                "states": {state.value: changes.get((number, state), 0) for state in states},
            }
            for number in range(count)
        ],
        "states": {
            state.value: sum(changes.get((number, state), 0) for number in range(count))
            for state in states
        },
        "error": None,
    }


# --- one job ---------------------------------------------------------------------------------


def specification(
    service: HomeJobs,
    job_id: str,
    *,
    job: bool = False,
    progress: bool = False,
) -> Generator[None, None, Specification]:
    """Return the specification of a job."""
    header, document = service.specification(job_id).split("\n", 1)
    encoded = json.loads(document)
    recorded = service.job(job_id)
    terms = to_wire(recorded)
    reached = None
    if progress and recorded.state in {JobState.RUNNING, JobState.FAILED}:
        reached = yield from progress_document(service, recorded)
    specified: dict[str, Any] = {
        "job_id": job_id,
        **{name: terms.get(name) for name in _SPECIFIED},
        "structure": structure_of(encoded),
        "params": encoded["parameters"],
        "potcars": service.pseudopotentials(job_id),
        "parents": terms["parents"],
        **FlowTerms().flow_terms(),
        **_flow_terms(json.loads(header)),
        "error": None,
    }
    if job:
        specified["job"] = job_document(service, in_full(service, [recorded])[0])
    if progress:
        specified["progress"] = reached
    return cast("Specification", specified)


def _flow_terms(header: Mapping[str, Any]) -> dict[str, Any]:
    """Return the terms in a header that only flows have."""
    terms = Submission.flow_terms_in(header)
    return {name: value for name, value in terms.items() if value}


def story(service: HomeJobs, job_id: str) -> Story:
    """Return a job with its relatives, attempts and events."""
    job = service.job(job_id)
    header, document = service.specification(job_id).split("\n", 1)
    written = json.loads(header)
    events, _ = service.events(job_ids=[job_id], limit=MOST_RELATED)
    return {
        "job": job_document(service, in_full(service, [job])[0]),
        "params": json.loads(document)["parameters"],
        "flow": _flow_terms(written),
        "body": {"engine": written["engine"], "cluster": written["cluster"]}
        if written.get("flow")
        else None,
        "potcars": service.pseudopotentials(job_id),
        "parents": _relatives(service, job.parents),
        "children": _relatives(service, service.children(job_id, limit=MOST_RELATED)),
        "attempts": attempts(service.directory(job_id), job.attempt),
        "events": [event_document(service, event) for event in events],
        "error": None,
    }


def _relatives(service: HomeJobs, relatives: Sequence[Parent]) -> list[Relative]:
    """Add name, recipe and status to the relatives of a job."""
    jobs = {job.job_id: job for job in service.some_jobs([one["job_id"] for one in relatives])}
    return [_relative(one, jobs.get(one["job_id"])) for one in relatives]


def _relative(one: Parent, job: JobMetadata | None) -> Relative:
    if job is None:
        return {**one, "name": None, "recipe": None, "status": None}
    relative: Relative = {**one, "name": job.name, "recipe": job.recipe, "status": job.state.value}
    if one["role"] in {"flow", "taken"} and (step := step_of(job.parents)):
        relative["step"] = step[1]
    return relative


def progress(
    service: HomeJobs, job_ids: list[str], *, history: bool = False
) -> Generator[None, None, list[JobProgress]]:
    """Return the progress of the calculations of jobs."""
    jobs = {job.job_id: job for job in service.some_jobs(job_ids)}
    answers: list[JobProgress] = []
    for job_id in job_ids:
        if (job := jobs.get(job_id)) is None:
            answers.append(_unknown(job_id, "progress"))
            continue
        answers.append(
            {
                "job_id": job_id,
                "status": job.state.value,
                "error": job.error,
                "progress": (yield from progress_document(service, job, history=history)),
            }
        )
    return answers


def progress_document(
    service: HomeJobs, job: JobMetadata, *, history: bool = False
) -> Generator[None, None, ProgressDocument | None]:
    """Describe the progress of the newest calculation of a job."""
    from crystalmath.engines.registry import plugins
    from crystalmath.progress.search import read_progress

    readers = plugins().progress_readers()
    with contextlib.ExitStack() as stack:
        try:
            directory = stack.enter_context(service.files(job.job_id, copied=True))
        except CrystalMathError:
            return None  # a packed job, and the disk has no room for a copy
        work = Path(directory.work(job.attempt))
        read = yield from read_progress(work, readers, history=history)
    if read is None:
        return None
    document = to_wire(read)
    steps = None if read.history is None else [to_wire(step) for step in read.history]
    if Path(read.file).name.removesuffix(".gz") == "md.log":
        every = _logged_every(service, job.job_id)
        for one in (document, *(steps or ())):
            one["ionic_step"] = one["ionic_step"] and every * one["ionic_step"]
    return {**document, "history": steps}


@lru_cache(maxsize=1000)  # clients ask every few seconds, and a specification may be long
def _logged_every(service: HomeJobs, job_id: str) -> int:
    """Return the interval, in steps, of the lines in the log of a molecular dynamics run of ASE."""
    parameters = json.loads(service.specification(job_id).partition("\n")[2])["parameters"]
    try:
        return max(1, int(parameters["md_params"]["dynamics_kwargs"]["loginterval"]))
    except (LookupError, TypeError, ValueError):
        return 1


def trajectory(service: HomeJobs, params: Mapping[str, Any]) -> Generator[None, None, Trajectory]:
    """Return frames that the calculation of a job has written."""
    import numpy as np

    from crystalmath.jobs.last_geometry import read_frames

    job = service.job_with_files(params["job_id"])
    stride = params.get("stride", 1)
    with service.files(job.job_id) as directory:
        frames = yield from read_frames(
            directory.work(job.attempt),
            params.get("file"),
            start=params.get("start", 0),
            stop=params.get("stop"),
            stride=stride,
            most=_MOST_FRAMES,
        )
    dtype = params.get("dtype", "float32")

    def numbers(name: str, dtype: Literal["float32", "float64"]) -> Numbers | None:
        values = frames.arrays[name]
        if values.size and np.isnan(values).all():
            return None
        with np.errstate(over="ignore"):
            written = values.astype(np.dtype(dtype).newbyteorder("<")).tobytes()
        data = base64.b64encode(written).decode()
        return {"dtype": dtype, "shape": list(values.shape), "data": data}

    return {
        "job_id": job.job_id,
        "attempt": job.attempt,
        "file": frames.file,
        "others": frames.others,
        "frames": frames.count,
        "start": frames.start,
        "stride": stride,
        "next": frames.next,
        "numbers": frames.numbers,
        "pbc": frames.pbc,
        "positions": numbers("positions", dtype),
        "cells": numbers("cells", "float64"),
        "energies": numbers("energies", "float64"),
        "forces": numbers("forces", dtype),
        "magmoms": numbers("magmoms", dtype),
        "error": None,
    }


# --- files -----------------------------------------------------------------------------------

#: The paths of followed files, so that not every look walks the directory tree.
_followed_files: dict[tuple[Path, str], Found] = {}
_MOST_FOLLOWED = 1000


@frozen
class FileSeen:
    """The state of a file without its content; it changes with the file."""

    job_id: str
    attempt: int
    ended: bool
    path: Path
    others: tuple[str, ...]
    #: Inode, size and modification time; ``None`` if the file does not exist yet.
    signature: tuple[int, ...] | None


def look_at_file(
    service: HomeJobs, params: Mapping[str, Any], *, again: bool
) -> Generator[None, None, FileSeen]:
    """Return the state of a file, without reading it."""
    from crystalmath.jobs.workfiles import Found

    job_id = params["job_id"]
    # Before the file is read: then an ended job has written all of it.
    job = service.job_with_files(job_id)
    signature = None
    with service.files(job_id) as directory:
        file = Found(Path(directory.log(job.attempt)))
        if "file" in params:
            file = yield from _find_file(Path(directory.work(job.attempt)), params, again=again)
        with contextlib.suppress(FileNotFoundError):
            status = file.path.stat()
            signature = (status.st_ino, status.st_size, status.st_mtime_ns)
    ended = job.state.is_terminal()
    return FileSeen(job_id, job.attempt, ended, file.path, file.others, signature)


def _find_file(
    directory: Path, params: Mapping[str, Any], *, again: bool
) -> Generator[None, None, Found]:
    from crystalmath.jobs.workfiles import check_inside, find

    key = (directory, params["file"])
    known = _followed_files.get(key)
    # A follower continues with the same file.
    if known is not None and (again or params.get("offset")) and known.path.exists():
        check_inside(directory, known.path)
        return known
    if len(_followed_files) >= _MOST_FOLLOWED:
        _followed_files.clear()
    file = _followed_files[key] = yield from find(directory, params["file"])
    return file


def read_file(
    service: HomeJobs, snapshot: FileSeen, params: Mapping[str, Any]
) -> Generator[None, None, LogPart]:
    """Return a part of a text file."""
    from crystalmath.jobs.workfiles import read_part, read_tail

    most = params.get("max_bytes", USUAL_BYTES)
    with service.files(snapshot.job_id):
        if "tail" in params:
            part = yield from read_tail(snapshot.path, params["tail"], most, whole=snapshot.ended)
        else:
            offset = params.get("offset", 0)
            part = yield from read_part(snapshot.path, offset, most, whole=snapshot.ended)
    return {
        "job_id": snapshot.job_id,
        "file": str(snapshot.path),
        "others": list(snapshot.others),
        "text": part.text,
        "offset": part.end,
        "size": part.size,
        "finished": snapshot.ended and part.end >= part.size,
        "error": None,
    }


def file_part(service: HomeJobs, params: Mapping[str, Any]) -> Generator[None, None, FilePart]:
    """Return some bytes of a file."""
    from crystalmath.jobs.workfiles import digest, read_stored

    snapshot = yield from look_at_file(service, params, again=False)
    offset = params.get("offset", 0)
    with service.files(snapshot.job_id):
        data, size = read_stored(snapshot.path, offset, params.get("max_bytes", USUAL_BYTES))
        yield
        end = offset + len(data)
        sha256 = (yield from digest(snapshot.path, end)) if params.get("sha256") else None
    part: FilePart = {
        "job_id": snapshot.job_id,
        "file": str(snapshot.path),
        "others": list(snapshot.others),
        "data": base64.b64encode(data).decode(),
        "offset": end,
        "size": size,
        "finished": snapshot.ended and end >= size,
        "error": None,
    }
    return part if sha256 is None else {**part, "sha256": sha256}


# --- without a server ------------------------------------------------------------------------


def answer(service: HomeJobs, method: str, params: dict[str, Any]) -> dict[str, Any]:
    """Return the answer of a method that only reads, as the server does; errors are raised."""
    result: Any = _ANSWERS[method](service, params)
    answered: dict[str, Any] = at_once(result) if isinstance(result, Generator) else result
    return answered


def result_text(
    service: HomeJobs, job_id: str, field: str | None, *, brief: bool = False
) -> bytes | None:
    """Return the JSON of a result, or of a part of it; ``None`` unless the job completed."""
    job = service.job(job_id)
    if job.state is not JobState.COMPLETED:
        return None
    if field is not None:
        return service.results.part(job, service.results.locate(job, field))
    return service.results.brief(job)[0] if brief else b"".join(service.results.chunks(job))


def _specification(service: HomeJobs, params: dict[str, Any]) -> Any:
    if params.pop("prefix", False):
        params["job_id"] = service.find(params["job_id"])
    return specification(service, **params)


def _followed(service: HomeJobs, params: dict[str, Any]) -> LogPart:
    end = time.monotonic() + params.get("timeout_s", 0)
    again = False
    while True:
        snapshot = at_once(look_at_file(service, params, again=again))
        part: LogPart = at_once(read_file(service, snapshot, params))
        if part["text"] or part["finished"] or time.monotonic() >= end:
            return part
        again = True
        time.sleep(LOOK_S)


def _result(service: HomeJobs, params: dict[str, Any]) -> dict[str, Any]:
    """Return a document with the reason why a job has no result."""
    job = service.job(params["job_id"])
    document = {"job_id": job.job_id, "status": job.state.value, "error": job.error, "result": None}
    return {**document, "traceback": job.traceback} if job.traceback else document


_ANSWERS: dict[str, Callable[[HomeJobs, Any], Any]] = {
    "jobs.list": listed,
    "jobs.summary": summary,
    "jobs.counts": counts,
    "jobs.facets": facets,
    "jobs.status": lambda service, params: job_document(
        service, in_full(service, [service.job(params["job_id"])])[0]
    ),
    "jobs.status_many": lambda service, params: {
        "jobs": at_once(job_documents(service, params["job_ids"]))
    },
    "jobs.specification": _specification,
    "jobs.show": lambda service, params: story(service, params["job_id"]),
    "jobs.result": _result,
    "jobs.logs": _followed,
    "jobs.file": file_part,
    "jobs.trajectory": trajectory,
    "jobs.progress": lambda service, params: {"jobs": at_once(progress(service, **params))},
}


def attempts(directory: RunDirectory, last: int) -> list[AttemptEntry]:
    """Describe the attempts of a job, the oldest first; its run directory may be gone."""
    return [_attempt(directory, number) for number in range(1, last + 1)]


def _attempt(directory: RunDirectory, number: int) -> AttemptEntry:
    entry: AttemptEntry = {
        "attempt": number,
        "host": None,
        "pid": None,
        "outcome": None,
        "error": None,
        "begun_from": directory.begun_from(number),
        "work_dir": str(Path(directory.work(number))),
    }
    try:
        if (claimant := directory.claimant(number)) is not None:
            entry["host"], entry["pid"] = claimant.host, claimant.pid
        if (outcome := directory.outcome(number)) is not None:
            entry["outcome"], entry["error"] = outcome["state"], cleaned(outcome.get("error"))
            if replaced := outcome.get("process_replaced"):
                entry["process_replaced"] = replaced
    except (BadFile, OSError) as error:
        entry["error"] = str(error)
    return entry
