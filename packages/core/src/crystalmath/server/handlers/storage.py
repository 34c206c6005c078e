"""The handlers about what jobs take on the disk, and that throw it away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

from attrs import asdict

from crystalmath.models.fields import array, nullable
from crystalmath.models.filters import FilterParams
from crystalmath.server.handlers.jobs import FILTERS, filters_in
from crystalmath.server.pools import in_slices
from crystalmath.server.rpc.declare import method, number, trouble
from crystalmath.server.rpc.shapes import ERROR, JOB_IDS, MOST_JOBS, STATE, record
from crystalmath.service.job_answers import read_filters
from crystalmath.service.pruning import Choice, Pruned
from crystalmath.service.usage import Usage, measure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crystalmath.jobs.heavy import Use
    from crystalmath.models import answers
    from crystalmath.quacc.store import JobMetadata
    from crystalmath.service import JobService

_Group = TypeVar("_Group")
#: So many groups are told, the largest, and what each takes in memory about, in bytes.
_MOST = 1000
_GROUP_SIZE = 500
_COUNT = {"type": "integer", "minimum": 0}
_TEXT = {"type": "string"}
_USE = {
    "jobs": {**_COUNT, "description": "how many jobs"},
    "files": {**_COUNT, "description": "how many files"},
    "size": {**_COUNT, "description": "blocks of the disk, with those of folders, in bytes"},
    "heavy_size": {
        **_COUNT,
        "description": "of those that jobs.prune removes with keep_results, in bytes",
    },
}
_NO_USE: Mapping[str, Any] = dict.fromkeys(_USE, 0)


@method(
    "jobs.usage",
    params=FILTERS,
    result=record(
        {
            "total": record(_USE),
            "states": array(record({"state": STATE, **_USE})),
            "recipes": array(record({"recipe": _TEXT, **_USE})),
            "labels": array(record({"label": _TEXT, "value": _TEXT, **_USE})),
            "error": ERROR,
        }
    ),
    refused={"total": _NO_USE, "states": [], "recipes": [], "labels": []},
    answer_size=lambda _: 2 * _GROUP_SIZE * _MOST,
)
async def handle_jobs_usage(service: JobService, params: FilterParams) -> answers.Usage:
    """Measure what the run directories of jobs take: of all, by state, by recipe and by label.

    All filters must agree, as in jobs.list. Of recipes and labels the 1000 largest are told, the
    largest first. It looks at every file, which takes a second for some ten thousand.
    """
    usage: Usage = await in_slices("files", measure(service, **read_filters(params)))
    return {
        "total": _used(usage.total),
        "states": [{"state": state, **_used(use)} for state, use in _largest(usage.states)],
        "recipes": [{"recipe": recipe, **_used(use)} for recipe, use in _largest(usage.recipes)],
        "labels": [
            {"label": label, "value": value, **_used(use)}
            for (label, value), use in _largest(usage.labels)
        ],
        "error": None,
    }


def _used(use: Use) -> answers.Used:
    return cast("answers.Used", asdict(use))


def _largest(uses: Mapping[_Group, Use]) -> list[tuple[_Group, Use]]:
    return sorted(uses.items(), key=lambda item: (-item[1].size, str(item[0])))[:_MOST]


#: What says how much of which jobs is removed, beside the filters of jobs.list.
_CHOICE: Mapping[str, Any] = {
    "job_ids": {**JOB_IDS, "description": "of exactly these jobs, without filters"},
    "older_s": {
        "type": "number",
        "minimum": 0,
        "description": "only of jobs that ended longer ago, in seconds",
    },
    "larger": {
        **_COUNT,
        "description": "only of jobs of which more would be removed, in bytes",
    },
    "keep_results": {
        "type": "boolean",
        "description": "only the heavy files: wave functions, charge densities, copies of "
        "POTCARs; default: false",
    },
}


class PruneParams(FilterParams, total=False):
    """The parameters of ``jobs.prune``."""

    job_ids: list[str]
    older_s: float
    larger: int
    keep_results: bool
    dry_run: bool
    limit: int
    cursor: str


@method(
    "jobs.prune",
    params={
        **FILTERS,
        **_CHOICE,
        "dry_run": {"type": "boolean", "description": "remove nothing; default: false"},
        "limit": {
            "type": "integer",
            "minimum": 1,
            "maximum": MOST_JOBS,
            "description": "of no more jobs than so many; default: 1000",
        },
        "cursor": {"type": "string", "description": "the `cursor` of the answer before"},
    },
    result=record(
        {
            "jobs": array(
                record(
                    {
                        "job_id": _TEXT,
                        "name": nullable(_TEXT),
                        "status": STATE,
                        "recipe": _TEXT,
                        "finished_at": {
                            "type": ["number", "null"],
                            "description": "in seconds since the epoch",
                        },
                        "size": {**_COUNT, "description": "of what is removed, in bytes"},
                    }
                )
            ),
            "left": {
                **array(record({"job_id": _TEXT, "error": _TEXT, "code": _TEXT})),
                "description": "jobs whose files stay, and why",
            },
            "cursor": {"type": ["string", "null"], "description": "of the rest, if any"},
            "error": ERROR,
        }
    ),
    refused={"jobs": [], "left": [], "cursor": None},
    answer_size=lambda params: _GROUP_SIZE * number(params.get("limit"), 1000, MOST_JOBS),
    by_server=True,
)
async def handle_jobs_prune(service: JobService, params: PruneParams) -> answers.Pruned:
    """Throw away the run directories of jobs that have ended, or only what is large in them.

    Rows, keys and summaries stay, and say what was removed when. Nothing of a job that has not
    ended is removed, nor what an unfinished job is to read. Something must say which jobs are
    meant: ``job_ids``, or filters, an age or a size, which must all agree. With ``dry_run`` it
    only tells. Where ``cursor`` is not ``null``, ask again with it for the rest.
    """
    choice = Choice(
        job_ids=params.get("job_ids"),
        older_s=params.get("older_s"),
        larger=params.get("larger"),
        keep_results=params.get("keep_results", False),
        filters=read_filters(filters_in(params)),
    )
    work = service.prune(
        choice,
        dry_run=params.get("dry_run", False),
        limit=params.get("limit", 1000),
        cursor=params.get("cursor"),
    )
    pruned: Pruned = await in_slices("files", work)
    return {
        "jobs": [
            _pruned(job, use.heavy_size if choice.keep_results else use.size)
            for job, use in pruned.jobs
        ],
        "left": [{"job_id": job_id, **trouble(error)} for job_id, error in pruned.left],
        "cursor": pruned.cursor,
        "error": None,
    }


def _pruned(job: JobMetadata, size: int) -> answers.PrunedJob:
    return {
        "job_id": job.job_id,
        "name": job.name,
        "status": job.state.value,
        "recipe": job.recipe,
        "finished_at": job.finished_at,
        "size": size,
    }
