"""The owner of a job, and how another process becomes its owner.

``spec`` names the owner; if it cannot be read, the row does. Only the owner launches the job,
repeats it or reports its end. A process takes over the job of a dead owner under a lock, by writing
itself into ``spec``.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from attrs import frozen

from crystalmath.errors import BadFile
from crystalmath.jobs.rundir import attempt_id
from crystalmath.jobs.written_spec import WrittenSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crystalmath.jobs.host import Host
    from crystalmath.jobs.rundir import RunDirectory
    from crystalmath.models import JobState


@frozen(kw_only=True)
class Recorded:
    """The store's record of a job, from which a lost ``spec`` is written again."""

    #: The header of the specification, without owner.
    header: Mapping[str, Any]
    body: str
    state: JobState
    attempt: int
    #: Whether a cancel was requested.
    cancelled: bool
    #: The owner, as the row has it.
    owner: Mapping[str, Any]


def take_over(
    directory: RunDirectory, engine: str, host: Host, recorded: Recorded | None = None
) -> tuple[dict[str, Any], str] | None:
    """Become the owner of a job without one; return header and body of its ``spec``.

    Only a job of this engine is taken. Return ``None`` if another process owns the job, or is about
    to. If ``spec`` is missing or damaged, write it from `recorded`. Raise `OSError` or `BadFile` if
    it cannot be read or written.
    """

    def is_to_take(spec: WrittenSpec) -> bool:
        return spec.engine == engine and host.is_orphan(spec.owner)

    if not is_to_take(WrittenSpec.of(_read(directory, recorded)[0])):
        return None
    try:
        with directory.owner_lock():
            header, body = _read(directory, recorded)
            spec = WrittenSpec.of(header)
            if not is_to_take(spec) or not _has_ended(directory, spec, host):
                return None
            header = {**header, "owner": host.own_fields()}
            directory.write_spec(header, body)
    except TimeoutError:
        return None
    return header, body


def write_again(directory: RunDirectory, header: Mapping[str, Any], body: str, host: Host) -> bool:
    """Write the specification of our own job; ``False`` if it has another owner by now."""
    with directory.owner_lock():
        with contextlib.suppress(BadFile, FileNotFoundError):  # the reason for writing it again
            if is_of_another(WrittenSpec.read(directory).owner, host):
                return False
        directory.write_spec(header, body)
    return True


def let_go(directory: RunDirectory, header: Mapping[str, Any], body: str, host: Host) -> None:
    """Remove the owner from the specification, so that another process can take over the job."""
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
        if recorded is None:
            return header, body
        # A pass of a flow may be on record whose owner died before it was written down.
        if body == recorded.body and WrittenSpec.of(header).attempt >= recorded.attempt:
            return header, body
    more = {"attempt": recorded.attempt, "owner": recorded.owner}
    return {**recorded.header, **more}, recorded.body


def _has_ended(directory: RunDirectory, spec: WrittenSpec, host: Host) -> bool:
    """End an attempt whose claim may have been removed with ``spec``; return whether it ended."""
    if directory.has("spec") or directory.has(f"{spec.attempt}.claim"):
        return True
    return host.end_processes(attempt_id(spec.job_id, spec.attempt))
