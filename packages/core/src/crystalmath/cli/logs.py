"""``crystalmath logs``: print the log or a file of a job, and follow it."""

from __future__ import annotations

import re
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crystalmath import server
from crystalmath.cli.shared import output
from crystalmath.cli.shared.common_arguments import JobId, Json, home_reader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from crystalmath.client.home_reader import HomeReader
    from crystalmath.wire.answers import LogPart


# Control sequences of ECMA-48; strings (titles, clipboards, links) include their content.
_STRING = r"[\]PX^_][^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"
_CONTROL = r"\[[0-?]*[ -/]*[@-~]"
_SEQUENCE = re.compile(rf"\x1b(?:{_STRING}|{_CONTROL}|[ -/]*[0-~])|\x9b[0-?]*[ -/]*[@-~]")
#: An incomplete sequence at the end of a text.
_BEGUN = re.compile(
    r"(?:\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b\x9c]{0,4096}\x1b?|[ -/]*)|\x9b[0-?]*[ -/]*|\r)\Z"
)


class Plain:
    """A filter that removes control sequences from a text that comes in parts.

    A carriage return ends the line, as in progress bars. Other unprintable characters are shown by
    their codes.
    """

    def __init__(self) -> None:
        self._begun = ""

    def __call__(self, text: str) -> str:
        """Return the next part without sequences; keep an incomplete one for the next call."""
        text, self._begun = self._begun + text, ""
        if begun := _BEGUN.search(text):
            text, self._begun = text[: begun.start()], begun.group()
        text = _SEQUENCE.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
        return output.printable(text)


#: The bytes of one answer. Each answer reads a compressed file from its beginning.
_PART = 16 * 2**20
#: How long one request waits for new output, in seconds.
_POLL_S = 10.0
#: The interval at which a missing file is looked for, in seconds.
_LOOK_S = 0.5
#: The most other files of a name that are named.
_SHOWN = 10


def logs(
    job_id: JobId,
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE]",
            help="A file below the work directory, such as OUTCAR; also found as FILE.gz.",
        ),
    ] = None,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Follow the file until the job has ended.")
    ] = False,
    tail: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Begin with the last N lines.")
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Keep control sequences (colours, ...) on a terminal.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Print what a job wrote: its log, or one of its files.

    If several files have the name, it prints the newest and names the others. A terminal gets the
    text without control sequences; a pipe gets it unchanged.
    """
    if follow and as_json:
        output.refuse("does not go with --json", "--follow")
    write = _writer(raw=raw)
    with home_reader() as home:
        job_id = home.find(job_id)
        if as_json:
            return output.write_json(_document(list(_parts(home, job_id, file, tail))))
        read = _followed if follow else _parts
        for number, part in enumerate(read(home, job_id, file, tail)):
            if not number:
                _name_others(part)
            write(part["text"])
            if not (part["size"] or follow or file):
                steps = output.files_of_steps(home.ask(server.JOBS_STATUS, job_id=job_id))
                output.note(f"job {job_id} has written no log{steps}")
    return 0


def _name_others(part: LogPart) -> None:
    """Report which file is shown if several have its name."""
    if not part["others"]:
        return
    shown = ", ".join(part["others"][:_SHOWN])
    more = f" and {len(part['others']) - _SHOWN} more" if len(part["others"]) > _SHOWN else ""
    output.note(f"{part['file']} is the newest of several; the others: {shown}{more}")


def _document(parts: list[LogPart]) -> dict[str, Any]:
    last = parts[-1]
    document = {key: last[key] for key in ("job_id", "offset", "size", "finished", "error")}
    return {
        **document,
        "others": last["others"],
        "path": last["file"],
        "text": "".join(part["text"] for part in parts),
    }


def _parts(home: HomeReader, job_id: str, file: str | None, tail: int | None) -> Iterator[LogPart]:
    """Yield the present text, part by part."""
    part = _read(home, job_id, file, tail=tail)
    yield part
    while part["text"] and part["offset"] < part["size"]:
        part = _read(home, job_id, file, offset=part["offset"])
        yield part


def _read(home: HomeReader, job_id: str, file: str | None, **which: float | None) -> LogPart:
    return home.ask(server.JOBS_LOGS, job_id=job_id, file=file, max_bytes=_PART, **which)


def _followed(
    home: HomeReader, job_id: str, file: str | None, tail: int | None
) -> Iterator[LogPart]:
    """Yield the present and the following text until the job has ended."""
    from crystalmath.client.client_errors import ConnectionLost

    part = _first(home, job_id, file, tail)
    yield part
    while not part["finished"]:
        try:
            part = _next(home, job_id, file, part)
        except ConnectionLost:
            # The job runs on without a server; try again until the next one answers.
            time.sleep(_LOOK_S)
        else:
            yield part


def _next(home: HomeReader, job_id: str, file: str | None, before: LogPart) -> LogPart:
    part = _read(home, job_id, file, offset=before["offset"], timeout_s=_POLL_S)
    if part["file"] != before["file"]:  # another attempt writes a log of its own
        part = _read(home, job_id, file, offset=0)
    return part


def _first(home: HomeReader, job_id: str, file: str | None, tail: int | None) -> LogPart:
    from crystalmath.errors import InvalidJob

    said = False
    while True:
        try:
            return _read(home, job_id, file, tail=tail)
        except InvalidJob as error:
            if home.ask(server.JOBS_STATUS, job_id=job_id)["finished_at"] is not None:
                raise
            if not said:
                output.note(f"waiting: {error}")
                said = True
            time.sleep(_LOOK_S)


def _writer(*, raw: bool) -> Callable[[str], None]:
    plain = Plain() if sys.stdout.isatty() and not raw else None

    def write(text: str) -> None:
        # Write UTF-8, independent of the terminal's encoding.
        sys.stdout.flush()
        sys.stdout.buffer.write((plain(text) if plain else text).encode())
        sys.stdout.buffer.flush()

    return write
