"""The clusters of the configuration file, and a small job that proves one."""

from __future__ import annotations

import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, cast

from crystalmath import build_version
from crystalmath.engines import schedulers
from crystalmath.errors import InvalidJob
from crystalmath.models import JobState, Submission
from crystalmath.models.cluster import Check, cluster_checks
from crystalmath.recipes.lookup import PROBE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from crystalmath.config import Config
    from crystalmath.quacc.engines import EngineInfo
    from crystalmath.quacc.store import JobMetadata
    from crystalmath.wire.answers import ClusterEntry


def describe_clusters(configured: Config) -> list[ClusterEntry]:
    """Describe the clusters, none of which is started, and whether batch systems answer."""
    from crystalmath.quacc.engines import describe_engines

    if not configured.clusters:
        return []
    infos = {info.name: info for info in describe_engines()}
    kinds = {cluster.scheduler for cluster in configured.clusters.values()}
    troubles = {scheduler: schedulers.trouble(scheduler) for scheduler in kinds}
    return [
        cast(
            "ClusterEntry",
            {
                **cluster.described(),
                "error": _error(cluster.engine, infos),
                "trouble": troubles[cluster.scheduler],
            },
        )
        for cluster in configured.clusters.values()
    ]


def _error(engine: str, infos: dict[str, EngineInfo]) -> str | None:
    from crystalmath.engines.registry import how_to_install

    if engine not in infos:
        return f"its engine {engine!r} is not installed. {how_to_install(engine)}"
    info = infos[engine]
    errors = [each.message for each in info.findings if each.severity == "error"]
    return "; ".join(filter(None, [info.error, *errors])) or None


# --- the probe job ---------------------------------------------------------------------------


#: By how much the clocks of a node and of this host may differ, in seconds.
_CLOCK_S = 5.0


def probe(cluster: str, environment: Mapping[str, str] | None) -> Submission:
    """Return the submission of the job that checks a cluster."""
    return Submission(
        recipe=PROBE,
        atoms=None,
        cluster=cluster,
        name=f"check {cluster}",
        environment=environment,
    )


def described(cluster: str, configured: Config) -> list[Check]:
    """Return the checks of a configured cluster; none for an engine's own cluster."""
    for entry in describe_clusters(configured):
        if entry["name"] == cluster:
            return cluster_checks(entry)
    return []


def judged(cluster: str, job: JobMetadata, result: Mapping[str, Any] | None) -> list[Check]:
    """Return the checks of a probe job on a cluster, with remedies.

    `result` is the result of a completed job. `InvalidJob`: the job is no probe of this cluster.
    """
    if job.recipe != PROBE or job.cluster != cluster:
        raise InvalidJob(
            f"job {job.job_id} runs {job.recipe} on the cluster {job.cluster!r}; it is no check of "
            f"the cluster {cluster!r}; leave out job_id to submit one"
        )
    if not job.state.is_terminal():
        return []
    if job.state is not JobState.COMPLETED or result is None:
        short = job.job_id[:8]
        message = f"job {job.job_id} {job.state.value}: {job.error or 'no reason is known'}"
        remedy = f"see crystalmath logs {short}, crystalmath result {short}"
        return [Check("job", "error", message, remedy)]
    return list(_result_checks(job, result))


def _result_checks(job: JobMetadata, result: Mapping[str, Any]) -> Iterator[Check]:
    """Yield the checks that follow from the result of a probe job."""
    waited = f"{(job.started_at or job.created_at) - job.created_at:.0f} s"
    yield Check("queue", "ok", f"the job waited {waited} until it ran")
    where = (
        f"{result['host']}, {result['cores']} cores, Python {result['python']} ({result['prefix']})"
    )
    same = result["python"].rpartition(".")[0] == platform.python_version().rpartition(".")[0]
    remedy = None if same else f"here it is {platform.python_version()} ({sys.prefix})"
    yield Check("node", "ok" if same else "warning", where, remedy)
    yield Check("home", "ok", f"{result['directory']} was written to there")
    yield _clock(job, result["time"])
    own = result["engines"].get(job.engine, {})
    for distribution, there in {**result["versions"], **own}.items():
        yield _version(distribution, there)
    for each in result["conditions"]:
        state = "ok" if each["ok"] else "warning"
        yield Check(each["name"], state, each["message"], each["remedy"])


def _clock(job: JobMetadata, there: float) -> Check:
    """Compare the node's clock with times of this host before and after it was read."""
    ahead = there - time.time()
    behind = job.created_at - there
    if max(ahead, behind) <= _CLOCK_S:
        message = f"the node's agrees with this host's to {_CLOCK_S:g} s"
        return Check("clock", "ok", message)
    word = "ahead of" if ahead > behind else "behind"
    message = f"the node's is at least {max(ahead, behind):.0f} s {word} this host's"
    remedy = "times of jobs will be wrong; ask the administrator to synchronize the clocks"
    return Check("clock", "warning", message, remedy)


def _version(distribution: str, there: str | None) -> Check:
    here: str | None
    try:
        here = build_version() if distribution == "crystalmath" else version(distribution)
    except PackageNotFoundError:
        here = None
    if there is None:
        state = "warning" if here is None else "error"
        remedy = "install it into the Python that the node uses"
        return Check(distribution, state, "is not installed", remedy)
    if here == there:
        return Check(distribution, "ok", there)
    remedy = f"here it is {here or 'not installed'}"
    return Check(distribution, "warning", there, remedy)
