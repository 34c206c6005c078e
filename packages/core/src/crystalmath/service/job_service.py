"""The one place that joins what is below: preflight, store, run directories and engines."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from typing import TYPE_CHECKING, Self

from crystalmath import config
from crystalmath.errors import CrystalMathError, InvalidJob
from crystalmath.jobs.identities import own_identity
from crystalmath.service.ended_elsewhere import record_rows
from crystalmath.service.engine_pool import Runners
from crystalmath.service.home_jobs import HomeJobs
from crystalmath.service.job_events import JobEvents
from crystalmath.service.pruning import Pruned, prune
from crystalmath.service.recorder import Recorder
from crystalmath.service.recovery import Recovery
from crystalmath.service.rerunning import Rerunning
from crystalmath.service.takeover import Takeover

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from crystalmath.models import Job, NewJob
    from crystalmath.service.pruning import Choice

_LOG = logging.getLogger("crystalmath.service")


class JobService(HomeJobs, JobEvents, Rerunning, Takeover):
    """Submit, follow and cancel the jobs of one home.

    Parameters
    ----------
    configured : Config or Source, optional
        The home's configuration; a source is asked again at each submission. Default: as read now
        from the environment and the configuration file.
    environ : mapping of str to str
        The environment of jobs whose submission brings none.
    """

    def __init__(
        self,
        configured: config.Config | config.Source | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._source = configured if isinstance(configured, config.Source) else None
        given = configured.last if isinstance(configured, config.Source) else configured
        home = given or config.load()
        self._environ = environ
        self._process = os.getpid()
        self._leaving = False
        self._recorder = Recorder(
            home.database_url,
            home.jobs_directory,
            network=home.network,
            unwritten=lambda: self._runners.unwritten(),  # noqa: PLW0108 - they come next
        )
        self._runners = Runners(lambda: self.config, self._recorder.report)
        own_identity(home.jobs_directory, home.lease_s)
        self._recovery = Recovery(
            self._recorder, self._runners.get, self._follows, home.jobs_directory
        )
        super().__init__(home, self._recorder, self._recovery, self._runners)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def open(self) -> None:
        """Open the job database, if there is one, and bring it to this release's schema.

        Raises
        ------
        NewerDatabaseError
            A newer release uses it.
        StoreError
            It cannot be opened now.
        """
        self._recorder.open()

    def close(self, *, cancel: bool = True) -> None:
        """End the engines, and close the store; see :meth:`finish`."""
        self.finish(cancel=cancel)
        if os.getpid() == self._process:
            self._recorder.close()

    def finish(self, *, cancel: bool = True) -> None:
        """End the engines; what became of the jobs can be read still.

        Parameters
        ----------
        cancel : bool
            Cancel this process's own unfinished jobs. Without it they are let go: what runs goes
            on, and what waits is for whoever takes it over.
        """
        if os.getpid() != self._process:
            return  # a forked child has no jobs of its own, and must not touch the parent's
        self._leaving = not cancel
        followed = self._runners.close(cancel=cancel)
        self._recorder.finish()
        try:
            self._recovery.disown(own=not cancel, but=followed)
        except CrystalMathError as error:
            _LOG.warning("cannot record that jobs are let go: %s", error)
        self._recovery.host.rest()

    def record_ended(self, ended: Sequence[tuple[Job, NewJob, str | None]]) -> None:
        """Record jobs that have ended elsewhere; see :mod:`crystalmath.service.job_archive`."""
        record_rows(self._recorder, ended)

    def prune(
        self, choice: Choice, *, dry_run: bool = False, limit: int = 1000, cursor: str | None = None
    ) -> Generator[None, None, Pruned]:
        """Throw away files of ended jobs; see :func:`crystalmath.service.pruning.prune`."""
        if self.config.restricted is not None and not dry_run:
            raise InvalidJob(
                "this home is restricted, and removes no files of its jobs; take [restricted] out "
                "of its config.toml while you prune"
            )
        if not self._recorder.exists():
            self._require_no_directories()
            return Pruned()
        return (
            yield from prune(
                self._recorder,
                self.config.jobs_directory,
                choice,
                dry_run=dry_run,
                limit=limit,
                cursor=cursor,
            )
        )

    def engine_states(self) -> Mapping[str, str]:
        """Tell of each installed engine what has become of it here, without loading any."""
        return self._runners.states()

    def engine_workers(self) -> Mapping[str, int | None]:
        """Return how many jobs each loaded engine runs at once; ``None`` where it does not know."""
        return self._runners.workers()

    def backlog(self) -> Mapping[str, int]:
        """Tell of each loaded engine how many jobs that are followed here wait to begin."""
        return self._runners.backlog()


_services: dict[Path, JobService] = {}
_services_lock = threading.Lock()


def default_service() -> JobService:
    """Return this process's service for the present home; it ends with the interpreter."""
    configured = config.load()
    with _services_lock:
        service = _services.get(configured.home)
        if service is None:
            service = _services[configured.home] = JobService(configured)
            # Registered after the engines' own, so called before: the store is told of the end.
            import crystalmath.quacc.engines  # noqa: F401

            atexit.register(service.close)
        elif service.config != configured:
            service.config = configured
        return service
