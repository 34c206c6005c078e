"""The handlers of ``jobs.*``: they translate between JSON and the job service, and nothing else.

``controller`` is the :class:`~crystalmath.service.JobService`; ``None`` means this process's own.
What a caller did wrong comes back in the answer; only a fault of ours raises.
"""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from crystalmath.errors import CrystalMathError, InvalidJob, JobRefused, UnknownJob
from crystalmath.quacc.results import summarize as _summarize_result
from crystalmath.quacc.runner import JobState
from crystalmath.quacc.structures import parse_structure as _parse_structure

if TYPE_CHECKING:
    from crystalmath.admission import Submission
    from crystalmath.quacc.store import JobMetadata
    from crystalmath.service import JobService

__all__ = [
    "METHODS",
    "_parse_structure",
    "_summarize_result",
    "handle_jobs_cancel",
    "handle_jobs_list",
    "handle_jobs_status",
    "handle_jobs_submit",
]

#: What stands in a job's summary, `null` where a result does not have it.
_SUMMARY = ("energy_ev", "max_force_ev_ang", "formula", "work_dir")

#: The largest `limit` of `jobs.list`; more overflows the database's integers.
_MOST = 1_000_000


async def handle_jobs_submit(
    controller: JobService | None, params: Mapping[str, Any]
) -> dict[str, Any]:
    """Submit a job.

    Parameters
    ----------
    controller : JobService or None
        The job service.
    params : mapping
        ``recipe`` and ``structure``; optional ``cluster``, ``params``, ``engine``, ``key``,
        ``name``, ``labels``, ``walltime_s`` (s). ``structure`` is a POSCAR string, a dict for
        ``ase.Atoms(**dict)`` (Å), or ``{"format": "ase-json", "data": ...}``.

    Returns
    -------
    dict
        ``{"job_id", "status", "error"}``; ``job_id`` is ``None`` and ``status`` is ``error`` if
        the job was refused, with a ``code`` and, from the preflight, ``findings``.
    """
    return await asyncio.to_thread(_submit, controller, params)


async def handle_jobs_status(
    controller: JobService | None, params: Mapping[str, Any]
) -> dict[str, Any]:
    """Tell a job's state.

    Returns
    -------
    dict
        ``{"job_id", "status", "error", "result"}``; ``result`` is the summary ``{"energy_ev"
        (eV), "max_force_ev_ang" (eV/Å), "formula", "work_dir"}`` once the job has completed.
        ``reason`` is there where it is known what the job waits for.
    """
    return await asyncio.to_thread(_status, controller, params)


async def handle_jobs_cancel(
    controller: JobService | None, params: Mapping[str, Any]
) -> dict[str, Any]:
    """Request that a job be stopped.

    Returns
    -------
    dict
        ``{"job_id", "cancelled", "error"}``; ``cancelled`` tells whether it was requested.
    """
    return await asyncio.to_thread(_cancel, controller, params)


async def handle_jobs_list(
    controller: JobService | None, params: Mapping[str, Any]
) -> dict[str, Any]:
    """List jobs, newest first.

    Parameters
    ----------
    controller : JobService or None
        The job service.
    params : mapping
        All optional: ``state``, ``engine``, ``labels`` (all must agree), ``limit``.

    Returns
    -------
    dict
        ``{"jobs": [...], "error"}``, each job in the shape of ``jobs.status``, with ``recipe``,
        ``engine``, ``cluster``, ``name``, ``labels`` and the times (seconds since the epoch).
    """
    return await asyncio.to_thread(_list, controller, params)


#: The methods and their handlers.
METHODS: dict[str, Callable[[JobService | None, Mapping[str, Any]], Awaitable[dict[str, Any]]]] = {
    "jobs.submit": handle_jobs_submit,
    "jobs.status": handle_jobs_status,
    "jobs.cancel": handle_jobs_cancel,
    "jobs.list": handle_jobs_list,
}


def _submit(controller: JobService | None, params: Mapping[str, Any]) -> dict[str, Any]:
    try:
        job = _service(controller).submit(_submission(params))
    except (CrystalMathError, ImportError) as error:
        return {"job_id": None, "status": "error", **_trouble(error)}
    warnings = {"warnings": job.warnings} if job.warnings else {}
    return {"job_id": job.job_id, "status": job.state.value, "error": job.error, **warnings}


def _submission(params: Mapping[str, Any]) -> Submission:
    from crystalmath.admission import Submission
    from crystalmath.quacc import codec

    known = ("recipe", "structure", "cluster", "params", "engine", "key", "name", "labels")
    given = _known(params, (*known, "walltime_s"))
    for required in ("recipe", "structure"):
        if given.get(required) is None:
            raise InvalidJob(f"{required!r} is missing")
    parameters = codec.decode_request(_object(given, "params"))
    if not isinstance(parameters, Mapping):  # it was a tag itself
        raise InvalidJob(f"'params' must be an object, not {parameters!r:.80}")
    return Submission(
        recipe=given["recipe"],
        atoms=_parse_structure(given["structure"]),
        parameters=parameters,
        engine=_text(given, "engine"),
        cluster=_text(given, "cluster") or "local",
        key=given.get("key"),
        name=given.get("name"),
        labels=_object(given, "labels"),
        walltime_s=given.get("walltime_s"),
    )


def _status(controller: JobService | None, params: Mapping[str, Any]) -> dict[str, Any]:
    try:
        job_id = _job_id(params)
        return _document(_service(controller).job(job_id))
    except CrystalMathError as error:
        asked = _asked(params)
        return {"job_id": asked, "status": "error", **_trouble(error), "result": None}


def _cancel(controller: JobService | None, params: Mapping[str, Any]) -> dict[str, Any]:
    try:
        job_id = _job_id(params)
        return {
            "job_id": job_id,
            "cancelled": _service(controller).cancel(job_id),
            "error": None,
        }
    except CrystalMathError as error:
        asked = _asked(params)
        answer = {"job_id": asked, "cancelled": False, **_trouble(error)}
        return answer | ({"status": "error"} if isinstance(error, UnknownJob) else {})


def _list(controller: JobService | None, params: Mapping[str, Any]) -> dict[str, Any]:
    try:
        given = _known(params, ("state", "engine", "labels", "limit"))
        limit = given.get("limit")
        if limit is not None and (type(limit) is not int or not 0 <= limit <= _MOST):
            raise InvalidJob(f"'limit' must be a whole number from 0 to {_MOST}, not {limit!r:.80}")
        jobs = _service(controller).jobs(
            state=_state(given.get("state")),
            engine=_text(given, "engine"),
            label=_object(given, "labels"),
            limit=limit,
        )
    except CrystalMathError as error:
        return {"jobs": [], **_trouble(error)}
    return {"jobs": [_listed(job) for job in jobs], "error": None}


def _state(name: object) -> JobState | None:
    try:
        return None if name is None else JobState(name)
    except ValueError:
        states = ", ".join(state.value for state in JobState)
        raise InvalidJob(f"'state' must be one of {states}, not {name!r:.80}") from None


def _document(job: JobMetadata) -> dict[str, Any]:
    summary = None
    if job.state is JobState.completed:
        summary = {**dict.fromkeys(_SUMMARY), **(job.summary or {})}
    reason = {"reason": job.reason} if job.reason else {}
    return {
        "job_id": job.job_id,
        "status": job.state.value,
        "error": job.error,
        "result": summary,
        **reason,
    }


def _listed(job: JobMetadata) -> dict[str, Any]:
    fields = ("recipe", "engine", "cluster", "name", "created_at", "started_at", "finished_at")
    more = {name: getattr(job, name) for name in fields}
    return {**_document(job), **more, "labels": dict(job.labels)}


def _service(controller: JobService | None) -> JobService:
    if controller is not None:
        return controller
    from crystalmath.service import default_service

    return default_service()


def _known(params: object, names: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(params, Mapping):
        raise InvalidJob(f"the parameters must be an object, not {params!r:.80}")
    for name in params:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(names)}"
            raise InvalidJob(f"{name!r:.80} is not a known parameter{hint}")
    return params


def _asked(params: object) -> object:
    return params.get("job_id") if isinstance(params, Mapping) else None


def _object(given: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = given.get(name)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidJob(f"{name!r} must be an object, not {value!r:.80}")
    return value


def _text(given: Mapping[str, Any], name: str) -> str | None:
    value = given.get(name)
    if value is not None and (not isinstance(value, str) or not value):
        raise InvalidJob(f"{name!r} must be a string that is not empty, not {value!r:.80}")
    return value


def _job_id(params: object) -> str:
    job_id = _known(params, ("job_id",)).get("job_id")
    if not isinstance(job_id, str):
        raise UnknownJob(job_id)
    return job_id


def _trouble(error: CrystalMathError | ImportError) -> dict[str, Any]:
    trouble: dict[str, Any] = {"error": str(error), "code": getattr(error, "code", "import")}
    if isinstance(error, JobRefused):
        from attrs import asdict

        trouble["findings"] = [asdict(finding) for finding in error.findings]
    return trouble
