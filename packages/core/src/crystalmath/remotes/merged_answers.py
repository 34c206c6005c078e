"""Puts the answers of several remotes together: jobs in their order, and sums of numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from crystalmath import server

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystalmath.wire.answers import JobDocument

#: Methods whose answers are numbers that can be added.
SUMS = (server.JOBS_LIST, server.JOBS_SUMMARY, server.JOBS_COUNTS)


def of_remote(name: str, job: JobDocument) -> JobDocument:
    """Return a job with the name of its remote."""
    return cast("JobDocument", {"remote": name, **job})


def in_order(jobs: Sequence[JobDocument], column: str) -> list[JobDocument]:
    """Sort the jobs of several lists as each list is; jobs without a value come last."""
    from crystalmath.models.columns import job_values
    from crystalmath.models.job import Job

    name = column.removeprefix("-")
    values = [next(iter(job_values(Job.read(job), [name]))) for job in jobs]
    there = [(value, job) for value, job in zip(values, jobs, strict=True) if value is not None]
    there.sort(key=lambda pair: pair[0], reverse=column != name)
    none = [job for value, job in zip(values, jobs, strict=True) if value is None]
    return [*(job for _, job in there), *none]


def summed(answers: Sequence[Any]) -> Any:
    """Add the numbers of answers: those in tables of the same names, and lists by what they name.

    Anything else is as in the first answer.
    """
    first = answers[0]
    if isinstance(first, bool | str) or first is None:
        return first
    if isinstance(first, int):
        return sum(answers)
    if isinstance(first, dict):
        every = [one for one in answers if isinstance(one, dict)]
        names = dict.fromkeys(name for one in every for name in one)
        return {
            name: value[0] if name in _NAMES else summed(value)
            for name in names
            if (value := [one[name] for one in every if name in one])
        }
    if isinstance(first, list) and all(isinstance(one, dict) for one in first):
        alike: dict[Any, list[Any]] = {}
        for number, item in enumerate(item for answer in answers for item in answer):
            alike.setdefault(item.get("at", item.get("error", number)), []).append(item)
        return [summed(items) for items in alike.values()]
    if isinstance(first, list):
        return [item for answer in answers for item in answer]
    return first


#: Numbers that are no counts.
_NAMES = {"at", "bucket_s"}
