"""The engines of one service, each loaded at its first use and independently of the others."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from itertools import islice
from typing import TYPE_CHECKING

from crystalmath.errors import EngineUnavailable
from crystalmath.models import JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from crystalmath.config import Config
    from crystalmath.jobs.changes import Change
    from crystalmath.jobs.documents import SpecDocument
    from crystalmath.models import JobSpec
    from crystalmath.quacc.engine import EngineRunner

#: How long callers wait for an engine that is being loaded, in seconds.
LOAD_S = 120.0
#: How long an engine that could not be loaded is left alone, in seconds.
RETRY_S = 5.0
#: The number of a service's own jobs from which ended ones are forgotten.
MOST_OWN = 10_000


class Runners:
    """The runners of all engines that a service uses."""

    def __init__(
        self, configured: Callable[[], Config], report: Callable[[Sequence[Change]], None]
    ) -> None:
        self._configured = configured
        self._report = report
        self._lock = threading.Lock()
        self._loadings: dict[str, _Loading] = {}
        self._runners: dict[str, EngineRunner] = {}
        self._closed = False
        self._own: dict[str, None] = {}
        self._most_own = MOST_OWN

    def get(self, engine: str) -> EngineRunner:
        """Return the runner of an engine, made with the options that are configured now.

        Options that have changed take effect once the engine has no unfinished jobs.
        `UnknownEngine`, `ImportError`, `PluginError`, `ConfigError`: there is none.
        `EngineUnavailable`: it is still being loaded.
        """
        runner = self._fitting(engine)
        if runner is not None:
            return runner
        from crystalmath.engines.registry import plugins

        plugins().require(engine)  # unknown names must not fill `_loadings`
        configured = self._configured()
        with self._lock:
            self._check()
            loading = self._loadings.get(engine)
            if loading is None or loading.is_over(configured):
                loading = self._loadings[engine] = _Loading(engine, configured, self._load)
        return loading.wait()

    def _fitting(self, engine: str) -> EngineRunner | None:
        runner = self._runners.get(engine)
        if runner is None or runner.closed:
            return None
        from crystalmath.quacc.engines import made_with, settings_of

        outdated = made_with(runner) != settings_of(engine, self._configured())
        return None if outdated and not runner.is_busy() else runner

    def _load(self, engine: str) -> EngineRunner:
        from crystalmath.quacc.engines import runner_for

        if (runner := self._fitting(engine)) is not None:
            return runner
        former = self._runners.get(engine)
        # The former runner may have got a job since it was idle.
        if former is not None and not former.closed and not former.close_if_idle():
            return former
        runner = runner_for(engine, self._configured())
        with self._lock:
            self._check()
            runner.subscribe(self._report)
            self._runners[engine] = runner
        return runner

    def _check(self) -> None:
        if self._closed:
            raise EngineUnavailable("the engines have been closed")

    def following(self, job_id: str) -> EngineRunner | None:
        """Return the runner that follows a job, if one does."""
        for runner in list(self._runners.values()):
            if runner.follows(job_id):
                return runner
        return None

    def unfinished(self) -> dict[str, JobState]:
        """Return the jobs that are followed here, and their states."""
        jobs: dict[str, JobState] = {}
        for runner in list(self._runners.values()):
            jobs |= runner.unfinished()
        return jobs

    def is_busy(self) -> bool:
        """Return whether a job is followed here."""
        return any(runner.is_busy() for runner in list(self._runners.values()))

    def unwritten(self) -> list[SpecDocument]:
        """Return the specifications of jobs that were taken and have no run directory yet."""
        return [each for runner in list(self._runners.values()) for each in runner.unwritten()]

    def workers(self) -> dict[str, int | None]:
        """Return how many jobs each loaded engine runs at once; ``None`` where it does not know."""
        return {name: runner.workers() for name, runner in list(self._runners.items())}

    def backlog(self) -> dict[str, int]:
        """Return for each loaded engine how many jobs followed here wait to begin."""
        jobs = {name: runner.unfinished() for name, runner in list(self._runners.items())}
        return {
            name: sum(state is JobState.PENDING for state in states.values())
            for name, states in jobs.items()
        }

    def states(self) -> Mapping[str, str]:
        """Return the state of each known engine here: not loaded, loading, ..."""
        from crystalmath.engines.registry import plugins

        return {name: self._state(name) for name in plugins().known_engine_names()}

    def _state(self, engine: str) -> str:
        loading = self._loadings.get(engine)
        return "not loaded" if loading is None else loading.state()

    def start(self, runner: EngineRunner, spec: JobSpec, document: str) -> None:
        """Hand a recorded job of this service to its engine."""
        with self._lock:
            self._own[spec.job_id] = None
            if len(self._own) > self._most_own:
                self._forget_ended()
        runner.start(spec, document)

    def _forget_ended(self) -> None:
        unfinished = self.unfinished()
        # Jobs of the newer half may not have reached their engines yet.
        for job_id in list(islice(self._own, len(self._own) // 2)):
            if job_id not in unfinished:
                del self._own[job_id]
        self._most_own = max(MOST_OWN, 2 * len(self._own))

    def close(self, *, cancel: bool) -> set[str]:
        """End the engines; cancel their jobs or let them go. Return jobs still followed here."""
        with self._lock:
            self._closed = True
            runners, self._runners = self._runners, {}
        followed: set[str] = set()
        for runner in runners.values():
            runner.leave(self._report, self._own.keys(), cancel=cancel)
            if not runner.closed:
                followed |= runner.unfinished().keys()
        return followed


class _Loading:
    """One attempt to load an engine, in a thread of its own that may hang."""

    def __init__(
        self, engine: str, configured: Config, load: Callable[[str], EngineRunner]
    ) -> None:
        self._engine = engine
        self._configured = configured
        self._load = load
        self._since = time.monotonic()
        self._ended = self._since
        self._future: Future[EngineRunner] = Future()
        threading.Thread(target=self._run, name=f"crystalmath-load-{engine}", daemon=True).start()

    def is_over(self, configured: Config) -> bool:
        """Return whether loading may be tried again; at once after a change of configuration."""
        if not self._future.done():
            return False
        waited = time.monotonic() - self._ended > RETRY_S
        return self._future.exception() is None or configured != self._configured or waited

    def wait(self) -> EngineRunner:
        """Return the loaded runner, or raise the error that prevented it."""
        waited = time.monotonic() - self._since
        try:
            return self._future.result(max(0.0, LOAD_S - waited))
        except TimeoutError:
            if self._future.done():
                raise
            raise EngineUnavailable(
                f"the engine {self._engine!r} is still being loaded after {waited:.0f} s; try "
                "again later, or take another engine"
            ) from None

    def state(self) -> str:
        """Return the state: loading, loaded, or broken and why."""
        if not self._future.done():
            return "loading"
        error = self._future.exception()
        return "loaded" if error is None else f"broken: {error}"

    def _run(self) -> None:
        try:
            runner = self._load(self._engine)
        except BaseException as error:  # noqa: BLE001 - `wait` raises it
            self._ended = time.monotonic()
            self._future.set_exception(error)
        else:
            self._future.set_result(runner)
