"""Run jobs from Python: in a script, a notebook, or another program.

See docs/client.md.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crystalmath.client.client import Client
    from crystalmath.client.client_errors import (
        ClientClosed,
        ConnectionLost,
        JobFailed,
        ServerMismatch,
        SubmissionWarning,
    )
    from crystalmath.client.future import JobFuture
    from crystalmath.client.opening import connect, in_process
    from crystalmath.errors import ProtocolMismatch
    from crystalmath.models import Job, JobChange, Reference, Submission
    from crystalmath.models.notebook import Jobs

__all__ = [
    "Client",
    "ClientClosed",
    "ConnectionLost",
    "Job",
    "JobChange",
    "JobFailed",
    "JobFuture",
    "Jobs",
    "ProtocolMismatch",
    "Reference",
    "ServerMismatch",
    "Submission",
    "SubmissionWarning",
    "connect",
    "in_process",
]


_PLACES = {
    "Client": "client.client",
    "JobFuture": "client.future",
    "Jobs": "models.notebook",
    "ProtocolMismatch": "errors",
    "connect": "client.opening",
    "in_process": "client.opening",
    **dict.fromkeys(("Job", "JobChange", "Reference", "Submission"), "models"),
}


def __getattr__(name: str) -> Any:
    # Modules are imported on demand: `crystalmath status` needs few of them.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    place = _PLACES.get(name, "client.client_errors")
    member = globals()[name] = getattr(import_module(f"crystalmath.{place}"), name)
    return member
