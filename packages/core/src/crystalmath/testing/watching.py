"""What a call starts: processes, threads, ports and files, also those that are gone at its end.

Python's audit events tell of what Python code starts, with the line that did it (of threads they
tell from Python 3.12 on alone); what is there afterwards and was not before also tells of what a
library starts past Python. What threads do that were there before the call is none of it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import sysconfig
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from attrs import define, field

from crystalmath.testing.passing import TRANSIENT, below
from crystalmath.testing.ports import sockets
from crystalmath.testing.waiting import own_time

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence
    from types import FrameType

_PROCESSES = frozenset(
    {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "pty.spawn"}
)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_LIBRARY = sysconfig.get_path("stdlib")
#: What core starts to ask recipes, and with what.
_ASKING, _CLIENT = "crystalmath.preflight.", "SupervisorClient."


@define
class Watched:
    """What one call did.

    Parameters
    ----------
    seconds : float
        How long it took, as :func:`own_time` has it.
    started : list of str
        What it started or wrote, each in words, and who did it: ``process: sleep 1 (mine.py:7)``.
    """

    seconds: float = 0.0
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
    """Watch what this process does within the ``with`` block; one at a time.

    Parameters
    ----------
    folders : sequence of pathlib.Path
        Files that come up there count, whoever writes them: nobody else uses these.
    skip_imports : bool
        Do not blame a call for what a library does while it is imported, unless it is still there
        afterwards.
    may_ask : bool
        Do not blame a call for the processes in which core asks recipes: they end, are replaced,
        and start others, as it pleases core.

    Yields
    ------
    Watched
        Complete after the block.
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
        told = {each.partition(":")[0] for each in now.started}
        came = {key: what for key, what in _there(folders).items() if key not in before}
        now.started += [
            f"{kind}: {what} (still there)"
            for (kind, which), what in came.items()
            if kind not in told
            and which not in _others
            and not (may_ask and kind == "process" and _ASKING in what)
        ]
        _others = set()


def _receive(event: str, arguments: tuple[Any, ...]) -> None:
    """Note an audit event; these come for everything that the process does."""
    if _now is not None and (what := _told(event, arguments)) is not None:
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


def _told(event: str, arguments: tuple[Any, ...]) -> str | None:
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
    """Tell of the arguments of an event `open` whether the file is opened for writing."""
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
    found: dict[tuple[str, Hashable], str] = {}
    found |= {("thread", thread): thread.name for thread in threading.enumerate()}
    found |= {("process", child): _command(child) for child in me.children(recursive=True)}
    ports = (each for each in sockets(me, "inet") if each.status == psutil.CONN_LISTEN)
    found |= {("port", each.laddr): str(tuple(each.laddr)) for each in ports}
    for folder in folders:
        found |= {("file", path): str(path) for path in below(folder)}
    return found


def _command(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {' '.join(process.cmdline())}"
    except TRANSIENT:
        return str(process.pid)
