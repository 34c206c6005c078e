"""The built-in engine: this machine's own cores, and no dependency beyond core.

It is the reference implementation of an engine, registered like any stranger's.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import queue
import select
import shlex
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

from attrs import evolve

from crystalmath import worker
from crystalmath.errors import ConfigError
from crystalmath.hookspecs import hookimpl
from crystalmath.models import Capabilities, Finding, Sighting
from crystalmath.models.submission import MOST_PRIORITY
from crystalmath.processes import available_cores, inherited, start_process
from crystalmath.quacc.engine import EngineRunner
from crystalmath.worker.chains import close_idle

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from crystalmath.models import Attempt, EngineSettings, JobSpec

    _Queue = queue.PriorityQueue[tuple[float, int, Attempt | None]]

#: How long worker threads may take to end, in seconds.
STOP_S = 10.0
_RESOURCES = frozenset({"ranks", "cores_per_rank"})


class LocalRunner(EngineRunner):
    """Run jobs on this machine, ``[engines.local] workers`` of them at a time.

    A cluster of the configuration file is this machine, too, with programs and defaults of its own.

    Parameters
    ----------
    settings : EngineSettings
        ``workers`` defaults to the number of cores that this process may use.
    """

    capabilities = Capabilities(
        max_queued=1000,
        queue_dies_with_owner=True,
        drops_queued=True,
        resources=_RESOURCES,
    )

    def __init__(self, settings: EngineSettings) -> None:
        super().__init__(settings)
        self._workers = _workers(settings)
        # By priority, then by their order; `None`, which ends a worker thread, comes last.
        self._queue: _Queue = queue.PriorityQueue()
        # Passes of flows, which are in `_queue`, too. They have a thread of their own, so that none
        # waits for a long job.
        self._passes: _Queue = queue.PriorityQueue()
        self._number = itertools.count()
        self._threads: list[threading.Thread] = []
        self._pass_thread: threading.Thread | None = None
        #: Guards the move of an attempt from `_queued` to `_running`; dropped ones do not move.
        self._taking = threading.Lock()
        self._queued: set[str] = set()
        self._running: set[str] = set()
        # Pipes whose end tells the workers behind `worker_init` that this runner has ended, and
        # whether it has.
        self._ties: set[IO[bytes]] = set()
        self._ended = False
        # The reason why an attempt was not begun, until it is launched again.
        self._troubles: dict[str, str] = {}

    def clusters(self) -> Sequence[str]:
        """Name this machine, and the clusters of the configuration file."""
        return ["local", *self.settings.clusters]

    def workers(self) -> int:
        """Return how many jobs run at once, on all clusters together."""
        return self._workers

    def cores(self, cluster: str) -> int:
        """Return how many cores of this machine this process may use."""
        del cluster
        return available_cores()

    def allotted(self, spec: JobSpec) -> JobSpec:
        """Add the cluster's walltime to a job without one: here no allocation ends the job."""
        cluster = self.settings.clusters.get(spec.cluster)
        if cluster is not None and spec.walltime_s is None:
            spec = evolve(spec, walltime_s=cluster.walltime_s)
        return super().allotted(spec)

    def launch(self, attempts: Sequence[Attempt]) -> Mapping[str, str]:
        """Queue the attempts, and start worker threads as they are needed."""
        for attempt in attempts:
            self._troubles.pop(attempt.id, None)
            self._queued.add(attempt.id)
            place = (-attempt.priority, next(self._number), attempt)
            self._queue.put(place)
            if attempt.priority > MOST_PRIORITY:
                self._passes.put(place)
                if self._pass_thread is None:
                    self._pass_thread = self._start_thread(self._passes)
        while len(self._threads) < min(self._workers, len(self._queued) + len(self._running)):
            self._threads.append(self._start_thread(self._queue))
        return {attempt.id: attempt.id for attempt in attempts}

    def _start_thread(self, attempts: _Queue) -> threading.Thread:
        name = "crystalmath-local"
        thread = threading.Thread(target=self._work, args=(attempts,), name=name, daemon=True)
        thread.start()
        return thread

    def probe(self, attempts: Sequence[Attempt]) -> Mapping[str, Sighting]:
        """Report queued and running attempts; those of another process are gone."""
        return {attempt.id: self._see(attempt.id) for attempt in attempts}

    def _see(self, attempt: str) -> Sighting:
        # In this order, as `_take` moves attempts from one to the other.
        if attempt in self._queued:
            return Sighting("queued")
        if attempt in self._running:
            return Sighting("running")
        return Sighting("gone", self._troubles.get(attempt))

    def release(self, attempts: Sequence[Attempt]) -> None:
        """Drop these attempts if they are queued."""
        for attempt in attempts:
            with self._taking:
                self._queued.discard(attempt.id)
            self._troubles.pop(attempt.id, None)

    def stop(self) -> None:
        """End the worker threads; jobs that were let go run on without them."""
        self._queued.clear()
        with self._taking:
            self._ended = True
            for tie in self._ties:
                tie.close()
        threads = [*self._threads, *filter(None, [self._pass_thread])]
        for _ in self._threads:
            self._queue.put((math.inf, next(self._number), None))
        self._passes.put((math.inf, next(self._number), None))
        left = self.left
        deadline = time.monotonic() + STOP_S
        while time.monotonic() < deadline:
            alive = sum(thread.is_alive() for thread in threads)
            if alive <= len(left & self._running):
                break
            time.sleep(0.01)

    def warm(self, environment: Mapping[str, str]) -> None:
        """Have a worker import quacc now, and keep it."""
        worker.warm(environment)

    def _work(self, attempts: _Queue) -> None:
        while (attempt := attempts.get()[2]) is not None:
            if not self._take(attempt):
                continue
            try:
                self._run(attempt)
            except Exception as error:  # noqa: BLE001 - one bad run must not cost a worker
                self.log.warning("%s: %s", attempt.id, error)
                self._troubles[attempt.id] = str(error)
            finally:
                self._running.discard(attempt.id)
                self.notice(attempt.id)

    def _take(self, attempt: Attempt) -> bool:
        """Start a worker on an attempt, unless that was dropped."""
        with self._taking:
            if attempt.id not in self._queued:
                return False
            # In this order: a reader between the two finds it in one of them.
            self._running.add(attempt.id)
            self._queued.discard(attempt.id)
        return True

    def _run(self, attempt: Attempt) -> None:
        cluster = self.settings.clusters.get(attempt.cluster)
        if cluster is None or not (first := worker.init_script(cluster.worker_init)):
            worker.run(attempt.directory)
            return
        with self._tied() as end:
            command = [sys.executable, "-P", "-m", __name__, str(attempt.directory), str(end)]
            process = start_process(
                ["bash", "-c", f"{first}exec {shlex.join(command)}"],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the owner
                pass_fds=[end],
            )
            code = process.wait()
        if code:
            raise ConfigError(
                f"[clusters.{attempt.cluster}] the worker behind worker_init ended with {code}"
            )

    @contextlib.contextmanager
    def _tied(self) -> Iterator[int]:
        """Make a pipe whose other end closes with this runner, also if its process is killed."""
        theirs, ours = os.pipe()
        with os.fdopen(theirs, "rb"), os.fdopen(ours, "wb") as tie:
            with self._taking:
                self._ties.add(tie)
                if self._ended:
                    tie.close()
            try:
                yield theirs
            finally:
                with self._taking:
                    self._ties.discard(tie)


def _run_tied(directory: Path, tie: int) -> None:
    """Run an attempt as the engine's worker; after the engine's end, no other of its parcel."""
    if select.select([tie], [], [], 0)[0]:
        return  # the job's next owner launches it again

    def watch() -> None:
        os.read(tie, 1)
        close_idle()

    threading.Thread(target=watch, daemon=True).start()
    worker.run(directory)


def _workers(settings: EngineSettings) -> int:
    workers = settings.options.get("workers", available_cores())
    if not isinstance(workers, int) or isinstance(workers, bool) or workers < 1:
        raise ConfigError(
            f"[engines.{settings.name}] workers must be a whole number from 1, not {workers!r}"
        )
    return workers


def _check_clusters(settings: EngineSettings) -> None:
    for cluster in settings.clusters.values():
        cluster.check_options()
        if cluster.scheduler != "local":
            raise cluster.refused(
                "scheduler",
                f'must be "local" for the engine {settings.name}, which is this machine',
            )
        for key in cluster.resources.given():
            if key not in _RESOURCES:
                raise cluster.refused(
                    key,
                    f"cannot be used: the engine {settings.name} honours ranks and cores_per_rank",
                )


#: The options of ``[engines.local]``, with type and meaning.
OPTIONS = {"workers": ("whole number", "jobs at a time; default: the usable cores")}


@hookimpl
def crystalmath_make_runner(settings: EngineSettings) -> EngineRunner:
    """Make the runner."""
    settings.check_options(*OPTIONS)
    _check_clusters(settings)
    return LocalRunner(settings)


@hookimpl
def crystalmath_engine_findings(settings: EngineSettings) -> Sequence[Finding]:
    """Return the reasons why this machine cannot run jobs."""
    findings = []
    try:
        settings.check_options(*OPTIONS)
        _workers(settings)
        _check_clusters(settings)
    except ConfigError as error:
        findings.append(Finding(severity="error", code="config", message=str(error)))
    if sys.platform != "linux":
        message = f"running jobs needs Linux (child subreapers); this is {sys.platform}"
        findings.append(Finding(severity="error", code="platform", message=message))
    return findings


if __name__ == "__main__":
    _run_tied(Path(sys.argv[1]), inherited(int(sys.argv[2])))
