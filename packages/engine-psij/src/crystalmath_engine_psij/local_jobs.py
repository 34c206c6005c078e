"""The cluster ``local``, on which each job is a process of this host, a few at a time."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from crystalmath.models import Sighting
from crystalmath_engine_psij import allocation
from crystalmath_engine_psij.local_executor import Reaper, local_executor

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Mapping, Sequence

    from psij import Job, JobStatus
    from psij.executors.local import LocalJobExecutor

    from crystalmath.models import Attempt


class LocalJobs:
    """The jobs that are processes of this host, at most `workers` at a time.

    An attempt is recognized by its id in the command line of its process, also if another process
    launched it. `ended` is called with the id of an attempt whose process has ended.
    """

    def __init__(
        self,
        directory: Path,
        workers: int,
        log: logging.Logger,
        ended: Callable[[str], None],
    ) -> None:
        self._directory = directory
        self._workers = workers
        self._log = log
        self._ended = ended
        # The reaper's thread reports ends.
        self._lock = threading.RLock()
        self._reaper = Reaper()
        self._executor: LocalJobExecutor | None = None
        self._queued: dict[str, Attempt] = {}
        self._running: set[str] = set()
        # Errors of attempts that could not be started, until they are launched again.
        self._troubles: dict[str, str] = {}

    def launch(self, attempts: Sequence[Attempt]) -> Mapping[str, str]:
        """Start as many attempts as there are free workers, and queue the rest."""
        with self._lock:
            if self._executor is None:
                self._executor = local_executor(self._directory, self._reaper)
            for attempt in attempts:
                self._troubles.pop(attempt.id, None)
                # An attempt whose killed process still counts as running starts after its end.
                self._queued[attempt.id] = attempt
            self._start_next(self._executor)
        return {attempt.id: attempt.id for attempt in attempts}

    def probe(self, attempts: Sequence[Attempt]) -> Mapping[str, Sighting]:
        """Look for the attempts in our queue, and among the processes of this host."""
        with self._lock:
            queued, troubles = set(self._queued), dict(self._troubles)
        alive = _alive()
        return {
            attempt.id: Sighting("running")
            if attempt.id in alive
            else Sighting("queued")
            if attempt.id in queued
            else Sighting("gone", troubles.get(attempt.id))
            for attempt in attempts
        }

    def release(self, attempts: Sequence[Attempt]) -> None:
        """Drop these attempts if they are queued; core has stopped running ones."""
        with self._lock:
            for attempt in attempts:
                self._queued.pop(attempt.id, None)
                self._troubles.pop(attempt.id, None)

    def stop(self) -> None:
        """Start no further job."""
        with self._lock:
            self._queued.clear()
        self._reaper.stop()

    def _start_next(self, executor: LocalJobExecutor) -> None:
        while len(self._running) < self._workers:
            ready = [each for each in self._queued.values() if each.id not in self._running]
            if not ready:
                return
            attempt = max(ready, key=lambda each: each.priority)
            del self._queued[attempt.id]
            self._running.add(attempt.id)
            try:
                self._start(attempt, executor)
            except Exception as error:  # noqa: BLE001 - the next one may fare better
                self._log.warning("%s: %s", attempt.id, error)
                self._running.discard(attempt.id)
                self._troubles[attempt.id] = str(error)

    def _start(self, attempt: Attempt, executor: LocalJobExecutor) -> None:
        from psij import Job, JobSpec

        executable, *arguments = allocation.command(attempt.directory, attempt.id)
        spec = JobSpec(
            executable=executable,
            arguments=arguments,
            directory=_place(),
            name=attempt.id,
            stdin_path="/dev/null",
            stdout_path="/dev/null",
            # A program that cannot start prints why. A pipe to us would end the job with us.
            stderr_path=attempt.directory / f"{attempt.number}.stderr",
        )
        job = Job(spec)

        def changed(_: Job, status: JobStatus) -> None:
            if status.final:
                self._end(attempt.id, executor)

        job.set_job_status_callback(changed)
        executor.submit(job)

    def _end(self, attempt: str, executor: LocalJobExecutor) -> None:
        with self._lock:
            self._running.discard(attempt)
            self._start_next(executor)
        self._ended(attempt)


def _place() -> str | None:
    """Return the working directory of a new process, or ``None`` for our own.

    A shell fails in a working directory that was removed, and nobody would read its error.
    """
    try:
        Path.cwd()
    except FileNotFoundError:
        return "/"
    return None


def _alive() -> set[str]:
    """Return the ids of the attempts that processes of this host run, or are about to run."""
    ids = set()
    for process in psutil.process_iter(["cmdline", "environ"]):
        line: list[str] = process.info["cmdline"] or []
        if allocation.__name__ in line:
            ids.add(line[-1])
        # Programs that an attempt has started may outlive its process.
        ids.add((process.info["environ"] or {}).get("CRYSTALMATH_ATTEMPT", ""))
    return ids
