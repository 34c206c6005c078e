"""What the server's methods answer that tell of many: each its list, and what is said beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from crystalmath.models.answers import (
        CancelledJob,
        ClusterEntry,
        EngineEntry,
        Event,
        JobDocument,
        JobParameters,
        JobProgress,
        ListedResult,
        PresetEntry,
        RecipeEntry,
        SubmittedJob,
    )
    from crystalmath.models.retry import RetriedJob

__all__ = [
    "CancelledJobs",
    "ClusterList",
    "EngineList",
    "EventList",
    "JobList",
    "JobStates",
    "ParametersList",
    "PresetList",
    "ProgressList",
    "RecipeList",
    "ResultList",
    "RetriedJobs",
    "SubmittedJobs",
    "WaitedJobs",
]


class JobStates(TypedDict):
    """Jobs in the order of their ids, or why one is not known (``jobs.status_many``)."""

    jobs: Sequence[JobDocument]
    error: str | None


class JobList(TypedDict):
    """A page of jobs, and how many there are in each state (``jobs.list``)."""

    jobs: Sequence[JobDocument]
    cursor: str | None
    totals: Mapping[str, int] | None
    error: str | None


class WaitedJobs(TypedDict):
    """Jobs as they were when the waiting was over (``jobs.wait``), and whether all had ended."""

    jobs: Sequence[JobDocument]
    done: bool
    error: str | None


class SubmittedJobs(TypedDict):
    """What became of many submissions, in their order (``jobs.submit_many``)."""

    jobs: Sequence[SubmittedJob]
    error: str | None


class CancelledJobs(TypedDict):
    """Of many jobs, whether it was asked that they be stopped (``jobs.cancel_many``)."""

    jobs: Sequence[CancelledJob]
    error: str | None


class RetriedJobs(TypedDict):
    """What came of jobs that were to run again (``jobs.retry``)."""

    jobs: Sequence[RetriedJob]
    error: str | None


class ProgressList(TypedDict):
    """How far jobs have come, in the order of their ids (``jobs.progress``)."""

    jobs: Sequence[JobProgress]
    error: str | None


class ResultList(TypedDict):
    """What the recipes of the first jobs returned, as many as fit (``jobs.results``)."""

    results: Sequence[ListedResult]
    error: str | None


class ParametersList(TypedDict):
    """What the recipes of the first jobs were given, as many as fit (``jobs.parameters``)."""

    parameters: Sequence[JobParameters]
    error: str | None


class EventList(TypedDict):
    """What has happened, the oldest first, and after which the next begin (``jobs.events``)."""

    events: Sequence[Event]
    last: int
    error: str | None


class EngineList(TypedDict):
    """The installed engines (``engines.list``)."""

    engines: Sequence[EngineEntry]
    error: str | None


class ClusterList(TypedDict):
    """The clusters of the configuration file (``clusters.list``)."""

    clusters: Sequence[ClusterEntry]
    error: str | None


class PresetList(TypedDict):
    """quacc's presets (``presets.list``)."""

    presets: Sequence[PresetEntry]
    error: str | None


class RecipeList(TypedDict):
    """The recipes that there are (``recipes.list``)."""

    recipes: Sequence[RecipeEntry]
    error: str | None
