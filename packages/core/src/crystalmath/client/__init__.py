"""Run jobs from Python: in a script, a notebook, or another program.

See docs/client.md.
"""

from typing import TYPE_CHECKING, Any

from crystalmath.client.client import Client
from crystalmath.client.client_errors import (
    ClientClosed,
    ConnectionLost,
    JobFailed,
    ProtocolMismatch,
    ServerMismatch,
)
from crystalmath.client.opening import connect, in_process
from crystalmath.models import Job, JobChange, Submission

if TYPE_CHECKING:
    from crystalmath.client.future import JobFuture

__all__ = [
    "Client",
    "ClientClosed",
    "ConnectionLost",
    "Job",
    "JobChange",
    "JobFailed",
    "JobFuture",
    "ProtocolMismatch",
    "ServerMismatch",
    "Submission",
    "connect",
    "in_process",
]


def __getattr__(name: str) -> Any:
    # Who only asks about jobs, as `crystalmath status` does, need not wait for it.
    if name == "JobFuture":
        from crystalmath.client.future import JobFuture

        return JobFuture
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
