"""Count jobs by state and error, and changes of them over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from crystalmath.store.event_counts import count_reached
from crystalmath.store.failures import newest_failures
from crystalmath.store.postgresql import patient
from crystalmath.store.selection import count_errors, count_states

if TYPE_CHECKING:
    from collections.abc import Collection

    from crystalmath.models import JobState
    from crystalmath.models.filters import StoreSelection
    from crystalmath.store.database import Database
    from crystalmath.store.records import ErrorCount, Failure
    from crystalmath.store.totals import Totals


class JobCounts:
    """What the job store tells of many jobs together."""

    _database: Database
    _totals: Totals

    @patient
    def summary(
        self, **filters: Unpack[StoreSelection]
    ) -> tuple[dict[JobState, int], list[ErrorCount]]:
        """Count the jobs by their state, and those that failed by their error.

        Parameters
        ----------
        **filters
            See :func:`crystalmath.store.selection.selected`.
        """
        with self._database.reading() as connection:
            return count_states(connection, filters), count_errors(connection, filters)

    @patient
    def totals(self, **filters: Unpack[StoreSelection]) -> dict[JobState, int]:
        """Count the jobs by their state.

        The same filters are counted once, and then what has happened since: who watches a list, or
        turns its pages, asks again and again.

        Parameters
        ----------
        **filters
            See :func:`crystalmath.store.selection.selected`.
        """
        with self._database.reading() as connection:
            return self._totals.count(connection, filters)

    @patient
    def counts(
        self,
        states: Collection[JobState],
        *,
        start: float,
        end: float,
        bucket_s: float,
        **filters: Unpack[StoreSelection],
    ) -> dict[tuple[int, JobState], int]:
        """Count the changes of jobs to some states over time.

        Parameters
        ----------
        states : collection of JobState
            Only changes to these.
        start, end : float
            From when on, and until before when, in seconds since the epoch.
        bucket_s : float
            The length of a bucket in seconds; the first begins at `start` and has the number 0.
        **filters
            Only of these jobs; see :func:`crystalmath.store.selection.selected`.

        Returns
        -------
        dict
            By the number of the bucket and the state; what there was none of is left out.
        """
        with self._database.reading() as connection:
            return count_reached(
                connection, states, start=start, end=end, bucket_s=bucket_s, filters=filters
            )

    @patient
    def failures(self, limit: int) -> list[Failure]:
        """Give the jobs that failed last, the newest failure first, at most `limit` of them."""
        with self._database.reading() as connection:
            return newest_failures(connection, limit)
