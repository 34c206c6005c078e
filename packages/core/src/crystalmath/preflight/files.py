"""Read a file as the calculation will, and say what is known of it.

Only regular files are opened, and none larger than :data:`LIMIT` is read: a device, a pipe or a
sparse file of gigabytes costs nothing here. What its content means, its program says.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from typing import TYPE_CHECKING

from attrs import evolve

from crystalmath.preflight.report import FileFacts
from crystalmath.worker import imports
from crystalmath.worker.imports import settled, signature_of

if TYPE_CHECKING:
    from crystalmath.preflight.program import Program

#: Bytes. VASP's own POTCARs have at most one million, UPF files a few.
LIMIT = 64 << 20
_TRIES = 3
_MAX_KNOWN = 1000
_known: dict[tuple[str, str], FileFacts] = {}
_PROBLEMS = {
    errno.ENOENT: "missing",
    errno.ENOTDIR: "missing",
    errno.ENAMETOOLONG: "missing",
    errno.ELOOP: "link_loop",
}


class _ChangedError(Exception):
    """Somebody writes the file while it is read."""


def facts(path: str, program: Program) -> FileFacts:
    """Read a file, whatever is there.

    What it was is remembered, and read again only when its signature has changed.
    """
    known = _known.get((path, program.name))
    if known and known.signature == signature(path):
        return known
    for _ in range(_TRIES):
        try:
            return _remembered(path, program, _facts(path, program))
        except _ChangedError:
            continue
        except OSError as error:
            return _unreachable(path, program, error)
        except ValueError as error:  # a NUL in the path
            return FileFacts(problem="missing", detail=str(error))
    return FileFacts(problem="unreadable", detail="it changes all the time")


def signature(path: str) -> tuple[int, ...] | None:
    """Return what stays the same as long as a file does; ``None`` if it cannot be reached."""
    return imports.signature(path) or None


def _remembered(path: str, program: Program, found: FileFacts) -> FileFacts:
    # A relative path means another file in another directory.
    if os.path.isabs(path) and settled(found.signature, time.time()):
        if len(_known) >= _MAX_KNOWN:
            _known.clear()
        _known[path, program.name] = found
    return found


def _facts(path: str, program: Program) -> FileFacts:
    # Before it is opened: opening a device may do something, opening a pipe waits.
    there = os.stat(path)
    if not stat.S_ISREG(there.st_mode):
        detail = _sort(there.st_mode)
        return FileFacts(signature=signature_of(there), problem="not_a_file", detail=detail)
    with open(path, "rb", opener=_opener) as file:
        before = os.fstat(file.fileno())
        if not stat.S_ISREG(before.st_mode):
            raise _ChangedError
        if before.st_size > LIMIT:
            size = f"it has {before.st_size / 1e6:.0f} MB, more than any such file"
            return FileFacts(signature=signature_of(before), problem="not_text", detail=size)
        data = file.read(LIMIT + 1)
        if signature_of(before) != signature_of(os.fstat(file.fileno())):
            raise _ChangedError
    # A file renamed into its place meanwhile is another one.
    if signature(path) != signature_of(before):
        raise _ChangedError
    found = program.read(path, data)
    digest = hashlib.sha256(data).hexdigest()
    return evolve(found, signature=signature_of(before), sha256=digest)


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def _sort(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "it is a folder"
    piped = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
    return "it is a pipe or a socket" if piped else "it is a device"


def _unreachable(path: str, program: Program, error: OSError) -> FileFacts:
    problem = _PROBLEMS.get(error.errno or 0, "unreadable")
    words = error.strerror or type(error).__name__
    if problem != "missing":
        return FileFacts(signature=signature(path), problem=problem, detail=words)
    if os.path.islink(path):
        return FileFacts(problem="broken_link", detail=f"it points to {os.readlink(path)}")
    for ending in program.files.unreadable:
        if os.path.exists(path + ending):
            detail = f"only {os.path.basename(path)}{ending} is there"
            return FileFacts(problem="compressed", detail=detail)
    return FileFacts(problem="missing", detail=None if error.errno == errno.ENOENT else words)
