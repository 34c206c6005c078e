"""Submissions: what comes as JSON becomes what the service takes, and its answer JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypedDict, cast

from crystalmath.errors import CrystalMathError, InvalidJob, shown
from crystalmath.models import Submission
from crystalmath.models.answers import MOST_JOBS, CheckedJob, Potcar, SubmittedJob, SubmittedJobs
from crystalmath.models.checks import checked
from crystalmath.models.fields import Limits, from_wire
from crystalmath.models.job_notes import Told
from crystalmath.models.submission import SubmitParams
from crystalmath.server.pools import is_wanted
from crystalmath.server.rpc.declare import METHODS, findings_of, has_key, method, trouble

if TYPE_CHECKING:
    from crystalmath.quacc.store import JobMetadata
    from crystalmath.service import JobService


def submitting_pool(params: Mapping[str, Any]) -> str:
    """Keep apart who would wait for different things.

    An engine may take minutes to be loaded, and a recipe that is asked which files it reads
    seconds, the first time.
    """
    from crystalmath.preflight.programs_here import may_be_asked
    from crystalmath.quacc.engines import get_installed_engines

    jobs = params.get("jobs", [params])
    engines = {engine for job in jobs if isinstance(engine := job.get("engine"), str)}
    # Only names that exist: a pool is never given up.
    known = len(engines) == 1 and engines <= set(get_installed_engines())
    to = f" to {engines.pop()}" if known else ""
    recipes = {recipe for job in jobs if isinstance(recipe := job.get("recipe"), str)}
    asked = any(map(may_be_asked, recipes)) or params.get("inputs")
    return f"submitting{to}{' after asking the recipe' if asked else ''}"


class SubmitManyParams(TypedDict):
    """The parameters of ``jobs.submit_many``."""

    # What is wrong with one of them must not refuse the others: each is checked apart.
    jobs: Annotated[
        list[Mapping[str, Any]],
        Limits(maxItems=MOST_JOBS),
        "each as the parameters of jobs.submit",
    ]


@method(
    "jobs.submit_many",
    refused={"jobs": []},
    pool=submitting_pool,
    by_server=True,
    repeatable=lambda params: (
        not isinstance(jobs := params.get("jobs"), list) or all(map(has_key, jobs))
    ),
)
def handle_jobs_submit_many(service: JobService, params: SubmitManyParams) -> SubmittedJobs:
    """Submit many jobs, each accepted or refused on its own, in order.

    They are recorded in one transaction.
    """
    read = [_read(job) for job in params["jobs"]]
    good = [item for item in read if not isinstance(item, dict)]
    answers = iter(service.submit_many(good, wanted=is_wanted))
    jobs = [item if isinstance(item, dict) else answered(next(answers)) for item in read]
    return {"jobs": jobs, "error": None}


def _read(job: Mapping[str, Any]) -> Submission | SubmittedJob:
    """Read one of many submissions. Refused, it becomes its answer: an error holds on to much."""
    try:
        return read_submission(cast("SubmitParams", checked(job, METHODS["jobs.submit"].params)))
    except CrystalMathError as error:
        return answered(error)


class CheckParams(SubmitParams, total=False):
    """The parameters of ``jobs.check``."""

    inputs: Annotated[bool, "also tell what its programs would get, step by step; default: false"]


@method(
    "jobs.check",
    refused={"ok": False, "findings": [], "potcars": [], "environment": []},
    pool=submitting_pool,
)
def handle_jobs_check(service: JobService, params: CheckParams) -> CheckedJob:
    """Return whether a job would be accepted, and everything that is wrong with it at once.

    It takes what ``jobs.submit`` takes, and finds what that would find: with the environment and
    the limits of its ``cluster``, and of a known ``key``. Nothing is recorded, and no engine is
    started. Recipes of VASP, Quantum ESPRESSO and the
    programs that plugins check are asked which files they read, in a process of their own and
    under the caller's environment. For ``inputs`` any recipe is asked; they are ``null`` where it
    cannot even be called.
    """
    from attrs import asdict

    wanted = params.get("inputs", False)
    checked = service.check(read_submission(params), inputs=wanted)
    inputs = None if checked.inputs is None else checked.inputs.document()
    told: CheckedJob = {
        "ok": not checked.errors,
        "status": "error" if checked.errors else "ok",
        "error": "\n".join(map(str, checked.errors)) or None,
        "findings": [cast("Told", dict(vars(finding))) for finding in checked.findings],
        "potcars": [cast("Potcar", asdict(file)) for file in checked.pseudopotentials],
        "environment": list(checked.environment),
    }
    if wanted:
        told["inputs"] = inputs
    return told


def read_submission(params: SubmitParams) -> Submission:
    """Read the parameters of ``jobs.submit``, once they are checked against their schema.

    Raises
    ------
    InvalidJob
        The recipe's parameters cannot be read.
    """
    from crystalmath.recipes import codec

    given = from_wire(Submission, params)
    parameters = codec.decode_request(given.pop("parameters", {}))
    if not isinstance(parameters, Mapping):  # it was a tag itself
        raise InvalidJob(f"'params' must be an object, not {shown(parameters)}")
    return Submission(parameters=parameters, **given)


def answered(job: JobMetadata | CrystalMathError | ImportError) -> SubmittedJob:
    """Describe one of many jobs, accepted or refused."""
    if isinstance(job, Exception):
        why = trouble(job)
        told: SubmittedJob = {"job_id": None, "status": "error", "error": why["error"]}
        told["code"] = why["code"]
        if found := findings_of(job):
            told["findings"] = found
        return told
    return submitted(job)


def submitted(job: JobMetadata) -> SubmittedJob:
    """Describe a job that was accepted."""
    told: SubmittedJob = {"job_id": job.job_id, "status": job.state.value, "error": job.error}
    if job.warnings:
        told["warnings"] = list(job.warnings)
    if job.key is not None:
        told["known"] = job.given_before
    return told
