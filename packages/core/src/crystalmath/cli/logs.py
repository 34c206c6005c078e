"""``crystalmath logs``: what a job has written, and what it goes on to write."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crystalmath.cli.shared import output
from crystalmath.cli.shared.common_arguments import JobId, Json, any_client, find
from crystalmath.cli.shared.plain import Plain
from crystalmath.errors import InvalidJob, ServerNotRunning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from crystalmath.client import Client
    from crystalmath.models.answers import LogPart

#: In one answer. A compressed file is read from its beginning for each.
_PART = 16 * 2**20
#: How long one question waits for something new, in seconds.
_POLL_S = 10.0
#: How often a file that is not there yet is looked for, in seconds.
_LOOK_S = 0.5
#: So many further files of a name are told.
_SHOWN = 10


def logs(
    job_id: JobId,
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE]", help="A file below the job's work directory, also FILE.gz."
        ),
    ] = None,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")
    ] = False,
    tail: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Begin with the last N lines.")
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Control sequences (colours, ...) too, on a terminal.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Print what a job wrote: its log, or one of its files.

    Of several files of a name the newest is printed, and the others are named.
    On a terminal without its control sequences; through a pipe as it was written.
    """
    if follow and as_json:
        raise typer.BadParameter("does not go with --json", param_hint="--follow")
    write = _writer(raw=raw)
    with any_client() as client:
        job_id = find(client, job_id)
        if follow:
            for number, part in enumerate(_followed(client, job_id, file, tail)):
                if not number:
                    _name_others(part)
                write(part["text"])
        elif as_json:
            output.write_json(_document(list(_parts(client, job_id, file, tail))))
        else:
            for number, part in enumerate(_parts(client, job_id, file, tail)):
                if not number:
                    _name_others(part)
                write(part["text"])
                if not part["size"] and file is None:
                    output.note(f"job {job_id} has written no log yet")
    return 0


def _name_others(part: LogPart) -> None:
    """Say which of several files it is that is shown."""
    if not part["others"]:
        return
    shown = ", ".join(part["others"][:_SHOWN])
    more = f" and {len(part['others']) - _SHOWN} more" if len(part["others"]) > _SHOWN else ""
    output.note(
        output.printable(f"{part['file']} is the newest of several; the others: {shown}{more}")
    )


def _document(parts: list[LogPart]) -> dict[str, Any]:
    last = parts[-1]
    told = {key: last[key] for key in ("job_id", "offset", "size", "finished", "error")}
    return {
        **told,
        "others": last["others"],
        "path": last["file"],
        "text": "".join(part["text"] for part in parts),
    }


def _parts(client: Client, job_id: str, file: str | None, tail: int | None) -> Iterator[LogPart]:
    """Read what there is now, part by part."""
    part = client.logs(job_id, file, tail=tail, max_bytes=_PART)
    yield part
    while part["text"] and part["offset"] < part["size"]:
        part = client.logs(job_id, file, offset=part["offset"], max_bytes=_PART)
        yield part


def _followed(client: Client, job_id: str, file: str | None, tail: int | None) -> Iterator[LogPart]:
    """Read what there is and what comes, until the job has ended."""
    from crystalmath.client.client_errors import ConnectionLost

    part = _first(client, job_id, file, tail)
    yield part
    with contextlib.ExitStack() as others:
        while not part["finished"]:
            try:
                part = _next(client, job_id, file, part)
            except (ServerNotRunning, ConnectionLost):
                # The job goes on without its server, and so does who looks at it.
                time.sleep(_LOOK_S)
                client = others.enter_context(any_client())
            else:
                yield part


def _next(client: Client, job_id: str, file: str | None, before: LogPart) -> LogPart:
    part = client.logs(job_id, file, offset=before["offset"], max_bytes=_PART, timeout_s=_POLL_S)
    if part["file"] != before["file"]:  # another attempt writes a log of its own
        part = client.logs(job_id, file, offset=0, max_bytes=_PART)
    return part


def _first(client: Client, job_id: str, file: str | None, tail: int | None) -> LogPart:
    said = False
    while True:
        try:
            return client.logs(job_id, file, tail=tail, max_bytes=_PART)
        except InvalidJob as error:
            if client.job(job_id).state.is_terminal():
                raise
            if not said:
                output.note(output.printable(f"waiting: {error}"))
                said = True
            time.sleep(_LOOK_S)


def _writer(*, raw: bool) -> Callable[[str], None]:
    plain = Plain() if sys.stdout.isatty() and not raw else None

    def write(text: str) -> None:
        # As it was written, whatever the terminal's encoding.
        sys.stdout.flush()
        sys.stdout.buffer.write((plain(text) if plain else text).encode())
        sys.stdout.buffer.flush()

    return write
