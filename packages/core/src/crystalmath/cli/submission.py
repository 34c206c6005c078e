"""The options that describe a job, and the request they make."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crystalmath.cli import complete, output
from crystalmath.cli.parameters import parse_labels, parse_parameters, parse_walltime
from crystalmath.cli.structures import read_document

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from crystalmath.client import Request

__all__ = [
    "Cluster",
    "Engine",
    "Json",
    "Key",
    "Labels",
    "Name",
    "Params",
    "ParamsFile",
    "Recipe",
    "Structure",
    "Walltime",
    "asking",
    "is_asked",
    "make_request",
]

Recipe = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="A recipe's name; quacc.recipes. may be left out.",
        autocompletion=complete.recipes,
    ),
]
Structure = Annotated[
    str,
    typer.Argument(
        metavar="STRUCTURE",
        help="Any file ASE reads. Of one with several structures, FILE@N takes the Nth, "
        "counted from 0; FILE@-1 the last.",
    ),
]
Engine = Annotated[
    str | None,
    typer.Option(
        metavar="E",
        help="A workflow engine; see crystalmath engines.",
        autocompletion=complete.engines,
    ),
]
Cluster = Annotated[
    str,
    typer.Option(
        metavar="C", help="One of the engine's clusters.", autocompletion=complete.clusters
    ),
]
Params = Annotated[
    list[str] | None,
    typer.Option(
        "--param",
        metavar="K=V",
        help="A parameter of the recipe: JSON, a Python literal, or text; may be repeated. "
        "A dotted K reaches into a table: opt_params.fmax=0.01.",
    ),
]
ParamsFile = Annotated[
    Path | None,
    typer.Option(
        "--params",
        metavar="FILE",
        help="Parameters from JSON or TOML; --param and --sweep go before what it says.",
    ),
]
Walltime = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Stop the job after this time: 2h, 1h30m, 90s."),
]
Name = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="A name to find the job by; else the file's."),
]
Labels = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        metavar="K=V",
        help="A label to find the job by; may be repeated.",
        autocompletion=complete.labels,
    ),
]
Key = Annotated[
    str | None,
    typer.Option(metavar="KEY", help="The same key again gives the same job, never a second one."),
]
Json = Annotated[bool, typer.Option("--json", help="Write one JSON document.")]


@contextlib.contextmanager
def asking(recipes: Iterable[str]) -> Iterator[None]:
    """Tell whoever waits for a submission or a check what they wait for, and let them leave.

    Parameters
    ----------
    recipes : iterable of str
        Full names.
    """
    if not any(map(is_asked, recipes)):
        yield
        return
    with output.patience(
        "asking the recipe which files it reads; the first one of a session takes some seconds ..."
    ):
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            # If it is asked in this process, a thread waits for the answer, and the end for that.
            from crystalmath.preflight.inspector import close

            close()
            raise


def is_asked(recipe: str) -> bool:
    """Tell whether a recipe is asked which files it reads before it becomes a job.

    Parameters
    ----------
    recipe : str
        Its full name.
    """
    from crystalmath.config import load
    from crystalmath.preflight.inspector import concerns

    return concerns(recipe, {"CRYSTALMATH_RECIPES": ",".join(load().recipes_allow)})


def make_request(
    recipe: str,
    structure: str,
    *,
    engine: str | None,
    cluster: str,
    param: list[str] | None,
    params: Path | None,
    walltime: str | None,
    name: str | None,
    label: list[str] | None,
    key: str | None = None,
) -> Request:
    """Turn the options of a command into a request for one job.

    Raises
    ------
    typer.BadParameter
        An option cannot be read.
    InvalidJob
        The structure cannot be used.
    """
    parameters = parse_parameters(param or (), params)
    walltime_s = None if walltime is None else parse_walltime(walltime)
    labels = parse_labels(label or ())

    from crystalmath.client import Request

    file_name, document = read_document(structure)
    return Request(
        recipe=recipe,
        atoms=document,
        parameters=parameters,
        engine=engine,
        cluster=cluster,
        key=key,
        name=file_name if name is None else name,
        labels=labels,
        walltime_s=walltime_s,
    )
