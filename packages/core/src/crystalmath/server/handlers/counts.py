"""The handler that counts over time what became of jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crystalmath.models.fields import array
from crystalmath.models.filters import FilterParams
from crystalmath.server.handlers.jobs import FILTERS
from crystalmath.server.rpc.declare import method
from crystalmath.server.rpc.shapes import ERROR, record
from crystalmath.service import job_answers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crystalmath.models.answers import CountedOverTime
    from crystalmath.service import JobService

#: What one of them takes in memory about, in bytes.
_SIZE = 500
# Later than any clock says, and whole numbers of which are exact.
_TIME: Mapping[str, Any] = {"type": "number", "minimum": 0, "maximum": 2**40}
_STATES: Mapping[str, Any] = {
    "type": "object",
    "additionalProperties": {"type": "integer"},
    "description": "state -> how many jobs came to it",
}


class CountsParams(FilterParams, total=False):
    """The parameters of ``jobs.counts``."""

    bucket_s: float
    start: float
    end: float


@method(
    "jobs.counts",
    params={
        "bucket_s": {
            "type": "number",
            "minimum": 1,
            "maximum": 2**40,
            "description": "the length of a bucket in seconds; default: 3600",
        },
        "start": {
            **_TIME,
            "description": "from then on, in seconds since the epoch; default: 24 buckets",
        },
        "end": {**_TIME, "description": "until then, in seconds since the epoch; default: now"},
        **FILTERS,
        "state": {
            **FILTERS["state"],
            "description": "changes to this state, or these; default: those in which a job ends",
        },
    },
    result=record(
        {
            "bucket_s": {"type": "number"},
            "buckets": array(
                record({"at": {**_TIME, "description": "its beginning"}, "states": _STATES})
            ),
            "states": {**_STATES, "description": "in all buckets"},
            "error": ERROR,
        }
    ),
    refused={"bucket_s": 0, "buckets": [], "states": {}},
    answer_size=lambda _: _SIZE * job_answers.MOST_BUCKETS,
)
def handle_jobs_counts(service: JobService, params: CountsParams) -> CountedOverTime:
    """Count how many jobs ended in which state over time.

    Buckets begin at whole multiples of ``bucket_s`` since the epoch, and the first and the last are
    whole ones; none is left out. A job that came to a state several times, as to ``running`` after
    an attempt was lost, counts each time. All filters must agree, as in jobs.list.
    """
    return job_answers.counts(service, params)
