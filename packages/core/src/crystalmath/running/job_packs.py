"""Put the run directories of ended jobs into packs (:mod:`crystalmath.jobs.packs`), and back."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import Factory, define

from crystalmath.errors import BadFile, CrystalMathError, InvalidJob
from crystalmath.jobs import packs
from crystalmath.jobs.outdirs import RECORD
from crystalmath.jobs.removal import finish_removals, move_aside, remove_tree
from crystalmath.jobs.rundir import RunDirectory, is_job_id
from crystalmath.running.pruning import Choice, chosen, in_use_by, readers_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

    from crystalmath.jobs.packs import Entry, Packs
    from crystalmath.quacc.store import JobMetadata
    from crystalmath.running.recorder import Recorder

_LOG = logging.getLogger("crystalmath.service")
#: The run directories of so many jobs are moved away together.
_TOGETHER = 100
#: The search yields after this many jobs.
_STEPS = 200
#: A smaller pack, in bytes, is written again with further jobs in it.
_SMALL = packs.MOST_BYTES // 4


@define
class Packed:
    """The jobs that were packed or unpacked, and those left with reasons; more after a `cursor`."""

    job_ids: list[str] = Factory(list)
    left: list[tuple[str, CrystalMathError]] = Factory(list)
    cursor: str | None = None


def pack(
    recorder: Recorder,
    directory: Path,
    choice: Choice,
    *,
    dry_run: bool = False,
    limit: int = packs.MOST_JOBS,
    cursor: str | None = None,
) -> Generator[None, None, Packed]:
    """Pack the run directories of ended jobs; without a choice, of all of them.

    Yields now and then, so that other work can run. After an interruption it can be repeated. At
    most `limit` jobs after the job `cursor` are packed; a dry run changes nothing.

    Raises
    ------
    InvalidJob
        The filters choose unfinished jobs, or jobs are both named and chosen.
    CrystalMathError
        Another process packs now, or a pack cannot be written; all jobs are where they were.
    """
    _check(choice)
    packed = Packed()
    with contextlib.ExitStack() as stack:
        if not dry_run:
            stack.enter_context(packs.packing(str(directory)))
            yield from _settle(directory)
        jobs: list[JobMetadata] = []
        remedy = "it can be packed once it has ended"
        for number, job in enumerate(chosen(recorder, choice, packed.left, cursor, remedy)):
            if number % _STEPS == 0:
                yield
            if Path(directory, job.job_id).is_dir():
                jobs.append(job)
            packed.cursor = job.job_id
            if len(jobs) == limit:
                break
        else:
            packed.cursor = None
        used = readers_of(recorder, directory, jobs)
        packed.left += [
            (one.job_id, in_use_by(used[one.job_id])) for one in jobs if one.job_id in used
        ]
        jobs = [job for job in jobs if job.job_id not in used]
        if dry_run:
            packed.job_ids = [job.job_id for job in jobs]
            return packed
        while jobs:
            jobs = yield from _pack(recorder, directory, jobs, packed)
    return packed


def _check(choice: Choice) -> None:
    if choice.job_ids is not None and choice.filters:
        names = ", ".join(choice.filters)
        raise InvalidJob(f"jobs are named, and also chosen by {names}; leave out one of both")
    states = choice.filters.get("state") or ()
    if unfinished := [state.value for state in states if not state.is_terminal()]:
        raise InvalidJob(
            f"{' and '.join(unfinished)} jobs are never packed; choose jobs that have ended"
        )


def _pack(
    recorder: Recorder, directory: Path, jobs: list[JobMetadata], packed: Packed
) -> Generator[None, None, list[JobMetadata]]:
    """Write one pack, and remove the directories of its jobs; return the jobs that follow."""
    there = packs.packs_of(str(directory))
    name, kept = yield from _begun(there)
    entries: dict[str, list[Entry]] = {}
    taken = 0
    writer = None
    try:
        writer = packs.Writer(there, name)
        for job_id in kept:
            yield from writer.add(job_id, packs.contents_in(there.path(name), job_id))
        for job in jobs:
            if len(writer.job_ids) >= packs.MOST_JOBS or writer.size >= packs.MOST_BYTES:
                break
            taken += 1
            try:
                entries[job.job_id] = yield from _written(writer, directory, job.job_id)
            except (OSError, CrystalMathError) as error:
                writer.forget(job.job_id)
                packed.left.append((job.job_id, _cannot(error)))
            yield
        if entries:
            writer.finish()
            with packs.changing(str(directory)):
                writer.publish(kept)
    except (sqlite3.Error, OSError) as error:
        raise CrystalMathError(
            f"cannot write a pack into {there.folder}: {error}; the run directories stay"
        ) from error
    finally:
        if writer is not None:
            writer.close()
    by_id = {job.job_id: job for job in jobs}
    names = list(entries)
    for start in range(0, len(names), _TOGETHER):
        some = [by_id[one] for one in names[start : start + _TOGETHER]]
        for moved in _moved_aside(recorder, directory, some, entries, packed):
            remove_tree(moved)
            yield
    return jobs[taken:]


def _begun(there: Packs) -> Generator[None, None, tuple[str, list[str]]]:
    """Return the name of the pack to write, and the jobs that it has already."""
    for name, members in reversed(there.packs().items()):
        is_small = Path(there.path(name)).stat().st_size < _SMALL
        if is_small and len(members) < packs.MOST_JOBS:
            size = yield from _content_size(there, name, members)
            if size is not None and size < packs.MOST_BYTES:
                return name, members
            break
    # Names are in the order of time.
    return f"{time.time_ns():x}-{secrets.token_hex(3)}", []


def _content_size(
    there: Packs, name: str, members: Sequence[str]
) -> Generator[None, None, int | None]:
    """Return the bytes of the files in a pack, before compression; ``None`` if it is damaged."""
    size = 0
    try:
        for job_id in members:
            yield
            for _, chunks in packs.contents_in(there.path(name), job_id):
                size += sum(map(len, chunks))
    except (BadFile, FileNotFoundError) as error:
        _LOG.warning("a pack is left as it is: %s", error)
        return None
    return size


def _written(
    writer: packs.Writer, directory: Path, job_id: str
) -> Generator[None, None, list[Entry]]:
    """Write a run directory into a pack; return what it has."""
    place = str(directory / job_id)
    entries = packs.entries_of(place)
    if any(one.name.endswith(f".work/{RECORD}") for one in entries):
        raise CrystalMathError("later jobs may go on in its copy of a folder of Quantum ESPRESSO")
    yield from writer.add(job_id, packs.contents_of(place, entries, RunDirectory(place).journaled))
    return entries


def _cannot(error: Exception) -> CrystalMathError:
    return CrystalMathError(f"it stays as it is: {error}")


def _moved_aside(
    recorder: Recorder,
    directory: Path,
    jobs: Sequence[JobMetadata],
    entries: dict[str, list[Entry]],
    packed: Packed,
) -> list[Path]:
    """Move run directories aside that are in a pack as they are; the others stay, and it goes.

    Returns the places of those that were moved.
    """
    moved: list[Path] = []
    stay: list[str] = []
    with packs.changing(str(directory)):
        # Read under the lock: who records a job unpacks afterwards what it reads.
        used = readers_of(recorder, directory, jobs)
        there = packs.packs_of(str(directory))
        for job in jobs:
            job_id = job.job_id
            place = directory / job_id
            try:
                with packs.unread(str(place)):
                    is_packed = there.find(job_id) is not None
                    _check_unchanged(place, entries[job_id] if is_packed else None, used)
                    aside = move_aside(place)
            except (OSError, CrystalMathError) as error:
                stay.append(job_id)
                packed.left.append((job_id, _cannot(error)))
            else:
                moved += [] if aside is None else [aside]
                packed.job_ids.append(job_id)
        if stay:
            there.discard(stay)
    return moved


def _check_unchanged(place: Path, packed: list[Entry] | None, used: Mapping[str, str]) -> None:
    """Raise an error if a job will be read, or is not in a pack as it is now."""
    if (reader := used.get(place.name)) is not None:
        raise in_use_by(reader)
    if packed is None or packs.entries_of(str(place)) != packed:
        raise CrystalMathError("it has changed meanwhile; pack it again")


def _settle(directory: Path) -> Generator[None, None, None]:
    """Complete what a killed process has begun, and make mostly empty packs smaller."""
    jobs = str(directory)
    finish_removals(directory)
    packs.remove_left(jobs)
    there = packs.packs_of(jobs)
    # The directory counts, and it may have changed since it was packed.
    if both := there.ids().intersection(_directories(directory)):
        with packs.changing(jobs):
            there.discard(both)
    yield
    for name, members in there.packs().items():
        if not members:
            with packs.changing(jobs):
                if not there.packs().get(name):
                    there.remove(name)
        elif there.is_mostly_empty(name):
            yield from _write_smaller(there, jobs, name, members)
        yield


def _write_smaller(
    there: Packs, jobs: str, name: str, members: Sequence[str]
) -> Generator[None, None, None]:
    writer = None
    try:
        writer = packs.Writer(there, name)
        for job_id in members:
            yield from writer.add(job_id, packs.contents_in(there.path(name), job_id))
        writer.finish()
        with packs.changing(jobs):
            writer.publish(members)
    except (sqlite3.Error, OSError, BadFile) as error:  # it is damaged, or the disk is full
        _LOG.warning("the pack %s cannot be made smaller: %s", there.path(name), error)
    finally:
        if writer is not None:
            writer.close()


def _directories(directory: Path) -> Iterator[str]:
    with os.scandir(directory) as found_here:
        yield from (entry.name for entry in found_here if is_job_id(entry.name))


def unpack(
    recorder: Recorder,
    directory: Path,
    choice: Choice,
    *,
    limit: int = packs.MOST_JOBS,
    cursor: str | None = None,
) -> Generator[None, None, Packed]:
    """Bring the run directories of packed jobs back; without a choice, of all of them.

    Arguments and errors are as those of :func:`pack`.
    """
    _check(choice)
    unpacked = Packed()
    there = packs.packs_of(str(directory))
    remedy = "its run directory is in its place"
    for number, job in enumerate(chosen(recorder, choice, unpacked.left, cursor, remedy)):
        if number % _STEPS == 0:
            yield
        unpacked.cursor = job.job_id
        if (directory / job.job_id).is_dir() or there.find(job.job_id) is None:
            continue
        try:
            packs.unpack(str(directory), job.job_id)
            unpacked.job_ids.append(job.job_id)
        except CrystalMathError as error:
            unpacked.left.append((job.job_id, error))
        yield
        if len(unpacked.job_ids) == limit:
            return unpacked
    unpacked.cursor = None
    with contextlib.suppress(CrystalMathError), packs.packing(str(directory)):
        yield from _settle(directory)
    return unpacked


def pack_old(recorder: Recorder, directory: Path, after_s: float) -> Generator[None, None, int]:
    """Pack the jobs that ended longer ago, and whose directories have not changed since.

    Return how many were packed. An unpacked job is packed again after the same time.
    """
    before = time.time() - after_s
    old: list[str] = []
    with contextlib.suppress(FileNotFoundError), os.scandir(directory) as found_here:
        for number, entry in enumerate(found_here):
            if number % _STEPS == 0:
                yield
            with contextlib.suppress(OSError):
                if is_job_id(entry.name) and entry.stat().st_mtime < before:
                    old.append(entry.name)
    count = 0
    for start in range(0, len(old), packs.MOST_JOBS):
        jobs = recorder.store.get_many(old[start : start + packs.MOST_JOBS])
        ended = [job.job_id for job in jobs if job.state.is_terminal()]
        choice = Choice(job_ids=ended, older_s=after_s)
        count += len((yield from pack(recorder, directory, choice)).job_ids)
    return count
