"""The options that describe a job, and the submission they make."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crystalmath.cli.parameters import parse_labels, parse_parameters, parse_walltime
from crystalmath.errors import InvalidJob

if TYPE_CHECKING:
    from ase import Atoms

    from crystalmath.admission import Submission

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
    "make_submission",
]

_LONGEST_NAME = 255

Recipe = Annotated[
    str,
    typer.Argument(metavar="RECIPE", help="A recipe's name; quacc.recipes. may be left out."),
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
    typer.Option(metavar="E", help="A workflow engine; see crystalmath engines."),
]
Cluster = Annotated[str, typer.Option(metavar="C", help="One of the engine's clusters.")]
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
    typer.Option("--params", metavar="FILE", help="Parameters from JSON or TOML."),
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
    typer.Option("--label", metavar="K=V", help="A label to find the job by; may be repeated."),
]
Key = Annotated[
    str | None,
    typer.Option(metavar="KEY", help="The same key again gives the same job, never a second one."),
]
Json = Annotated[bool, typer.Option("--json", help="Write one JSON document.")]


def make_submission(
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
) -> Submission:
    """Turn the options of a command into a submission.

    Raises
    ------
    typer.BadParameter
        An option cannot be read.
    InvalidJob
        The structure or the recipe's name cannot be used.
    """
    parameters = parse_parameters(param or (), params)
    walltime_s = None if walltime is None else parse_walltime(walltime)
    labels = parse_labels(label or ())

    from crystalmath import config
    from crystalmath.admission import Submission
    from crystalmath.quacc.recipes import full_name

    recipe = full_name(recipe, config.load().recipes_allow)
    file_name, atoms = read_structure(structure)
    return Submission(
        recipe=recipe,
        atoms=atoms,
        parameters=parameters,
        engine=engine,
        cluster=cluster,
        key=key,
        name=file_name if name is None else name,
        labels=labels,
        walltime_s=walltime_s,
    )


def read_structure(text: str) -> tuple[str, Atoms]:
    """Read the one structure that is meant, with a name for it.

    ASE would take the last of several without a word. Somebody who names a trajectory may mean
    that, or all of them, or may not know that there are more: so they are asked to say.

    Raises
    ------
    typer.BadParameter
        There is no such file.
    InvalidJob
        The file cannot be read as a structure, has no such frame, or holds several and none is
        chosen.
    """
    from crystalmath.quacc.structures import read_structures

    path, index = _split(text)
    if not path.is_file():
        raise typer.BadParameter(f"there is no file {str(path)!r}", param_hint="STRUCTURE")
    frames = read_structures(path)
    if index is None and len(frames) > 1:
        raise InvalidJob(
            f"{path} holds {len(frames)} structures and this command takes one; "
            f"choose with {path}@N, counted from 0, or {path}@-1 for the last"
        )
    try:
        name, atoms = frames[index or 0]
    except IndexError:
        raise InvalidJob(
            f"{path} holds {len(frames)} structures; there is none numbered {index}"
        ) from None
    # Nobody chose this name: it must not be what a job is refused for.
    return "".join(filter(str.isprintable, name))[:_LONGEST_NAME] or "structure", atoms


def _split(text: str) -> tuple[Path, int | None]:
    chosen = re.fullmatch(r"(.+)@(-?[0-9]{1,9})", text, re.DOTALL)
    if chosen and not Path(text).exists():
        return Path(chosen[1]), int(chosen[2])
    return Path(text), None
