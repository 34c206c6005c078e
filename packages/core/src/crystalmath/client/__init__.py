"""Run jobs from Python: in a script, a notebook, or another program.

See docs/client.md.
"""

from typing import TYPE_CHECKING, Any

from crystalmath.client.client import Client
from crystalmath.client.errors import (
    ClientClosed,
    ConnectionLost,
    JobFailed,
    ProtocolMismatch,
    ServerMismatch,
)
from crystalmath.client.job import JobInfo
from crystalmath.client.opening import connect, in_process

if TYPE_CHECKING:
    from crystalmath.client.future import JobFuture
    from crystalmath.client.request import Request

__all__ = [
    "Client",
    "ClientClosed",
    "ConnectionLost",
    "JobFailed",
    "JobFuture",
    "JobInfo",
    "ProtocolMismatch",
    "Request",
    "ServerMismatch",
    "connect",
    "in_process",
]


def __getattr__(name: str) -> Any:
    # Who only asks about jobs, as `crystalmath status` does, need not wait for these.
    if name == "JobFuture":
        from crystalmath.client.future import JobFuture

        return JobFuture
    if name == "Request":
        from crystalmath.client.request import Request

        return Request
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
