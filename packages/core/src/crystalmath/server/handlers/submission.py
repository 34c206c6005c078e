"""Submissions, and jobs that run again: what comes as JSON becomes what the service takes."""

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
    """Keep apart submissions that wait for an engine, or for a recipe's first answer."""
    from crystalmath.preflight.programs_here import may_be_asked
    from crystalmath.quacc.engines import get_installed_engines

    jobs = params.get("jobs")
    jobs = jobs if isinstance(jobs, list) else [params]  # nothing may have been checked yet
    jobs = [job for job in jobs if isinstance(job, Mapping)]
    engines = {engine for job in jobs if isinstance(engine := job.get("engine"), str)}
    # Only names that exist: a pool is never given up.
    known = len(engines) == 1 and engines <= set(get_installed_engines())
    to = f" to {engines.pop()}" if known else ""
    recipes = {recipe for job in jobs if isinstance(recipe := job.get("recipe"), str)}
    # A flow is asked by `jobs.check`, and quacc's have such names; nothing is looked up here.
    asked = any(may_be_asked(recipe) or recipe.endswith("_flow") for recipe in recipes)
    asked = asked or bool(params.get("inputs"))
    return f"submitting{to}{' after asking the recipe' if asked else ''}"


class SubmitManyParams(TypedDict):
    """The parameters of ``jobs.submit_many``."""

    # What is wrong with one of them must not refuse the others: each is checked apart.
    jobs: Annotated[
        list[Mapping[str, Any]],
        Limits(maxItems=MOST_JOBS),
        "each as the parameters of jobs.submit; where that takes a job's id, #0 is the first of "
        "these, #-1 the one before",
    ]
    all_or_none: NotRequired[
        Annotated[bool, "submit none of them where one is refused; default: false"]
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
    """Submit many jobs, each accepted or refused on its own, in order; or all of them or none.

    They are recorded in one transaction. One may refer to those before it in the list.
    """
    read = [_read(job) for job in params["jobs"]]
    # What cannot be read keeps its position.
    asked = [InvalidJob(str(each["error"])) if isinstance(each, dict) else each for each in read]
    answers = service.submit_many(
        asked, all_or_none=params.get("all_or_none", False), wanted=is_wanted
    )
    jobs = [
        item if isinstance(item, dict) else answered(answer)
        for item, answer in zip(read, answers, strict=True)
    ]
    return {"jobs": jobs, "error": None}


def _read(job: Mapping[str, Any]) -> Submission | SubmittedJob:
    """Read one of many submissions. Refused, it becomes its answer: an error holds on to much."""
    try:
        return read_submission(checked(job, METHODS["jobs.submit"].params))
    except CrystalMathError as error:
        return answered(error)


class CheckParams(TypedDict, total=False):
    """The parameters of ``jobs.check`` beside those of ``jobs.submit``."""

    inputs: Annotated[bool, "also tell what its programs would get, step by step; default: false"]


@method(server.JOBS_CHECK, pool=submitting_pool, as_sent=True)
def handle_jobs_check(
    service: JobService, params: Annotated[CheckParams, Submission]
) -> CheckedJob:
    """Return whether a job would be accepted, and everything that is wrong with it at once.

    Each finding has the ``place`` of the parameter that it is about, where there is one. It takes
    what ``jobs.submit`` takes, and finds what that would find: with the environment and
    the limits of its ``cluster``, and of a known ``key``. Nothing is recorded, and no engine is
    started. Recipes of VASP, Quantum ESPRESSO and the
    programs that plugins check are asked which files they read, in a process of their own and
    under the caller's environment. So is any flow, for the jobs that it would call. For ``inputs``
    any recipe is asked; they are ``null`` where it cannot even be called.
    """
    from attrs import asdict

    from crystalmath.submitting.admission import Checked

    given, wrong = sifted(params, METHODS["jobs.check"].params)
    wanted = given.pop("inputs", False)
    faults, checked = list(map(fault, wrong)), Checked()
    if "recipe" in given:
        try:
            submission = read_submission(given)
        except InvalidJob as error:
            faults.append(fault(error, "params"))
        else:
            checked = service.check(submission, inputs=wanted)
    errors = [*faults, *checked.errors]
    inputs = None if checked.inputs is None else checked.inputs.document()
    told: CheckedJob = {
        "ok": not errors,
        "status": "error" if errors else "ok",
        "error": "\n".join(map(str, errors)) or None,
        "findings": written_findings([*faults, *checked.findings]),
        "potcars": [cast("Potcar", asdict(file)) for file in checked.pseudopotentials],
        "environment": list(checked.environment),
        "copies": [{"folder": folder, "size": size} for folder, size in checked.copies],
    }
    if checked.flow is not None:
        told["flow"] = asdict(checked.flow)
    if wanted:
        told["inputs"] = inputs
    return told


def read_submission(params: Mapping[str, Any]) -> Submission:
    """Read parameters of ``jobs.submit`` that fit their schema; `InvalidJob`: they make no job."""
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


# --- again -----------------------------------------------------------------------------------


class RetryParams(TypedDict, total=False):
    """The parameters of ``jobs.retry`` beside what is to be changed."""

    job_ids: Annotated[JobIds, "these jobs"]
    filters: Annotated[
        Mapping[str, Any],
        JobFilter,
        "in place of ids, the filters of jobs.list; those that failed or were cancelled, unless "
        "`state` says otherwise, and have not been run again yet",
    ]
    dry_run: Annotated[bool, "say what would come of it, and submit nothing; default: false"]


@method(
    server.JOBS_RETRY,
    pool="retrying",
    by_server=True,
    repeatable=lambda params: has_key(params) or params.get("dry_run") is True,
)
def handle_jobs_retry(service: JobService, params: Annotated[RetryParams, Retry]) -> RetriedJobs:
    """Run jobs again that have ended, each as a new job that points to the old one.

    All is as it was submitted before, the environment too, but for what is given here. Each is
    accepted or refused on its own, as by jobs.submit. In a dry run ``status`` is ``ok`` where there
    would be a job, and ``job_id`` is ``null``.
    """
    from crystalmath.recipes import codec

    dry_run = params.pop("dry_run", False)
    named, filters = params.pop("job_ids", None), params.pop("filters", None)
    if (named is None) == (filters is None):
        raise InvalidJob("say which jobs: either 'job_ids' or 'filters'")
    if filters is not None and not choosing(filters):
        raise InvalidJob("nothing says which jobs are to run again; name them, or give filters")
    given = from_wire(Retry, params)
    changes = Retry(**{**given, "parameters": codec.decode_request(given.get("parameters", {}))})
    once = named is None
    if named is None:
        # Superseded ones too: they are passed over below, but for those of an earlier request.
        every_try = {**(filters or {}), "all_tries": True}
        chosen: Selection = {"state": [*NO_RESULT], **read_filters(every_try)}
        found = (job for page in pages(service, **chosen) for job in page)
        named = [job.job_id for job in found if not _is_of(changes, job)][::-1]
    named = list(dict.fromkeys(named))
    retried: list[RetriedJob] = []
    for start in range(0, len(named), MOST_JOBS):
        some = named[start : start + MOST_JOBS]
        before = service.retried(some) if once else {}
        # What this request has made itself, and could not tell, its key gives again.
        passed = {
            job_id: answered(AlreadyRetried.of(job.job_id, job.state.value))
            for job_id, job in before.items()
            if not _is_of(changes, job)
        }
        new = [job_id for job_id in some if job_id not in passed]
        told = service.retry(new, changes, dry_run=dry_run, once=once, wanted=is_wanted)
        jobs = {job.job_id: job for job in service.some_jobs(some)}
        for job_id, job in zip(new, told, strict=True):
            passed[job_id] = _rehearsed(job) if dry_run else answered(job)
            if not isinstance(job, Exception):  # its name and labels may be others
                jobs[job_id] = job
        retried += [_retried(job_id, jobs.get(job_id), passed[job_id]) for job_id in some]
    return {"jobs": retried, "error": None}


def _is_of(changes: Retry, job: JobMetadata) -> bool:
    """Return whether an earlier request with this key has made the job."""
    return changes.key is not None and (job.key or "").startswith(f"{changes.key}/")


def _retried(job_id: str, job: JobMetadata | None, answer: SubmittedJob) -> RetriedJob:
    name, labels = (job.name, job.labels) if job is not None else (None, {})
    return {"retry_of": job_id, "name": name, "labels": labels, **answer}


def _rehearsed(job: JobMetadata | CrystalMathError | ImportError) -> SubmittedJob:
    told = answered(job)
    return told if isinstance(job, Exception) else {**told, "job_id": None, "status": "ok"}


# --- read again ------------------------------------------------------------------------------

_PLACE = properties(Retry)


class RereadParams(JobIdParams, total=False):
    """The parameters of ``jobs.reread``."""

    engine: Annotated[str, Limits(**_PLACE["engine"])]
    cluster: Annotated[str, Limits(**_PLACE["cluster"])]
    settings: Annotated[
        Mapping[str, str], "settings of quacc that are other this time, as CHECK_CONVERGENCE"
    ]


@method(
    server.JOBS_REREAD,
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
