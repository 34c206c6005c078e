"""Record what a call starts, and what code changes in its process for a moment.

Python's audit events show what Python code does, and the line that did it. Threads have an event
only from Python 3.12 on. Things that exist after a call and did not before show what a library
starts outside Python. A function without an event is replaced by one that records its caller.
Imports of libraries do not count, nor threads that were there before the call.
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


#: The only way to the frame of a caller that works in an audit hook.
_frame = sys._getframe  # noqa: SLF001
_PROCESSES = frozenset(
    {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "pty.spawn"}
)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_LIBRARY = sysconfig.get_path("stdlib")
#: The processes that core starts to run recipes, and its class that starts them.
_ASKING, _CLIENT = "crystalmath.preflight.", "SupervisorClient."


@define
class Watched:
    """The record of one call."""

    #: Its duration by :func:`own_time`.
    seconds: float = 0.0
    #: Each thing that it started or wrote, with the line of code: ``process: sleep 1 (mine.py:7)``.
    started: list[str] = field(factory=list)


@define
class _Watch:
    """The call that is being watched, and its options; an audit hook can never be removed."""

    record: Watched | None = None
    skips_imports: bool = False
    may_ask: bool = False
    #: The threads that were there before the call, and those that such ones start.
    others: set[threading.Thread] = field(factory=set)
    is_installed: bool = False


_watch = _Watch()


@contextlib.contextmanager
def watched(
    folders: Sequence[Path] = (), *, skip_imports: bool = False, may_ask: bool = False
) -> Iterator[Watched]:
    """Record what this process does within the ``with`` block; the record is complete after it.

    New files in `folders` count, whatever process writes them; no other program uses those. With
    `skip_imports`, things that a library does at its import count only if they still exist
    afterwards. With `may_ask`, the processes in which core runs recipes do not count.
    """
    if not _watch.is_installed:
        _watch.is_installed = True
        sys.addaudithook(_receive)
    before = _present(folders)
    record = Watched()
    start = threading.Thread.start

    def start_noted(thread: threading.Thread) -> None:
        if _is_of_another():
            _watch.others.add(thread)
        _note(f"thread: {thread.name}", _frame(1))
        start(thread)

    _watch.others = set(threading.enumerate()) - {threading.current_thread()}
    _watch.record, _watch.skips_imports, _watch.may_ask = record, skip_imports, may_ask
    _replace(threading.Thread, "start", start_noted)
    began = own_time()
    try:
        yield record
    finally:
        record.seconds = own_time() - began
        _replace(threading.Thread, "start", start)
        _watch.record = None
        kinds = {each.partition(":")[0] for each in record.started}
        came = {key: what for key, what in _present(folders).items() if key not in before}
        record.started += [
            f"{kind}: {what} (still there)"
            for (kind, which), what in came.items()
            if kind not in kinds
            and which not in _watch.others
            and not (may_ask and kind == "process" and _ASKING in what)
        ]
        _watch.others = set()


def _replace(owner: object, name: str, function: Callable[..., Any]) -> None:
    setattr(owner, name, function)


def _receive(event: str, arguments: tuple[Any, ...]) -> None:
    """Record an audit event; these come for everything that the process does."""
    if _watch.record is not None and (what := _described(event, arguments)) is not None:
        _note(what, _frame(1))


def _note(what: str, frame: FrameType) -> None:
    record = _watch.record  # read once: the call may end while another thread is here
    if record is None or _is_of_another() or (_watch.skips_imports and imports(frame)):
        return
    if not (_watch.may_ask and _asks(frame)):
        record.started.append(f"{what} ({place(frame)})")


def _is_of_another() -> bool:
    """Return whether the present thread is none of the call's."""
    me = threading.get_ident()
    return any(thread.ident == me for thread in tuple(_watch.others))


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
    """Return whether a file is for compiled modules of Python."""
    kept = sys.pycache_prefix
    return "__pycache__" in name or (kept is not None and name.startswith(kept))


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def imports(frame: FrameType) -> bool:
    """Return whether a frame runs while a module is imported."""
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


def _present(folders: Sequence[Path]) -> dict[tuple[str, Hashable], str]:
    """Return the present threads, processes, ports and files, each with a description."""
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
#: Functions without an event, and from how many arguments on they change something.
_CALLS: tuple[tuple[ModuleType, str, int, str], ...] = (
    (os, "umask", 1, "umask"),
    (socket, "setdefaulttimeout", 1, "interpreter"),
    (locale, "setlocale", 2, "interpreter"),
    (random, "seed", 0, "random numbers"),
    (random, "setstate", 1, "random numbers"),
)
#: The same in numpy, if the process has imported it.
_NUMPY_CALLS = (("seed", 0, "random numbers"), ("set_state", 1, "random numbers"))
#: Core's modules. The kit's own set the umask, too, to read it.
_CORE, _KIT = "crystalmath.", "crystalmath.testing."
_FILES = frozenset({"open", "os.mkdir", "os.chmod"})
_ANYWHERE = ("/dev/", "/proc/")
#: A socket needs a short path, and one below TMPDIR may be too long. So files are allowed here if
#: they are removed.
_TEMPORARY = "/tmp/"  # noqa: S108 - nothing is written there


#: The script and the output of an allocation in a run directory, which an engine writes.
_OF_ALLOCATION = re.compile(r"\d+\.allocation(/|$)")


def _is_core(frame: FrameType | None) -> bool:
    return frame is None or str(frame.f_globals.get("__name__")).startswith(_CORE)


def _numpy_calls() -> list[tuple[ModuleType, str, int, str]]:
    if "numpy" not in sys.modules:
        return []
    # numpy may import it only at its first use.
    module = importlib.import_module("numpy.random")
    return [(module, *call) for call in _NUMPY_CALLS]


class PassingChanges:
    """A record of changes that last a moment, from now on, for the life of this process.

    Core alone may write to the run directories of `home`. Files may be written in `folder`, too.
    """

    def __init__(self, home: str, folder: str) -> None:
        self._folders = tuple(os.path.realpath(each) + "/" for each in (home, folder))
        self._jobs = f"{self._folders[0]}jobs/"
        self._busy = threading.local()
        self._pid = os.getpid()
        #: The changes of each topic, once each, with their lines: ``os.chdir('/') (mine.py:7)``.
        self.changes: dict[str, dict[str, None]] = {"files": {}}
        self.changes |= {topic: {} for topic in _TOPICS.values()}
        calls = [*_CALLS, *_numpy_calls()]
        self.changes |= {topic: {} for *_, topic in calls}
        #: The files that were written to /tmp, with the lines that did.
        self.temporary: dict[str, str] = {}
        sys.addaudithook(self._receive)
        for module, name, least, topic in calls:
            call = getattr(module, name)
            noting = self._noting(f"{module.__name__}.{name}", call, least, topic)
            _replace(module, name, noting)

    def _noting(
        self, name: str, call: Callable[..., Any], least: int, topic: str
    ) -> Callable[..., Any]:
        @functools.wraps(call)
        def noting(*arguments: Any, **keywords: Any) -> Any:
            frame = _frame(1)
            values = [each for each in (*arguments, *keywords.values()) if each is not None]
            if len(values) >= least and self._is_of_somebody(frame):
                what = ", ".join(map(reprlib.repr, values))  # a state has hundreds of numbers
                self.changes[topic][f"{name}({what}) ({place(frame)})"] = None
            return call(*arguments, **keywords)

        return noting

    def _is_of_somebody(self, frame: FrameType) -> bool:
        is_ours = str(frame.f_globals.get("__name__")).startswith(_KIT)
        return os.getpid() == self._pid and not is_ours and not imports(frame)

    def _receive(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _TOPICS and event not in _FILES:
            return
        # This method causes events itself, and a forked child is another process.
        if getattr(self._busy, "is_looking", False) or os.getpid() != self._pid:
            return
        self._busy.is_looking = True
        try:
            frame = _frame(1)
            topic = _TOPICS.get(event, "files")
            if imports(frame):
                return
            if topic != "files" or self._is_elsewhere(event, arguments, frame):
                what = ", ".join(map(repr, arguments[:2] if topic != "files" else arguments[:1]))
                self.changes[topic][f"{event}({what}) ({place(frame)})"] = None
        finally:
            self._busy.is_looking = False

    def _is_elsewhere(self, event: str, arguments: tuple[Any, ...], frame: FrameType) -> bool:
        """Return whether a file is written, or its mode changed, in a place where none may be."""
        name = arguments[0]
        if not isinstance(name, str | bytes | os.PathLike):
            return False  # a descriptor
        if event == "open" and not writes(arguments):
            return False
        path = os.path.realpath(os.fsdecode(name))
        # The place of a path that is relative to a descriptor is unknown.
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
