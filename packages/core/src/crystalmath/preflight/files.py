"""Read a file as the calculation will, return the facts about it, and record which files were read.

Only regular files are opened, and none larger than :data:`LIMIT` is read: a device, a pipe or a
sparse file of gigabytes costs nothing here. The file's program judges its content.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import hashlib
import os
import stat
import sys
import sysconfig
import time
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from attrs import evolve

from crystalmath.plugins.report import FileFacts
from crystalmath.worker.imports import settled, signature, signature_of

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence
    from pathlib import Path

    from crystalmath.plugins.program import Program


def exists(path: str) -> bool:
    """Return whether a file is there, and let :class:`OpenedFiles` record the look."""
    sys.audit("open", path, "r", os.O_RDONLY)
    return os.path.exists(path)


class OpenedFiles:
    """Collects all files that this process opens, from Python's own audit events.

    Files of installed libraries are left out: only an installation changes them.
    """

    def __init__(self) -> None:
        libraries = {sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}
        places = *(path + os.sep for path in libraries), "/proc/", "/dev/", "/sys/"
        self._passed_over: tuple[str, ...] = places
        self._files: dict[str, tuple[int, ...]] | None = None
        self._below: tuple[str, ...] = ()
        sys.addaudithook(self._receive)

    @contextlib.contextmanager
    def outside(self, directory: str) -> Iterator[dict[str, tuple[int, ...]]]:
        """Collect the files that are opened outside a directory.

        The dict has their signatures before they were opened, by their absolute paths.
        """
        # A recipe may change the working directory, so relative names are resolved at once.
        self._below = (directory + os.sep, os.path.realpath(directory) + os.sep)
        files: dict[str, tuple[int, ...]] = {}
        self._files = files
        try:
            yield files
        finally:
            self._files = None

    def _receive(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" or self._files is None:
            return
        # An exception would keep the file from being opened, and the directory may be gone.
        with contextlib.suppress(Exception):
            name, mode, flags = arguments
            writes = flags & os.O_ACCMODE == os.O_WRONLY if mode is None else mode[0] in "wax"
            if writes or isinstance(name, int):
                return
            path = os.path.abspath(os.fsdecode(name))
            if not path.startswith(self._passed_over + self._below):
                self._files.setdefault(path, signature(path))


_Made = TypeVar("_Made")

_MOST_KNOWN = 2000


class FileMemo(Generic[_Made]):
    """Remembers results by a key, each with the signatures of its files."""

    def __init__(self) -> None:
        self._known: dict[Hashable, tuple[list[tuple[int, ...]], _Made]] = {}

    def get(self, key: Hashable, paths: Sequence[str], make: Callable[[], _Made]) -> _Made:
        """Return the result under a key; call `make` again if one of the files has changed."""
        now = [signature(path) for path in paths]
        known = self._known.get(key)
        if known and known[0] == now:
            for path in paths:
                # `OpenedFiles` records this as a read, too.
                sys.audit("open", path, "r", os.O_RDONLY)
            return known[1]
        looked = time.time()
        made = make()
        if all(settled(seen, looked) for seen in now):
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[key] = now, made
        return made


_presets: FileMemo[Any] = FileMemo()


class PresetReader:
    """Replaces `ruamel.yaml.YAML`, and reads a preset again only if its file has changed."""

    def load(self, path: Path) -> Any:
        """Return the document in a file."""
        # The caller changes the document.
        return copy.deepcopy(_presets.get(path, [str(path)], lambda: _parse_preset(path)))


def _parse_preset(path: Path) -> Any:
    from ruamel.yaml import YAML

    return _plain(YAML().load(path))


def _plain(node: Any) -> Any:
    """Return a document without ruamel's comments, which are slow to copy."""
    if isinstance(node, dict):
        return {key: _plain(value) for key, value in node.items()}
    return [_plain(value) for value in node] if isinstance(node, list) else node


#: The size of the largest file that is read, in bytes. POTCARs have at most 1 MB, UPF files a few.
LIMIT = 64 << 20
_TRIES = 3
_known: FileMemo[FileFacts] = FileMemo()
_PROBLEMS = {
    errno.ENOENT: "missing",
    errno.ENOTDIR: "missing",
    errno.ENAMETOOLONG: "missing",
    errno.ELOOP: "link_loop",
}


class _ChangedError(Exception):
    """The file was written while it was read."""


def facts(path: str, program: Program) -> FileFacts:
    """Return the facts about a program's file, by its path as the calculator spells it.

    They have a ``problem`` if a calculation cannot use it, and no ``signature`` if it cannot be
    reached, or kept changing while it was read.
    """
    if not os.path.isabs(path):  # it names another file in another directory
        return _facts(path, program)
    return _known.get((path, program.name), [path], lambda: _facts(path, program))


def _facts(path: str, program: Program) -> FileFacts:
    for _ in range(_TRIES):
        try:
            return _read_facts(path, program)
        except _ChangedError:
            continue
        except OSError as error:
            return _unreachable(path, program, error)
        except ValueError as error:  # a NUL in the path
            return FileFacts(problem="missing", detail=str(error))
    return FileFacts(problem="unreadable", detail="it changes while it is read")


def _read_facts(path: str, program: Program) -> FileFacts:
    # Opening a device may do something, and opening a pipe waits.
    there = os.stat(path)
    if not stat.S_ISREG(there.st_mode):
        detail = _sort(there.st_mode)
        return FileFacts(signature=signature_of(there), problem="not_a_file", detail=detail)
    with open(path, "rb", opener=_opener) as file:
        before = os.fstat(file.fileno())
        if not stat.S_ISREG(before.st_mode):
            raise _ChangedError
        if before.st_size > LIMIT:
            size = f"it has {before.st_size / 1e6:.0f} MB, more than any {program.files.noun}"
            return FileFacts(signature=signature_of(before), problem="not_text", detail=size)
        data = file.read(LIMIT + 1)
        if signature_of(before) != signature_of(os.fstat(file.fileno())):
            raise _ChangedError
    # Another file may have been renamed into its place.
    if signature(path) != signature_of(before):
        raise _ChangedError
    content = program.read(path, data)
    digest = hashlib.sha256(data).hexdigest()
    return evolve(content, signature=signature_of(before), sha256=digest)


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
        return FileFacts(signature=signature(path) or None, problem=problem, detail=words)
    if os.path.islink(path):
        return FileFacts(problem="broken_link", detail=f"it points to {os.readlink(path)}")
    for ending in program.files.unreadable:
        if os.path.exists(path + ending):
            detail = f"only {os.path.basename(path)}{ending} is there"
            return FileFacts(problem="compressed", detail=detail)
    return FileFacts(problem="missing", detail=None if error.errno == errno.ENOENT else words)
