"""Disk usage of jobs, and the removal of their files; records stay."""

from __future__ import annotations

import itertools
import json
import logging
import re
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any, TypeAlias, Unpack, cast

from attrs import Factory, define, frozen

from crystalmath.errors import (
    CrystalMathError,
    FilesRemoved,
    InvalidJob,
    StoreError,
    UnknownJob,
)
from crystalmath.jobs.packs import in_place, remove_from_packs
from crystalmath.jobs.removal import (
    Use,
    finish_removals,
    remove_dangling,
    remove_directory,
    remove_heavy,
    use_of,
)
from crystalmath.jobs.rundir import STEPS
from crystalmath.models import JobState
from crystalmath.models.filters import Selection
from crystalmath.models.job_notes import step_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from pathlib import Path

    from crystalmath.models.filters import StoreSelection
    from crystalmath.quacc.store import JobMetadata
    from crystalmath.reading.home_jobs import HomeJobs
    from crystalmath.running.recorder import Recorder

    _Meant: TypeAlias = tuple[JobMetadata, Use]

_LOG = logging.getLogger("crystalmath.service")

#: The most jobs whose removals are recorded together, and the most that are read together.
_TOGETHER = 50
_PAGE = 500
_ENDED = tuple(state for state in JobState if state.is_terminal())
_JOB_ID = r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"


@frozen(kw_only=True)
class Choice:
    """The jobs whose files are removed: named ones, or those that match the filters.

    `older_s` selects jobs that ended longer ago, in seconds; `larger` selects jobs of which more
    bytes would be removed. With `keep_results` only heavy files are removed
    (:data:`crystalmath.jobs.removal.HEAVY`).
    """

    job_ids: Sequence[str] | None = None
    older_s: float | None = None
    larger: int | None = None
    keep_results: bool = False
    filters: Selection = Factory(Selection)

    def says_nothing(self) -> bool:
        """Return whether nothing restricts the choice to some ended jobs."""
        limits = (self.older_s, self.larger)
        return self.job_ids is None and not self.filters and all(one is None for one in limits)


@define
class Pruned:
    """The jobs whose files are removed, and those left with reasons; more follow a `cursor`."""

    jobs: list[tuple[JobMetadata, Use]] = Factory(list)
    left: list[tuple[str, CrystalMathError]] = Factory(list)
    cursor: str | None = None


def prune(
    recorder: Recorder,
    directory: Path,
    choice: Choice,
    *,
    dry_run: bool = False,
    limit: int = 1000,
    cursor: str | None = None,
) -> Generator[None, None, Pruned]:
    """Remove the files of ended jobs; rows, keys and summaries stay.

    Yields now and then, so that other work can run. After an interruption it can be repeated. At
    most `limit` jobs after the job `cursor` are chosen; a dry run removes nothing. `InvalidJob`:
    the choice is empty or includes running jobs; nothing was removed.
    """
    _check(choice)
    pruned = Pruned()
    if not dry_run:
        finish_removals(directory)
    jobs = chosen(recorder, choice, pruned.left, cursor, "cancel it first")
    while batch := list(itertools.islice(jobs, min(_TOGETHER, limit - len(pruned.jobs)))):
        meant: list[_Meant] = []
        for job in batch:
            pruned.cursor = job.job_id
            use = yield from use_of(str(directory / job.job_id))
            if _is_meant(use, choice):
                meant.append((job, use))
        # Read last: jobs that use these files may have been submitted meanwhile.
        used = readers_of(recorder, directory, [job for job, _ in meant])
        in_use = [job.job_id for job, _ in meant if job.job_id in used]
        pruned.left += [(job_id, in_use_by(used[job_id])) for job_id in in_use]
        meant = [(job, use) for job, use in meant if job.job_id not in used]
        if not dry_run:
            remove = _remove_heavy if choice.keep_results else _remove
            meant = yield from remove(recorder, directory, meant, pruned)
        pruned.jobs += meant
        yield
    if not batch and len(pruned.jobs) < limit:
        pruned.cursor = None
    return pruned


def _check(choice: Choice) -> None:
    if choice.says_nothing():
        raise InvalidJob(
            "name the jobs whose files are to be removed, or choose them by their age, state, "
            "labels, recipe or size"
        )
    if choice.job_ids is not None and choice.filters:
        names = ", ".join(choice.filters)
        raise InvalidJob(f"jobs are named, and also chosen by {names}; leave out one of both")
    states = choice.filters.get("state") or ()
    running = [state.value for state in states if not state.is_terminal()]
    if running:
        raise InvalidJob(
            f"the files of {' and '.join(running)} jobs are never removed; cancel them first, or "
            f"choose among {', '.join(state.value for state in _ENDED)}"
        )


def chosen(
    recorder: Recorder,
    choice: Choice,
    left: list[tuple[str, CrystalMathError]],
    cursor: str | None,
    remedy: str,
) -> Iterator[JobMetadata]:
    """Yield the jobs that fit a choice, judged by their records alone.

    The named jobs that cannot be chosen are added to `left` with the reasons; an unfinished one
    gets the `remedy`.
    """
    if choice.job_ids is None:
        jobs = _filtered(recorder, choice, cursor)
    else:
        jobs = _named(recorder, choice.job_ids, cursor, left, remedy)
    now = time.time()
    for job in jobs:
        ended_at = job.finished_at or job.created_at
        if choice.older_s is None or now - ended_at > choice.older_s:
            yield job


def _filtered(recorder: Recorder, choice: Choice, before: str | None) -> Iterator[JobMetadata]:
    # Only the record counts: the owner of a job may be about to read its outcome.
    filters = cast("StoreSelection", {"state": _ENDED, **choice.filters, "pruned": False})
    if choice.older_s is not None:
        now = time.time()
        filters["ended_before"] = now - min(choice.older_s, now)  # no float holds every age
    while page := recorder.store.list(limit=_PAGE, before=before, **filters):
        yield from page
        before = page[-1].job_id


def _named(
    recorder: Recorder,
    job_ids: Sequence[str],
    after: str | None,
    left: list[tuple[str, CrystalMathError]],
    remedy: str,
) -> Iterator[JobMetadata]:
    """Yield the named jobs whose files may go; note in `left` why others stay."""
    job_ids = list(dict.fromkeys(job_ids))
    job_ids = job_ids[job_ids.index(after) + 1 :] if after in job_ids else job_ids
    known = {job.job_id: job for job in recorder.store.get_many(job_ids)}
    for job_id in job_ids:
        job = known.get(job_id)
        if job is None:
            left.append((job_id, UnknownJob(job_id)))
        elif not job.state.is_terminal():
            said = f"job {job_id} is {job.state.value}; {remedy}"
            left.append((job_id, InvalidJob(said)))
        elif job.removed == "all":
            left.append((job_id, FilesRemoved(job.without_files())))
        else:
            yield job


def _is_meant(use: Use, choice: Choice) -> bool:
    size = use.heavy_size if choice.keep_results else use.size
    if choice.keep_results and not size:
        return False
    return choice.larger is None or size > choice.larger


def readers_of(recorder: Recorder, directory: Path, jobs: Sequence[JobMetadata]) -> dict[str, str]:
    """Return the jobs whose files unfinished jobs will read, each with one of these readers.

    Some jobs beside `jobs` may be among them.
    """
    if not jobs:
        return {}
    used = _used_by(recorder, directory) | _awaited_by(recorder, [job.job_id for job in jobs])
    return used | _needed_by_flows(recorder, jobs)


def _used_by(recorder: Recorder, directory: Path) -> dict[str, str]:
    """Return the jobs whose files unfinished jobs will read, each with one of these readers."""
    # Some programs name the folder to which a link leads ([storage] runs).
    places = {f"{directory.name}/", f"{directory.resolve().name}/"}
    named = re.compile(f"(?:{'|'.join(map(re.escape, places))}){_JOB_ID}", re.ASCII)
    taken: dict[str, str] = {}
    for reader, specification in recorder.store.mentioning('"repeats": "'):
        if flow := json.loads(specification.partition("\n")[0]).get("flow"):
            steps = [step["job_id"] for step in flow["steps"]]
            taken |= dict.fromkeys([flow["repeats"], *steps], reader)
    return taken | {
        job_id: reader
        for place in places
        for reader, specification in recorder.store.mentioning(place)
        for job_id in named.findall(specification)
    }


def _needed_by_flows(recorder: Recorder, jobs: Sequence[JobMetadata]) -> dict[str, str]:
    """Return the jobs that are steps of unfinished flows, each with its flow."""
    flows = {job.job_id: of_flow[0] for job in jobs if (of_flow := step_of(job.parents))}
    flow_jobs = recorder.store.get_many(list(dict.fromkeys(flows.values())))
    unfinished = {job.job_id for job in flow_jobs if not job.state.is_terminal()}
    return {job_id: flow for job_id, flow in flows.items() if flow in unfinished}


def _awaited_by(recorder: Recorder, job_ids: Sequence[str]) -> dict[str, str]:
    """Return the jobs whose values waiting jobs will need, each with one of these readers."""
    store = recorder.store
    if not job_ids or not store.successors(job_ids):
        return {}
    readers = {}
    for job_id in job_ids:
        waiting = (job for job in store.get_many(store.successors([job_id])) if job.waits)
        if (reader := next(waiting, None)) is not None:
            readers[job_id] = reader.job_id
    return readers


def in_use_by(by: str) -> CrystalMathError:
    """Return the error that an unfinished job will read files."""
    return CrystalMathError(f"the unfinished job {by} will read its files")


def _remove(
    recorder: Recorder, directory: Path, meant: Sequence[_Meant], pruned: Pruned
) -> Generator[None, None, list[_Meant]]:
    """Remove run directories, and record it; return the jobs whose directories are gone."""
    removed: list[_Meant] = []
    remove_from_packs(str(directory), [job.job_id for job, _ in meant])
    try:
        for job, use in meant:
            try:
                remove_directory(directory / job.job_id)
            except CrystalMathError as error:
                pruned.left.append((job.job_id, error))
            else:
                removed.append((job, use))
            yield
    finally:
        # Recorded last, as a full disk has room only now. After an interruption, the jobs whose
        # directories are gone can be chosen again.
        if gone := [job.job_id for job, _ in removed]:
            remove_from_packs(str(directory), gone)  # some may have been packed meanwhile
            recorder.note_removed(gone, "all", "run directory removed")
        flows = {of_flow[0] for job, _ in removed if (of_flow := step_of(job.parents))}
        # Retries of these flows may have links to the removed steps.
        for flow in flows.union(*recorder.store.retries(list(flows)).values()):
            remove_dangling(directory / flow / STEPS)
    return removed


def _remove_heavy(
    recorder: Recorder, directory: Path, meant: Sequence[_Meant], pruned: Pruned
) -> Generator[None, None, list[_Meant]]:
    """Remove heavy files, and record it; return the jobs whose files are gone."""
    removed: list[_Meant] = []
    job_ids = [job.job_id for job, _ in meant]
    noted = _note_heavy(recorder, job_ids)
    for job, use in meant:
        try:
            with in_place(str(directory), job.job_id):
                yield from remove_heavy(directory / job.job_id)
        except CrystalMathError as error:
            pruned.left.append((job.job_id, error))
        else:
            removed.append((job, use))
        yield
    if not noted:
        recorder.note_removed(job_ids, "heavy", "heavy files removed")
    return removed


def _note_heavy(recorder: Recorder, job_ids: Sequence[str]) -> bool:
    """Record a removal in advance, as no file shows it; return ``False`` if the disk is full."""
    try:
        recorder.note_removed(job_ids, "heavy", "heavy files removed")
    except StoreError as error:
        _LOG.warning("cannot record yet that heavy files are removed: %s", error)
        return False
    return True


# --- usage -----------------------------------------------------------------------------------


#: How many jobs are listed at once.
PAGE = 200

_Uses: TypeAlias = "defaultdict[Any, Use]"


def _none() -> _Uses:
    return defaultdict(Use)


@define
class Usage:
    """The disk usage of jobs: in all, by state, by recipe, and by label (name and value)."""

    total: Use = Factory(Use)
    states: _Uses = Factory(_none)
    recipes: _Uses = Factory(_none)
    labels: _Uses = Factory(_none)

    def add(self, job: JobMetadata, use: Use) -> None:
        """Count a job."""
        self.total += use
        self.states[job.state.value] += use
        self.recipes[job.recipe] += use
        for label in job.labels.items():
            self.labels[label] += use


def pages(
    service: HomeJobs, before: str | None = None, **filters: Unpack[Selection]
) -> Iterator[list[JobMetadata]]:
    """Yield pages of jobs, newest first."""
    while page := service.jobs(limit=PAGE, before=before, **filters):
        yield page
        before = page[-1].job_id


def measure(service: HomeJobs, **filters: Unpack[Selection]) -> Generator[None, None, Usage]:
    """Measure the run directories of the jobs that fit all filters; yield now and then."""
    usage = Usage()
    for page in pages(service, **filters):
        for job in page:
            usage.add(job, (yield from use_of(str(service.config.jobs_directory / job.job_id))))
            yield
    return usage
