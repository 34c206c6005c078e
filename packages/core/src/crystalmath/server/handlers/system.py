"""The methods ``system.*``: about the server itself, and how to end it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypedDict, cast

from attrs import asdict

from crystalmath import build_version, processes, server
from crystalmath.errors import CrystalMathError, ServerError
from crystalmath.server.pools import in_pool
from crystalmath.server.rpc.declare import METHODS, NoParams, method, once
from crystalmath.server.rpc.openrpc import document
from crystalmath.wire.answers import (
    DiskRoom,
    Doctor,
    FailedJob,
    Pong,
    ServerStatus,
    ServerVersion,
    Stopping,
)

if TYPE_CHECKING:
    from pathlib import Path

    from crystalmath.config import Config
    from crystalmath.service import JobService
    from crystalmath.store.records import Failure


#: The version of the protocol; it grows when an old client could misread an answer.
PROTOCOL = 1

#: So many of the newest failures are told.
_FAILURES = 5
#: How long the database may take to tell them, in seconds; all else is told without it.
_TIMEOUT_S = 1.0
#: How long the doctor may look, in seconds.
_DOCTOR_S = 120.0


@method(server.SYSTEM_PING, of_session=True, by_server=True)
async def ping(session: Any, params: NoParams) -> Pong:
    """Answer, whatever else the server is doing."""
    del session, params
    return {"ok": True}


@method(server.SYSTEM_VERSION, of_session=True, by_server=True)
async def version(session: Any, params: NoParams) -> ServerVersion:
    """Return what serves: release, protocol, process, interpreter and admitted recipes.

    A client compares them with its own: a job runs with the server's.
    """
    del params
    server = session.server
    return describe_process(server.place.home, server.source.last, server.started_at)


def describe_process(home: Path, configured: Config, started_at: float) -> ServerVersion:
    """Return what answers: what ``system.version`` gives, and a client without a server."""
    return {
        "version": build_version(),
        "protocol": PROTOCOL,
        "pid": os.getpid(),
        "host": processes.own_identity().host,
        "python": sys.version.split()[0],
        "prefix": sys.prefix,
        "home": str(home),
        "recipes_allow": list(configured.recipes_allow),
        "started_at": started_at,
    }


@method(server.SYSTEM_STATUS, of_session=True, by_server=True)
async def status(session: Any, params: NoParams) -> ServerStatus:
    """Return what the server is doing, what it can do, and what has failed lately.

    Its unfinished jobs and its connections; of the engines what has become of them, their workers
    and how many jobs wait for these; the room on the disk; and the newest failures.
    """
    del params
    server = session.server
    return await describe_service(
        server.service, connections=server.connections.count, quiet_s=server.quiet_s
    )


async def describe_service(
    service: JobService, *, connections: int = 0, quiet_s: float = 0.0
) -> ServerStatus:
    """Return what is done: what ``system.status`` gives, and a client without a server."""
    disk = service.disk.last
    told: ServerStatus = {
        "jobs": _counts(service),
        "connections": connections,
        "quiet_s": round(quiet_s, 1),
        # Asked for the first time, it looks for what is installed.
        "engines": dict(await in_pool("status", service.engine_states)),
        "workers": dict(await in_pool("status", service.engine_workers)),
        "backlog": dict(service.backlog()),
        "disk": None if disk is None else cast("DiskRoom", asdict(disk)),
    }
    with contextlib.suppress(CrystalMathError):  # a database that cannot be used tells nothing
        told["failures"] = await _failures(service)
    return told


async def _failures(service: JobService) -> list[FailedJob] | None:
    """Return the newest failures; ``None`` while the database does not answer."""
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            return [_failure(each) for each in await in_pool("asking", service.failures, _FAILURES)]
    except TimeoutError:
        return None


def _failure(failure: Failure) -> FailedJob:
    first = (failure.error or "").strip().partition("\n")[0]
    return {
        "job_id": failure.job_id,
        "name": failure.name,
        "recipe": failure.recipe,
        "at": failure.finished_at,
        "error": first,
    }


@method(server.SYSTEM_DOCTOR, pool="doctor", by_server=True)
def handle_system_doctor(service: JobService, params: NoParams) -> Doctor:
    """Look at what jobs need, as ``crystalmath doctor`` does, with the server's environment.

    It takes seconds: plugins are loaded in a process of its own.
    """
    del params
    environ = {**os.environ, "CRYSTALMATH_HOME": str(service.config.home)}
    command = [sys.executable, "-m", "crystalmath", "doctor", "--json"]
    try:
        told = subprocess.run(  # noqa: S603 - all of it is our own
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_DOCTOR_S,
        )
        found = json.loads(told.stdout)
    except subprocess.TimeoutExpired as error:
        raise ServerError(f"crystalmath doctor has not ended in {_DOCTOR_S:g} s") from error
    except ValueError as error:
        said = told.stderr.decode("utf-8", "replace").strip()[-500:]
        raise ServerError(f"crystalmath doctor has failed: {said or told.returncode}") from error
    return {"ok": found["status"] == "ok", "checks": found["checks"], "error": None}


class SystemStopParams(TypedDict, total=False):
    """The parameters of ``system.stop``."""

    cancel: Annotated[bool, "cancel all of the server's jobs; default: false"]


@method(
    server.SYSTEM_STOP,
    of_session=True,
    by_server=True,
    repeatable=once,  # the next server would be ended
)
async def stop(session: Any, params: SystemStopParams) -> Stopping:
    """End the server.

    What runs goes on, what waits is taken up by the next server; with ``cancel`` all of the
    server's jobs are cancelled, and it ends once none of their processes is alive.
    """
    cancel = params.get("cancel", False)
    counts = await in_pool("stopping", _counts, session.server.service, abandoned=cancel)
    session.server.stop(cancel=cancel)
    return {"pending": counts["pending"], "running": counts["running"], "cancel": cancel}


def _counts(service: JobService, *, abandoned: bool = False) -> dict[str, int]:
    unfinished = service.unfinished()
    if abandoned:
        # The server goes also where the database cannot be read.
        with contextlib.suppress(CrystalMathError):
            unfinished = service.unfinished(abandoned=True)
    states = [state.value for state in unfinished.values()]
    return {state: states.count(state) for state in ("pending", "running")}


# --- all methods -----------------------------------------------------------------------------

_Document: TypeAlias = Annotated[Mapping[str, Any], "an OpenRPC document"]


@method(server.RPC_DISCOVER)
def handle_rpc_discover(service: JobService, params: NoParams) -> _Document:
    """Describe all methods as an OpenRPC document (https://spec.open-rpc.org)."""
    del service, params
    return document(METHODS)
