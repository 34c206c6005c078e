"""Rebuild the rows of jobs from their run directories, which are the truth."""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from crystalmath.errors import BadFile, CrystalMathError
from crystalmath.jobs.changes import Change
from crystalmath.jobs.facts import Record
from crystalmath.jobs.host import Host
from crystalmath.jobs.reading import flow_end, view
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.jobs.specification import read_header, spec_hash
from crystalmath.models import JobState, NewJob
from crystalmath.models.job_notes import counted
from crystalmath.reading.current_jobs import directory_names
from crystalmath.recipes.json_text import structure_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from crystalmath.jobs.documents import SpecDocument
    from crystalmath.quacc.store import JobMetadata, JobStore

#: How many jobs are recorded in one transaction.
_BATCH = 500
#: The jobs that are lost with the job database.
NOT_REBUILT = (
    "jobs without a run directory are lost: those that waited for others, and those that "
    "were pruned"
)


@frozen
class Rebuilt:
    """The ids of the jobs that were recorded, and why others were left out."""

    recorded: tuple[str, ...]
    left_out: tuple[str, ...]


def rebuild(
    store: JobStore,
    jobs_directory: Path,
    unwritten: Callable[[], Sequence[SpecDocument]] = tuple,
) -> Rebuilt:
    """Record the jobs that have a run directory and no row, and the ends of unfinished jobs.

    Data that only the database had is lost: `NOT_REBUILT`, findings of the preflight, and events.
    `unwritten` returns header and body of each known job without a run directory.
    """
    # Read first: a job that is written meanwhile is among the directories below.
    more = {str(header["job_id"]): (header, body) for header, body in unwritten()}
    names = sorted({*directory_names(jobs_directory), *more})
    recorded: list[str] = []
    left_out: list[str] = []
    host = Host(jobs_directory)
    host.publish_left()
    store.number_events_from(int(1000 * time.time()))
    for job in store.unfinished():
        _catch_up(store, job, jobs_directory, host, left_out)
    # Lists show jobs in the order of their recording.
    on_record = {name for batch in _batches(names) for name in _known(store, batch)}
    at = {
        name: _submitted(more[name][0] if name in more else None, jobs_directory / name)
        for name in names
        if name not in on_record
    }
    for batch in _batches(sorted(at, key=lambda name: (at[name], name))):
        known = _known(store, batch)
        rows = []
        for name in batch:
            if name not in known:
                try:
                    rows.append(
                        _row_in_memory(*more[name])
                        if name in more
                        else _row(RunDirectory(jobs_directory / name))
                    )
                except Exception as error:  # noqa: BLE001 - one bad file must not stop the rest
                    left_out.append(f"{name}: {_message(error)}")
        for job in _inserted(store, rows, left_out):
            _catch_up(store, job, jobs_directory, host, left_out)
            recorded.append(job.job_id)
    store.list_stray_steps()
    # Last, as steps may be recorded after their flow.
    for job in store.get_many(recorded):
        if job.stage is not None:
            header = json.loads(store.specification(job.job_id).partition("\n")[0])
            store.take_over(job.job_id, counted(header))
            if not job.state.is_terminal():
                _end_flow(store, job, RunDirectory(jobs_directory / job.job_id))
    return Rebuilt(tuple(recorded), tuple(left_out))


def _batches(names: Sequence[str]) -> Iterator[Sequence[str]]:
    return (names[start : start + _BATCH] for start in range(0, len(names), _BATCH))


def _known(store: JobStore, job_ids: Sequence[str]) -> set[str]:
    return {job.job_id for job in store.get_many(job_ids)}


def _submitted(header: Mapping[str, Any] | None, place: Path) -> float:
    """Return when a job was submitted, in seconds since the epoch; 0 if it is not known."""
    with contextlib.suppress(BadFile, OSError, TypeError, ValueError):
        header = RunDirectory(place).read_header() if header is None else header
        return float(header.get("created_at", 0.0))
    return 0.0


def _end_flow(store: JobStore, flow: JobMetadata, directory: RunDirectory) -> None:
    """Record the end of a flow whose last pass has ended, or that was to be cancelled."""
    end = None
    if directory.cancel_requested():
        (flow,) = store.note_cancel([flow.job_id], time.time())
        end = Change(job_id=flow.job_id, state=JobState.CANCELLED, at=0.0, error="cancelled")
    elif flow.waits:
        with contextlib.suppress(BadFile):
            outcome = directory.outcome(flow.attempt) or {}
            end = flow_end(directory, flow.job_id, flow.attempt, outcome)
    steps = store.get_many([*store.step_states(flow.job_id)])
    if end is not None and flow.waits and all(step.state.is_terminal() for step in steps):
        ended = [step.finished_at or 0.0 for step in steps]
        store.apply([evolve(end, at=time.time(), finished_at=max(ended, default=None))])


def damaged_outcomes(store: JobStore, jobs_directory: Path) -> list[str]:
    """Return the outcomes that have changed since, or that contradict the record."""
    names = sorted(directory_names(jobs_directory))
    damages = []
    for batch in _batches(names):
        for job in store.get_many(batch):
            try:
                _check_outcome(RunDirectory(jobs_directory / job.job_id), job)
            except (CrystalMathError, OSError) as error:
                damages.append(f"{job.job_id}: {error}")
    return damages


def _check_outcome(directory: RunDirectory, job: JobMetadata) -> None:
    if job.state is JobState.COMPLETED or directory.decided(job.attempt):
        directory.check_outcome(job.attempt)
        header = directory.outcome(job.attempt)
        if header is None:
            return  # pruned meanwhile
        state = header.get("state")
        if state is None:
            raise BadFile(f"{directory.file(f'{job.attempt}.outcome')} does not say how it ended")
        completed = JobState.COMPLETED.value
        if job.state.is_terminal() and (state == completed) != (job.state.value == completed):
            raise BadFile(
                f"the job is on record as {job.state.value}, and its outcome says {state}"
            )


def _inserted(
    store: JobStore, rows: Sequence[NewJob], left_out: list[str]
) -> Iterator[JobMetadata]:
    """Record jobs, and yield them; leave out those that are refused or whose key is taken."""
    for row, job in zip(rows, _insert_each(store, rows), strict=True):
        if isinstance(job, Exception):
            left_out.append(f"{row.job_id}: {_message(job)}")
        elif job.job_id != row.job_id:
            left_out.append(f"{row.job_id}: its key {row.key!r} has the job {job.job_id}")
        else:
            yield job


def _insert_each(store: JobStore, rows: Sequence[NewJob]) -> list[JobMetadata | Exception]:
    """Record jobs in one transaction, or one by one if the database refuses some of them."""
    try:
        return [*store.insert_each(rows)]
    except Exception as error:  # noqa: BLE001 - drivers raise errors of their own
        store.require_writable()
        if len(rows) == 1:
            return [error]
    return [answer for row in rows for answer in _insert_each(store, [row])]


def _catch_up(
    store: JobStore, job: JobMetadata, jobs_directory: Path, host: Host, left_out: list[str]
) -> None:
    """Record the changes of a job that its files show."""
    directory = RunDirectory(jobs_directory / job.job_id)
    record = Record(job_id=job.job_id, place=directory.path, state=job.state, attempt=job.attempt)
    try:
        store.apply(view(directory, record, host).changes)
    except Exception as error:  # noqa: BLE001 - drivers raise errors of their own
        store.require_writable()
        left_out.append(f"{job.job_id}: its outcome cannot be recorded: {_message(error)}")


def _message(error: Exception) -> str:
    return str(error) if isinstance(error, CrystalMathError) else f"{type(error).__name__}: {error}"


def _row(directory: RunDirectory) -> NewJob:
    header, body = directory.read_spec()
    if not isinstance(header.get("created_at"), float):
        raise BadFile(f"{directory.file('spec')} does not say when the job was submitted")
    row = row_of(header, body, header["created_at"])
    if row.stage is not None:
        with contextlib.suppress(BadFile):
            # A flow began with its first pass.
            row = evolve(row, started_at=(directory.outcome(1) or {}).get("started"))
    return row


def _row_in_memory(header: Mapping[str, Any], body: str) -> NewJob:
    return evolve(row_of(header, body, header["created_at"]), reason=header.get("reason"))


def row_of(header: Mapping[str, Any], body: str, created_at: float) -> NewJob:
    """Return the row of a job from its specification; `created_at` is in s since the epoch."""
    spec, submitted = read_header(header)
    return NewJob(
        job_id=spec.job_id,
        recipe=spec.recipe,
        engine=str(submitted.engine),
        spec_hash=spec.asked_hash or spec_hash(submitted.identity(), json.loads(body)),
        specification=f"{json.dumps(spec.header())}\n{body}",
        created_at=created_at,
        formula=_formula(body),
        owner=header.get("owner") or {},
        parents=spec.parents,
        stage=None if spec.flow is None else "pass",
        **submitted.terms(),
    )


def _formula(body: str) -> str | None:
    """Return the formula of the submitted structure."""
    from crystalmath.recipes.structures import parse_structure

    structure = structure_of(json.loads(body))
    if structure is None or "data" not in structure:
        return None
    return str(parse_structure(structure).get_chemical_formula())
