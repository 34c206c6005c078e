"""What a call starts, and what code changes in its process for a moment.

Python's audit events tell of what Python code does, with the line that did it (of threads they
tell from Python 3.12 on alone). What is there after a call and was not before also tells of what a
library starts past Python. Where there is no event, the function is replaced by one that notes who
calls it. What a library does while it is imported is none of it, nor what threads do that were
there before the call.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import locale
import os
import random
import re
import reprlib
import socket
import sys
import sysconfig
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from attrs import define, field

from crystalmath.testing.oracle import TRANSIENT, below
from crystalmath.testing.traces import sockets
from crystalmath.testing.waiting import own_time

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence
    from types import FrameType, ModuleType


_PROCESSES = frozenset(
    {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "pty.spawn"}
)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_LIBRARY = sysconfig.get_path("stdlib")
#: What core starts to ask recipes, and with what.
_ASKING, _CLIENT = "crystalmath.preflight.", "SupervisorClient."


@define
class Watched:
    """What one call did."""

    #: How long it took, as :func:`own_time` measures.
    seconds: float = 0.0
    #: What it started or wrote, in words, and who did it: ``process: sleep 1 (mine.py:7)``.
    started: list[str] = field(factory=list)


_now: Watched | None = None
_skips_imports = _may_ask = False
#: The threads that were there before the call, and those that such ones start.
_others: set[threading.Thread] = set()
_installed = False


@contextlib.contextmanager
def watched(
    folders: Sequence[Path] = (), *, skip_imports: bool = False, may_ask: bool = False
) -> Iterator[Watched]:
    """Watch what this process does within the ``with`` block; the record is complete after it.

    Files that come up in `folders`, which nobody else uses, count whoever writes them. With
    `skip_imports` no call is blamed for what a library does at its import, unless that is still
    there afterwards; with `may_ask` none for the processes in which core asks recipes.
    """
    global _now, _skips_imports, _may_ask, _others, _installed  # noqa: PLW0603 - as audit hooks are
    if not _installed:
        _installed = True
        sys.addaudithook(_receive)
    before = _there(folders)
    now = Watched()
    start = threading.Thread.start

    def start_noted(thread: threading.Thread) -> None:
        if _is_of_another():
            _others.add(thread)
        _note(f"thread: {thread.name}", sys._getframe(1))  # noqa: SLF001
        start(thread)

    _others = set(threading.enumerate()) - {threading.current_thread()}
    _now, _skips_imports, _may_ask = now, skip_imports, may_ask
    threading.Thread.start = start_noted  # type: ignore[assignment,method-assign]
    began = own_time()
    try:
        yield now
    finally:
        now.seconds = own_time() - began
        threading.Thread.start = start  # type: ignore[method-assign]
        _now = None
        kinds = {each.partition(":")[0] for each in now.started}
        came = {key: what for key, what in _there(folders).items() if key not in before}
        now.started += [
            f"{kind}: {what} (still there)"
            for (kind, which), what in came.items()
            if kind not in kinds
            and which not in _others
            and not (may_ask and kind == "process" and _ASKING in what)
        ]
        _others = set()


def _receive(event: str, arguments: tuple[Any, ...]) -> None:
    """Note an audit event; these come for everything that the process does."""
    if _now is not None and (what := _described(event, arguments)) is not None:
        _note(what, sys._getframe(1))  # noqa: SLF001 - there is no other way to the caller


def _note(what: str, frame: FrameType) -> None:
    now = _now  # the call may end while another thread is here
    if now is None or _is_of_another() or (_skips_imports and imports(frame)):
        return
    if not (_may_ask and _asks(frame)):
        now.started.append(f"{what} ({place(frame)})")


def _is_of_another() -> bool:
    """Return whether the present thread is none of the call's."""
    me = threading.get_ident()
    return any(thread.ident == me for thread in tuple(_others))


def _described(event: str, arguments: tuple[Any, ...]) -> str | None:
    if event in _PROCESSES:
        command = arguments[1] if event == "subprocess.Popen" else event
        words = map(str, command) if isinstance(command, list | tuple) else [str(command)]
        return f"process: {' '.join(words)}"
    if event == "socket.bind":
        return f"port: {arguments[1]}"
    is_write = event == "open" and writes(arguments)
    if (event == "os.mkdir" or is_write) and isinstance(arguments[0], str | bytes | os.PathLike):
        name = os.fsdecode(arguments[0])
        if not name.startswith(("/dev/", "/proc/")) and not is_bytecode(name):
            return f"file: {name}"
    return None


def writes(arguments: tuple[Any, ...]) -> bool:
    """Return whether the arguments of an event `open` are for writing."""
    return isinstance(arguments[2], int) and bool(arguments[2] & _WRITES)


def is_bytecode(name: str) -> bool:
    """Return whether Python keeps what it has compiled there, or beside the modules."""
    kept = sys.pycache_prefix
    return "__pycache__" in name or (kept is not None and name.startswith(kept))


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def imports(frame: FrameType) -> bool:
    """Return whether something happens while a module is imported."""
    return any("importlib._bootstrap" in each.f_code.co_filename for each in _frames(frame))


def _asks(frame: FrameType) -> bool:
    return any(each.f_code.co_qualname.startswith(_CLIENT) for each in _frames(frame))


def caller(frame: FrameType) -> FrameType | None:
    """Return the first caller outside Python's own library."""
    for each in _frames(frame):
        name = each.f_code.co_filename
        if not name.startswith("<") and (_LIBRARY not in name or "-packages" in name):
            return each
    return None


def place(frame: FrameType) -> str:
    """Return the line of the first caller outside Python's own library."""
    who = caller(frame)
    if who is None:
        return "in Python's library"
    return f"{Path(who.f_code.co_filename).name}:{who.f_lineno}"


def _there(folders: Sequence[Path]) -> dict[tuple[str, Hashable], str]:
    """Return what exists now, in words, by kind: a command may become another."""
    me = psutil.Process()
    present: dict[tuple[str, Hashable], str] = {}
    present |= {("thread", thread): thread.name for thread in threading.enumerate()}
    present |= {("process", child): _command(child) for child in me.children(recursive=True)}
    ports = (each for each in sockets(me, "inet") if each.status == psutil.CONN_LISTEN)
    present |= {("port", each.laddr): str(tuple(each.laddr)) for each in ports}
    for folder in folders:
        present |= {("file", path): str(path) for path in below(folder)}
    return present


def _command(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {' '.join(process.cmdline())}"
    except TRANSIENT:
        return str(process.pid)


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

    Core alone may write to the run directories of `home`; files may be written in `folder`, too.
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
            values = [each for each in (*arguments, *keywords.values()) if each is not None]
            if len(values) >= least and self._is_of_somebody(frame):
                what = ", ".join(map(reprlib.repr, values))  # a state has hundreds of numbers
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
