"""The handlers that submit, check, retry and reread jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, NotRequired, TypedDict, cast

from crystalmath import server
from crystalmath.errors import AlreadyRetried, CrystalMathError, InvalidJob, fault, shown
from crystalmath.models import Submission
from crystalmath.models.checks import checked, sifted
from crystalmath.models.fields import Limits, from_wire, properties
from crystalmath.models.filters import JobFilter, choosing, read_filters
from crystalmath.models.job_notes import NO_RESULT, written_findings
from crystalmath.models.retry import Retry
from crystalmath.running.pruning import pages
from crystalmath.server.pools import is_wanted
from crystalmath.server.rpc.declare import (
    METHODS,
    JobIdParams,
    findings_of,
    has_key,
    method,
    once,
    trouble,
)
from crystalmath.wire.answers import (
    MOST_JOBS,
    CheckedJob,
    JobIds,
    Potcar,
    RetriedJob,
    RetriedJobs,
    SubmittedJob,
    SubmittedJobs,
)

if TYPE_CHECKING:
    from crystalmath.models.filters import Selection
    from crystalmath.quacc.store import JobMetadata
    from crystalmath.service import JobService


def submitting_pool(params: Mapping[str, Any]) -> str:
    """Return the pool of a submission; those that wait for an engine or a recipe have their own."""
    from crystalmath.preflight.programs_here import may_be_asked
    from crystalmath.quacc.engines import get_installed_engines

    jobs = params.get("jobs")
    jobs = jobs if isinstance(jobs, list) else [params]  # the parameters may be unchecked
    jobs = [job for job in jobs if isinstance(job, Mapping)]
    engines = {engine for job in jobs if isinstance(engine := job.get("engine"), str)}
    # Only the names of installed engines: a pool is never closed.
    known = len(engines) == 1 and engines <= set(get_installed_engines())
    to = f" to {engines.pop()}" if known else ""
    recipes = {recipe for job in jobs if isinstance(recipe := job.get("recipe"), str)}
    # `jobs.check` calls the bodies of flows; quacc's flows have this ending.
    calls_recipe = any(may_be_asked(recipe) or recipe.endswith("_flow") for recipe in recipes)
    calls_recipe = calls_recipe or bool(params.get("inputs"))
    return f"submitting{to}{' after asking the recipe' if calls_recipe else ''}"


class SubmitManyParams(TypedDict):
    """The parameters of ``jobs.submit_many``."""

    # Each is checked by itself: a fault in one must not refuse the others.
    jobs: Annotated[
        list[Mapping[str, Any]],
        Limits(maxItems=MOST_JOBS),
        "each as the parameters of jobs.submit; in place of a job's id, #0 is the first of these "
        "and #-1 the one before",
    ]
    all_or_none: NotRequired[
        Annotated[bool, "submit none of them if one is refused; default: false"]
    ]


@method(
    server.JOBS_SUBMIT_MANY,
    pool=submitting_pool,
    by_server=True,
    repeatable=lambda params: (
        not isinstance(jobs := params.get("jobs"), list) or all(map(has_key, jobs))
    ),
)
def handle_jobs_submit_many(service: JobService, params: SubmitManyParams) -> SubmittedJobs:
    """Submit many jobs in order, each accepted or refused by itself; or all of them or none.

    They are recorded in one transaction. A job may refer to earlier jobs of the list.
    """
    read = [_read(job) for job in params["jobs"]]
    # An error keeps the position of a submission that cannot be read.
    submissions = [
        InvalidJob(str(each["error"])) if isinstance(each, dict) else each for each in read
    ]
    answers = service.submit_many(
        submissions, all_or_none=params.get("all_or_none", False), wanted=is_wanted
    )
    jobs = [
        item if isinstance(item, dict) else answered(answer)
        for item, answer in zip(read, answers, strict=True)
    ]
    return {"jobs": jobs, "error": None}


def _read(job: Mapping[str, Any]) -> Submission | SubmittedJob:
    """Read one of many submissions, or return its refusal: an error would keep its frames."""
    try:
        return read_submission(checked(job, METHODS["jobs.submit"].params))
    except CrystalMathError as error:
        return answered(error)


class CheckParams(TypedDict, total=False):
    """The parameters of ``jobs.check`` beside those of ``jobs.submit``."""

    inputs: Annotated[bool, "include the inputs of its programs, step by step; default: false"]


@method(server.JOBS_CHECK, pool=submitting_pool, as_sent=True)
def handle_jobs_check(
    service: JobService, params: Annotated[CheckParams, Submission]
) -> CheckedJob:
    """Return whether a job would be accepted, with all its faults at once.

    It has the parameters of ``jobs.submit`` and finds the same faults, also those of a known
    ``key``, and of the limits and environment of its ``cluster``. Nothing is recorded, and no
    engine is started. A finding about a parameter has its ``place``.

    Recipes of VASP, Quantum ESPRESSO and the programs that plugins check are called up to their
    calculations, to see which files they read. So is any flow, to see which jobs it calls. This
    happens in a process of its own with the caller's environment. With ``inputs`` any recipe is
    called; they are ``null`` if it cannot be.
    """
    from attrs import asdict

    from crystalmath.submitting.admission import Checked

    valid, wrong = sifted(params, METHODS["jobs.check"].params)
    wanted = valid.pop("inputs", False)
    faults, checked = list(map(fault, wrong)), Checked()
    if "recipe" in valid:
        try:
            submission = read_submission(valid)
        except InvalidJob as error:
            faults.append(fault(error, "params"))
        else:
            checked = service.check(submission, inputs=wanted)
    errors = [*faults, *checked.errors]
    inputs = None if checked.inputs is None else checked.inputs.document()
    answer: CheckedJob = {
        "ok": not errors,
        "status": "error" if errors else "ok",
        "error": "\n".join(map(str, errors)) or None,
        "findings": written_findings([*faults, *checked.findings]),
        "potcars": [cast("Potcar", asdict(file)) for file in checked.pseudopotentials],
        "environment": list(checked.environment),
        "copies": [{"folder": folder, "size": size} for folder, size in checked.copies],
    }
    if checked.flow is not None:
        answer["flow"] = asdict(checked.flow)
    if wanted:
        answer["inputs"] = inputs
    return answer


def read_submission(params: Mapping[str, Any]) -> Submission:
    """Read checked parameters of ``jobs.submit``; `InvalidJob`: they make no job."""
    from crystalmath.recipes import codec

    fields = from_wire(Submission, params)
    parameters = codec.decode_request(fields.pop("parameters", {}))
    if not isinstance(parameters, Mapping):  # the object was a tag itself
        raise InvalidJob(f"'params' must be an object, not {shown(parameters)}")
    return Submission(parameters=parameters, **fields)


def answered(job: JobMetadata | CrystalMathError | ImportError) -> SubmittedJob:
    """Describe one of many jobs, accepted or refused."""
    if isinstance(job, Exception):
        why = trouble(job)
        refusal: SubmittedJob = {"job_id": None, "status": "error", "error": why["error"]}
        refusal["code"] = why["code"]
        if findings := findings_of(job):
            refusal["findings"] = findings
        if place := getattr(job, "place", None):
            refusal["place"] = place
        return refusal
    return submitted(job)


def submitted(job: JobMetadata) -> SubmittedJob:
    """Describe a job that was accepted."""
    answer: SubmittedJob = {"job_id": job.job_id, "status": job.state.value, "error": job.error}
    if job.warnings:
        answer["warnings"] = list(job.warnings)
    if job.key is not None:
        answer["known"] = job.given_before
    return answer


# --- again -----------------------------------------------------------------------------------


class RetryParams(TypedDict, total=False):
    """The parameters of ``jobs.retry`` beside the changes."""

    job_ids: Annotated[JobIds, "these jobs"]
    filters: Annotated[
        Mapping[str, Any],
        JobFilter,
        "in place of ids, the filters of jobs.list, for jobs that were not retried yet; without "
        "`state`, for failed and cancelled ones",
    ]
    dry_run: Annotated[bool, "check the new jobs, and submit none; default: false"]


@method(
    server.JOBS_RETRY,
    pool="retrying",
    by_server=True,
    repeatable=lambda params: has_key(params) or params.get("dry_run") is True,
)
def handle_jobs_retry(service: JobService, params: Annotated[RetryParams, Retry]) -> RetriedJobs:
    """Run ended jobs again, each as a new job that points to the old one.

    A new job is as the old one was submitted, its environment included, except for the changes in
    this request. Each is accepted or refused by itself, as by jobs.submit. In a dry run ``status``
    is ``ok`` for a job that would be accepted, and ``job_id`` is ``null``.
    """
    from crystalmath.recipes import codec

    dry_run = params.pop("dry_run", False)
    named, filters = params.pop("job_ids", None), params.pop("filters", None)
    if (named is None) == (filters is None):
        raise InvalidJob("choose jobs by either 'job_ids' or 'filters'")
    if filters is not None and not choosing(filters):
        raise InvalidJob("nothing says which jobs are to run again; name them, or give filters")
    fields = from_wire(Retry, params)
    changes = Retry(**{**fields, "parameters": codec.decode_request(fields.get("parameters", {}))})
    once = named is None
    if named is None:
        # Superseded jobs, too: those that an earlier request with this key has retried have the
        # same answer again, and others are refused below.
        every_try = {**(filters or {}), "all_tries": True}
        chosen: Selection = {"state": [*NO_RESULT], **read_filters(every_try)}
        matching = (job for page in pages(service, **chosen) for job in page)
        named = [job.job_id for job in matching if not _is_of(changes, job)][::-1]
    named = list(dict.fromkeys(named))
    retried: list[RetriedJob] = []
    for start in range(0, len(named), MOST_JOBS):
        some = named[start : start + MOST_JOBS]
        before = service.retried(some) if once else {}
        # Jobs that an earlier request with this key has made are returned again by their keys.
        answers = {
            job_id: answered(AlreadyRetried.of(job.job_id, job.state.value))
            for job_id, job in before.items()
            if not _is_of(changes, job)
        }
        new = [job_id for job_id in some if job_id not in answers]
        new_jobs = service.retry(new, changes, dry_run=dry_run, once=once, wanted=is_wanted)
        jobs = {job.job_id: job for job in service.some_jobs(some)}
        for job_id, job in zip(new, new_jobs, strict=True):
            answers[job_id] = _rehearsed(job) if dry_run else answered(job)
            if not isinstance(job, Exception):  # its name and labels may differ from the old ones
                jobs[job_id] = job
        retried += [_retried(job_id, jobs.get(job_id), answers[job_id]) for job_id in some]
    return {"jobs": retried, "error": None}


def _is_of(changes: Retry, job: JobMetadata) -> bool:
    """Return whether an earlier request with this key has made the job."""
    return changes.key is not None and (job.key or "").startswith(f"{changes.key}/")


def _retried(job_id: str, job: JobMetadata | None, answer: SubmittedJob) -> RetriedJob:
    name, labels = (job.name, job.labels) if job is not None else (None, {})
    return {"retry_of": job_id, "name": name, "labels": labels, **answer}


def _rehearsed(job: JobMetadata | CrystalMathError | ImportError) -> SubmittedJob:
    answer = answered(job)
    return answer if isinstance(job, Exception) else {**answer, "job_id": None, "status": "ok"}


# --- read again ------------------------------------------------------------------------------

_PLACE = properties(Retry)


class RereadParams(JobIdParams, total=False):
    """The parameters of ``jobs.reread``."""

    engine: Annotated[str, Limits(**_PLACE["engine"])]
    cluster: Annotated[str, Limits(**_PLACE["cluster"])]
    settings: Annotated[
        Mapping[str, str], "quacc's settings to change this time, such as CHECK_CONVERGENCE"
    ]


@method(
    server.JOBS_REREAD,
    pool=lambda _: submitting_pool({"inputs": True}),
    by_server=True,
    repeatable=once,  # it would make a second job
)
def handle_jobs_reread(service: JobService, params: RereadParams) -> SubmittedJob:
    """Read the files of a failed job again, as a new job that points to it.

    This is for a job whose program has ended, but whose output could not be read or was rejected.
    The recipe is called again. In place of the program it gets the files which that wrote before;
    calculations without such files are not run.
    """
    changes = Retry(**from_wire(Retry, params))
    return submitted(service.reread(params["job_id"], changes, params.get("settings")))
