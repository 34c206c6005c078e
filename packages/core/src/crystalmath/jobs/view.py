"""The outcome of a job, from its files alone."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING, Any

from crystalmath.errors import BadFile
from crystalmath.jobs.changes import Change
from crystalmath.jobs.life import WAITS, Decision, step
from crystalmath.jobs.reading import attempt_in, read
from crystalmath.models import JobState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crystalmath.jobs.facts import Record
    from crystalmath.jobs.host import Host
    from crystalmath.jobs.rundir import RunDirectory


def view(
    directory: RunDirectory,
    record: Record,
    host: Host,
    left: Mapping[str, bytes] | None = None,
) -> Decision:
    """Return a job's state as a process sees it that changes nothing.

    Outcomes that are `left` in journals (:meth:`.Host.left`) count as its owner publishes them.
    """
    return step(record, read(directory, record, host, left=left), now=host.moment(), owns=False)


def flow_end(
    directory: RunDirectory, job_id: str, attempt: int, outcome: Mapping[str, Any]
) -> Change | None:
    """Return how a flow ends by the outcome of its last pass; ``None`` where it goes on."""
    state, error = outcome.get("state", WAITS), outcome.get("error")
    if state in {WAITS, "lost"}:
        ended = None
        with contextlib.suppress(BadFile):
            ended = (directory.ended(attempt) or {}).get("error")
        if state == WAITS and ended is None:
            return None
        lost = f"{ended} ({error})" if ended else f"lost: {error}"
        state, error = "failed", ended if state == WAITS else lost
    return Change(
        job_id=job_id,
        state=JobState(state),
        at=0.0,
        error=error or state,
        traceback=outcome.get("traceback"),
    )


def read_result(directory: RunDirectory, attempt: int | None = None) -> dict[str, Any]:
    """Read the result of a finished job from its run directory.

    The default for `attempt` is the one that ``spec`` names. `FileNotFoundError` is raised if the
    outcome of a given attempt is not there.
    """
    number = attempt_in(directory) if attempt is None else attempt
    outcome = directory.outcome(number)
    if outcome is None and attempt is None:
        return {"error": "no outcome was recorded"}
    if outcome is None:
        path = directory.file(f"{number}.outcome")
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    if outcome["state"] == "cancelled" or outcome.get("cancelled"):
        return {"error": JobState.CANCELLED.value}
    if outcome["state"] != "completed":
        traceback = outcome.get("traceback")
        fatal = (directory.ended(number) or {}).get("error")
        error = {"error": f"{fatal} ({outcome['error']})" if fatal else outcome["error"]}
        return {**error, "traceback": traceback} if traceback else error
    return read_value(directory, number)


def read_value(directory: RunDirectory, attempt: int) -> dict[str, Any]:
    """Read what the recipe of a completed job returned; `FileNotFoundError` if it was removed."""
    from crystalmath.recipes import codec

    value = codec.decode_result(directory.payload(attempt))
    return value if isinstance(value, dict) else {"value": value}
