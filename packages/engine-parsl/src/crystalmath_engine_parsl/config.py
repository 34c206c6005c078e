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

#: The variable of Parsl's MPI mode with the command that starts ranks on the nodes of a task.
#: quacc's commands contain it until a worker replaces it.
PREFIX = "PARSL_MPI_PREFIX"
#: How long a pilot job may take until a job begins in it, in seconds.
BEGIN_S = 60.0

#: The options of ``[engines.parsl]``, with type and meaning.
OPTIONS = {"workers": ("whole number", "jobs at a time on this machine; default: the usable cores")}
#: The options of a cluster beside core's, with type and meaning.
CLUSTER_OPTIONS = {
    "workers_per_node": ("whole number", "jobs at a time on a node; default: one for each core"),
    "max_blocks": ("whole number", "pilot jobs at a time; default: 1"),
    "cores_per_node": (
        "whole number",
        "cores of a pilot job on each node; default: whole nodes (--exclusive)",
    ),
    "address": (
        "text",
        "the server's host, as nodes reach it; default: all its addresses are tried",
    ),
    "max_idletime": ("text", 'a pilot job ends after this time without work; default: "2m"'),
    "mpi": ("text", "srun, mpiexec or aprun: jobs over several nodes share a pilot job"),
    "jobs_per_block": (
        "whole number",
        "with mpi: jobs at a time in a pilot job; default: one for each node",
    ),
}
#: How long a pilot job lasts if its cluster has no walltime, in seconds.
WALLTIME_S = 3600.0
#: How long a pilot job may have nothing to do, in seconds: Parsl's own figure.
IDLE_S = 120.0
#: The launchers of ranks on nodes of a pilot job, by Parsl's names.
_LAUNCHERS = ("srun", "mpiexec", "aprun")
#: Resources that no pilot job has, because it runs several jobs.
_OF_RANKS = ("ranks", "ranks_per_node", "cores_per_rank", "gpus_per_rank")
#: Options that count workers, and options that count jobs over several nodes. A cluster may only
#: have one kind.
_OF_WORKERS, _OF_MPI = ("workers_per_node", "cores_per_node"), ("jobs_per_block",)


def workers(settings: EngineSettings) -> int:
    """Return the number of workers: ``[engines.parsl] workers``, else the usable cores."""
    settings.check_options(*OPTIONS)
    count = settings.options.get("workers", len(os.sched_getaffinity(0)))
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ConfigError(
            f"[engines.{settings.name}] workers must be a whole number from 1, not {count!r}"
        )
    return count


def check_clusters(settings: EngineSettings) -> None:
    """Raise `ConfigError` if a cluster has an option that Parsl cannot honour."""
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
        # Parsl quotes no path for shells and Slurm.
        raise ConfigError(
            f"batch scripts cannot name {place!r}: CRYSTALMATH_HOME must be a plain path, without "
            "blanks"
        )


def _check_ranks(cluster: Cluster) -> None:
    """Check that a cluster is either for small jobs on one node, or for jobs over several nodes."""
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
                + ("set it on each job" if launcher else "see workers_per_node, cores_per_node"),
            )


def block_s(cluster: Cluster) -> float:
    """Return how long a pilot job lasts, in seconds: Slurm counts whole minutes."""
    return math.ceil((cluster.walltime_s or WALLTIME_S) / 60) * 60.0


def check_fits(spec: JobSpec, cluster: Cluster) -> None:
    """Raise `InvalidJob` if a job needs more nodes or time than a pilot job of its cluster has.

    It would wait for ever.
    """
    nodes = cluster.resources.nodes or 1
    if cluster.engine_options.get("mpi") and spec.resources.total_nodes > nodes:
        raise InvalidJob(
            f"a pilot job of the cluster {cluster.name!r} has {nodes} nodes, not "
            f"{spec.resources.total_nodes}; request fewer with --nodes, or give the cluster more"
        )
    if spec.walltime_s is not None and spec.walltime_s + BEGIN_S > block_s(cluster):
        raise InvalidJob(
            f"a pilot job of the cluster {cluster.name!r} lasts {block_s(cluster):g} s, too short "
            f"for a walltime of {spec.walltime_s:g} s and {BEGIN_S:g} s to begin; request less "
            "with --walltime, or give the cluster more"
        )


def as_jobs_see(cluster: Cluster) -> Cluster:
    """Return a cluster for its jobs: in MPI mode its nodes are a pilot job's, not a job's."""
    if not cluster.engine_options.get("mpi"):
        return cluster
    return evolve(
        cluster,
        resources=evolve(cluster.resources, nodes=None),
        launcher=cluster.launcher or f"${PREFIX}",
    )
