"""What Python code does to its process or to files for a moment: seen when it is over, too.

Python's audit events tell of it. What a library does while it is imported is none of it.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalmath.testing.watching import imports, is_bytecode, place, writes

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["PassingChanges"]

_TOPICS = {
    "os.chdir": "working directory",
    "os.putenv": "environment",
    "os.unsetenv": "environment",
}
_FILES = frozenset({"open", "os.mkdir", "os.chmod"})
#: A socket's path must be short, which one below TMPDIR may not be.
_ANYWHERE = ("/dev/", "/proc/", "/tmp/")  # noqa: S108


class PassingChanges:
    """Note them from now on, as long as this process lives.

    Parameters
    ----------
    folders : sequence of str
        Where files may be written.
    """

    def __init__(self, folders: Sequence[str]) -> None:
        self._folders = tuple(os.path.realpath(folder) + "/" for folder in folders)
        self._busy = threading.local()
        self._pid = os.getpid()
        #: By topic what was done, each once, in words, and where: ``os.chdir('/') (mine.py:7)``.
        self.found: dict[str, dict[str, None]] = {"files": {}}
        self.found |= {topic: {} for topic in _TOPICS.values()}
        sys.addaudithook(self._receive)

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
            if (topic != "files" or self._is_elsewhere(event, arguments)) and not imports(frame):
                what = ", ".join(map(repr, arguments[:2] if topic != "files" else arguments[:1]))
                self.found[topic][f"{event}({what}) ({place(frame)})"] = None
        finally:
            self._busy.is_looking = False

    def _is_elsewhere(self, event: str, arguments: tuple[Any, ...]) -> bool:
        """Tell whether a file is written, or changed in its mode, where none may be."""
        name = arguments[0]
        if not isinstance(name, str | bytes | os.PathLike):
            return False  # a descriptor
        if event == "open" and not writes(arguments):
            return False
        path = os.path.realpath(os.fsdecode(name))
        # A path that is relative to a descriptor says little.
        is_known = Path(os.fsdecode(name)).is_absolute()
        return is_known and not is_bytecode(path) and not path.startswith(_ANYWHERE + self._folders)
