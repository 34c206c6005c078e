"""The format of our files: a header, one line of JSON with a format number, and a body."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, TypeAlias

from crystalmath.errors import BadFile

#: Format number of every file.
FORMAT = 2
#: Each record of a journal begins with this (jobs.journal), and no document does.
RECORD_MARK = b"crystalmath "
#: The folder, beside the run directories, of packs (jobs.packs).
PACKS = ".packs"
#: Header and body of the `spec` of a job, written down or still to be.
SpecDocument: TypeAlias = tuple[Mapping[str, Any], str]


def document(header: Mapping[str, Any], body: bytes) -> bytes:
    """Return the content of a file: the header as one line of JSON, and the body."""
    return json.dumps({"format": FORMAT, **header}).encode() + b"\n" + body


def write(path: str, content: bytes, *, durable: bool = False) -> None:
    """Make a file that only its owner can read; `FileExistsError` if the path exists."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        write_all(descriptor, content, durable=durable)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, content: bytes, *, durable: bool) -> None:
    """Write all of the content; with `durable`, sync it to the disk."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
    if durable:
        os.fsync(descriptor)


def to_disk(path: str | os.PathLike[str]) -> None:
    """Sync a file's content, or the names in a directory, so that a power cut loses nothing."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_document(path: str) -> tuple[dict[str, Any], bytes]:
    """Read header and body of a file (`BadFile` if it is damaged)."""
    with open(path, "rb") as file:
        return read_header(file.readline(), path), file.read()


def read_header(line: bytes, path: str) -> dict[str, Any]:
    """Read the first line of a file (`BadFile` if it is damaged)."""
    try:
        header: dict[str, Any] = json.loads(line)
        written = int(header["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise BadFile(f"{path} is damaged, or no file of ours: {line[:40]!r}") from error
    if written > FORMAT:
        raise BadFile(
            f"{path} was written by a newer release (format {written}, this one reads "
            f"up to {FORMAT}); upgrade crystalmath"
        )
    return header


def cleaned(value: Any) -> Any:
    """Escape characters in the texts of a JSON value that databases and messages cannot hold.

    These are NUL and half a surrogate pair, as in a path that is not UTF-8. A recipe may return or
    raise such a text, and its job must not be lost for one character.
    """
    if isinstance(value, str):
        return value.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {cleaned(name): cleaned(each) for name, each in value.items()}
    if isinstance(value, list):
        return [cleaned(each) for each in value]
    return value
