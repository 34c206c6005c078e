"""Jobs that nobody follows, because their owner has died: brought up to date, and taken over."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from typing import TYPE_CHECKING, Any

from crystalmath import processes
from crystalmath.errors import CrystalMathError
from crystalmath.jobs.changes import Change
from crystalmath.jobs.identities import is_alive, own_identity
from crystalmath.jobs.rundir import ADOPTION_LOCK, RunDirectory
from crystalmath.models import JobState
from crystalmath.processes import Identity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from crystalmath.quacc.engine import EngineRunner
    from crystalmath.quacc.store import JobMetadata
    from crystalmath.service.recorder import Recorder

__all__ = ["Recovery", "has_no_owner", "is_nobody"]

_LOG = logging.getLogger("crystalmath.service")

#: How long another process may take over jobs before this one gives up on one, in seconds.
LOCK_S = 10.0


def has_no_owner(job: JobMetadata, jobs_directory: Path) -> bool:
    """Tell whether nobody follows a job: its owner has died, or has let it go."""
    return is_nobody(job.owner, jobs_directory)


def is_nobody(owner: Mapping[str, Any], jobs_directory: Path) -> bool:
    """Tell whether this owner has died, or never was."""
    try:
        return not owner or is_alive(Identity.read(owner), jobs_directory) is False
    except (KeyError, TypeError):
        return False  # a newer release may say it otherwise


class Recovery:
    """Look after the jobs that nobody follows.

    Parameters
    ----------
    recorder : Recorder
        Their record.
    runner_of : callable
        Gives the runner of an engine.
    jobs_directory : pathlib.Path
        Where the run directories are.
    """

    def __init__(
        self, recorder: Recorder, runner_of: Callable[[str], EngineRunner], jobs_directory: Path
    ) -> None:
        self._recorder = recorder
        self._runner_of = runner_of
        self._jobs_directory = jobs_directory
        self._taken: set[str] = set()
        self._told: dict[str, str] = {}

    def current(self, jobs: Sequence[JobMetadata]) -> list[JobMetadata]:
        """Bring jobs that nobody follows up to date with their run directories."""
        return [self._refresh(job) if self._is_left(job) else job for job in jobs]

    def take_over(self, jobs: Sequence[JobMetadata]) -> list[str]:
        """Follow those jobs that nobody follows as this process's own; give their ids."""
        taken: list[str] = []
        broken: set[str] = set()
        for job in jobs:
            if job.engine in broken or not self._is_left(job):
                continue
            try:
                runner = self._runner_of(job.engine)
            except (CrystalMathError, ImportError) as error:
                broken.add(job.engine)
                self._warn(job.engine, f"cannot take over jobs of {job.engine!r}: {error}")
            else:
                taken += [job.job_id] if self._take_over(job, runner) else []
        if taken:
            self._taken |= set(taken)
            me = own_identity(self._jobs_directory).identity
            reason = f"taken over by the process {me.pid} on {me.host}"
            self._recorder.store.set_owner(taken, me.as_dict(), reason, time.time())
        return taken

    def disown(self, *, own: bool) -> None:
        """Leave what was taken over, and is not finished, to whoever asks for it next.

        Parameters
        ----------
        own : bool
            Also what was submitted in this process.
        """
        if not (own or self._taken) or not self._recorder.exists():
            return
        store = self._recorder.store
        mine = [owner for owner in store.owners() if _is_this_process(json.loads(owner))]
        # Somebody may have taken it over already: what counts is who owns it now.
        jobs = [job.job_id for owner in mine for job in store.unfinished(owner=owner)]
        left = [job_id for job_id in jobs if own or job_id in self._taken]
        if left:
            store.set_owner(left, {}, "let go", time.time())
        self._taken.clear()

    def _is_left(self, job: JobMetadata) -> bool:
        return not job.state.is_terminal() and has_no_owner(job, self._jobs_directory)

    def _directory(self, job: JobMetadata) -> RunDirectory:
        return RunDirectory(self._jobs_directory / job.job_id)

    def _refresh(self, job: JobMetadata) -> JobMetadata:
        try:
            self._recorder.apply(*self._changes(job))
        except (CrystalMathError, OSError) as error:
            # One job's bad file must not keep the others from being told.
            self._warn(job.job_id, f"cannot read what became of job {job.job_id}: {error}")
        return self._recorder.store.get(job.job_id)

    def _changes(self, job: JobMetadata) -> list[Change]:
        from crystalmath.jobs.tracking import orphan_changes

        directory = self._directory(job)
        if directory.exists():
            self._pass_on_cancel(job, directory)
            return orphan_changes(directory, job.state, job.attempt)
        if job.state is not JobState.RUNNING:
            return []
        error = f"its run directory {directory.path} was removed"
        return [Change(job_id=job.job_id, state=JobState.FAILED, at=time.time(), error=error)]

    def _take_over(self, job: JobMetadata, runner: EngineRunner) -> bool:
        try:
            self._restore(job)
            if self._refresh(job).state.is_terminal():
                return False
            if not runner.adopt(job.job_id):
                return False
        except (CrystalMathError, OSError) as error:
            self._warn(job.job_id, f"cannot take over job {job.job_id}: {error}")
            return False
        return True

    def _warn(self, about: str, message: str) -> None:
        """Log what is tried every few seconds, and fails in the same way, once."""
        if self._told.get(about) != message:
            self._told[about] = message
            _LOG.warning("%s", message)

    def _restore(self, job: JobMetadata) -> None:
        """Write the files of a job whose owner died between its row and its run directory."""
        from filelock import FileLock

        directory = self._directory(job)
        if job.state is not JobState.PENDING or directory.claimed(job.attempt):
            return
        self._jobs_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        recorded, body = self._recorder.store.specification(job.job_id).split("\n", 1)
        with FileLock(self._jobs_directory / ADOPTION_LOCK, timeout=LOCK_S):
            with contextlib.suppress(CrystalMathError, OSError, UnicodeDecodeError):
                if directory.read_spec()[1] == body:
                    return
            more = {"job_id": job.job_id, "attempt": job.attempt, "owner": None}
            directory.write_spec({**json.loads(recorded), **more}, body)

    def _pass_on_cancel(self, job: JobMetadata, directory: RunDirectory) -> None:
        """Write the cancel of somebody who died between its note and its file."""
        if job.cancel_requested_at is not None and not directory.cancel_requested():
            directory.request_cancel()


def _is_this_process(owner: Mapping[str, Any]) -> bool:
    try:
        return Identity.read(owner) == processes.own_identity()
    except (KeyError, TypeError):
        return False
