"""The records of the job store beside its jobs (:class:`~crystalmath.models.Job`).

Errors are grouped by what they have in common: each names its own directory, id, address.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from attrs import define, field, frozen

from crystalmath.models import Job

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crystalmath.models import JobState

#: The promised name (:mod:`crystalmath.quacc.store`) of the one record of a job.
JobMetadata = Job


@frozen(kw_only=True)
class Event:
    """One line of the event log. ``seq`` grows; equal states mark a note, not a change."""

    seq: int
    job_id: str
    at: float
    from_state: JobState | None
    to_state: JobState
    reason: str | None


@frozen(kw_only=True)
class ErrorCount:
    """How many jobs failed with errors that have this in common, and the newest few of them."""

    error: str
    count: int
    job_ids: tuple[str, ...]


@frozen(kw_only=True)
class Failure:
    """A job that failed, when (in seconds since the epoch), and its whole error."""

    job_id: str
    name: str | None
    recipe: str
    finished_at: float | None
    error: str | None


#: At most so many groups of errors are returned.
_ERRORS = 50
#: Each group names at most so many jobs.
_NAMED = 5
#: While errors are counted, only the most frequent groups stay, at least so many.
_APART = 5000
_LONGEST = 500

_OWN = re.compile(
    r"""
    (?<![^\s'"`(\[{<=:,;]) ~?/ [^\s'"`()\[\]{}<>,;]+                 # a path
    | [0-9a-f]{8} -(?:[0-9a-f]{4}-){3} [0-9a-f]{12} [^\s'"`(),;]*    # an id, and what is below it
    | \b0x[0-9a-f]{6,}\b                                            # an address in memory
    """,
    re.VERBOSE,
)


@define
class _Group:
    error: str
    count: int = 0
    job_ids: list[str] = field(factory=list)


def group_errors(errors: Iterable[tuple[str, str]]) -> list[ErrorCount]:
    """Count errors by their first line without paths and ids, the most frequent first.

    `errors` has the error and the id of each failed job, the newest first. A group of equal errors
    shows the error unchanged.
    """
    groups: dict[str, _Group] = {}
    for error, job_id in errors:
        common = in_common(error)
        group = groups.setdefault(common, _Group(error[:_LONGEST]))
        if group.error != error[:_LONGEST]:
            group.error = common
        group.count += 1
        if len(group.job_ids) < _NAMED:
            group.job_ids.append(job_id)
        if len(groups) > 2 * _APART:
            groups = dict(_frequent(groups)[:_APART])
    return [
        ErrorCount(error=group.error, count=group.count, job_ids=tuple(group.job_ids))
        for _, group in _frequent(groups)[:_ERRORS]
    ]


# Many jobs fail with the same error.
@lru_cache(maxsize=256)
def in_common(error: str) -> str:
    """Return an error's first line without paths and ids, which similar errors share.

    The result for a group's text is that text.
    """
    return _OWN.sub("...", error.strip().partition("\n")[0][:_LONGEST])[:_LONGEST]


def _frequent(groups: dict[str, _Group]) -> list[tuple[str, _Group]]:
    return sorted(groups.items(), key=lambda item: (-item[1].count, item[0]))
