"""Submissions: what comes as JSON becomes what the service takes, and its answer JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from crystalmath.errors import CrystalMathError, InvalidJob, shown
from crystalmath.quacc.structures import parse_structure
from crystalmath.server.checking import checked
from crystalmath.server.declare import method, trouble
from crystalmath.server.shapes import ERROR, MOST_JOBS, SUBMISSION, array, record, reference

if TYPE_CHECKING:
    from crystalmath.admission import Submission
    from crystalmath.quacc.store import JobMetadata
    from crystalmath.service import JobService

__all__ = [
    "handle_jobs_check",
    "handle_jobs_submit_many",
    "read_submission",
    "submitted",
    "submitting_pool",
]

_REQUIRED = ("recipe", "structure")
_ONE = {"type": "object", "properties": SUBMISSION, "required": list(_REQUIRED)}


def submitting_pool(params: Mapping[str, Any]) -> str:
    """Keep apart who submits to different engines: one of them may take minutes to be loaded."""
    from crystalmath.quacc.engines import get_installed_engines

    named = (job.get("engine") for job in params.get("jobs", [params]))
    engines = {engine for engine in named if isinstance(engine, str)}
    # Only names that exist: a pool is never given up.
    if len(engines) == 1 and engines <= set(get_installed_engines()):
        return f"submitting to {engines.pop()}"
    return "submitting"


@method(
    "jobs.submit_many",
    params={
        "jobs": {
            # What is wrong with one of them must not refuse the others: each is checked apart.
            **array({"type": "object"}, maxItems=MOST_JOBS),
            "description": "each as the parameters of jobs.submit",
        }
    },
    required=("jobs",),
    result=record({"jobs": array(reference("Submitted")), "error": ERROR}),
    refused={"jobs": []},
    pool=submitting_pool,
)
def handle_jobs_submit_many(service: JobService, params: dict[str, Any]) -> Mapping[str, Any]:
    """Submit many jobs, each accepted or refused on its own, in order.

    They are recorded in one transaction, or in several where a key or an id is refused.
    """
    read = [_read(job) for job in params["jobs"]]
    good = [item for item in read if not isinstance(item, Exception)]
    answers = iter(service.submit_many(good))
    jobs = [item if isinstance(item, Exception) else next(answers) for item in read]
    return {"jobs": [_answered(job) for job in jobs], "error": None}


@method(
    "jobs.check",
    params=SUBMISSION,
    required=_REQUIRED,
    result=record(
        {
            "status": {"type": "string", "enum": ["ok", "error"]},
            "error": ERROR,
            "findings": array(reference("Finding")),
        }
    ),
    refused={"findings": []},
    pool=submitting_pool,
)
def handle_jobs_check(service: JobService, params: dict[str, Any]) -> Mapping[str, Any]:
    """Tell whether a job would be accepted, and everything that is wrong with it at once.

    Nothing is recorded or started.
    """
    from attrs import asdict

    found = service.check(read_submission(params))
    errors = [str(finding) for finding in found if finding.severity == "error"]
    return {
        "status": "error" if errors else "ok",
        "error": "\n".join(errors) or None,
        "findings": [asdict(finding) for finding in found],
    }


def read_submission(params: Mapping[str, Any]) -> Submission:
    """Read the parameters of ``jobs.submit``, once they are checked against their schema.

    Raises
    ------
    InvalidJob
        The structure or the recipe's parameters cannot be read.
    """
    from crystalmath.admission import Submission
    from crystalmath.quacc import codec

    given = dict(params)
    parameters = codec.decode_request(given.pop("params", {}))
    if not isinstance(parameters, Mapping):  # it was a tag itself
        raise InvalidJob(f"'params' must be an object, not {shown(parameters)}")
    atoms = parse_structure(given.pop("structure"))
    return Submission(atoms=atoms, parameters=parameters, **given)


def _read(job: Mapping[str, Any]) -> Submission | CrystalMathError:
    try:
        return read_submission(checked(job, _ONE))
    except CrystalMathError as error:
        return error


def _answered(job: JobMetadata | CrystalMathError | ImportError) -> dict[str, Any]:
    if isinstance(job, Exception):
        return {"job_id": None, "status": "error", **trouble(job)}
    return submitted(job)


def submitted(job: JobMetadata) -> dict[str, Any]:
    """Describe a job that was accepted."""
    warnings = {"warnings": list(job.warnings)} if job.warnings else {}
    return {"job_id": job.job_id, "status": job.state.value, "error": job.error, **warnings}
