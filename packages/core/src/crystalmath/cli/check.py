"""``crystalmath check``: whether a job would be accepted, and what it would read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crystalmath.cli.shared import output
from crystalmath.cli.shared.common_arguments import Json, any_client
from crystalmath.cli.shared.inputs_output import (
    SHOWN,
    Diff,
    document,
    show,
    show_differences,
    write,
)
from crystalmath.cli.shared.submission_options import (
    Params,
    ParamsFile,
    Recipe,
    Structure,
    checked,
    make_submission,
    with_options,
)
from crystalmath.models import Inputs, SubmissionOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from crystalmath.models.answers import CheckedJob


@with_options
def check(
    recipe: Recipe,
    structure: Structure = None,
    *,
    param: Params = None,
    params: ParamsFile = None,
    options: SubmissionOptions,
    inputs: Annotated[
        str | None,
        typer.Option(
            "--inputs",
            metavar="[DIR]",
            help="Also show what the program gets in each step that is known, or write it into a "
            "folder; stands last, or before another option, where no folder is named.",
        ),
    ] = None,
    diff: Diff = None,
    as_json: Json = False,
) -> int:
    """Say whether a job would be accepted, or what is wrong.

    All that is wrong is told at once. Nothing is recorded or started. With --cluster, --ranks and
    so on the answer is submit's: with the cluster's environment, and what it can honour; what is
    known on its nodes alone is a warning, and `crystalmath clusters check NAME` runs a job there to
    see. A recipe of VASP or Quantum ESPRESSO is asked which files it reads: without a running
    server that takes some seconds each time; submit, or serve, starts one that stays warm. Exits 1
    where the job would be refused.

    With --inputs any recipe is asked. Beside each line stands who has set it: asked (you), the
    preset, the recipe, quacc, the structure, or the program's default. --diff JOB shows what
    differs from the inputs of another job.
    """
    submission = make_submission(recipe, structure, param=param, params=params, options=options)
    with any_client() as client:
        other = None if diff is None else client.inputs(client.find(diff))
        answer = checked(client, submission, inputs=inputs is not None or other is not None)
    given = answer.get("inputs")
    told = Inputs.read(given) if given else None
    folder = None if inputs in {None, SHOWN} else inputs
    paths = write(told, folder) if told and folder else []
    if as_json:
        output.write_json({**answer, **(document(told, other) if told else {})})
    else:
        if told:
            _show_inputs(told, other, paths)
        _show(answer)
    return 0 if answer["ok"] else 1


def _show_inputs(inputs: Inputs, other: Inputs | None, paths: Sequence[Path]) -> None:
    if other is not None:
        show_differences(inputs, other)
    elif not paths:
        show(inputs)
    for path in paths:
        output.write(output.printable(f"wrote {path}"))
    if paths and inputs.rest:
        output.write(output.printable(inputs.rest))


def _show(answer: CheckedJob) -> None:
    if answer["potcars"]:
        _show_potcars(answer["potcars"])
    for severity in ("error", "warning"):
        for finding in answer["findings"]:
            if finding["severity"] == severity:
                output.write(output.printable(f"{severity}: {output.sentence(finding)}"))
    if answer["environment"]:
        seen = ", ".join(answer["environment"])
        output.write(output.printable(f"checked with your environment, as forwarded: {seen}"))
    if answer["ok"]:
        output.write("this job would be accepted")


def _show_potcars(files: Sequence[Mapping[str, Any]]) -> None:
    paths = [file["path"] for file in files]
    folder = _shared_folder(paths)
    if folder:
        output.write(output.printable(f"reads, below {folder}:"))
        paths = [os.path.relpath(path, folder) for path in paths]
    rows = [
        (file["symbol"], file["setup"], file["titel"] or "", path)
        for file, path in zip(files, paths, strict=True)
    ]
    output.table(("SYMBOL", "SETUP", "TITEL", "FILE"), rows, whole=("FILE",))
    output.write("")


def _shared_folder(paths: Sequence[str]) -> str:
    """Return the library in which all files are, which would not fit beside the rest."""
    try:
        # A POTCAR is named by its folder.
        return os.path.commonpath([os.path.dirname(os.path.dirname(path)) for path in paths])  # noqa: PTH120
    except ValueError:  # relative paths among them
        return ""
