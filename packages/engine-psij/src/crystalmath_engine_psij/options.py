"""The options and clusters of the PSI/J engine in the configuration; nothing here imports PSI/J."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from crystalmath.errors import ConfigError
from crystalmath_engine_psij.directives import LACKS, SIGNS, directives

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crystalmath.models import Cluster, EngineSettings

#: The options of ``[engines.psij]``, with type and meaning.
OPTIONS = {
    "workers": ("whole number", "jobs at a time on the cluster local; default: the usable cores")
}


def workers(settings: EngineSettings) -> int:
    """Return how many jobs run at once on the cluster ``local``: ``workers``, or one a core."""
    settings.check_options(*OPTIONS)
    count = settings.options.get("workers", len(os.sched_getaffinity(0)))
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ConfigError(
            f"[engines.{settings.name}] workers must be a whole number from 1, not {count!r}"
        )
    return count


def clusters(settings: EngineSettings) -> Mapping[str, Cluster]:
    """Return the configured clusters of this engine, all but ``local``, by name.

    `ConfigError` is raised if a cluster has an option that this engine does not know or cannot
    honour.
    """
    for cluster in settings.clusters.values():
        cluster.check_options()
        if cluster.scheduler not in SIGNS:
            known = ", ".join(SIGNS)
            raise cluster.refused("scheduler", f"must be one of {known}, not {cluster.scheduler!r}")
        for lacked, why in LACKS.get(cluster.scheduler, {}).items():
            if lacked in cluster.resources.given():
                raise cluster.refused(lacked, f"cannot be used: {why}")
        try:
            directives(cluster.scheduler, "name", cluster.resources)
        except ConfigError as error:
            raise cluster.refused("options", f"cannot be used: {error}") from error
        place = str(settings.home)
        if shlex.quote(place) != place:
            # PSI/J's templates quote it twice.
            raise ConfigError(
                f"batch scripts cannot name {place!r}: CRYSTALMATH_HOME must be a plain path, "
                "without blanks"
            )
    return settings.clusters
