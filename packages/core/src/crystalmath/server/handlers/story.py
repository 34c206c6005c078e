"""The handler that tells a job's whole story."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crystalmath.models.fields import array, nullable, reference
from crystalmath.server.rpc.declare import method
from crystalmath.server.rpc.shapes import COMPONENTS, ERROR, JOB, JOB_ID, STATE, record
from crystalmath.service import job_answers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crystalmath.models.answers import Story
    from crystalmath.server.rpc.shapes import JobIdParams
    from crystalmath.service import JobService

_TEXT: Mapping[str, Any] = {"type": "string"}
_COUNT: Mapping[str, Any] = {"type": "integer"}

_RELATIVE = record(
    {
        **COMPONENTS["Parent"]["properties"],
        "name": nullable(_TEXT),
        "recipe": nullable(_TEXT),
        "status": {**nullable(STATE), "description": "its state; null where it is not on record"},
    }
)
_RELATIVE["required"] = ["job_id", "role", "name", "recipe", "status"]
_ATTEMPT = record(
    {
        "attempt": {**_COUNT, "description": "its number; the first is 1"},
        "host": {**nullable(_TEXT), "description": "where it began; null where it has not"},
        "pid": {**nullable(_COUNT), "description": "of the process that looked after it"},
        "outcome": {
            **nullable(_TEXT),
            "description": "completed, failed, cancelled or lost; null where it has none",
        },
        "error": {**nullable(_TEXT), "description": "what was wrong, for people"},
        "begun_from": {
            **nullable(_TEXT),
            "description": "the file of an earlier attempt from whose geometry it began; null "
            "where it began with what the job was given",
        },
        "work_dir": _TEXT,
    }
)


@method(
    "jobs.show",
    params={"job_id": JOB_ID},
    required=("job_id",),
    result=record(
        {
            "job": {**JOB, "description": "what jobs.status tells"},
            "params": {"type": "object", "description": "the recipe's parameters"},
            "potcars": {
                **array(reference("Potcar")),
                "description": "the pseudopotentials that it reads, as they were at submission",
            },
            "parents": {**array(_RELATIVE), "description": "the jobs that it came of"},
            "children": {**array(_RELATIVE), "description": "the jobs that came of it"},
            "attempts": array(_ATTEMPT),
            "events": {
                **array(reference("Event")),
                "description": f"the first {job_answers.MOST_RELATED} with their reasons, the "
                "oldest first",
            },
            "error": ERROR,
        }
    ),
    refused={
        "job": None,
        "params": {},
        **{name: [] for name in ("potcars", "parents", "children", "attempts", "events")},
    },
    pool="files",
    answer_size=lambda _: job_answers.EVENT_SIZE * job_answers.MOST_RELATED,
)
def handle_jobs_show(service: JobService, params: JobIdParams) -> Story:
    """Tell a job's whole story: what it came of and what came of it, its attempts and events.

    ``jobs.files`` lists what it has written, ``jobs.logs`` reads it.
    """
    return job_answers.story(service, params["job_id"])
