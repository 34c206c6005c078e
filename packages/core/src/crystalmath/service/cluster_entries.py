"""The clusters of the configuration file, as they are listed."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from crystalmath.engines import schedulers

if TYPE_CHECKING:
    from crystalmath.config import Config
    from crystalmath.models.answers import ClusterEntry
    from crystalmath.quacc.engines import EngineInfo


def describe_clusters(configured: Config) -> list[ClusterEntry]:
    """Describe the clusters, each with what is in the way of its jobs; nothing is started.

    Each batch system is asked for next to nothing, to see whether it answers.
    """
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
