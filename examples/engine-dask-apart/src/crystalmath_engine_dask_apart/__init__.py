"""An engine whose workers do not see the home: an existing Dask cluster.

Specifications and answers travel as bytes. The functions below the runner are called in its agent,
which alone imports Dask and has the connection to the scheduler.
"""

from __future__ import annotations

import importlib.util
import threading
from typing import TYPE_CHECKING, Any

from crystalmath.engines.agent import Agent
from crystalmath.errors import ConfigError, EngineUnavailable
from crystalmath.hookspecs import hookimpl
from crystalmath.models import Capabilities, Finding, Sighting
from crystalmath.quacc.engine import EngineRunner
from crystalmath.worker import apart

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from distributed import Future

    from crystalmath.models import Attempt, EngineSettings

#: How long the scheduler may take to answer, and to be connected to, in seconds.
ANSWER_S, START_S = 20.0, 60.0


class DaskApartRunner(EngineRunner):
    """Run jobs on the workers of a scheduler that outlives this process."""

    capabilities = Capabilities(
        shares_files=False,
        workers_here=False,
        gone_means_dead=True,  # `look` asks each worker what it runs
        starts_in_order=False,
        workers_inherit=False,
    )

    def __init__(self, settings: EngineSettings) -> None:
        super().__init__(settings)
        self._scheduler = scheduler_of(settings)
        self._agent = Agent(settings.directory / "log")

    def launch(self, attempts: Sequence[Attempt]) -> Mapping[str, str]:
        """Send each specification as a task with the attempt's id for its key."""
        self._ask(submit, attempts)
        return {attempt.id: attempt.id for attempt in attempts}

    def probe(self, attempts: Sequence[Attempt]) -> Mapping[str, Sighting]:
        """Ask scheduler and workers about all attempts at once."""
        return dict(self._ask(look, attempts))

    def release(self, attempts: Sequence[Attempt]) -> None:
        """Stop running attempts, too: their workers do not see the request in the run directory."""
        self._ask(drop, [attempt.id for attempt in attempts])

    def stop(self) -> None:
        """Leave the scheduler; tasks that were let go stay there."""
        self._agent.stop()

    def _ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            if not self._agent.alive:
                self._agent.start(START_S, connect, self._scheduler)
            return self._agent.ask(ANSWER_S, function, *arguments)
        except OSError as error:  # no scheduler, or a worker that has just died
            self._agent.stop()
            raise EngineUnavailable(f"the Dask cluster {self._scheduler}: {error}") from error


# --- in the agent ------------------------------------------------------------------------------

_futures: dict[str, Future] = {}
_settling = threading.Lock()


def connect(scheduler: str) -> None:
    """Connect, and refuse a scheduler that begins tasks again by itself."""
    from distributed import Client

    client = Client(scheduler, timeout=ANSWER_S)
    allowed = client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.allowed_failures)
    if allowed:
        raise ConfigError(
            f"the scheduler {scheduler} begins tasks up to {allowed} times again whose workers "
            "died; start it with DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES=0"
        )


def submit(attempts: Sequence[Attempt]) -> None:
    """Submit a task for each attempt, and have the scheduler keep it when this process ends."""
    from distributed import default_client

    client = default_client()
    for attempt in attempts:
        _forget(attempt.id)  # Dask would answer with what it knows by this key
        sent = apart.pack(attempt)
        future = client.submit(apart.run_apart, sent, key=attempt.id, pure=False, retries=0)
        client.publish_dataset(future, name=attempt.id, override=True)
        _follow(attempt, future)


def look(attempts: Sequence[Attempt]) -> dict[str, Sighting]:
    """Ask the scheduler for its tasks, then each worker for its attempts; collect ended ones."""
    from distributed import default_client

    client, keys = default_client(), [attempt.id for attempt in attempts]

    def see(dask_scheduler: Any) -> dict[str, str]:
        tasks = filter(None, map(dask_scheduler.tasks.get, keys))
        return {task.key: task.state for task in tasks}

    states = client.run_on_scheduler(see)
    running = {
        name: worker for worker, names in client.run(apart.running_apart).items() for name in names
    }
    seen = {}
    for attempt in attempts:
        state = states.get(attempt.id, "forgotten")
        unknown = state != "forgotten" and attempt.id not in _futures
        # Sent by a process before this one.
        if unknown and (sent := client.get_dataset(attempt.id, default=None)) is not None:
            _follow(attempt, sent)
        if attempt.id in running:
            apart.note_begun(attempt, f"the Dask worker {running[attempt.id]}")
            seen[attempt.id] = Sighting("running")
        elif state in {"memory", "erred"}:
            seen[attempt.id] = _settled(attempt)
        else:
            seen[attempt.id] = Sighting("gone" if state == "forgotten" else "queued")
    return seen


def drop(keys: Sequence[str]) -> None:
    """Have each worker stop these attempts and begin none of them; drop queued tasks."""
    from distributed import default_client

    running = default_client().run(apart.running_apart, keys)
    for key in set(keys).difference(*running.values()):
        _forget(key)


def _settled(attempt: Attempt) -> Sighting:
    """Collect an ended attempt; it is not reported as gone before its answer is stored here."""
    try:
        _settle(attempt, _futures[attempt.id])
    except Exception as error:  # noqa: BLE001 - any error: the answer is collected again later
        return Sighting("unknown", f"its answer cannot be had: {error}")
    return Sighting("unknown" if attempt.id in _futures else "gone")


def _follow(attempt: Attempt, future: Future) -> None:
    """Collect the answer as soon as it is there."""
    _futures[attempt.id] = future
    future.add_done_callback(lambda done: _settle(attempt, done))


def _settle(attempt: Attempt, future: Future) -> None:
    """Publish an answer, or its absence; `look` repeats a failed write."""
    with _settling:
        is_followed = _futures.get(attempt.id) is future
        # An attempt that is lost with the connection to the scheduler may still run.
        if not is_followed or future.status not in {"finished", "error"}:
            return
        error = future.exception(timeout=ANSWER_S)
        apart.collect(attempt, future.result(timeout=ANSWER_S) if error is None else error)
        _forget(attempt.id)


def _forget(key: str) -> None:
    """Have the scheduler drop a task, and its answer."""
    from distributed import default_client

    default_client().unpublish_dataset(key)
    if (future := _futures.pop(key, None)) is not None:
        future.release()


# --- the plugin --------------------------------------------------------------------------------


@hookimpl
def crystalmath_make_runner(settings: EngineSettings) -> EngineRunner:
    """Make the runner."""
    return DaskApartRunner(settings)


@hookimpl
def crystalmath_engine_findings(settings: EngineSettings) -> Sequence[Finding]:
    """Return the reasons why the engine cannot serve."""
    if importlib.util.find_spec("distributed") is None:
        message, remedy = "dask.distributed is not installed", "pip install distributed"
        return [Finding(severity="error", code="missing_library", message=message, remedy=remedy)]
    try:
        scheduler_of(settings)
    except ConfigError as error:
        return [Finding(severity="error", code="config", message=str(error))]
    return []


def scheduler_of(settings: EngineSettings) -> str:
    """Read ``scheduler`` in ``[engines.dask-apart]``, the address of a running one."""
    settings.check_options("scheduler")
    scheduler = settings.options.get("scheduler")
    if not isinstance(scheduler, str) or "://" not in scheduler:
        raise ConfigError(
            "[engines.dask-apart] scheduler must be the address of a Dask scheduler, such as "
            f'"tls://host:8786", not {scheduler!r}'
        )
    return scheduler
