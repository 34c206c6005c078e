"""``crystalmath mcp``: serve an assistant on standard input and output."""

from __future__ import annotations

from typing import Annotated

import typer


def mcp(
    *,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Offer no tool that submits, stops or removes.")
    ] = False,
) -> int:
    """Serve an assistant that speaks the Model Context Protocol, on standard input and output.

    Assistants start it themselves: name this command in their configuration. Before a tool submits,
    stops or removes anything, the assistant's program asks you. If the program cannot ask, the
    assistant confirms it by a second call, and should show you what it confirms.
    """
    from crystalmath.client import connect
    from crystalmath_mcp.server import make_server

    with connect() as client:
        make_server(client, read_only=read_only).run()
    return 0
