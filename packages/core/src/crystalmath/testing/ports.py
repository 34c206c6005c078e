"""The ports on which processes listen, and what these say to a stranger."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psutil
from attrs import frozen

from crystalmath.testing.passing import TRANSIENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: How long a port may take to say something, in seconds.
ANSWER_S = 3.0
#: How a peer of ZeroMQ begins, with the mechanism that it wants: none (its RFC 23).
_ZMQ_HEAD, _ZMQ_MECHANISM = 12, 20
_ZMQ = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(_ZMQ_MECHANISM, b"\0") + bytes(32)

#: So much of an answer is read, in bytes.
_MOST = 4096

#: Where a server that works for anybody says so. That one tells of its health, or of its interface,
#: or that nothing is there, means little.
_PATHS = ("/", "/jobs", "/tasks", "/api", "/api/jobs", "/api/v1/jobs", "/v1/jobs")
#: A question that XML-RPC answers, if only with a fault, once it has let somebody in.
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
    """Return the connections of a process, as psutil tells of them."""
    # It has another name from psutil 6 on.
    connections = getattr(process, "net_connections", None) or process.connections
    return connections(kind)


def listening(processes: Iterable[psutil.Process]) -> list[Port]:
    """List the ports on which some processes listen, each once."""
    return _found(processes, "tcp", lambda each: each.status == psutil.CONN_LISTEN)


def hearing(processes: Iterable[psutil.Process]) -> list[Port]:
    """List the UDP ports, each once, at which some processes take what anybody sends.

    A socket that is connected takes what its peer sends alone.
    """
    return _found(processes, "udp", lambda each: each.laddr and not each.raddr)


def _found(
    processes: Iterable[psutil.Process], kind: str, counts: Callable[[Any], Any]
) -> list[Port]:
    found: dict[tuple[str, int], Port] = {}
    for process in processes:
        with contextlib.suppress(*TRANSIENT):
            command = " ".join(process.cmdline())[:200]
            for each in filter(counts, sockets(process, kind)):
                host, number = each.laddr
                found.setdefault((host, number), Port(host, number, process.pid, command))
    return list(found.values())


def open_to_strangers(ports: Iterable[Port]) -> list[str]:
    """Return which ports serve who shows no key, as far as they speak what is known here.

    Asked are ZeroMQ, Dask, HTTP and XML-RPC. What speaks something else, or says nothing, passes.
    """
    ports = list(ports)
    if not ports:
        return []
    with ThreadPoolExecutor(len(ports)) as pool:
        answers = pool.map(_serves_strangers, ports)
        return [f"{port} {what}" for port, what in zip(ports, answers, strict=True) if what]


def _serves_strangers(port: Port) -> str | None:
    said = _talk(port, b"")
    if b"pickle-protocol" in said:
        return "speaks Dask's protocol without TLS"
    if said[:1] == _ZMQ[:1]:
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
    """Connect, say something, and give what is said within a short time, up to so many bytes."""
    said = b""
    address = port.host, port.number
    with contextlib.suppress(OSError), socket.create_connection(address, ANSWER_S) as peer:
        peer.sendall(words)
        while len(said) < most and (more := peer.recv(1024)):
            said += more
    return said
