"""Record new jobs, each accepted or refused on its own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from attrs import evolve
from sqlalchemy import insert

from crystalmath.errors import AlreadyRetried, InvalidJob, KeyConflict
from crystalmath.jobs.life import event_row, follow
from crystalmath.models.job_notes import awaited, repeated
from crystalmath.store.fetching import fetch, fetch_retries, from_row
from crystalmath.store.plain_sql import Snapshot
from crystalmath.store.records import JobMetadata
from crystalmath.store.rows import (
    STRAY_STEPS,
    carry_out,
    check,
    insert_for_jobs,
    save,
    to_listed,
    to_row,
)
from crystalmath.store.tables import events, jobs, labels, lineage, listed, specifications

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sqlalchemy.engine import Connection

    from crystalmath.jobs.changes import Change
    from crystalmath.models import NewJob

_INSERT = insert(jobs)


def insert_each(connection: Connection, new: Sequence[NewJob]) -> list[JobMetadata | InvalidJob]:
    """Record jobs as pending; return the record of each, or the reason why there is none."""
    snapshot = Snapshot(connection)
    by_id = {job.job_id: job for job in fetch(snapshot, [job.job_id for job in new])}
    keys = [job.key for job in new if job.key is not None]
    by_key = {job.key: job for job in fetch(snapshot, keys, by="key")}
    only = [repeated(job.parents) for job in new if job.only_retry]
    retried: dict[str | None, tuple[str, str]] = {
        parent: (job_id, state) for parent, job_id, state in fetch_retries(snapshot, only)
    }
    answers: list[JobMetadata | InvalidJob] = []
    fresh: list[tuple[NewJob, JobMetadata, dict[str, Any]]] = []
    unrecorded: set[str] = set()
    for job in new:
        try:
            known = _known(job, by_id, by_key, unrecorded)
            if known is None:
                _check_circle(snapshot, job, fresh)
            if known is None and job.only_retry and (other := retried.get(repeated(job.parents))):
                raise AlreadyRetried.of(*other)
        except InvalidJob as error:
            unrecorded.add(job.job_id)
            answers.append(error.with_traceback(None))  # its frames hold all of the batch
            continue
        if known is None:
            row = to_row(job)
            # Read back from its row, so that it equals the record of a later read.
            known = by_id[job.job_id] = by_key[job.key] = JobMetadata(**from_row(row))
            fresh.append((job, known, row))
            retried[repeated(job.parents)] = (job.job_id, known.state.value)
        elif known.job_id != job.job_id:
            unrecorded.add(job.job_id)
        answers.append(known)
    if fresh:
        _record(connection, fresh)
        superseded = _supersede(connection, [job for _, job, _ in fresh])
        answers = [
            job if isinstance(job, InvalidJob) else superseded.get(job.job_id, job)
            for job in answers
        ]
    return answers


def insert_all(connection: Connection, new: Sequence[NewJob]) -> list[JobMetadata]:
    """Record jobs as pending; raise why one of them cannot be recorded."""
    recorded: list[JobMetadata] = []
    for job, answer in zip(new, insert_each(connection, new), strict=True):
        if isinstance(answer, InvalidJob):
            answer.job_id = job.job_id
            raise answer
        recorded.append(answer)
    return recorded


def insert_ended(
    connection: Connection, ended: Sequence[tuple[NewJob, Change]]
) -> list[JobMetadata]:
    """Record jobs and how each has ended; a key on record for another job is a conflict."""
    recorded = insert_all(connection, [job for job, _ in ended])
    changed: list[tuple[int, JobMetadata]] = []
    log = []
    for job, (new, change) in zip(recorded, ended, strict=True):
        if job.job_id != new.job_id:
            raise KeyConflict.of(new.key, job.job_id)
        after, steps = follow(job, change)
        changed.append((job.revision, after))
        log += steps
    save(connection, changed, log)
    connection.execute(STRAY_STEPS)
    return [job for _, job in changed]


def _known(
    job: NewJob,
    by_id: Mapping[str, JobMetadata],
    by_key: Mapping[str | None, JobMetadata],
    unrecorded: Collection[str],
) -> JobMetadata | None:
    """Return the recorded job with the same key; `InvalidJob` if the job cannot be recorded."""
    check(job)
    known = by_key.get(job.key) if job.key is not None else None
    if known is None:
        if job.job_id in by_id:
            raise InvalidJob(f"a job with the id {job.job_id!r} exists; make a new id")
        if unrecorded and any(parent["job_id"] in unrecorded for parent in job.parents):
            raise InvalidJob("a job of the request to which it refers was refused")
    elif known.spec_hash != job.spec_hash:
        raise KeyConflict.of(job.key, known.job_id)
    return known


def _check_circle(
    snapshot: Snapshot, job: NewJob, beside: Sequence[tuple[NewJob, JobMetadata, dict[str, Any]]]
) -> None:
    """Refuse a retry that would wait for itself; `beside` are new jobs of the same transaction.

    A job can refer only to jobs on record. So only a retry can close a circle: the successors of
    the job that it repeats wait for the retry from then on.
    """
    chain, origin = set[str](), repeated(job.parents)
    while origin is not None and origin not in chain and job.waits:
        chain.add(origin)
        origin = next((repeated(one.parents) for one in fetch(snapshot, [origin])), None)
    seen: set[str] = set()
    left = _awaited(job) if chain else set()
    while left:
        if left & chain:
            raise InvalidJob(
                f"the retry of job {repeated(job.parents)} cannot refer to job "
                f"{min(left & chain)}, nor to a job that waits for that: it would wait for itself"
            )
        seen |= left
        more = {retry for _, retry, _ in fetch_retries(snapshot, sorted(left))}
        known = [
            *fetch(snapshot, sorted(left)),
            *(one for one, *_ in beside if repeated(one.parents) in left),
        ]
        left = more.union(*map(_awaited, known)) - seen


def _awaited(job: JobMetadata) -> set[str]:
    """Return the ids of the jobs that a job waits for."""
    return {one["job_id"] for one in awaited(job.parents)} if job.waits else set()


def _record(
    connection: Connection, fresh: Sequence[tuple[NewJob, JobMetadata, dict[str, Any]]]
) -> None:
    """Record new jobs, each with its metadata and its row."""
    tagged = [
        {"job_id": job.job_id, "name": name, "value": value}
        for job, _, _ in fresh
        for name, value in job.labels.items()
    ]
    # A job may take several values of another.
    related = dict.fromkeys(
        (job.job_id, parent["job_id"], parent["role"])
        for job, _, _ in fresh
        for parent in job.parents
    )
    names = ("job_id", "parent", "role")
    parents = [dict(zip(names, values, strict=True)) for values in related]
    specified = [
        {
            "job_id": job.job_id,
            "specification": job.specification,
            "potcars": json.dumps(list(job.pseudopotentials)) if job.pseudopotentials else None,
        }
        for job, _, _ in fresh
    ]
    log = [event_row(job, job.state, job.created_at, "submitted", new=True) for _, job, _ in fresh]
    short = [{"job_id": job.job_id, **to_listed(job)} for _, job, _ in fresh]
    carry_out(connection, _INSERT, [row for _, _, row in fresh])
    insert_for_jobs(connection, listed, short)
    insert_for_jobs(connection, specifications, specified)
    insert_for_jobs(connection, labels, tagged)
    insert_for_jobs(connection, lineage, parents)
    insert_for_jobs(connection, events, log)


def _supersede(connection: Connection, fresh: Sequence[JobMetadata]) -> dict[str, JobMetadata]:
    """Mark the jobs that others retry or reread; return those that changed, by id.

    Either job may be recorded first: rebuilds and imports record jobs in any order.
    """
    snapshot = Snapshot(connection)
    at = {job.job_id: job.created_at for job in fresh}
    concerned = {*at, *(repeated(job.parents) for job in fresh)}
    # The oldest come first, so that the newest try is the one that stays.
    newest = {parent: job_id for parent, job_id, _ in fetch_retries(snapshot, [*concerned])}
    changed: dict[str, tuple[int, JobMetadata]] = {}
    log = []
    for job in fetch(snapshot, list(newest)):
        successor = newest[job.job_id]
        if job.superseded_by != successor:
            after = evolve(job, superseded_by=successor, revision=job.revision + 1)
            changed[job.job_id] = job.revision, after
            when = at[successor] if successor in at else at[job.job_id]
            log.append(event_row(job, job.state, when, f"superseded by job {successor}"))
    save(connection, list(changed.values()), log)
    return {job_id: job for job_id, (_, job) in changed.items()}
