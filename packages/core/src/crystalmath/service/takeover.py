"""Stop jobs, and take over those whose owner has died."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from crystalmath._permissions import make_own
from crystalmath.errors import CrystalMathError, StoreError
from crystalmath.jobs.reconcile import request_cancel
from crystalmath.models import JobState
from crystalmath.service.current_jobs import CurrentJobs

if TYPE_CHECKING:
    from collections.abc import Collection

    from crystalmath.quacc.store import JobMetadata
    from crystalmath.service.engine_pool import Runners
    from crystalmath.service.recorder import Recorder
    from crystalmath.service.recovery import Recovery

_LOG = logging.getLogger("crystalmath.service")


class Takeover(CurrentJobs):
    """Stop unfinished jobs, whoever owns them, and own those that nobody does."""

    _recorder: Recorder
    _recovery: Recovery
    _runners: Runners

    def cancel(self, job_id: str) -> bool:
        """Request that a job be stopped; ``False`` if it had finished.

        Raises
        ------
        CrystalMathError
            Another process owns it, and the request for that cannot be written.
        """
        job = self.job(job_id)
        if job.state.is_terminal():
            return False
        try:
            self._recorder.note_cancel(job_id)
            self._recovery.take_over(self._store.get_many([job_id]))
        except StoreError as error:
            # A full disk, perhaps because of this very job: it is stopped all the same.
            _LOG.warning("cannot note that job %s is to be stopped: %s", job_id, error)
        runner = self._runners.following(job_id)
        if runner is not None:
            # A job that was just taken over may have ended by what was noted, before it is asked.
            first = job.cancel_requested_at is None
            asked = runner.cancel(job_id)
            return asked or (first and runner.get_status(job_id) is JobState.CANCELLED)
        # Another process owns it, perhaps one that is about to write it down; or its engine is
        # not to be had, and what there was to do is done.
        if not self._store.get(job_id).state.is_terminal():
            try:
                make_own(self.config.jobs_directory)
                request_cancel(self._directory(job_id), self._recovery.host)
            except OSError as error:
                raise CrystalMathError(
                    f"job {job_id} has another owner, and the request to stop it cannot be written "
                    f"for that ({error}); make room, and cancel it again"
                ) from error
        return True

    def cancel_all(self) -> None:
        """Request that all jobs be stopped that are followed here, or by nobody."""
        try:
            self.take_over()
            jobs = self.unfinished(abandoned=True)
        except CrystalMathError as error:
            # Without the database: those that were submitted here are stopped by `close`.
            _LOG.warning("cannot look for jobs that nobody follows: %s", error)
            return
        for job_id in jobs:
            try:
                self.cancel(job_id)
            except (CrystalMathError, OSError) as error:
                _LOG.warning("cannot cancel job %s: %s", job_id, error)

    def abandoned(self) -> set[str]:
        """Name the engines of the unfinished jobs that nobody follows."""
        return {job.engine for job in self._left()} if self._recorder.exists() else set()

    def take_over(self, engine: str | None = None) -> list[str]:
        """Follow the unfinished jobs whose owner has died as this process's own.

        What is missing of their files is written again, the engines are asked what they know of
        them, and what an engine does not know is handed out again.

        Parameters
        ----------
        engine : str, optional
            Only this engine's jobs.

        Returns
        -------
        list of str
            The ids of the jobs that are followed here now. One whose engine cannot be loaded stays
            as it is, and the log says why.
        """
        if not self._recorder.exists():
            return []
        return self._recovery.take_over(
            [job for job in self._left() if engine in {None, job.engine}]
        )

    def adopt_orphans(self, job_ids: Collection[str]) -> None:
        """Take over those of these jobs whose owner has died."""
        foreign = [job_id for job_id in job_ids if not self._follows(job_id)]
        if foreign and self._recorder.exists():
            self._recovery.take_over(self._store.get_many(foreign))

    def unfinished(self, *, abandoned: bool = False) -> dict[str, JobState]:
        """Return the unfinished jobs that are followed by this service, and their states.

        Parameters
        ----------
        abandoned : bool
            Also those that nobody follows.
        """
        left = self._left() if abandoned and self._recorder.exists() else []
        return {job.job_id: job.state for job in left} | self._runners.unfinished()

    def _left(self) -> list[JobMetadata]:
        """Return the unfinished jobs that nobody follows."""
        is_orphan = self._recovery.host.is_orphan
        owners = [owner for owner in self._store.owners() if is_orphan(json.loads(owner))]
        return [job for owner in owners for job in self._store.unfinished(owner=owner)]
