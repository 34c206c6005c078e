"""The PSI/J engine: one job, one allocation; here it is told which cluster takes which."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crystalmath.models import Capabilities
from crystalmath.quacc.engine import EngineRunner
from crystalmath_engine_psij import options
from crystalmath_engine_psij.local_jobs import LocalJobs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from crystalmath.models import Attempt, EngineSettings, Sighting

__all__ = ["PsijRunner"]


class PsijRunner(EngineRunner):
    """Run each job in an allocation of its own.

    Parameters
    ----------
    settings : EngineSettings
        ``workers``: how many jobs run at once on this host, on the cluster ``local``.
    """

    capabilities = Capabilities(max_queued=500, drops_queued=True)

    def __init__(self, settings: EngineSettings) -> None:
        super().__init__(settings)
        self._workers = options.workers(settings)
        self._local = LocalJobs(settings.directory, self._workers, self.log, self.notice)

    def workers(self) -> int:
        """Tell how many jobs run at once on this host."""
        return self._workers

    def launch(self, attempts: Sequence[Attempt]) -> Mapping[str, str]:
        """Start a process for each attempt, as soon as there is room."""
        return self._local.launch(attempts)

    def probe(self, attempts: Sequence[Attempt]) -> Mapping[str, Sighting]:
        """Tell what became of them."""
        return self._local.probe(attempts)

    def release(self, attempts: Sequence[Attempt]) -> None:
        """Drop what has not begun."""
        self._local.release(attempts)

    def stop(self) -> None:
        """Start nothing any more; what was let go runs on without us."""
        self._local.stop()
