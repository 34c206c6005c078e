"""The runner of the Parsl engine, which passes the attempts of each cluster to its pools."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from attrs import evolve

from crystalmath.errors import ConfigError, EngineUnavailable
from crystalmath.models import Capabilities, Sighting
from crystalmath.quacc.engine import EngineRunner
from crystalmath_engine_parsl import config
from crystalmath_engine_parsl.batch_pools import BatchPools
from crystalmath_engine_parsl.pools import Pools

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from crystalmath.models import Attempt, EngineSettings, JobSpec

_ON_A_NODE = frozenset({"ranks", "cores_per_rank"})
_OVER_NODES = _ON_A_NODE | {"nodes", "ranks_per_node"}


class ParslRunner(EngineRunner):
    """A runner on Parsl, for this machine and for pilot jobs of a scheduler.

    A future shows only that its task has ended; the run directory has the outcome. (``exception()``
    of a Parsl future *returns* the exception of a failed app, and ``cancel()`` is not implemented;
    neither is used.)

    Parameters
    ----------
    settings : EngineSettings
        ``workers`` defaults to the number of cores that this process may use.
    """

    capabilities = Capabilities(max_queued=1000, resources=_ON_A_NODE)

    def __init__(self, settings: EngineSettings) -> None:
        config.check_clusters(settings)
        blocks = settings.clusters
        seen = {name: config.as_jobs_see(cluster) for name, cluster in blocks.items()}
        super().__init__(evolve(settings, clusters=seen))
        self._workers = config.workers(settings)
        self._blocks = blocks
        self._of: dict[str, Pools] = {
            "local": Pools(self, self._workers),
            **{name: BatchPools(self, cluster) for name, cluster in blocks.items()},
        }

    def clusters(self) -> Sequence[str]:
        """Return the names of this machine and of the configured clusters."""
        return list(self._of)

    def workers(self) -> int:
        """Return how many jobs run at once on this machine."""
        return self._workers

    def capabilities_of(self, cluster: str) -> Capabilities:
        """Return the capabilities of this machine, or of pilot jobs of a scheduler.

        Processes on the nodes cannot be seen from here; the scheduler vouches for their ends.
        """
        if cluster == "local":
            return self.capabilities
        able = _OVER_NODES if self._is_mpi(cluster) else _ON_A_NODE  # several nodes with `mpi`
        return evolve(self.capabilities, workers_here=False, gone_means_dead=True, resources=able)

    def allotted(self, spec: JobSpec) -> JobSpec:
        """Refuse jobs that fit into no pilot job, too; see :meth:`EngineRunner.allotted`."""
        spec = super().allotted(spec)
        if spec.cluster in self._blocks:
            config.check_fits(spec, self._blocks[spec.cluster])
        return spec

    def cores(self, cluster: str) -> int | None:
        """Return how many cores a job may have: this machine's, or `cores_per_node`."""
        if cluster in self._blocks:
            cores = self._blocks[cluster].engine_options.get("cores_per_node")
            return None if cores is None else int(cores)
        return len(os.sched_getaffinity(0))

    def launch(self, attempts: Sequence[Attempt]) -> Mapping[str, str | Exception]:
        """Submit a task for each attempt; an error of one cluster holds for its own jobs alone."""
        answers: dict[str, str | Exception] = {}
        for name, some in self._by_cluster(attempts).items():
            try:
                answers.update(self._pools(name).launch(some))
            except (EngineUnavailable, ConfigError) as error:
                self.log.warning("cluster %s: %s", name, error)
                answers.update(dict.fromkeys([attempt.id for attempt in some], error))
        return answers

    def probe(self, attempts: Sequence[Attempt]) -> Mapping[str, Sighting]:
        """Return which attempts are still Parsl's, after mending a broken pool."""
        seen: dict[str, Sighting] = {}
        for name, some in self._by_cluster(attempts).items():
            if name in self._of:
                seen.update(self._of[name].probe(some))
            else:  # its pilot jobs may exist, with jobs in them
                lost = Sighting("unknown", _removed(name))
                seen.update({attempt.id: lost for attempt in some})
        return seen

    def stop(self) -> None:
        """End Parsl and everything that it started."""
        for pools in self._of.values():
            pools.stop()

    def _pools(self, cluster: str) -> Pools:
        if cluster not in self._of:
            raise ConfigError(_removed(cluster))
        return self._of[cluster]

    def _is_mpi(self, cluster: str) -> bool:
        return cluster in self._blocks and "mpi" in self._blocks[cluster].engine_options

    def _by_cluster(self, attempts: Sequence[Attempt]) -> dict[str, list[Attempt]]:
        groups: dict[str, list[Attempt]] = {}
        for attempt in attempts:
            groups.setdefault(attempt.cluster, []).append(attempt)
        return groups


def _removed(cluster: str) -> str:
    return f"[clusters.{cluster}] is not in the configuration file any more"
