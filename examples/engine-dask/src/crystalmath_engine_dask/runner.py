"""The Dask engine: it hands run directories to Dask's workers, and reports their tasks."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from crystalmath.engines.agent import Agent
from crystalmath.errors import EngineUnavailable
from crystalmath.models import Capabilities, Sighting
from crystalmath.quacc.engine import EngineRunner
from crystalmath_engine_dask import cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from crystalmath.models import Attempt, EngineSettings

#: How long Dask may take to answer, a cluster to start, and it to end, in seconds.
ANSWER_S, START_S, STOP_S = 5.0, 60.0, 10.0


class DaskRunner(EngineRunner):
    """Run jobs on a Dask cluster of our own, on this machine; it ends with this process."""

    # Dask does not always drop queued tasks: a cancel may overtake a task that is on its way. It
    # sorts the tasks of one batch by their keys.
    capabilities = Capabilities(queue_dies_with_owner=True, starts_in_order=False)

    def __init__(self, settings: EngineSettings, workers: int) -> None:
        super().__init__(settings)
        self._workers = workers
        self._agent = Agent(settings.directory / "log")

    def launch(self, attempts: Sequence[Attempt]) -> Mapping[str, str]:
        """Submit one task for each attempt, with the attempt's id for its key."""
        directories = {attempt.id: str(attempt.directory) for attempt in attempts}
        self._ask(cluster.submit, directories)
        return {key: key for key in directories}

    def probe(self, attempts: Sequence[Attempt]) -> Mapping[str, Sighting]:
        """Look up all attempts with one request."""
        if not self._agent.alive:
            gone = Sighting("gone", f"its Dask cluster {self._agent.ending}")
            return {attempt.id: gone for attempt in attempts}
        return dict(self._ask(cluster.look, [attempt.id for attempt in attempts]))

    def release(self, attempts: Sequence[Attempt]) -> None:
        """Drop queued tasks; core stops running jobs."""
        if self._agent.alive:
            self._ask(cluster.release, [attempt.id for attempt in attempts])

    def stop(self) -> None:
        """End the cluster and the agent."""
        with contextlib.suppress(EngineUnavailable):  # it is ended, too
            self._agent.ask(STOP_S, cluster.close)
        self._agent.stop()

    def _ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        if not self._agent.alive:
            self._agent.start(START_S, cluster.start, self._workers, str(self.settings.directory))
        return self._agent.ask(ANSWER_S, function, *arguments)
