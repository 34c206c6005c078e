"""The handler that has the calculations of a failed job read again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from crystalmath.models.answers import SubmittedJob
from crystalmath.models.fields import Limits, from_wire, properties
from crystalmath.models.retry import Retry
from crystalmath.server.handlers.submission import submitted, submitting_pool
from crystalmath.server.rpc.declare import JobIdParams, method, once

if TYPE_CHECKING:
    from crystalmath.service import JobService

_PLACE = properties(Retry)


class RereadParams(JobIdParams, total=False):
    """The parameters of ``jobs.reread``."""

    engine: Annotated[str, Limits(**_PLACE["engine"])]
    cluster: Annotated[str, Limits(**_PLACE["cluster"])]
    settings: Annotated[
        Mapping[str, str], "settings of quacc that are other this time, as CHECK_CONVERGENCE"
    ]


@method(
    "jobs.reread",
    pool=lambda _: submitting_pool({"inputs": True}),
    by_server=True,
    repeatable=once,  # it would make a second job
)
def handle_jobs_reread(service: JobService, params: RereadParams) -> SubmittedJob:
    """Read the calculations of a failed job again, as a new job that points to it.

    For a job whose program came to its end, and whose output could not be read, or was refused. The
    recipe is called again, and in the place of the program its files are given which it wrote then;
    what has no such files is not computed.
    """
    changes = Retry(**from_wire(Retry, params))
    return submitted(service.reread(params["job_id"], changes, params.get("settings")))
