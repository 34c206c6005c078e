"""``crystalmath top``: follow the jobs of the home in a terminal."""

from __future__ import annotations

from typing import Annotated

import typer


def top(
    *,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Cancel and retry nothing.")
    ] = False,
) -> int:
    """Follow the jobs of the home on one screen: their states, curves and logs.

    Enter shows a job, c cancels and r retries it after a question, / filters, q leaves.
    """
    import sys

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise typer.BadParameter("crystalmath top wants a terminal; crystalmath list prints jobs")

    from crystalmath.client import connect
    from crystalmath_top.app import Top

    with connect() as client:
        Top(client, read_only=read_only).run()
    return 0
