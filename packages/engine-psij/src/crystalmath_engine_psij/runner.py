"""The runner of the PSI/J engine, which passes the attempts of each cluster to its batch system."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

from attrs import evolve, fields

from crystalmath.errors import ConfigError, EngineUnavailable
from crystalmath.models import Capabilities, Resources, Sighting
from crystalmath.quacc.engine import EngineRunner
from crystalmath_engine_psij import options
from crystalmath_engine_psij.directives import LACKS
from crystalmath_engine_psij.local_jobs import LocalJobs
from crystalmath_engine_psij.quiet_import import import_psij

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from crystalmath.models import Attempt, EngineSettings
    from crystalmath_engine_psij.batch_jobs import BatchJobs

_Key = TypeVar("_Key")
_LOCAL = "local"
#: The resources that processes of this host can have.
_HERE = frozenset({"ranks", "cores_per_rank"})
_ALL = frozenset(field.name for field in fields(Resources))


class PsijRunner(EngineRunner):
    """A runner that gives each job an allocation of its own.

    Parameters
    ----------
    settings : EngineSettings
        ``workers``: how many jobs run at once on this host, on the cluster ``local``. The other
        clusters are those of the configuration file whose engine this is.
    """

    # When a batch system reports the end of an allocation, all its processes have ended.
    capabilities = Capabilities(
        max_queued=500, drops_queued=True, gone_means_dead=True, resources=_HERE
    )

    def __init__(self, settings: EngineSettings) -> None:
        super().__init__(settings)
        self._workers = options.workers(settings)
        self._clusters = options.clusters(settings)
        self._local = LocalJobs(settings.directory, self._workers, self.log, self.notice)
        self._batch: dict[str, BatchJobs] = {}

    def clusters(self) -> Sequence[str]:
        """Return the names of this host and of the configured clusters."""
        return [_LOCAL, *self._clusters]

    def capabilities_of(self, cluster: str) -> Capabilities:
        """Return the capabilities of this host, or of a batch system with an order of its own."""
        if cluster == _LOCAL:
            return self.capabilities
        known = self._clusters.get(cluster)
        able = _ALL.difference(LACKS.get(known.scheduler, {}) if known else ())
        return evolve(self.capabilities, workers_here=False, starts_in_order=False, resources=able)

    def cores(self, cluster: str) -> int | None:
        """Return how many cores this host has; those of other nodes are unknown."""
        return len(os.sched_getaffinity(0)) if cluster == _LOCAL else None

    def launch(self, attempts: Sequence[Attempt]) -> Mapping[str, str | Exception]:
        """Start a process, or submit an allocation, for each attempt.

        An error of one cluster holds for its own jobs alone.
        """
        answers: dict[str, str | Exception] = {}
        for name, those in _grouped(attempts, lambda attempt: attempt.cluster).items():
            try:
                answers.update(self._launch_on(name, those))
            except (EngineUnavailable, ConfigError) as error:
                answers.update(dict.fromkeys([attempt.id for attempt in those], error))
        return answers

    def probe(self, attempts: Sequence[Attempt]) -> Mapping[str, Sighting]:
        """Look attempts up, with one query for all clusters of a batch system."""
        seen: dict[str, Sighting] = {}
        for scheduler, those in _grouped(attempts, self._scheduler).items():
            if scheduler is None:  # they may run, but their batch system is unknown
                lost = {each.id: Sighting("unknown", _removed(each.cluster)) for each in those}
                seen.update(lost)
                continue
            try:
                seen.update(self._jobs(scheduler).probe(those))
            except EngineUnavailable as error:
                seen.update({each.id: Sighting("unknown", str(error)) for each in those})
        return seen

    def release(self, attempts: Sequence[Attempt]) -> None:
        """Drop attempts that have not begun; batch systems end running ones, too."""
        troubles = []
        for scheduler, those in _grouped(attempts, self._scheduler).items():
            if scheduler is not None:
                try:
                    self._jobs(scheduler).release(those)
                except EngineUnavailable as error:
                    troubles.append(str(error))
        if troubles:
            raise EngineUnavailable("; ".join(troubles))

    def stop(self) -> None:
        """Start no further job; those that were let go run on without us."""
        self._local.stop()

    def _launch_on(self, name: str, attempts: Sequence[Attempt]) -> Mapping[str, str | Exception]:
        if name == _LOCAL:
            return self._local.launch(attempts)
        if name not in self._clusters:
            raise ConfigError(_removed(name))
        cluster = self._clusters[name]
        return self._batch_jobs(cluster.scheduler).launch(attempts, cluster)

    def _scheduler(self, attempt: Attempt) -> str | None:
        """Return the batch system of an attempt; ``None`` if its cluster was removed."""
        if attempt.cluster == _LOCAL:
            return _LOCAL
        cluster = self._clusters.get(attempt.cluster)
        return cluster.scheduler if cluster else None

    def _jobs(self, scheduler: str) -> LocalJobs | BatchJobs:
        return self._local if scheduler == _LOCAL else self._batch_jobs(scheduler)

    def _batch_jobs(self, scheduler: str) -> BatchJobs:
        if scheduler not in self._batch:
            import_psij()
            from crystalmath_engine_psij.batch_jobs import BatchJobs

            self._batch[scheduler] = BatchJobs(scheduler, self.settings.directory, self.log)
        return self._batch[scheduler]


def _removed(cluster: str) -> str:
    return f"[clusters.{cluster}] is not in the configuration file any more"


def _grouped(
    attempts: Sequence[Attempt], key: Callable[[Attempt], _Key]
) -> dict[_Key, list[Attempt]]:
    groups: dict[_Key, list[Attempt]] = {}
    for attempt in attempts:
        groups.setdefault(key(attempt), []).append(attempt)
    return groups
