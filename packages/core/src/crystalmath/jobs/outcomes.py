"""What the files of a job tell by themselves, and how a job is decided that nobody has begun."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from crystalmath.models import JobState

if TYPE_CHECKING:
    from crystalmath.jobs.identities import IdentityFile
    from crystalmath.jobs.rundir import RunDirectory

__all__ = ["ATTEMPTS", "cancel_files", "publish_unbegun", "read_result", "read_state"]

#: So many attempts a job has in all; only lost ones are repeated.
ATTEMPTS = 2


def read_state(directory: RunDirectory) -> JobState:
    """Tell the state of a job that another process submitted, from its files alone."""
    number = directory.read_header()["attempt"]
    outcome = directory.outcome(number)
    if outcome is not None:
        if outcome["state"] != "lost":
            return JobState(outcome["state"])
        # Whether a cancel came in time is decided with the outcome, once and for all.
        if outcome.get("cancelled"):
            return JobState.CANCELLED
        return JobState.FAILED if number >= ATTEMPTS else JobState.PENDING
    return JobState.RUNNING if directory.claimed(number) else JobState.PENDING


def read_result(directory: RunDirectory) -> dict[str, Any]:
    """Read the result of a finished job from its run directory."""
    from crystalmath.recipes import codec

    number = directory.read_header()["attempt"]
    outcome = directory.outcome(number)
    if read_state(directory) is JobState.CANCELLED:
        return {"error": "cancelled"}
    if outcome is None or outcome["state"] != "completed":
        error = outcome["error"] if outcome else "no outcome was recorded"
        traceback = outcome.get("traceback") if outcome else None
        return {"error": error, "traceback": traceback} if traceback else {"error": error}
    value = codec.decode_result(directory.payload(number))
    return value if isinstance(value, dict) else {"value": value}


def cancel_files(
    directory: RunDirectory, identity: IdentityFile, number: int | None = None
) -> None:
    """Ask whoever runs a job to stop it; end it here if nobody has begun it."""
    directory.request_cancel()
    number = directory.read_header()["attempt"] if number is None else number
    publish_unbegun(directory, number, identity, "cancelled", "cancelled")


def publish_unbegun(
    directory: RunDirectory, number: int, identity: IdentityFile, state: str, error: str
) -> None:
    """Decide an attempt that nobody has claimed; whoever comes later finds our claim and leaves."""
    header = {"state": state, "error": error, "summary": None, "started": None}
    if directory.claim(number, identity):
        try:
            directory.publish(number, {**header, "finished": time.time()})
        except OSError:
            # A claim of a living process without an outcome would look like a running job.
            directory.unclaim(number)
            raise
