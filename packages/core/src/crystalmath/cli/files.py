"""``crystalmath files``: what a job has written, with sizes and times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from crystalmath.cli.shared import output
from crystalmath.cli.shared.common_arguments import JobId, Json, any_client

if TYPE_CHECKING:
    from crystalmath.models.answers import JobFile


def files(
    job_id: JobId,
    attempt: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Of this attempt; default: the present one."),
    ] = None,
    *,
    as_json: Json = False,
) -> int:
    """List the files of a job's work directory.

    crystalmath logs ID FILE prints one.
    """
    with any_client() as client:
        listed = client.files(client.find(job_id), attempt=attempt)
    if as_json:
        output.write_json(listed)
        return 0
    if not listed["files"]:
        output.note(f"there are no files below {listed['work_dir']}")
        return 0
    # No table: a path is there to be copied, and must not be cut to fit.
    for size, age, name in [("SIZE", "AGE", "FILE"), *map(_row, listed["files"])]:
        output.write(f"{size:>9}  {age:>6}  {output.printable(name)}")
    if listed["more"]:
        output.note(f"{listed['more']} more, after these by their paths")
    return 0


def _row(file: JobFile) -> tuple[str, str, str]:
    name = f"{file['file']} (a link)" if file["is_link"] else file["file"]
    return output.size(file["size"]), output.age(file["modified_at"]), name
