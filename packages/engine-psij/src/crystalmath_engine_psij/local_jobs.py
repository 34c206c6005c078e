"""The cluster ``local``: each job is a process of this host, a few at a time."""

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
    """Start processes through PSI/J, at most `workers` at a time.

    An attempt is found by its id in the command line of its process, whichever process started it.
    `ended` is called with the id of an attempt whose process has ended.
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
        # Ends are told on a thread of their own.
        self._lock = threading.RLock()
        self._reaper = Reaper()
        self._executor: LocalJobExecutor | None = None
        self._queued: dict[str, Attempt] = {}
        self._running: set[str] = set()
        # Why an attempt was not begun, until it is launched again.
        self._troubles: dict[str, str] = {}

    def launch(self, attempts: Sequence[Attempt]) -> Mapping[str, str]:
        """Start what there is room for, and queue the rest."""
        with self._lock:
            if self._executor is None:
                self._executor = local_executor(self._directory, self._reaper)
            for attempt in attempts:
                self._troubles.pop(attempt.id, None)
                # One whose process was killed may still count as running: it goes after that.
                self._queued[attempt.id] = attempt
            self._start_next()
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
        """Drop these attempts if they are queued; core has stopped those that ran."""
        with self._lock:
            for attempt in attempts:
                self._queued.pop(attempt.id, None)
                self._troubles.pop(attempt.id, None)

    def stop(self) -> None:
        """Start nothing any more."""
        with self._lock:
            self._queued.clear()
        self._reaper.stop()

    def _start_next(self) -> None:
        while len(self._running) < self._workers:
            ready = [each for each in self._queued.values() if each.id not in self._running]
            if not ready:
                return
            attempt = max(ready, key=lambda each: each.priority)
            del self._queued[attempt.id]
            self._running.add(attempt.id)
            try:
                self._start(attempt)
            except Exception as error:  # noqa: BLE001 - the next one may fare better
                self._log.warning("%s: %s", attempt.id, error)
                self._running.discard(attempt.id)
                self._troubles[attempt.id] = str(error)

    def _start(self, attempt: Attempt) -> None:
        from psij import Job, JobSpec

        executable, *arguments = allocation.command(attempt.directory, attempt.id)
        spec = JobSpec(
            executable=executable,
            arguments=arguments,
            directory=_place(),
            name=attempt.id,
            stdin_path="/dev/null",
            stdout_path="/dev/null",
            # What cannot start says so there. A pipe to us would tie it to our life.
            stderr_path=attempt.directory / f"{attempt.number}.stderr",
        )
        job = Job(spec)

        def changed(_: Job, status: JobStatus) -> None:
            if status.final:
                self._end(attempt.id)

        job.set_job_status_callback(changed)
        assert self._executor is not None  # noqa: S101 - `launch` has made it
        self._executor.submit(job)

    def _end(self, attempt: str) -> None:
        with self._lock:
            self._running.discard(attempt)
            self._start_next()
        self._ended(attempt)


def _place() -> str | None:
    """Return where a process begins, if not where we are.

    A shell complains of a working directory that was removed, and dies of it: nobody reads that.
    """
    try:
        Path.cwd()
    except FileNotFoundError:
        return "/"
    return None


def _alive() -> set[str]:
    """Return the ids of the attempts that this host's processes run, or are about to run."""
    found = set()
    for process in psutil.process_iter(["cmdline", "environ"]):
        line: list[str] = process.info["cmdline"] or []
        if allocation.__name__ in line:
            found.add(line[-1])
        # What an attempt has started may outlive its process.
        found.add((process.info["environ"] or {}).get("CRYSTALMATH_ATTEMPT", ""))
    return found
