"""The options and clusters of the Parsl engine in the configuration; nothing here imports Parsl."""

from __future__ import annotations

import math
import os
import shlex
from typing import TYPE_CHECKING

from attrs import evolve

from crystalmath.errors import ConfigError, InvalidJob, shown

if TYPE_CHECKING:
    from crystalmath.models import Cluster, EngineSettings, JobSpec

#: Variable in which Parsl's MPI mode says what starts ranks on the nodes of a task. It stands in
#: quacc's commands until a worker knows.
PREFIX = "PARSL_MPI_PREFIX"
#: How long a pilot job may take until a job begins in it, in seconds.
BEGIN_S = 60.0

#: What a cluster may say beside what core knows; docs/configuration.md explains each.
CLUSTER_OPTIONS = (
    "workers_per_node",
    "max_blocks",
    "cores_per_node",
    "address",
    "max_idletime",
    "mpi",
    "jobs_per_block",
)
#: How long a pilot job lasts where the cluster does not say, in seconds.
WALLTIME_S = 3600.0
#: How long a pilot job may have nothing to do, in seconds: Parsl's own figure.
IDLE_S = 120.0
#: What can start ranks on nodes of a pilot job, as Parsl calls it.
_LAUNCHERS = ("srun", "mpiexec", "aprun")
#: What a pilot job is not asked for: it runs several jobs.
_OF_RANKS = ("ranks", "ranks_per_node", "cores_per_rank", "gpus_per_rank")
#: What counts workers, and what counts jobs over several nodes: a cluster has one or the other.
_OF_WORKERS, _OF_MPI = ("workers_per_node", "cores_per_node"), ("jobs_per_block",)


def workers(settings: EngineSettings) -> int:
    """Return the number of workers: ``[engines.parsl] workers``, else the usable cores."""
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
        _check_ranks(cluster)
        for key in ("workers_per_node", "max_blocks", "cores_per_node", "jobs_per_block"):
            cluster.count(key, 1, least=1)
        if not isinstance(cluster.engine_options.get("address", ""), str):
            raise cluster.refused("address", "must be a text: a host's name or address")
        cluster.timespan("max_idletime", IDLE_S)
    place = str(settings.home)
    if settings.clusters and shlex.quote(place) != place:
        # Parsl quotes nothing of what shells and Slurm read.
        raise ConfigError(
            f"batch scripts cannot name {place!r}: CRYSTALMATH_HOME must be a plain path, without "
            "blanks"
        )


def _check_ranks(cluster: Cluster) -> None:
    """Hold apart clusters of small jobs, many on a node, and of jobs over several nodes."""
    launcher = cluster.engine_options.get("mpi")
    if launcher is not None and launcher not in _LAUNCHERS:
        known = ", ".join(f'"{each}"' for each in _LAUNCHERS)
        raise cluster.refused("mpi", f"must be one of {known}, not {shown(launcher)}")
    for key in _OF_WORKERS if launcher else _OF_MPI:
        if key in cluster.engine_options:
            raise cluster.refused(key, f"cannot be used {'with' if launcher else 'without'} mpi")
    for key in _OF_RANKS:
        if key in cluster.resources.given():
            raise cluster.refused(
                key,
                "cannot be used: the nodes of a pilot job are shared by several jobs; "
                + ("each says it itself" if launcher else "see workers_per_node, cores_per_node"),
            )


def block_s(cluster: Cluster) -> float:
    """Return how long a pilot job lasts, in seconds: Slurm counts whole minutes."""
    return math.ceil((cluster.walltime_s or WALLTIME_S) / 60) * 60.0


def check_fits(spec: JobSpec, cluster: Cluster) -> None:
    """Refuse a job with `InvalidJob` that no pilot job of its cluster has nodes or time for.

    It would wait for ever.
    """
    nodes = cluster.resources.nodes or 1
    if cluster.engine_options.get("mpi") and spec.resources.total_nodes > nodes:
        raise InvalidJob(
            f"a pilot job of the cluster {cluster.name!r} has {nodes} nodes, not "
            f"{spec.resources.total_nodes}; ask for fewer with --nodes, or give the cluster more"
        )
    if spec.walltime_s is not None and spec.walltime_s + BEGIN_S > block_s(cluster):
        raise InvalidJob(
            f"a pilot job of the cluster {cluster.name!r} lasts {block_s(cluster):g} s, in which "
            f"a walltime of {spec.walltime_s:g} s, and {BEGIN_S:g} s to begin, do not fit; ask for "
            "less with --walltime, or give the cluster more"
        )


def as_jobs_see(cluster: Cluster) -> Cluster:
    """Return a cluster as its jobs see it: its nodes are a pilot job's, and not theirs."""
    if not cluster.engine_options.get("mpi"):
        return cluster
    return evolve(
        cluster,
        resources=evolve(cluster.resources, nodes=None),
        launcher=cluster.launcher or f"${PREFIX}",
    )
