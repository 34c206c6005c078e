"""What the configuration file says about the Parsl engine; nothing here imports Parsl."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from crystalmath.errors import ConfigError

if TYPE_CHECKING:
    from crystalmath.models import EngineSettings

__all__ = ["CLUSTER_OPTIONS", "check_clusters", "workers"]

#: What a cluster may say beside what core knows; docs/configuration.md explains each.
CLUSTER_OPTIONS = ("workers_per_node", "max_blocks", "cores_per_node", "address")
#: What a pilot job is not asked for: it runs one rank of each of several jobs.
_OF_RANKS = ("ranks", "ranks_per_node", "cores_per_rank", "gpus_per_rank")


def workers(settings: EngineSettings) -> int:
    """Give the number of workers: ``[engines.parsl] workers``, else the usable cores."""
    settings.check_options("workers")
    count = settings.options.get("workers", len(os.sched_getaffinity(0)))
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ConfigError(
            f"[engines.{settings.name}] workers must be a whole number from 1, not {count!r}"
        )
    return count


def check_clusters(settings: EngineSettings) -> None:
    """Refuse what a cluster says and Parsl cannot do; `ConfigError` names it."""
    for cluster in settings.clusters.values():
        cluster.check_options(*CLUSTER_OPTIONS)
        if cluster.scheduler != "slurm":
            raise cluster.refused("scheduler", 'must be "slurm" for the engine parsl')
        for key in _OF_RANKS:
            if key in cluster.resources.given():
                raise cluster.refused(
                    key,
                    "cannot be used: workers of a pilot job run one process each; "
                    "workers_per_node and cores_per_node say how many share a node",
                )
        for key in ("workers_per_node", "max_blocks", "cores_per_node"):
            cluster.count(key, 1, least=1)
        if not isinstance(cluster.engine_options.get("address", ""), str):
            raise cluster.refused("address", "must be a text: a host's name or address")
