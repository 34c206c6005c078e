"""The jobs that failed last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from crystalmath.models import JobState
from crystalmath.store.records import Failure
from crystalmath.store.tables import jobs

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

#: Only among so many failed jobs, those that were submitted last, is looked for the last to fail.
_LOOKED_THROUGH = 1000


def newest_failures(connection: Connection, limit: int) -> list[Failure]:
    """Give the jobs that failed last, the newest failure first."""
    failed = select(jobs.c.number).where(jobs.c.state == JobState.FAILED.value)
    # The index gives them in this order; one over the times would slow down every change.
    newest = failed.order_by(jobs.c.number.desc()).limit(_LOOKED_THROUGH).subquery()
    query = select(jobs.c.job_id, jobs.c.name, jobs.c.recipe, jobs.c.finished_at, jobs.c.error)
    query = query.join(newest, newest.c.number == jobs.c.number)
    query = query.order_by(jobs.c.finished_at.desc(), jobs.c.number.desc()).limit(limit)
    return [Failure(**row) for row in connection.execute(query).mappings()]
