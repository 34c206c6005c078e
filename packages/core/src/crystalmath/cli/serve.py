"""``crystalmath serve`` and ``stop``: run and stop the home's server."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crystalmath.cli.shared import common_arguments, output
from crystalmath.errors import ServerError, ServerNotRunning

if TYPE_CHECKING:
    from collections.abc import Callable

    from crystalmath.server.endpoint import Place, Server


def serve(
    *,
    stdio: Annotated[
        bool,
        typer.Option(
            "--stdio",
            help="Connect standard input and output to the home's server, and start one if none "
            "runs. Closing the connection ends no job.",
        ),
    ] = False,
    as_json: common_arguments.Json = False,
) -> int:
    """Run the home's server in the foreground.

    The server runs the jobs of the home, and listens on a socket there. Commands start a server in
    the background if none runs, so that this command is rarely needed. The server ends with
    Ctrl-C, `crystalmath stop`, or after some idle time (`[server] quiet_s` in config.toml).
    Running jobs go on without it.
    """
    from crystalmath.config import Source
    from crystalmath.server.endpoint import Place

    source = Source()
    place = Place.of(source.last.home)
    if stdio:
        if as_json:
            output.refuse("with --stdio the output is the server's", "--json")
        return _bridge(place)
    from crystalmath.server.daemon import force_exit
    from crystalmath.server.daemon import serve as serve_home

    written = False

    def tell() -> None:
        nonlocal written
        if as_json:
            written = True
            where = {"home": str(place.home), "socket": str(place.socket), "log": str(place.log)}
            output.write_json({**where, "pid": os.getpid()})
            sys.stdout.flush()
        else:
            output.note(f"serving {place.home} at {place.socket}; its log is {place.log}")

    try:
        serve_home(place, source, stream=sys.stderr, ready=tell)
    except ServerError as error:
        if not written:
            raise
        output.note(f"error: {error}")  # a command writes only one JSON document
        return 1
    force_exit(0)
    return 0


def _bridge(place: Place) -> int:
    from crystalmath.server.launch import bridge

    if bridge(place):
        return 0
    output.note(f"the server of {place.home} has left; its log is {place.log}")
    return 1


#: How long a server may take to answer, in seconds.
ANSWER_S = 20.0
#: How long a server may take to leave, with its engines and cancelled jobs, in seconds.
LEAVE_S = 180.0
#: The most unfinished jobs that are named.
NAMED = 5


def stop(
    *,
    cancel: Annotated[
        bool,
        typer.Option(
            "--cancel", help="Also cancel the server's jobs, and wait until they have ended."
        ),
    ] = False,
    as_json: common_arguments.Json = False,
) -> int:
    """Stop the home's server.

    Running jobs go on; pending jobs wait for the next server. With --cancel the command exits 1 if
    a job has not ended in time; the next server goes on to cancel it.
    """
    from crystalmath.config import home
    from crystalmath.server.endpoint import Place

    place = Place.of(home())
    server = place.read_lock()
    answer = _ask(place, cancel=cancel)
    if server is not None:
        # A server that is starting answers soon; one that is leaving never does.
        answer = _await(server, place, lambda: _ask(place, cancel=cancel), answer)
        if place.has_crashed():
            raise ServerError(
                f"the {server} was killed while it was leaving; `crystalmath list` tells what "
                f"became of its jobs, and its log is {place.log}"
            )
    left = _unfinished() if cancel else {}
    if as_json:
        counts = {"pending": 0, "running": 0, "cancel": cancel} if answer is None else answer
        more = {"unfinished": list(left)} if cancel else {}
        output.write_json({"stopped": answer is not None, **counts, **more})
    else:
        output.note(_stop_message(place, answer, leaving=server is not None, left=len(left)))
        for job_id, why in list(left.items())[:NAMED]:
            output.note(f"not over: {job_id}: {why or 'no reason is known'}")
    return 1 if left else 0


def _unfinished() -> dict[str, str | None]:
    """Return the ids of cancelled, unfinished jobs, with the reasons why they have not ended."""
    from crystalmath.cli.shared.health import job_rows
    from crystalmath.config import load

    with job_rows(load()) as store:
        unfinished = [] if store is None else store.unfinished()
    return {job.job_id: job.reason for job in unfinished if job.cancel_requested_at}


def _ask(place: Place, *, cancel: bool) -> dict[str, Any] | None:
    """Ask the server to leave, also one of another build; ``None`` if none runs."""
    from crystalmath.client.transport import read_result
    from crystalmath.server.endpoint import Connection

    try:
        with contextlib.closing(Connection.to(place)) as connection:
            return read_result(connection.ask("system.stop", {"cancel": cancel}, ANSWER_S))
    except ServerNotRunning:
        return None
    except (OSError, EOFError) as error:
        raise _silent(place) from error


def _silent(place: Place) -> ServerError:
    server = place.read_lock()
    remedy = f"`kill -9 {server.identity.pid}` ends it, and running jobs go on" if server else ""
    message = f"the server of {place.home} does not answer; its log is {place.log}"
    return ServerError(f"{message}; {remedy}" if remedy else message)


def _await(
    server: Server,
    place: Place,
    ask: Callable[[], dict[str, Any] | None],
    answer: dict[str, Any] | None,
) -> dict[str, Any] | None:
    deadline = time.monotonic() + LEAVE_S
    while not place.is_dead(server):
        if time.monotonic() >= deadline:
            raise ServerError(f"the {server} is still leaving; its log is {place.log}")
        time.sleep(0.02)
        if answer is None and place.read_lock() == server:  # not the next one
            answer = ask()
    return answer


def _stop_message(place: Place, answer: dict[str, Any] | None, *, leaving: bool, left: int) -> str:
    goes_on = "which the next server goes on to cancel; `crystalmath serve` starts it"
    more = f"; not over: {left} jobs, {goes_on}" if left else ""
    if answer is None and leaving:
        return f"the server has left; it was leaving already, and nothing was changed{more}"
    if answer is None:
        return f"no server of {place.home} runs; nothing was changed{more}"
    if not answer["running"] + answer["pending"]:
        return "the server has left; it had no unfinished jobs"
    running, pending = answer["running"], answer["pending"]
    if answer["cancel"]:
        if left:
            return f"the server has left; was to cancel: {running + pending} jobs{more}"
        return f"the server has left; cancelled: {running} running jobs, {pending} pending"
    return (
        f"the server has left; running on without it: {running}; waiting for the next one, which "
        f"`crystalmath submit` or `crystalmath serve` starts: {pending}"
    )
