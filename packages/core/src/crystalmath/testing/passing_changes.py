"""What Python code does to its process or to files for a moment: seen when it is over, too.

Python's audit events tell of most; where there is none, the function is replaced by one that notes
who calls it. What a library does while it is imported is none of it.
"""

from __future__ import annotations

import functools
import importlib
import locale
import os
import random
import re
import reprlib
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalmath.testing.watching import caller, imports, is_bytecode, place, writes

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, ModuleType

_TOPICS = {
    "os.chdir": "working directory",
    "os.putenv": "environment",
    "os.unsetenv": "environment",
}
#: Functions without an event. Without a second argument `setlocale` only tells.
_CALLS: tuple[tuple[ModuleType, str, int, str], ...] = (
    (os, "umask", 1, "umask"),
    (socket, "setdefaulttimeout", 1, "interpreter"),
    (locale, "setlocale", 2, "interpreter"),
    (random, "seed", 0, "random numbers"),
    (random, "setstate", 1, "random numbers"),
)
#: Those of numpy, where the process has imported it.
_NUMPY_CALLS = (("seed", 0, "random numbers"), ("set_state", 1, "random numbers"))
#: The kit asks for the umask by setting it.
_CORE, _KIT = "crystalmath.", "crystalmath.testing."
_FILES = frozenset({"open", "os.mkdir", "os.chmod"})
_ANYWHERE = ("/dev/", "/proc/")
#: A socket's path must be short, which one below TMPDIR may not be: here too, if it is removed.
_TEMPORARY = "/tmp/"  # noqa: S108


#: In a run directory: what a batch system is given of an attempt, and says about it.
_OF_ALLOCATION = re.compile(r"\d+\.allocation(/|$)")


def _is_core(frame: FrameType | None) -> bool:
    return frame is None or str(frame.f_globals.get("__name__")).startswith(_CORE)


def _numpy_calls() -> list[tuple[ModuleType, str, int, str]]:
    if "numpy" not in sys.modules:
        return []
    # It may be imported at its first use alone.
    module = importlib.import_module("numpy.random")
    return [(module, *call) for call in _NUMPY_CALLS]


class PassingChanges:
    """Note them from now on, as long as this process lives.

    Parameters
    ----------
    home : str
        A home: core alone may write to its run directories.
    folder : str
        Where files may be written, too.
    """

    def __init__(self, home: str, folder: str) -> None:
        self._folders = tuple(os.path.realpath(each) + "/" for each in (home, folder))
        self._jobs = f"{self._folders[0]}jobs/"
        self._busy = threading.local()
        self._pid = os.getpid()
        #: By topic what was done, each once, in words, and where: ``os.chdir('/') (mine.py:7)``.
        self.found: dict[str, dict[str, None]] = {"files": {}}
        self.found |= {topic: {} for topic in _TOPICS.values()}
        calls = [*_CALLS, *_numpy_calls()]
        self.found |= {topic: {} for *_, topic in calls}
        #: What was written where there are but temporary files, and who did it.
        self.temporary: dict[str, str] = {}
        sys.addaudithook(self._receive)
        for module, name, least, topic in calls:
            call = getattr(module, name)
            setattr(module, name, self._noting(f"{module.__name__}.{name}", call, least, topic))

    def _noting(
        self, name: str, call: Callable[..., Any], least: int, topic: str
    ) -> Callable[..., Any]:
        @functools.wraps(call)
        def noting(*arguments: Any, **keywords: Any) -> Any:
            frame = sys._getframe(1)  # noqa: SLF001 - there is no other way to the caller
            given = [each for each in (*arguments, *keywords.values()) if each is not None]
            if len(given) >= least and self._is_of_somebody(frame):
                what = ", ".join(map(reprlib.repr, given))  # a state has hundreds of numbers
                self.found[topic][f"{name}({what}) ({place(frame)})"] = None
            return call(*arguments, **keywords)

        return noting

    def _is_of_somebody(self, frame: FrameType) -> bool:
        is_ours = str(frame.f_globals.get("__name__")).startswith(_KIT)
        return os.getpid() == self._pid and not is_ours and not imports(frame)

    def _receive(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _TOPICS and event not in _FILES:
            return
        # What looking itself does is told, too; and a child by `fork` is another process.
        if getattr(self._busy, "is_looking", False) or os.getpid() != self._pid:
            return
        self._busy.is_looking = True
        try:
            frame = sys._getframe(1)  # noqa: SLF001 - there is no other way to the caller
            topic = _TOPICS.get(event, "files")
            if imports(frame):
                return
            if topic != "files" or self._is_elsewhere(event, arguments, frame):
                what = ", ".join(map(repr, arguments[:2] if topic != "files" else arguments[:1]))
                self.found[topic][f"{event}({what}) ({place(frame)})"] = None
        finally:
            self._busy.is_looking = False

    def _is_elsewhere(self, event: str, arguments: tuple[Any, ...], frame: FrameType) -> bool:
        """Return whether a file is written, or changed in its mode, where none may be."""
        name = arguments[0]
        if not isinstance(name, str | bytes | os.PathLike):
            return False  # a descriptor
        if event == "open" and not writes(arguments):
            return False
        path = os.path.realpath(os.fsdecode(name))
        # A path that is relative to a descriptor says little.
        is_known = Path(os.fsdecode(name)).is_absolute()
        if path.startswith(self._jobs):
            inside = path.removeprefix(self._jobs).partition("/")[2]
            return not _OF_ALLOCATION.match(inside) and not _is_core(caller(frame))
        if not is_known or is_bytecode(path) or path.startswith(_ANYWHERE + self._folders):
            return False
        if not path.startswith(_TEMPORARY):
            return True
        self.temporary.setdefault(path, place(frame))
        return False
