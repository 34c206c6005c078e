"""Traces of processes on a machine: sockets, shared memory, ports, files, and cores."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import shutil
import socket
import stat
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from attrs import frozen

from crystalmath.testing.oracle import TRANSIENT, below, links, listed, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def held(pid: int) -> dict[str, Counter[str]]:
    """Return how many descriptors, threads and children of each kind a process has."""
    # The number of a socket or a pipe does not matter.
    opened = (name.partition(":[")[0] for name in links(f"/proc/{pid}/fd"))
    children = psutil.Process(pid).children(recursive=True)
    return {
        "descriptors": Counter(opened),
        "threads": Counter(map(_name, listed(f"/proc/{pid}/task"))),
        "processes": Counter(map(shown, children)),
    }


def grown(pid: int, before: dict[str, Counter[str]], least: int) -> list[str]:
    """Return, in words, the kinds of which a process has at least `least` more than before."""
    return [
        f"{more} more {what} ({', '.join(f'{n} of {it}' for it, n in (now - then).most_common(3))})"
        for (what, then), now in zip(before.items(), held(pid).values(), strict=True)
        if (more := now.total() - then.total()) >= least
    ]


def _name(task: Path) -> str:
    try:
        return (task / "comm").read_text(errors="replace").strip()
    except OSError:
        return "one that has ended"


_SHARED_MEMORY = str(Path("/dev", "shm"))


def is_channel(path: Path) -> bool:
    """Return whether a file is a socket or a pipe."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return False
    return stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode)


def segments(pid: int | str) -> set[str]:
    """Return the shared memory that a process has mapped."""
    try:
        lines = Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines()
    except OSError:
        return set()
    # Five columns, then the file, which may have blanks.
    return {line.split(maxsplit=5)[5] for line in lines if f" {_SHARED_MEMORY}/" in line}


def is_leaked(segment: str, since: float) -> bool:
    """Return whether shared memory is newer than a time, and no process has it open any more."""
    try:
        status = Path(segment).stat()
    except FileNotFoundError:
        return False
    return status.st_ctime >= since and not _is_open(segment)


def _is_open(segment: str) -> bool:
    """Return whether a living process has mapped shared memory."""
    return any(segment in segments(each.name) for each in listed("/proc") if each.name.isdecimal())


def names_in_use() -> set[str]:
    """Return the names of all Unix sockets of this machine that some process has."""
    return {each.laddr for each in psutil.net_connections("unix") if each.laddr}


def unix_sockets(processes: Iterable[psutil.Process]) -> dict[str, str]:
    """Return the names of the Unix sockets of some processes, with a description of each process.

    A name is a path, or an abstract name after an ``@``, which has no permissions.
    """
    by_name: dict[str, str] = {}
    for process in processes:
        with contextlib.suppress(*TRANSIENT):
            for each in sockets(process, "unix"):
                if each.laddr:
                    by_name.setdefault(each.laddr, shown(process))
    return by_name


#: How long a port may take to answer, in seconds.
ANSWER_S = 3.0
#: The greeting of a ZeroMQ peer that wants no security mechanism (RFC 23 of ZeroMQ).
_ZMQ_HEAD, _ZMQ_MECHANISM = 12, 20
_ZMQ = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(_ZMQ_MECHANISM, b"\0") + bytes(32)

#: How many bytes of an answer are read.
_MOST = 4096

#: The paths at which an open server lists its work. A path that shows its health or its interface
#: proves nothing.
_PATHS = ("/", "/jobs", "/tasks", "/api", "/api/jobs", "/api/v1/jobs", "/v1/jobs")
#: A request that an XML-RPC server without a key answers, perhaps with a fault.
_XML_RPC = b"<methodCall><methodName>system.listMethods</methodName></methodCall>"


@frozen
class Port:
    """A port on which a process listens (TCP), or receives (UDP)."""

    host: str
    number: int
    pid: int
    command: str

    def __str__(self) -> str:
        return f"{self.host}:{self.number} of process {self.pid} ({self.command})"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        address = ipaddress.ip_address(self.host.partition("%")[0])
        return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def sockets(process: psutil.Process, kind: str) -> Any:
    """Return the connections of a process."""
    # psutil 6 has renamed the method.
    connections = getattr(process, "net_connections", None) or process.connections
    return connections(kind)


def ports(processes: Iterable[psutil.Process], kind: str) -> list[Port]:
    """Return the ports (``tcp`` or ``udp``) on which processes listen or receive, each once."""
    ports_by_address: dict[tuple[str, int], Port] = {}
    for process in processes:
        with contextlib.suppress(*TRANSIENT):
            command = " ".join(process.cmdline())[:200]
            for each in sockets(process, kind):
                takes = each.status == psutil.CONN_LISTEN or (kind == "udp" and not each.raddr)
                if each.laddr and takes:
                    host, number = each.laddr
                    ports_by_address.setdefault(
                        (host, number), Port(host, number, process.pid, command)
                    )
    return list(ports_by_address.values())


def open_to_strangers(ports: list[Port]) -> list[str]:
    """Return which ports serve without a key, of ZeroMQ, Dask, HTTP and XML-RPC."""
    if not ports:
        return []
    with ThreadPoolExecutor(len(ports)) as pool:
        answers = pool.map(_serves_strangers, ports)
        return [f"{port} {what}" for port, what in zip(ports, answers, strict=True) if what]


def _serves_strangers(port: Port) -> str | None:
    greeting = _talk(port, b"")
    if b"pickle-protocol" in greeting:
        return "speaks Dask's protocol without TLS"
    if greeting[:1] == _ZMQ[:1]:
        mechanism = _talk(port, _ZMQ)[_ZMQ_HEAD : _ZMQ_HEAD + _ZMQ_MECHANISM].rstrip(b"\0")
        return "speaks ZeroMQ without a key" if mechanism == b"NULL" else None
    for path in _PATHS:
        request = f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n"
        line = _talk(port, request.encode()).partition(b"\r\n")[0]
        if re.match(rb"HTTP/\S+ 2", line):
            return f"answers HTTP of anybody ({path}) with {line.decode('latin-1')!r}"
        if not line.startswith(b"HTTP/"):
            return None
    kind = f"Content-Type: text/xml\r\nContent-Length: {len(_XML_RPC)}"
    request = f"POST /RPC2 HTTP/1.0\r\nHost: localhost\r\n{kind}\r\n\r\n"
    if b"<methodResponse>" in _talk(port, request.encode() + _XML_RPC, most=_MOST):
        return "answers XML-RPC of anybody"
    return None


def _talk(port: Port, words: bytes, most: int = len(_ZMQ)) -> bytes:
    """Connect, send some bytes, and return at most `most` bytes of the answer in a short time."""
    answer = b""
    address = port.host, port.number
    with contextlib.suppress(OSError), socket.create_connection(address, ANSWER_S) as peer:
        peer.sendall(words)
        while len(answer) < most and (more := peer.recv(1024)):
            answer += more
    return answer


#: The length of one observation, and of all together, in seconds.
_WINDOW_S, _MOST_S = 1.0, 60.0
#: A process that has computed for so long without a pause is restless, in seconds of a core.
_ENOUGH_S = 3.0
#: The least share of its time that a restless process computes: of all time, on a busy machine, and
#: of the time in which it did not wait for a core.
_OF_ALL, _OF_ITS_OWN = 0.05, 0.5
#: The processes that core starts for jobs are not the engine's.
_CORE = "crystalmath.worker."


@frozen
class _Used:
    """The use of cores by a process so far, in seconds."""

    cores_s: float
    starved_s: dict[str, float]


def restless(look: Callable[[], list[psutil.Process]]) -> list[str]:
    """Return the processes that compute all the time, in words; one quiet second clears them."""
    processes = {each.pid: each for each in look() if not _is_core(each)}
    began = time.monotonic()
    first = before = {pid: _used(pid) for pid in processes}
    since = began
    while processes:
        time.sleep(_WINDOW_S)
        now = time.monotonic()
        after = {pid: _used(pid) for pid in processes}
        for pid in list(processes):
            if not _computes(before[pid], after[pid], now - since):
                del processes[pid]
        spent = {pid: after[pid].cores_s - first[pid].cores_s for pid in processes}
        if spent and min(spent.values()) >= _ENOUGH_S:
            return [
                f"{shown(each)} has computed for {spent[pid]:.1f} s of {now - began:.1f} s"
                for pid, each in processes.items()
            ]
        if now - began > _MOST_S:
            break
        before, since = after, now
    return []


def _computes(before: _Used, after: _Used, seconds: float) -> bool:
    used_s = after.cores_s - before.cores_s
    starved = (
        waited - before.starved_s.get(task, waited) for task, waited in after.starved_s.items()
    )
    own_s = max(seconds - max(starved, default=0.0), 0.0)
    return used_s > _OF_ALL * seconds and used_s > _OF_ITS_OWN * own_s


def _used(pid: int) -> _Used:
    """Return the sum over the threads of a process, or zero once it has ended."""
    cores_s, starved_s = 0.0, {}
    for task in listed(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = Path(task, "schedstat").read_text(encoding="ascii").split()
            cores_s += int(fields[0]) / 1e9
            starved_s[task.name] = int(fields[1]) / 1e9
    return _Used(cores_s, starved_s)


def _is_core(process: psutil.Process) -> bool:
    try:
        return any(word.startswith(_CORE) for word in process.cmdline())
    except TRANSIENT:
        return True


#: Folders of a home directory in which each program makes a folder of its own.
_SHARED = frozenset({".cache", ".config", ".local", "share", "state"})
#: The most files, and bytes of each file, of a program's folder in a home that is copied.
MOST_FILES, MOST_BYTES = 100, 100_000


class Places:
    """A home directory like the user's, a folder for temporary files, and a working directory."""

    def __init__(self, folder: Path) -> None:
        self.home, self.temporary, self.work = (folder / each for each in ("home", "tmp", "work"))
        for place in (self.home, self.temporary, self.work):
            place.mkdir()
        _show(Path.home(), self.home)
        own = self.home / "a file of the user's"
        own.write_text("as it was\n", encoding="ascii")
        own.chmod(0o644)
        self._before = self._files()

    def changes(self) -> list[str]:
        """Return the files that have changed, in words."""
        before, after = self._before, self._files()
        return sorted(
            f"{path} was {before.get(path, 'not there')}, is {after.get(path, 'not there')}"
            for path in before.keys() | after.keys()
            if before.get(path) != after.get(path)
        )

    def _files(self) -> dict[str, str]:
        """Return the state of each file; for linked ones only the mode."""
        states = {}
        for place in (self.home, self.temporary, self.work):
            for path in (place, *below(place)):
                with contextlib.suppress(OSError):  # it may be removed meanwhile
                    states[str(path)] = _state_of(path)
        return states


def _state_of(path: Path) -> str:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        # Other programs write there, too.
        return f"a link to a file of mode {path.stat().st_mode:o}"
    if stat.S_ISDIR(status.st_mode):
        return f"{status.st_mode:o}, a folder"
    return f"{status.st_mode:o}, {status.st_size} bytes"


def _show(home: Path, folder: Path) -> None:
    """Make a folder look like a home directory: copy small folders, and link the rest."""
    for path in listed(home):
        shown = folder / path.name
        if path.name in _SHARED and path.is_dir() and not path.is_symlink():
            shown.mkdir()
            _show(path, shown)
        elif not (path.is_dir() and _is_small(path) and _copied(path, shown)):
            shown.symlink_to(path)


def _is_small(folder: Path) -> bool:
    """Return whether a folder is small, and has no files that only its owner may read."""
    if folder.is_symlink() or not folder.lstat().st_mode & stat.S_IROTH:
        return False
    for number, path in enumerate(below(folder), start=1):
        status = path.lstat()
        is_plain = stat.S_ISDIR(status.st_mode) or (
            stat.S_ISREG(status.st_mode) and status.st_size <= MOST_BYTES
        )
        if number > MOST_FILES or not is_plain or not status.st_mode & stat.S_IROTH:
            return False
    return os.access(folder, os.R_OK | os.X_OK)


def _copied(folder: Path, shown: Path) -> bool:
    """Copy a folder, with modes and times; return whether that worked."""
    try:
        shutil.copytree(folder, shown)
    except OSError:  # another program changes it meanwhile
        shutil.rmtree(shown, ignore_errors=True)
        return False
    return True
