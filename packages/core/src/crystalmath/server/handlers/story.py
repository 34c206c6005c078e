"""The handler that tells a job's whole story."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crystalmath.models.answers import Story
from crystalmath.server.rpc.declare import JobIdParams, method
from crystalmath.service import job_answers

if TYPE_CHECKING:
    from crystalmath.service import JobService


@method(
    "jobs.show",
    refused={
        "job": None,
        "params": {},
        **{name: [] for name in ("potcars", "parents", "children", "attempts", "events")},
    },
    pool="files",
)
def handle_jobs_show(service: JobService, params: JobIdParams) -> Story:
    """Tell a job's whole story: what it came of and what came of it, its attempts and events.

    ``jobs.files`` lists what it has written, ``jobs.logs`` reads it.
    """
    return job_answers.story(service, params["job_id"])
