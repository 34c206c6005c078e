"""The methods ``system.*``, about the server itself, and ``rpc.discover``."""

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

#: How many of the newest failures the status has.
_FAILURES = 5
#: How long the database may take to read them, in seconds; the rest of the status needs none.
_TIMEOUT_S = 1.0
#: How long the doctor may take, in seconds.
_DOCTOR_S = 120.0


@method(server.SYSTEM_PING, of_session=True, by_server=True)
async def ping(session: Any, params: NoParams) -> Pong:
    """Answer at once, however busy the server is."""
    del session, params
    return {"ok": True}


@method(server.SYSTEM_VERSION, of_session=True, by_server=True)
async def version(session: Any, params: NoParams) -> ServerVersion:
    """Return the server's release, protocol, process, interpreter and admitted recipes.

    Jobs run with those of the server, so clients compare them with their own.
    """
    del params
    server = session.server
    return describe_process(server.place.home, server.source.last, server.started_at)


def describe_process(home: Path, configured: Config, started_at: float) -> ServerVersion:
    """Return the answer of ``system.version``, for a server or for a client without one."""
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
    """Return the state of the server.

    The answer counts unfinished jobs and connections. It has the state of each engine, its workers
    and its backlog, the room on the disk, and the newest failures.
    """
    del params
    server = session.server
    return await describe_service(
        server.service, connections=server.connections.count, quiet_s=server.quiet_s
    )


async def describe_service(
    service: JobService, *, connections: int = 0, quiet_s: float = 0.0
) -> ServerStatus:
    """Return the answer of ``system.status``, for a server or for a client without one."""
    disk = service.disk.last
    status: ServerStatus = {
        "jobs": _counts(service),
        "connections": connections,
        "quiet_s": round(quiet_s, 1),
        # In a thread: the first call looks for installed engines.
        "engines": dict(await in_pool("status", service.engine_states)),
        "workers": dict(await in_pool("status", service.engine_workers)),
        "backlog": dict(service.backlog()),
        "disk": None if disk is None else cast("DiskRoom", asdict(disk)),
    }
    with contextlib.suppress(CrystalMathError):  # the database cannot be used
        status["failures"] = await _failures(service)
    return status


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
    """Run the checks of ``crystalmath doctor`` with the server's environment.

    This takes seconds: a process of its own loads the plugins.
    """
    del params
    environ = {**os.environ, "CRYSTALMATH_HOME": str(service.config.home)}
    command = [sys.executable, "-m", "crystalmath", "doctor", "--json"]
    try:
        doctor = subprocess.run(  # noqa: S603 - the command is our own
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_DOCTOR_S,
        )
        report = json.loads(doctor.stdout)
    except subprocess.TimeoutExpired as error:
        raise ServerError(f"crystalmath doctor has not ended in {_DOCTOR_S:g} s") from error
    except ValueError as error:
        errors = doctor.stderr.decode("utf-8", "replace").strip()[-500:]
        raise ServerError(
            f"crystalmath doctor has failed: {errors or doctor.returncode}"
        ) from error
    return {"ok": report["status"] == "ok", "checks": report["checks"], "error": None}


class SystemStopParams(TypedDict, total=False):
    """The parameters of ``system.stop``."""

    cancel: Annotated[bool, "cancel all of the server's jobs; default: false"]


@method(
    server.SYSTEM_STOP,
    of_session=True,
    by_server=True,
    repeatable=once,  # a second time, it would stop the next server
)
async def stop(session: Any, params: SystemStopParams) -> Stopping:
    """Stop the server.

    Running jobs go on, and the next server adopts them and the pending ones. With ``cancel`` the
    server cancels all its jobs first, and ends once none of their processes is alive.
    """
    cancel = params.get("cancel", False)
    counts = await in_pool("stopping", _counts, session.server.service, abandoned=cancel)
    session.server.stop(cancel=cancel)
    return {"pending": counts["pending"], "running": counts["running"], "cancel": cancel}


def _counts(service: JobService, *, abandoned: bool = False) -> dict[str, int]:
    unfinished = service.unfinished()
    if abandoned:
        # The server stops even if the database cannot be read.
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
