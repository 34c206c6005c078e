"""Reading a run directory, with missing, damaged and unreadable files kept apart."""

from __future__ import annotations

import contextlib
import errno
import os
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from crystalmath.errors import BadFile
from crystalmath.jobs.changes import Change
from crystalmath.jobs.documents import read_header
from crystalmath.jobs.facts import (
    Absent,
    Claim,
    Damaged,
    Ended,
    Files,
    Outcome,
    Reading,
    Record,
    Spec,
    Unreadable,
)
from crystalmath.jobs.life import WAITS, Decision, step
from crystalmath.jobs.ownership import is_of_another
from crystalmath.jobs.rundir import attempt_id
from crystalmath.jobs.written_spec import WrittenSpec
from crystalmath.models import Capabilities, JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from crystalmath.jobs.heartbeat import Heart
    from crystalmath.jobs.host import Host
    from crystalmath.jobs.rundir import RunDirectory
    from crystalmath.processes import Identity

_T = TypeVar("_T")
#: The ends of an attempt: those of a job, ``lost``, and ``waits`` for a pass that needs steps.
_ENDS = {"lost", "waits", *(state.value for state in JobState if state.is_terminal())}


class Depth(IntEnum):
    """How much of a run directory is read.

    ``GLANCE``: whether the attempt is claimed or ended; one or two system calls.
    ``LOOK``: also the claimant's life, a cancel, and whether the files exist.
    ``THOROUGH``: also the content of ``spec``.
    """

    GLANCE = 0
    LOOK = 1
    THOROUGH = 2


class Readable(Protocol):
    """The part of :class:`~crystalmath.jobs.rundir.RunDirectory` that is read here."""

    def has(self, name: str) -> bool:
        """Return whether a file exists; `OSError` if that is unknown."""

    def is_gone(self) -> bool:
        """Return whether the directory was removed; `OSError` if that is unknown."""

    def read_header(self) -> dict[str, Any]:
        """Read the header of the specification."""

    def claimant(self, attempt: int) -> Identity | None:
        """Return the process that claimed an attempt."""

    def file(self, name: str) -> str:
        """Return the path of a file."""

    def is_claimant_alive(self, attempt: int, claimant: Identity | None = None) -> bool | None:
        """Return whether the process that claimed an attempt is alive."""

    def heart(self, attempt: int) -> Heart | None:
        """Read the heart of the process that claimed an attempt."""

    def is_claim_held(self, attempt: int) -> bool | None:
        """Return whether the maker of a claim, which may be damaged, is alive."""

    def outcome(self, attempt: int) -> dict[str, Any] | None:
        """Read the header of an outcome."""

    def ended(self, attempt: int) -> dict[str, Any] | None:
        """Read the engine's report of the end of an attempt."""


def read(
    directory: Readable,
    record: Record,
    host: Host,
    depth: Depth = Depth.THOROUGH,
    left: Mapping[str, bytes] | None = None,
) -> Files:
    """Read the files of a job to a depth; `left` are outcomes in journals."""
    spec = _spec(directory, record, host, depth)
    attempt = max(record.attempt, spec.attempt if isinstance(spec, Spec) else 0)
    begun = record.state is JobState.RUNNING and attempt == record.attempt
    if depth is Depth.GLANCE and not begun:
        claimed = _try(lambda: directory.has(f"{attempt}.claim") or None)
        if claimed is not True:
            return Files(attempt=attempt, claim=claimed)
    outcome = _try(lambda: _outcome(directory.outcome(attempt)))
    if (
        left
        and isinstance(outcome, Absent)
        and (name := attempt_id(record.job_id, attempt)) in left
    ):
        outcome = _try(lambda: _outcome(read_header(left[name].partition(b"\n")[0], name)))
    if isinstance(outcome, Outcome):
        host.hearts.forget(directory.file(f"{attempt}.claim"))
        ended = _try(lambda: _ended(directory.ended(attempt))) if outcome.was_stopped else Absent()
        return Files(
            attempt=attempt, spec=spec, claim=Claim("somebody"), outcome=outcome, ended=ended
        )
    if depth is Depth.GLANCE:
        return Files(attempt=attempt, spec=spec, claim=Claim("somebody"), outcome=outcome)
    claim = _try(lambda: _claim(directory, attempt, host))
    unclear = isinstance(claim, Damaged) or (begun and isinstance(claim, Absent))
    runs = _is_run(directory, record, attempt, claim, host) if unclear else None
    gone = _try(lambda: directory.is_gone() or None) if isinstance(spec, Absent) else None
    return Files(
        attempt=attempt,
        spec=spec,
        claim=claim,
        outcome=outcome,
        cancel=_cancel(directory),
        directory=Absent() if gone is True else gone if isinstance(gone, Unreadable) else None,
        processes=runs,
        lease_s=host.lease_s,
    )


def _is_run(
    directory: Readable, record: Record, attempt: int, claim: Reading[Claim], host: Host
) -> bool:
    """Return whether an attempt runs although its claim does not name its claimant."""
    held = directory.is_claim_held(attempt) if isinstance(claim, Damaged) else None
    return host.has_processes(attempt_id(record.job_id, attempt)) if held is None else held


def attempt_in(directory: Readable) -> int:
    """Return the number of the present attempt; `BadFile` or `OSError` if ``spec`` does not say."""
    return WrittenSpec.read(directory).attempt


def _spec(directory: Readable, record: Record, host: Host, depth: Depth) -> Reading[Spec] | None:
    if depth is Depth.GLANCE:
        return None
    if depth is Depth.LOOK and record.state is JobState.PENDING:
        there = _try(lambda: directory.has("spec") or None)
        return None if there is True else there
    spec = _try(lambda: WrittenSpec.read(directory))
    if not isinstance(spec, WrittenSpec):
        return spec
    return Spec(
        spec.attempt,
        _capabilities(spec.capabilities),
        foreign=is_of_another(spec.owner, host),
        pass_from=spec.pass_from,
    )


def _capabilities(written: object) -> Capabilities:
    if not isinstance(written, dict):
        return Capabilities()  # an imported job has none, and has ended
    here, vouches = written.get("workers_here", True), written.get("gone_means_dead")
    return Capabilities(workers_here=bool(here), gone_means_dead=bool(vouches))


def _claim(directory: Readable, attempt: int, host: Host) -> Claim | None:
    claimant = directory.claimant(attempt)
    if claimant is None:
        return None
    who = f"pid {claimant.pid} on {claimant.host}"
    alive = directory.is_claimant_alive(attempt, claimant)
    if alive is False or (alive and host.sees(claimant)):
        return Claim(who, alive, own=host.is_own(claimant.as_dict()))
    # A held lock shows that a kernel lives, or that the server has not noticed its end yet.
    heart = directory.heart(attempt)
    if heart is None:
        return Claim(who, alive, boot_id=claimant.boot_id)
    where = (claimant.machine_id, claimant.boot_id)
    silence = host.hearts.listen(directory.file(f"{attempt}.claim"), heart, where)
    return Claim(who, alive, silence, boot_id=claimant.boot_id)


def _outcome(head: Mapping[str, Any] | None) -> Outcome | None:
    if head is None:
        return None
    if head.get("state") not in _ENDS:
        raise BadFile(f"it is none of {', '.join(sorted(_ENDS))}: {head.get('state')!r}")
    return Outcome(
        state=head["state"],
        error=head.get("error"),
        traceback=head.get("traceback"),
        summary=head.get("summary"),
        started=head.get("started"),
        finished=head.get("finished"),
        begun_from=head.get("begun_from"),
        cancelled=bool(head.get("cancelled")),
    )


def _ended(head: Mapping[str, Any] | None) -> Ended | None:
    return None if head is None else Ended(head.get("error"))


def _cancel(directory: Readable) -> bool | Unreadable:
    requested = _try(lambda: directory.has("cancel") or None)
    return requested if isinstance(requested, Unreadable) else requested is True


def _try(reading: Callable[[], _T | None]) -> Reading[_T]:
    try:
        value = reading()
    except (FileNotFoundError, NotADirectoryError):
        return Absent()
    except BadFile as error:
        return Damaged(str(error))
    except OSError as error:
        return Unreadable(str(error))
    return Absent() if value is None else value


# --- views of a job -------------------------------------------------------------------------------


def view(
    directory: RunDirectory,
    record: Record,
    host: Host,
    left: Mapping[str, bytes] | None = None,
) -> Decision:
    """Return a job's state for a process that changes nothing.

    Outcomes that are `left` in journals (:meth:`.Host.left`) count, as the owner will publish them.
    """
    return step(record, read(directory, record, host, left=left), now=host.moment(), owns=False)


def flow_end(
    directory: RunDirectory, job_id: str, attempt: int, outcome: Mapping[str, Any]
) -> Change | None:
    """Return how a flow ends by the outcome of its last pass; ``None`` if it goes on."""
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
    attempt that the caller names has no outcome.
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
    """Read the value that a completed job's recipe returned; `FileNotFoundError` if removed."""
    from crystalmath.recipes import codec

    value = codec.decode_result(directory.payload(attempt))
    return value if isinstance(value, dict) else {"value": value}
