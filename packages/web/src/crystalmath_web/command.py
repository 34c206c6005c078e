"""``crystalmath ui``: serve the page, and open a browser on it."""

from __future__ import annotations

from typing import Annotated

import typer


def ui(
    *,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open a browser on the page.")
    ] = True,
    port: Annotated[
        int,
        typer.Option(metavar="N", min=0, max=65535, help="Listen on this port; 0: on a free one."),
    ] = 0,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Show everything, and change nothing.")
    ] = False,
) -> int:
    """Open the page of the home's jobs in a browser.

    The first line of standard output is the page's address. Anybody with this address can
    open the page; each start makes a new address. The page is served on 127.0.0.1 until Ctrl-C;
    to see it from another machine, forward the port with `ssh -L N:127.0.0.1:N`, and use
    --no-browser --port N here.
    """
    from crystalmath_web.serving import serve

    return serve(browser=browser, port=port, read_only=read_only)
