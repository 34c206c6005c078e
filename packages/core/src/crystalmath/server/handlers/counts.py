"""The handler that counts over time what became of jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

from crystalmath.models.answers import CountedOverTime
from crystalmath.models.fields import Limits
from crystalmath.models.filters import FilterParams
from crystalmath.server.rpc.declare import method
from crystalmath.service import job_answers

if TYPE_CHECKING:
    from crystalmath.service import JobService

# Later than any clock says, and whole numbers of which are exact.
_Time: TypeAlias = Annotated[float, Limits(minimum=0, maximum=2**40)]


class CountsParams(FilterParams, total=False):
    """The parameters of ``jobs.counts``."""

    bucket_s: Annotated[
        float,
        Limits(minimum=1, maximum=2**40),
        "the length of a bucket in seconds; default: 3600",
    ]
    start: Annotated[_Time, "from then on, in seconds since the epoch; default: 24 buckets"]
    end: Annotated[_Time, "until then, in seconds since the epoch; default: now"]


@method(
    "jobs.counts",
    refused={"bucket_s": 0, "buckets": [], "states": {}},
    bulk=True,
)
def handle_jobs_counts(service: JobService, params: CountsParams) -> CountedOverTime:
    """Count how many jobs ended in which state over time.

    Buckets begin at whole multiples of ``bucket_s`` since the epoch, and the first and the last are
    whole ones; none is left out. A job that came to a state several times, as to ``running`` after
    an attempt was lost, counts each time. All filters must agree, as in jobs.list; ``state`` is the
    state, or states, that jobs came to, by default those in which a job ends.
    """
    return job_answers.counts(service, params)
