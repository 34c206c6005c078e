"""Which files a recipe reads while it is asked: its answer holds as long as they do not change."""

from __future__ import annotations

import contextlib
import os
import sys
import sysconfig
from typing import TYPE_CHECKING, Any

from crystalmath.worker.imports import signature

if TYPE_CHECKING:
    from collections.abc import Iterator


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

        Returns
        -------
        dict of str to tuple of int
            The signature before it was opened, by absolute path; it fills meanwhile.
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
