"""Submit, look up and cancel the allocations of one batch system, with PSI/J's executor."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import subprocess
from datetime import timedelta
from typing import TYPE_CHECKING

from crystalmath import worker
from crystalmath.engines import schedulers
from crystalmath.errors import ConfigError, EngineUnavailable
from crystalmath.models import Sighting
from crystalmath_engine_psij import allocation
from crystalmath_engine_psij.batch_executors import batch_executor
from crystalmath_engine_psij.batch_queues import QUEUES
from crystalmath_engine_psij.flux_executor import OUTPUT

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from psij import Job

    from crystalmath.models import Attempt, Cluster, Resources
    from crystalmath_engine_psij.batch_queues import Row

#: After so many equal refusals in a row no other allocation is requested in this turn.
_MAX_EQUAL_REFUSALS = 3
#: Reasons for an end that another attempt would meet again.
_FINAL = frozenset({"TIMEOUT", "CPU_TIME", "OUT_OF_MEMORY", "DEADLINE"})
#: Reasons for an end that leave open whether the job's processes go on.
_UNSEEN = frozenset({"NODE_FAIL"})
#: Reasons for an end that the script's output may explain.
_EXPLAINED_BY_OUTPUT = frozenset({"FAILED", "COMPLETED", "it is over"})
#: How much longer than its job's walltime an allocation lasts if it may, in seconds.
MARGIN_S = 120.0
#: How many characters of an allocation's output are reported.
_REPORTED_CHARACTERS = 300


class BatchJobs:
    """The engine's allocations in the queue of one batch system, on any of its clusters.

    An allocation's name is the attempt's id. So it is recognized even if its handle, the
    scheduler's id, was never recorded.
    """

    def __init__(self, scheduler: str, directory: Path, log: logging.Logger) -> None:
        self._scheduler = scheduler
        self._directory = directory
        self._log = log
        self._executor = batch_executor(scheduler, directory)
        self._queue = QUEUES[scheduler]
        self._reboots = schedulers.SlurmReboots() if scheduler == "slurm" else None
        # Ids of attempts that the batch system may or may not have taken.
        self._unsure: set[str] = set()

    def launch(
        self, attempts: Sequence[Attempt], cluster: Cluster
    ) -> Mapping[str, str | Exception]:
        """Submit an allocation for each attempt; return the handle, or the error, of each."""
        answers: dict[str, str | Exception] = {**self._submitted_before(attempts)}
        refusals: list[EngineUnavailable] = []
        for attempt in attempts:
            if attempt.id in answers:
                continue
            if _concern_all(refusals):
                answers[attempt.id] = refusals[-1]
                continue
            try:
                answers[attempt.id] = self._submit(attempt, cluster)
                refusals.clear()
            except EngineUnavailable as error:
                answers[attempt.id] = error
                refusals.append(error)
            except ConfigError as error:
                answers[attempt.id] = error
            except OSError as error:  # raised here, it would lose the handles of the others
                answers[attempt.id] = EngineUnavailable(f"its script cannot be written: {error}")
        return answers

    def probe(self, attempts: Sequence[Attempt]) -> Mapping[str, Sighting]:
        """Look all attempts up with one command."""
        rows = self._rows(attempts)
        return {attempt.id: self._see(attempt, rows) for attempt in attempts}

    def release(self, attempts: Sequence[Attempt]) -> None:
        """Cancel allocations that have not ended.

        `EngineUnavailable` is raised if a cancel did not reach the batch system. The id alone does
        not identify an allocation: a controller that lost its state uses ids again.
        """
        is_slurm = self._scheduler == "slurm"
        rows = self._rows(attempts) if is_slurm else []
        for attempt in attempts:
            # Slurm compares the name itself when it cancels. Others are queried just before.
            for row in _mine(rows if is_slurm else self._rows([attempt]), attempt):
                if row.state == "gone":
                    continue
                if is_slurm:
                    schedulers.cancel_slurm_job(row.native_id, attempt.id)
                else:
                    self._cancel(row.native_id)

    def _cancel(self, native_id: str) -> None:
        from psij import Job, SubmitException

        job = Job()
        self._executor.attach(job, native_id)
        try:
            self._executor.cancel(job)
        except (SubmitException, ConfigError) as error:
            raise EngineUnavailable(f"{self._scheduler} took no cancel: {error}") from error

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
        from psij import InvalidJobException, SubmitException

        executor = self._executor
        executor.resources = attempt.resources.over(cluster.resources)
        executor.name_of_job = attempt.id
        executor.work_directory = _folder(attempt)
        job = self._job(attempt, cluster, executor.resources)
        self._unsure.add(attempt.id)
        try:
            executor.submit(job)
        except InvalidJobException as error:
            raise ConfigError(f"PSI/J refused it: {error}") from error
        except SubmitException as error:
            message = str(error).strip()
            if not schedulers.is_final(message):
                raise EngineUnavailable(f"{self._scheduler}: {message}") from error
            raise ConfigError(f"{self._scheduler} refused it: {message}") from error
        self._unsure.discard(attempt.id)
        return str(job.native_id)

    def _job(self, attempt: Attempt, cluster: Cluster, resources: Resources) -> Job:
        from psij import Job, JobAttributes, JobSpec, ResourceSpecV1

        memory = (resources.memory_mb or 0) * 1024**2
        if self._scheduler != "lsf":
            # PSI/J's memory is that of the whole job, but these templates request it on each node.
            memory //= resources.total_nodes
        attributes = JobAttributes(
            queue_name=resources.queue,
            account=resources.account,
            reservation_id=resources.reservation,
        )
        # PSI/J's own default is ten minutes; ``None`` leaves the time to the queue.
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
                # A script that cannot start prints why.
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
        """Return the time of an allocation, which begins before the walltime of its job."""
        if walltime_s is None:
            if clusters_s is None:
                return None
            walltime_s = clusters_s
        elif clusters_s is not None:
            # The margin does not exceed the cluster's own time: a job above a partition's limit
            # would wait for ever. A job that runs out of time is ended in order by its worker.
            walltime_s = max(walltime_s, min(walltime_s + MARGIN_S, clusters_s))
        # LSF counts minutes.
        unit = 60 if self._scheduler == "lsf" else 1
        return timedelta(seconds=math.ceil(walltime_s / unit) * unit)

    def _pre_launch(self, cluster: Cluster) -> Path | None:
        if not cluster.worker_init:
            return None
        text = worker.init_script(cluster.worker_init)
        # Named by its content: a waiting allocation still reads the version of its submission.
        mark = hashlib.sha256(text.encode()).hexdigest()[:12]
        path = self._directory / f"{cluster.name}.{mark}.worker_init.sh"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            written = path.with_suffix(f".{os.getpid()}")
            written.write_text(text, encoding="utf-8")
            written.replace(path)
        return path

    # --- looking up --------------------------------------------------------------------------

    def _rows(self, attempts: Sequence[Attempt]) -> list[Row]:
        natives = [attempt.handle for attempt in attempts]
        try:
            return self._queue.rows(schedulers.run, natives)
        except (subprocess.CalledProcessError, ConfigError) as error:
            why = getattr(error, "output", None) or error
            raise EngineUnavailable(f"{self._scheduler} cannot be queried: {why}") from error
        except (AttributeError, KeyError, TypeError) as error:  # JSON of an unexpected form
            why = f"the answer of {self._scheduler} cannot be read: {error!r}"
            raise EngineUnavailable(why) from error

    def _see(self, attempt: Attempt, rows: Sequence[Row]) -> Sighting:
        # An attempt that was launched twice may have an ended allocation and a live one.
        mine = _mine(rows, attempt)
        live = [row for row in mine if row.state != "gone"]
        if live:
            return Sighting(live[0].state, live[0].reason)
        if not mine:
            why = f"{self._scheduler} does not know it (any more)"
            if any(row.native_id == attempt.handle for row in rows):
                why = f"{self._scheduler}'s job {attempt.handle} is another one by now"
            return self._unseen_end(attempt, attempt.handle, why)
        reason = mine[-1].reason or "it is over"
        fatal = mine[-1].fatal or reason in _FINAL
        if reason in _UNSEEN:
            return self._unseen_end(attempt, mine[-1].native_id, reason)
        if reason in _EXPLAINED_BY_OUTPUT and (printed := _printed(attempt, mine[-1].native_id)):
            reason = f"{reason}: {printed}"
        return Sighting("gone", reason, fatal=fatal, ended=True)

    def _unseen_end(self, attempt: Attempt, native_id: str | None, why: str) -> Sighting:
        """Return a sighting of an allocation whose end nobody saw: its hosts may have rebooted."""
        if self._reboots is None or native_id is None:
            return Sighting("gone", why, unseen=True)
        if self._reboots.ended(native_id, attempt.id):
            return Sighting("gone", why)
        boot_id = self._reboots.boot_id(native_id, attempt.id)
        return Sighting("gone", why, unseen=True, boot_id=boot_id)


def _concern_all(refusals: Sequence[EngineUnavailable]) -> bool:
    """Return whether the batch system refuses every job at the moment."""
    if not refusals:
        return False
    # It did not answer, its answer cannot be read, or it says that it takes nothing.
    if refusals[-1].__cause__ is None or schedulers.takes_nothing(str(refusals[-1])):
        return True
    last = refusals[-_MAX_EQUAL_REFUSALS:]
    return len(last) == _MAX_EQUAL_REFUSALS and len(set(map(str, last))) == 1


def _folder(attempt: Attempt) -> Path:
    """Return the folder of an attempt's script and of its output."""
    return attempt.directory / f"{attempt.number}.allocation"


def _mine(rows: Iterable[Row], attempt: Attempt) -> list[Row]:
    """Return the allocations of an attempt, whose name is its id; all rows are this user's."""
    return [row for row in rows if row.name == attempt.id]


def _printed(attempt: Attempt, native_id: str) -> str:
    """Return the end of an allocation's output, without PSI/J's own mark."""
    texts = []
    for name in (f"{native_id}.out", OUTPUT, "stderr"):
        with contextlib.suppress(OSError):
            texts.append((_folder(attempt) / name).read_text(errors="replace"))
    if not texts:
        return "its script left nothing, as on a node that does not see the home"
    lines = "\n".join(texts).replace("_PSI_J_LAUNCHER_DONE", "").splitlines()
    # On one line, because lists show the first line of a reason.
    return "; ".join(filter(None, map(str.strip, lines)))[-_REPORTED_CHARACTERS:]
