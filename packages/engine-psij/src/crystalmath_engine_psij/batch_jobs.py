"""Allocations of one batch system: submit, look up and cancel them, with PSI/J's executor."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import os
import re
import subprocess
from datetime import timedelta
from typing import TYPE_CHECKING

from crystalmath import worker
from crystalmath.errors import ConfigError, EngineUnavailable
from crystalmath.models import Sighting
from crystalmath_engine_psij import allocation
from crystalmath_engine_psij.batch_executors import batch_executor, run_command
from crystalmath_engine_psij.batch_queues import QUEUES
from crystalmath_engine_psij.flux_executor import OUTPUT

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from psij import Job

    from crystalmath.models import Attempt, Cluster, Resources
    from crystalmath_engine_psij.batch_queues import Row

#: What a batch system says when it may take the same job later.
_PASSING = re.compile(
    r"contact slurm controller|timed out|temporar|try again|try later|connection refused"
    r"|zero bytes|cannot connect|unable to connect|MaxSubmit|submit limit|would exceed"
    r"|is down|not responding|threshold|submission( to \S+)? is disabled|max number of jobs",
    re.IGNORECASE,
)
#: Ends that another attempt would meet again.
_FINAL = frozenset({"TIMEOUT", "CPU_TIME", "OUT_OF_MEMORY", "DEADLINE"})
#: Ends of nodes of which nothing is heard any more: what ran there may go on.
_UNSEEN = frozenset({"NODE_FAIL"})
#: By how much an allocation outlasts its job's walltime where it may, in seconds.
MARGIN_S = 120.0
#: So much of what an allocation printed is told, in characters.
_TOLD = 300


class BatchJobs:
    """What this engine has in the queue of one batch system, on any of its clusters.

    An allocation's name is the attempt's id, so that it is found also where its handle, the
    scheduler's own id, was never recorded.

    Parameters
    ----------
    scheduler : str
        The batch system.
    directory : pathlib.Path
        Where PSI/J may write.
    log : logging.Logger
        The engine's.
    """

    def __init__(self, scheduler: str, directory: Path, log: logging.Logger) -> None:
        self._scheduler = scheduler
        self._directory = directory
        self._log = log
        self._executor = batch_executor(scheduler, directory)
        self._queue = QUEUES[scheduler]
        # Of these it is not known whether the batch system has taken them.
        self._unsure: set[str] = set()

    def launch(self, attempts: Sequence[Attempt], cluster: Cluster) -> Mapping[str, str]:
        """Submit an allocation for each attempt.

        Those that the batch system refuses are left out where others were taken; they come again.
        """
        handles = self._submitted_before(attempts)
        refused: list[str] = []
        for attempt in attempts:
            if attempt.id in handles:
                continue
            try:
                handles[attempt.id] = self._submit(attempt, cluster)
            except EngineUnavailable as error:
                if not handles:
                    raise
                self._log.warning("%d of %d launched: %s", len(handles), len(attempts), error)
                break
            except ConfigError as error:
                refused.append(str(error))
        if refused and not handles:
            raise ConfigError("; ".join(dict.fromkeys(refused)))
        return handles

    def probe(self, attempts: Sequence[Attempt]) -> Mapping[str, Sighting]:
        """Ask for all of them at once."""
        rows = self._rows(attempts)
        return {attempt.id: self._see(attempt, _mine(rows, attempt)) for attempt in attempts}

    def release(self, attempts: Sequence[Attempt]) -> None:
        """Cancel what has not ended."""
        from psij import Job

        rows = self._rows(attempts)
        for attempt in attempts:
            for row in _mine(rows, attempt):
                if row.state != "gone":
                    job = Job()
                    self._executor.attach(job, row.native_id)
                    self._command(functools.partial(self._executor.cancel, job))

    # --- submitting --------------------------------------------------------------------------

    def _submitted_before(self, attempts: Sequence[Attempt]) -> dict[str, str]:
        unsure = [attempt for attempt in attempts if attempt.id in self._unsure]
        if not unsure:
            return {}
        rows = self._rows(unsure)
        self._unsure.difference_update(attempt.id for attempt in unsure)
        live = {row.name: row.native_id for row in rows if row.state in {"queued", "running"}}
        return {attempt.id: live[attempt.id] for attempt in unsure if attempt.id in live}

    def _submit(self, attempt: Attempt, cluster: Cluster) -> str:
        executor = self._executor
        executor.resources = attempt.resources.over(cluster.resources)
        executor.name_of_job = attempt.id
        executor.work_directory = _folder(attempt)
        job = self._job(attempt, cluster, executor.resources)
        self._unsure.add(attempt.id)
        self._command(functools.partial(executor.submit, job))
        self._unsure.discard(attempt.id)
        return str(job.native_id)

    def _job(self, attempt: Attempt, cluster: Cluster, resources: Resources) -> Job:
        from psij import Job, JobAttributes, JobSpec, ResourceSpecV1

        memory = (resources.memory_mb or 0) * 1024**2
        if self._scheduler != "lsf":
            # PSI/J's memory is the job's, but these templates ask for it on each node.
            memory //= resources.total_nodes
        attributes = JobAttributes(
            queue_name=resources.queue,
            account=resources.account,
            reservation_id=resources.reservation,
        )
        # Without one of its own PSI/J would ask for ten minutes.
        attributes.duration = self._duration(attempt.walltime_s, cluster.walltime_s)
        executable, *arguments = allocation.command(attempt.directory, attempt.id)
        return Job(
            JobSpec(
                executable=executable,
                arguments=arguments,
                directory=attempt.directory,
                attributes=attributes,
                pre_launch=self._pre_launch(cluster),
                stdin_path="/dev/null",
                stdout_path="/dev/null",
                # What cannot start says so there.
                stderr_path=_folder(attempt) / "stderr",
                resources=ResourceSpecV1(
                    node_count=resources.nodes,
                    process_count=resources.ranks,
                    processes_per_node=resources.ranks_per_node,
                    cpu_cores_per_process=resources.cores_per_rank,
                    gpu_cores_per_process=resources.gpus_per_rank or None,
                    memory=memory or None,
                ),
                launcher="single",
            )
        )

    def _duration(self, walltime_s: float | None, clusters_s: float | None) -> timedelta | None:
        """Give the time of an allocation: a job's walltime counts from when its recipe begins."""
        if walltime_s is None:
            if clusters_s is None:
                return None
            walltime_s = clusters_s
        elif clusters_s is not None:
            # Not beyond what the cluster itself asks for: what exceeds a partition's limit would
            # wait without end. Whose time is not enough is still ended by its own worker, in time.
            walltime_s = max(walltime_s, min(walltime_s + MARGIN_S, clusters_s))
        # LSF counts minutes.
        unit = 60 if self._scheduler == "lsf" else 1
        return timedelta(seconds=math.ceil(walltime_s / unit) * unit)

    def _pre_launch(self, cluster: Cluster) -> Path | None:
        if not cluster.worker_init:
            return None
        text = worker.init_script(cluster.worker_init)
        # By what is in it: an allocation that waits, or just begins, reads what it was given.
        mark = hashlib.sha256(text.encode()).hexdigest()[:12]
        path = self._directory / f"{cluster.name}.{mark}.worker_init.sh"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            written = path.with_suffix(f".{os.getpid()}")
            written.write_text(text, encoding="utf-8")
            written.replace(path)
        return path

    # --- asking ------------------------------------------------------------------------------

    def _rows(self, attempts: Sequence[Attempt]) -> list[Row]:
        natives = [attempt.handle for attempt in attempts]
        try:
            return self._queue.rows(run_command, natives)
        except (subprocess.CalledProcessError, ConfigError) as error:
            why = getattr(error, "output", None) or error
            raise EngineUnavailable(f"{self._scheduler} cannot be asked: {why}") from error

    def _see(self, attempt: Attempt, rows: Sequence[Row]) -> Sighting:
        # One that was launched twice may have an allocation that is over, and one that is not.
        live = [row for row in rows if row.state != "gone"]
        if live:
            return Sighting(live[0].state, live[0].reason)
        if not rows:
            why = f"{self._scheduler} does not know it (any more)"
            return Sighting("gone", why, unseen=True)
        reason = rows[-1].reason or "it is over"
        if reason == "FAILED" and (printed := _printed(attempt, rows[-1].native_id)):
            reason = f"FAILED: {printed}"
        fatal = rows[-1].fatal or reason in _FINAL
        return Sighting("gone", reason, fatal=fatal, unseen=reason in _UNSEEN)

    def _command(self, call: Callable[[], None]) -> None:
        from psij import InvalidJobException, SubmitException

        try:
            call()
        except (SubmitException, InvalidJobException, subprocess.CalledProcessError) as error:
            told = str(getattr(error, "output", None) or error).strip()
            if _PASSING.search(told):
                raise EngineUnavailable(f"{self._scheduler}: {told}") from error
            raise ConfigError(f"{self._scheduler} refused it: {told}") from error


def _folder(attempt: Attempt) -> Path:
    """Where the script of an attempt lies, and what it printed."""
    return attempt.directory / f"{attempt.number}.allocation"


def _mine(rows: Iterable[Row], attempt: Attempt) -> list[Row]:
    return [row for row in rows if row.name == attempt.id or row.native_id == attempt.handle]


def _printed(attempt: Attempt, native_id: str) -> str:
    """Give the end of what an allocation printed, without PSI/J's own mark."""
    texts = []
    for name in (f"{native_id}.out", OUTPUT, "stderr"):
        with contextlib.suppress(OSError):
            texts.append((_folder(attempt) / name).read_text(errors="replace"))
    return "\n".join(texts).replace("_PSI_J_LAUNCHER_DONE", "").strip()[-_TOLD:]
