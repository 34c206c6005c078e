"""``crystalmath serve``: the home's server, in this terminal."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from crystalmath.cli.shared import output
from crystalmath.cli.shared.common_arguments import Json  # noqa: TC001 - Typer reads annotations
from crystalmath.errors import ServerError

if TYPE_CHECKING:
    from crystalmath.server.endpoint import Place


def serve(
    *,
    stdio: Annotated[
        bool,
        typer.Option(
            "--stdio",
            help="Pass messages between standard input and output and the home's server, which is "
            "started if none runs. The end of this bridge ends no job.",
        ),
    ] = False,
    as_json: Json = False,
) -> int:
    """Serve the home: own its jobs, and answer its clients.

    It listens on a socket in the home. Commands start a server in the background when none runs;
    this one stays in the foreground. It ends with Ctrl-C, `crystalmath stop`, or when it has had
    nothing to do for a while (`[server] quiet_s` in config.toml). Jobs that run go on without it.
    """
    from crystalmath.config import Source
    from crystalmath.server.endpoint import Place

    source = Source()
    place = Place.of(source.last.home)
    if stdio:
        if as_json:
            raise typer.BadParameter("with --stdio the output is the server's", param_hint="--json")
        return _bridge(place)
    from crystalmath.server.daemon import force_exit
    from crystalmath.server.daemon import serve as serve_home

    written = False

    def tell() -> None:
        nonlocal written
        if as_json:
            written = True
            where = {"home": str(place.home), "socket": str(place.socket), "log": str(place.log)}
            output.write_json({**where, "pid": os.getpid(), "error": None})
            sys.stdout.flush()
        else:
            output.note(f"serving {place.home} at {place.socket}; its log is {place.log}")

    try:
        serve_home(place, source, stream=sys.stderr, ready=tell)
    except ServerError as error:
        if not written:
            raise
        output.note(f"error: {output.printable(str(error))}")  # a second document would be none
        return 1
    force_exit(0)
    return 0


def _bridge(place: Place) -> int:
    from crystalmath.client.launch import bridge

    if bridge(place):
        return 0
    output.note(f"the server of {place.home} has left; its log is {place.log}")
    return 1
