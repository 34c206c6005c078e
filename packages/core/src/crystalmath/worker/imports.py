"""Modules that people edit: a warm process never runs an old version of them.

A recipe module outside quacc, and its imports outside the installed libraries, are compiled from
their source every time, and watched for changes. (A bytecode file is trusted by a time in whole
seconds, too coarse for a file that was just edited.) Files that are read once, such as settings,
are watched, too.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import site
import sys
import sysconfig
import time
from typing import TYPE_CHECKING

from crystalmath.worker import own_outdirs
from crystalmath.worker.pristine import LIBRARIES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType

    from crystalmath.worker.pristine import Pristine

#: A file that was changed this shortly before it was read may change again without a new time, in
#: seconds: the clock of file systems stands still for some milliseconds at a time.
_MARGIN_S = 0.05

#: Our own package is not watched: after an edit, more than a warm process needs a restart.
_OURS = __name__.partition(".")[0]


class _FromSource(importlib.machinery.SourceFileLoader):
    def __init__(self, fullname: str, path: str, edited: Edited, pristine: Pristine | None) -> None:
        super().__init__(fullname, path)
        self._edited = edited
        self._pristine = pristine

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        _watch(module)
        if self._pristine is not None:
            self._pristine.add(module, own=True)

    def get_code(self, fullname: str) -> CodeType | None:
        path = self.get_filename(fullname)
        source = self.get_data(path)
        self._edited.keep(path, source)
        return self.source_to_code(source, path)


class _Noting(importlib.machinery.SourceFileLoader):
    def __init__(self, fullname: str, path: str, pristine: Pristine) -> None:
        super().__init__(fullname, path)
        self._pristine = pristine

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        _watch(module)
        self._pristine.add(module)


def _watch(module: ModuleType) -> None:
    """Patch a module that needs it, before the module's first state is recorded."""
    if module.__name__ == own_outdirs.ESPRESSO:
        own_outdirs.watch(module)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, edited: Edited, pristine: Pristine | None) -> None:
        self._edited = edited
        self._pristine = pristine

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        for finder in sys.meta_path:
            # Editable installations bring finders of their own.
            if finder is not self and (spec := finder.find_spec(fullname, path, target)):
                break
        else:
            return None
        is_source = isinstance(spec.loader, importlib.machinery.SourceFileLoader)
        if is_source and spec.origin and self._edited.covers(fullname, spec.origin):
            # Other edited modules may keep any state.
            own = self._pristine if self._edited.admits(fullname) else None
            spec.loader = _FromSource(fullname, spec.origin, self._edited, own)
        elif is_source and spec.origin and self._pristine and _is_of(fullname, LIBRARIES):
            spec.loader = _Noting(fullname, spec.origin, self._pristine)
        return spec


class Edited:
    """The imported modules that people edit, and other files that are read once.

    Packages in `namespaces` are watched even if they are installed.
    """

    def __init__(self, namespaces: Iterable[str] = ()) -> None:
        self._roots = {name.split(".")[0] for name in namespaces}
        paths = {
            sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")
        }
        paths |= {*site.getsitepackages(), site.getusersitepackages()}
        self._libraries = tuple(os.path.realpath(path) + os.sep for path in paths)
        #: By folder of a top-level module or package: whether pip has installed something there.
        self._installed: dict[str, bool] = {}
        #: By path: the signature of the content that was read; ``None`` if it is not certain.
        self.files: dict[str, tuple[int, ...] | None] = {}
        self._known: set[str] = set()
        # The sources that were compiled since modules were noted last.
        self._sources: dict[str, bytes] = {}
        # The files that are not certain, each with its signature and, if known, its content; and
        # when the last one was noted, in seconds of the monotonic clock.
        self._doubtful: dict[str, tuple[tuple[int, ...], bytes | None]] = {}
        self._noted = 0.0

    def covers(self, module: str, origin: str) -> bool:
        """Return whether a module is one that people edit."""
        if self.admits(module):
            return True
        if module.partition(".")[0] == _OURS:
            return False
        path = os.path.realpath(origin)
        return not (path.startswith(self._libraries) or self._is_installed(module, path))

    def _is_installed(self, module: str, path: str) -> bool:
        depth = module.count(".") + (os.path.basename(path) == "__init__.py")
        folder = path.rsplit(os.sep, depth + 1)[0]
        if folder not in self._installed:
            self._installed[folder] = _has_distribution(folder)
        return self._installed[folder]

    def admits(self, module: str) -> bool:
        """Return whether a module is of a package whose recipes are admitted."""
        return module.split(".", maxsplit=1)[0] in self._roots

    def watch(self, paths: Iterable[str]) -> None:
        """Watch files, even missing ones; call this before they are read."""
        self.files |= {path: signature(path) for path in paths}

    def keep(self, path: str, source: bytes) -> None:
        """Remember a compiled source until its module is noted."""
        self._sources[path] = source

    def note(self, since: float) -> None:
        """Watch the modules that were imported since a time (seconds since the epoch)."""
        if len(sys.modules) == len(self._known):
            return
        for name in sys.modules.keys() - self._known:
            path = _file_of(sys.modules.get(name))
            if path and self.covers(name, path):
                seen = signature(path)
                self.files[path] = seen if settled(seen, since) else None
                if self.files[path] is None:
                    self._doubtful[path] = seen, self._sources.get(path)
                    self._noted = time.monotonic()
        self._sources.clear()
        self._known = set(sys.modules)

    def changed(self) -> str | None:
        """Return a file that has changed since it was read, if there is one."""
        self._look_again()
        for path, known in self.files.items():
            if known is None or signature(path) != known:
                return path
        return None

    def _look_again(self) -> None:
        """Trust uncertain files whose signature and content are unchanged.

        The clock of their server may always be ahead of this host's. After a wait by the monotonic
        clock, any later change has a time of its own.
        """
        if not self._doubtful:
            return
        time.sleep(max(0.0, self._noted + _MARGIN_S - time.monotonic()))
        for path, (seen, source) in self._doubtful.items():
            # The content is read first: a later change shows in the signature.
            if (source is None or source == _content(path)) and signature(path) == seen:
                self.files[path] = seen
        self._doubtful.clear()


def install(edited: Edited, pristine: Pristine | None = None) -> None:
    """Compile the edited modules from their source from now on.

    The imported modules of libraries are shown to `pristine`.
    """
    sys.meta_path.insert(0, _Finder(edited, pristine))


def _has_distribution(folder: str) -> bool:
    try:
        return any(name.endswith(".dist-info") for name in os.listdir(folder))
    except OSError:
        return False


def _is_of(module: str, packages: Iterable[str]) -> bool:
    return module.split(".", maxsplit=1)[0] in packages


def _file_of(module: ModuleType | None) -> str | None:
    """Return the file that a module was imported from.

    Some modules are objects that a library has made, and only name a file: `torch.ops` does.
    """
    spec = getattr(module, "__spec__", None)
    if isinstance(spec, importlib.machinery.ModuleSpec) and spec.has_location:
        return spec.origin
    return None


def _content(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None


def signature(path: str) -> tuple[int, ...]:
    """Return a tuple that changes with a file; empty if the file cannot be reached."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return ()
    return signature_of(status)


def signature_of(status: os.stat_result) -> tuple[int, ...]:
    """Return the same from a file's status."""
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def settled(seen: Sequence[int] | None, read: float) -> bool:
    """Return whether a file's signature proves the content that was read at this time.

    The signature is empty or ``None`` if there was no file. It proves nothing for a file that was
    changed so shortly before that it may have changed again unnoticed.
    """
    # The time of the last change of any kind, which no program can set.
    return seen is not None and len(seen) > 0 and seen[1] < (read - _MARGIN_S) * 1e9
