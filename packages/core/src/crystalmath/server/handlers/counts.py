"""The handler that counts over time what became of jobs."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from crystalmath.errors import InvalidJob
from crystalmath.models import JobState
from crystalmath.models.fields import array
from crystalmath.models.filters import FilterParams
from crystalmath.server.handlers.jobs import FILTERS, read_filters
from crystalmath.server.rpc.declare import method
from crystalmath.server.rpc.shapes import ERROR, record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crystalmath.models.answers import CountedOverTime
    from crystalmath.service import JobService

#: So many buckets at most.
_MOST = 10_000
#: What one of them takes in memory about, in bytes.
_SIZE = 500
#: So many buckets are told unless `start` says otherwise.
_USUAL = 24
_ENDS = tuple(state for state in JobState if state.is_terminal())
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
    answer_size=lambda _: _SIZE * _MOST,
)
def handle_jobs_counts(service: JobService, params: CountsParams) -> CountedOverTime:
    """Count how many jobs ended in which state over time.

    Buckets begin at whole multiples of ``bucket_s`` since the epoch, and the first and the last are
    whole ones; none is left out. A job that came to a state several times, as to ``running`` after
    an attempt was lost, counts each time. All filters must agree, as in jobs.list.
    """
    bucket_s = float(params.pop("bucket_s", 3600))
    start, end = params.pop("start", None), params.pop("end", None)
    last = math.floor((time.time() if end is None else end) / bucket_s)
    first = max(0, last - _USUAL + 1) if start is None else math.floor(start / bucket_s)
    if start is not None and first > last:
        raise InvalidJob(f"'start' ({start:g}) is after 'end' ({(last + 1) * bucket_s:g})")
    count = last - first + 1
    if count > _MOST:
        raise InvalidJob(
            f"from 'start' to 'end' there are {count} buckets of {bucket_s:g} s, and at most "
            f"{_MOST} are told; take a larger 'bucket_s', or a later 'start'"
        )
    filters = read_filters(params)
    states = filters.pop("state", _ENDS)
    ends = (last + 1) * bucket_s
    found = service.counts(states, start=first * bucket_s, end=ends, bucket_s=bucket_s, **filters)
    return {
        "bucket_s": bucket_s,
        "buckets": [
            {
                "at": (first + number) * bucket_s,
                "states": {state.value: found.get((number, state), 0) for state in states},
            }
            for number in range(count)
        ],
        "states": {
            state.value: sum(found.get((number, state), 0) for number in range(count))
            for state in states
        },
        "error": None,
    }
