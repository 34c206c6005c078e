"""The jobs of a home for a process that only looks at them: no engines, and no SQLAlchemy."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from crystalmath.service.current_jobs import Onlooker
from crystalmath.service.job_listings import JobListings
from crystalmath.service.job_results import JobResults
from crystalmath.service.recent_jobs import Recent
from crystalmath.store.job_reader import JobReader
from crystalmath.store.plain_sql import HEAD, SqliteFile, has_tables, sqlite_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crystalmath.config import Config


class HomeJobs(JobListings, JobResults):
    """All that can be asked about the jobs of a home."""

    @classmethod
    @contextmanager
    def look(cls, configured: Config) -> Iterator[Self]:
        """Look at the jobs of a home."""
        records = _Opened(configured)
        try:
            yield cls(configured, records, Onlooker(configured.jobs_directory), _Nobody())
        finally:
            records.close()


class _Nobody:
    """Follows no jobs."""

    def following(self, job_id: str) -> None:
        """Return nobody."""


class _Opened:
    """The job database, opened when it is first used."""

    def __init__(self, configured: Config) -> None:
        self._url = configured.database_url
        self._network = configured.network
        self._reader: JobReader | None = None
        self.recent = Recent()

    def exists(self) -> bool:
        """Return whether there is a job database, without making one."""
        return self._reader is not None or database_exists(self._url)

    def is_locked(self) -> bool:
        """Tell nothing: nobody else waits here."""
        return False

    @property
    def store(self) -> JobReader:
        """The job database."""
        if self._reader is None:
            self._reader = self._plain() or self._other()
        return self._reader

    def close(self) -> None:
        """Close it."""
        if self._reader is not None:
            self._reader.close()

    def _plain(self) -> JobReader | None:
        """Open a SQLite file with the tables of this release."""
        from crystalmath._storage import file_system, is_network

        file, network = sqlite_file(self._url), self._network
        if file is None or (is_network(file_system(file)) if network is None else network):
            return None  # on a network file system a SQLite file has another kind of journal
        database = SqliteFile(file)
        try:
            with database.reading() as snapshot:
                if snapshot.schema_version() == HEAD:
                    return JobReader(database)
        except BaseException:
            database.close()
            raise
        database.close()
        return None

    def _other(self) -> JobReader:
        """Open any other job database; `StoreError` for one of another release."""
        from crystalmath.quacc.store import JobStore

        return JobStore(self._url, create=False, network=self._network)


def database_exists(url: str) -> bool:
    """Return whether there is a job database, without making one; see :meth:`JobStore.exists`."""
    file = sqlite_file(url)
    if file is not None:
        return has_tables(file)
    from crystalmath.quacc.store import JobStore

    return JobStore.exists(url)
