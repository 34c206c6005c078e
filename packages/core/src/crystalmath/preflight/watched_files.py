"""Which files this process has read, and what it made of them."""

from __future__ import annotations

import contextlib
import os
import sys
import sysconfig
import time
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from crystalmath.worker.imports import settled, signature

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence


def exists(path: str) -> bool:
    """Return whether a file is there, such that :class:`OpenedFiles` is told of the look."""
    sys.audit("open", path, "r", os.O_RDONLY)
    return os.path.exists(path)


class OpenedFiles:
    """Collects all files that this process opens, from Python's own audit events.

    Those of the installed libraries are left out: they change by an installation only.
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
        """Collect the files that are opened, those below a directory left out.

        Their signatures before they were opened fill the dict by their absolute paths.
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
        # An exception would keep the file from being opened; cwd may be gone.
        with contextlib.suppress(Exception):
            name, mode, flags = arguments
            writes = flags & os.O_ACCMODE == os.O_WRONLY if mode is None else mode[0] in "wax"
            if writes or isinstance(name, int):
                return
            path = os.path.abspath(os.fsdecode(name))
            if not path.startswith(self._passed_over + self._below):
                self._files.setdefault(path, signature(path))


_Made = TypeVar("_Made")

_LIMIT = 2000


class FileMemo(Generic[_Made]):
    """Results by a key of the caller's, each with the signatures of its files."""

    def __init__(self) -> None:
        self._known: dict[Hashable, tuple[list[tuple[int, ...]], _Made]] = {}

    def get(self, key: Hashable, paths: Sequence[str], make: Callable[[], _Made]) -> _Made:
        """Return what was made of files under a key; make it again if one has changed."""
        now = [signature(path) for path in paths]
        known = self._known.get(key)
        if known and known[0] == now:
            for path in paths:
                # `OpenedFiles` counts this as a read, too.
                sys.audit("open", path, "r", os.O_RDONLY)
            return known[1]
        looked = time.time()
        made = make()
        if all(settled(seen, looked) for seen in now):
            if len(self._known) >= _LIMIT:
                self._known.clear()
            self._known[key] = now, made
        return made
