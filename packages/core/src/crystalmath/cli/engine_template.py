"""``crystalmath engine-template``: begin an engine of one's own."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from crystalmath.cli.shared import output
from crystalmath.cli.shared.common_arguments import Json  # noqa: TC001 - Typer reads annotations


def engine_template(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The engine's name: small letters, digits, -.")
    ],
    *,
    directory: Annotated[
        str | None,
        typer.Option(
            "--dir", metavar="DIR", help="A new folder; by default crystalmath-engine-NAME, here."
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """Write the distribution of an engine, yours to change.

    It runs jobs on a pool of processes, and passes `crystalmath conform` once it is installed.
    """
    from crystalmath.testing.written_template import write_engine

    _require_free(name)
    folder = Path(directory or f"crystalmath-engine-{name.replace('_', '-')}").absolute()
    try:
        files = write_engine(name, folder)
    except FileExistsError:
        message = f"{folder} is there already, and stays as it is; name another with --dir"
        raise FileExistsError(message) from None
    if as_json:
        written = [str(file) for file in files]
        output.write_json({"engine": name, "path": str(folder), "files": written, "error": None})
        return 0
    install = f"pip install -e {shlex.quote(f'{folder}[test]')}"
    output.write(output.printable(f"wrote {folder}; next:"))
    output.write(output.printable(f"  {install} && crystalmath conform {name}"))
    return 0


def _require_free(name: str) -> None:
    """Refuse a name that cannot be an engine's, or is one's already."""
    from crystalmath.quacc.engines import get_installed_engines
    from crystalmath.testing.written_template import ENGINE_NAME

    if not ENGINE_NAME.fullmatch(name):
        message = f"{name!r} has more than small letters and digits, with single - or _ between"
        raise typer.BadParameter(message, param_hint="NAME")
    if name in get_installed_engines():
        message = f"the engine {name!r} is installed already; two of one name are an error"
        raise typer.BadParameter(message, param_hint="NAME")
