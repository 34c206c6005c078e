"""The PSI/J engine: one job, one allocation; here each cluster is given to its batch system."""

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
#: What processes of this host can be given.
_HERE = frozenset({"ranks", "cores_per_rank"})
_ALL = frozenset(field.name for field in fields(Resources))


class PsijRunner(EngineRunner):
    """Run each job in an allocation of its own.

    Parameters
    ----------
    settings : EngineSettings
        ``workers``: how many jobs run at once on this host, on the cluster ``local``. The other
        clusters are those of the configuration file whose engine this is.
    """

    # A batch system's word that an allocation is over is its word for all processes in it.
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
        """Name this host and the clusters that are configured."""
        return [_LOCAL, *self._clusters]

    def capabilities_of(self, cluster: str) -> Capabilities:
        """Return what a cluster can do: this host, or a batch system with an order of its own."""
        if cluster == _LOCAL:
            return self.capabilities
        known = self._clusters.get(cluster)
        able = _ALL.difference(LACKS.get(known.scheduler, {}) if known else ())
        return evolve(self.capabilities, workers_here=False, starts_in_order=False, resources=able)

    def cores(self, cluster: str) -> int | None:
        """Return how many cores a node has; those of a batch system's are its own affair."""
        return len(os.sched_getaffinity(0)) if cluster == _LOCAL else None

    def launch(self, attempts: Sequence[Attempt]) -> Mapping[str, str | Exception]:
        """Start a process, or submit an allocation, for each attempt.

        One cluster's trouble keeps back its own jobs.
        """
        answers: dict[str, str | Exception] = {}
        for name, those in _grouped(attempts, lambda attempt: attempt.cluster).items():
            try:
                answers.update(self._launch_on(name, those))
            except (EngineUnavailable, ConfigError) as error:
                answers.update(dict.fromkeys([attempt.id for attempt in those], error))
        return answers

    def probe(self, attempts: Sequence[Attempt]) -> Mapping[str, Sighting]:
        """Ask each batch system once for all attempts, on all of its clusters."""
        seen: dict[str, Sighting] = {}
        for scheduler, those in _grouped(attempts, self._scheduler).items():
            if scheduler is None:  # whom to ask nobody knows: they may run
                lost = {each.id: Sighting("unknown", _removed(each.cluster)) for each in those}
                seen.update(lost)
                continue
            try:
                seen.update(self._jobs(scheduler).probe(those))
            except EngineUnavailable as error:
                seen.update({each.id: Sighting("unknown", str(error)) for each in those})
        return seen

    def release(self, attempts: Sequence[Attempt]) -> None:
        """Drop what has not begun; batch systems end what has, too."""
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
        """Start nothing any more; what was let go runs on without us."""
        self._local.stop()

    def _launch_on(self, name: str, attempts: Sequence[Attempt]) -> Mapping[str, str | Exception]:
        if name == _LOCAL:
            return self._local.launch(attempts)
        if name not in self._clusters:
            raise ConfigError(_removed(name))
        cluster = self._clusters[name]
        return self._batch_jobs(cluster.scheduler).launch(attempts, cluster)

    def _scheduler(self, attempt: Attempt) -> str | None:
        """Return the batch system of an attempt; ``None`` if its cluster is unknown by now."""
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
