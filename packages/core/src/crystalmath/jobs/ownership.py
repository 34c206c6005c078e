"""The owner of a job, and how another process becomes its owner.

``spec`` names the owner; where it cannot be read, the row does. Only the owner launches the job,
repeats it or reports its end. A process takes over the job of a dead owner under a lock, by writing
itself into ``spec``.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from attrs import frozen

from crystalmath.errors import BadFile
from crystalmath.jobs.rundir import attempt_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crystalmath.jobs.host import Host
    from crystalmath.jobs.rundir import RunDirectory
    from crystalmath.models import JobSpec, JobState


@frozen(kw_only=True)
class Recorded:
    """What the store has on record of a job, from which its ``spec`` is written again."""

    #: What stands above the specification, without owner.
    header: Mapping[str, Any]
    body: str
    state: JobState
    attempt: int
    #: Whether a cancel was requested.
    cancelled: bool
    #: The owner, as the row has it.
    owner: Mapping[str, Any]


def spec_header(spec: JobSpec, engine: str, owner: Mapping[str, Any]) -> dict[str, Any]:
    """Return what stands above a specification that its owner hands to an engine."""
    attempt = spec.flow["attempt"] if spec.flow else 1
    return {**spec.header(), "attempt": attempt, "engine": engine, "owner": owner}


def take_over(
    directory: RunDirectory, engine: str, host: Host, recorded: Recorded | None = None
) -> tuple[dict[str, Any], str] | None:
    """Become the owner of a job that nobody follows; return header and body of its ``spec``.

    Only a job of this engine is taken. Return ``None`` where another process owns the job, or is
    about to. Where ``spec`` is missing or damaged, it is written from `recorded`. `OSError` or
    `BadFile` is raised if it cannot be read or written.
    """

    def is_to_take(header: Mapping[str, Any]) -> bool:
        return header.get("engine") == engine and host.is_orphan(header.get("owner"))

    if not is_to_take(_read(directory, recorded)[0]):
        return None
    try:
        with directory.owner_lock():
            header, body = _read(directory, recorded)
            if not is_to_take(header) or not _has_ended(directory, header, host):
                return None
            header = {**header, "owner": host.own_fields()}
            directory.write_spec(header, body)
    except TimeoutError:
        return None
    return header, body


def write_again(directory: RunDirectory, header: Mapping[str, Any], body: str, host: Host) -> bool:
    """Write the specification of our own job; ``False`` if it has another owner by now."""
    with directory.owner_lock():
        with contextlib.suppress(BadFile, FileNotFoundError):  # that is why it is written
            if is_of_another(directory.read_header().get("owner"), host):
                return False
        directory.write_spec(header, body)
    return True


def let_go(directory: RunDirectory, header: Mapping[str, Any], body: str, host: Host) -> None:
    """Leave the job to the next process that asks for it."""
    write_again(directory, {**header, "owner": None}, body, host)


def is_of_another(owner: object, host: Host) -> bool:
    """Return whether a living process that is not this one is the owner."""
    return not host.is_own(owner) and not host.is_orphan(owner)


def _read(directory: RunDirectory, recorded: Recorded | None) -> tuple[dict[str, Any], str]:
    try:
        header, body = directory.read_spec()
    except (BadFile, FileNotFoundError, UnicodeDecodeError):
        if recorded is None:
            raise
    else:
        # A pass of a flow may be on record, and its owner have died before it was written down.
        if recorded is None or (body == recorded.body and header["attempt"] >= recorded.attempt):
            return header, body
    more = {"attempt": recorded.attempt, "owner": recorded.owner}
    return {**recorded.header, **more}, recorded.body


def _has_ended(directory: RunDirectory, header: Mapping[str, Any], host: Host) -> bool:
    """End what runs unseen: whatever removed ``spec`` may have removed its claim, too."""
    number: int = header["attempt"]
    if directory.has("spec") or directory.has(f"{number}.claim"):
        return True
    return host.end_processes(attempt_id(header["job_id"], number))
