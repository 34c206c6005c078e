"""The handlers that read a job's files: its result, its log."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from crystalmath.errors import InvalidJob
from crystalmath.models.fields import nullable
from crystalmath.server.pools import in_pool
from crystalmath.server.rpc import wire
from crystalmath.server.rpc.declare import method
from crystalmath.server.rpc.shapes import (
    ERROR,
    JOB_ID,
    NAME,
    STATE,
    TIMEOUT,
    record,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from crystalmath.service import JobService

__all__ = ["handle_jobs_logs", "handle_jobs_result"]

#: How often a file is looked at that somebody follows, in seconds.
_LOOK_S = 0.25
#: How much of a file goes into one answer, in bytes.
_USUAL = 2**20
_MOST = 16 * 2**20
_BYTES: Mapping[str, Any] = {"type": "integer", "minimum": 0, "maximum": 2**53}
_TEXT: Mapping[str, Any] = {"type": "string"}


@method(
    "jobs.result",
    params={"job_id": JOB_ID},
    required=("job_id",),
    result=record(
        {
            "job_id": nullable(JOB_ID),
            "status": {"type": "string", "enum": [*STATE["enum"], "error"]},
            "error": ERROR,
            "result": {"description": "what the recipe returned, whole; null unless it completed"},
        },
        {"traceback": _TEXT, "code": _TEXT},
    ),
    refused={"result": None},
    pool="files",
    large=True,
)
def handle_jobs_result(service: JobService, params: dict[str, Any]) -> Mapping[str, Any]:
    """Give what the recipe returned, whole, as its worker wrote it.

    ``result`` is ``null`` unless the job completed; of a failed job ``error`` and ``traceback``
    tell why. Arrays, structures and the like are in monty's form of JSON.
    """
    job = service.job(params["job_id"])
    # The stored text goes out as it is: nobody here decodes 20 MB.
    text = service.result_json(job.job_id)
    more = {"traceback": job.traceback} if job.traceback else {}
    return {
        "job_id": job.job_id,
        "status": job.state.value,
        "error": job.error,
        "result": None if text is None else wire.Raw(text),
        **more,
    }


@method(
    "jobs.logs",
    params={
        "job_id": JOB_ID,
        "file": {
            **NAME,
            "description": "a file below the work directory, by its name or the end of its path, "
            "also compressed (OUTCAR finds relax/OUTCAR.gz); default: the job's log",
        },
        "tail": {**_BYTES, "description": "begin with so many of the last lines"},
        "offset": {**_BYTES, "description": "begin after so many bytes; default: 0"},
        "max_bytes": {
            "type": "integer",
            "minimum": 4,
            "maximum": _MOST,
            "description": f"no more than so many bytes; default: {_USUAL}",
        },
        "timeout_s": TIMEOUT,
    },
    required=("job_id",),
    result=record(
        {
            "job_id": nullable(JOB_ID),
            "file": {**nullable({"type": "string"}), "description": "the whole path"},
            "text": _TEXT,
            "offset": {**_BYTES, "description": "the `offset` of the next call"},
            "size": {**_BYTES, "description": "of the file, decompressed, in bytes"},
            "finished": {
                "type": "boolean",
                "description": "the job has ended, and its file was read to the end",
            },
            "error": ERROR,
        }
    ),
    refused={"file": None, "text": "", "offset": 0, "size": 0, "finished": True},
    pool="files",
)
async def handle_jobs_logs(service: JobService, params: dict[str, Any]) -> Mapping[str, Any]:
    """Read a job's log, or another of its files: all, the last lines, or what came since.

    Where there is nothing new, wait up to ``timeout_s`` for something. To follow a file, call
    again with ``offset`` until ``finished``. Where ``file`` has changed, the job has begun another
    attempt, whose log begins at 0.
    """
    if "tail" in params and "offset" in params:
        raise InvalidJob("'tail' and 'offset' cannot be given together")
    end = time.monotonic() + params.get("timeout_s", 0)
    while True:
        answer = await in_pool("files", _read, service, params)
        left = end - time.monotonic()
        if answer["text"] or answer["finished"] or left <= 0:
            return answer
        await asyncio.sleep(min(_LOOK_S, left))


def _read(service: JobService, params: Mapping[str, Any]) -> dict[str, Any]:
    from crystalmath.jobs.workfiles import find, read_part, read_tail

    job_id, most = params["job_id"], params.get("max_bytes", _USUAL)
    # Before the file is read: what an ended job wrote is there.
    job = service.job(job_id)
    ended = job.state.is_terminal()
    path: Path = service.log_file(job_id)
    if "file" in params:
        path = find(service.work_directory(job_id), params["file"])
    if "tail" in params:
        part = read_tail(path, params["tail"], most, whole=ended)
    else:
        part = read_part(path, params.get("offset", 0), most, whole=ended)
    return {
        "job_id": job_id,
        "file": str(path),
        "text": part.text,
        "offset": part.end,
        "size": part.size,
        "finished": ended and part.end >= part.size,
        "error": None,
    }
