"""The handler that tells a job's whole story."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from crystalmath.jobs.rundir import RunDirectory
from crystalmath.models.fields import array, nullable, reference
from crystalmath.server.handlers.documents import EVENT_SIZE, event_document, job_document
from crystalmath.server.rpc.declare import method
from crystalmath.server.rpc.shapes import COMPONENTS, ERROR, JOB, JOB_ID, STATE, record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from crystalmath.models.answers import Parent, Relative, Story
    from crystalmath.quacc.store import JobMetadata
    from crystalmath.server.rpc.shapes import JobIdParams
    from crystalmath.service import JobService

_TEXT: Mapping[str, Any] = {"type": "string"}
_COUNT: Mapping[str, Any] = {"type": "integer"}
#: So many events and relatives are told; a job has a few.
_MOST = 1000

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
                "description": f"the first {_MOST} with their reasons, the oldest first",
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
    answer_size=lambda _: EVENT_SIZE * _MOST,
)
def handle_jobs_show(service: JobService, params: JobIdParams) -> Story:
    """Tell a job's whole story: what it came of and what came of it, its attempts and events.

    ``jobs.files`` lists what it has written, ``jobs.logs`` reads it.
    """
    from crystalmath.service.attempt_entries import attempts

    job_id = params["job_id"]
    job = service.job(job_id)
    _, document = service.specification(job_id).split("\n", 1)
    events, _ = service.events(job_ids=[job_id], limit=_MOST)
    return {
        "job": job_document(service, job),
        "params": json.loads(document)["parameters"],
        "potcars": service.pseudopotentials(job_id),
        "parents": _told(service, job.parents),
        "children": _told(service, service.children(job_id, limit=_MOST)),
        "attempts": attempts(RunDirectory(service.config.jobs_directory / job_id), job.attempt),
        "events": [event_document(service, event) for event in events],
        "error": None,
    }


def _told(service: JobService, relatives: Sequence[Parent]) -> list[Relative]:
    """Add what is on record of a job's relatives."""
    found = {job.job_id: job for job in service.some_jobs([one["job_id"] for one in relatives])}
    return [_relative(one, found.get(one["job_id"])) for one in relatives]


def _relative(one: Parent, job: JobMetadata | None) -> Relative:
    if job is None:
        return {**one, "name": None, "recipe": None, "status": None}
    return {**one, "name": job.name, "recipe": job.recipe, "status": job.state.value}
