"""Whose job it is, and how another process makes it its own.

``spec`` names the owner; where it cannot be read, the row does. Nobody but the owner hands the job
out, repeats it or says what became of it; who takes over the job of an owner that has died does so
under a lock, by writing itself into ``spec``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

from crystalmath import processes
from crystalmath.errors import BadFile
from crystalmath.jobs.rundir import attempt_id

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from filelock import BaseFileLock

    from crystalmath.jobs.rundir import RunDirectory
    from crystalmath.models import JobSpec, JobState

__all__ = [
    "Recorded",
    "is_orphan",
    "let_go",
    "own_fields",
    "owns_another",
    "spec_header",
    "take_over",
    "write_again",
]

#: The lock, beside the run directories, of whoever changes an owner, or writes as one.
LOCK = ".adoption.lock"
#: How long another process may hold the lock before we leave the job to it, in seconds.
LOCK_S = 1.0


@frozen(kw_only=True)
class Recorded:
    """What the store has on record of a job, from which its ``spec`` is written again.

    Parameters
    ----------
    header : mapping
        What stands above the specification, without owner.
    body : str
        The specification.
    state, attempt : JobState, int
        As they were told last.
    cancelled : bool
        Whether somebody asked that it be stopped.
    owner : mapping
        The owner, as the row has it.
    """

    header: Mapping[str, Any]
    body: str
    state: JobState
    attempt: int
    cancelled: bool
    owner: Mapping[str, Any]


def own_fields() -> dict[str, Any]:
    """Give this process as an owner."""
    return processes.own_identity().as_dict()


def is_orphan(owner: object) -> bool:
    """Tell whether nobody follows a job: its owner has died, or has let it go."""
    if not owner:
        return True
    try:
        return processes.Identity.read(owner).is_dead()  # type: ignore[arg-type]
    except (KeyError, TypeError):
        return False  # a newer release may say it otherwise


def owns_another(owner: object) -> bool:
    """Tell whether a living process that is not this one is the owner."""
    return owner != own_fields() and not is_orphan(owner)


def spec_header(spec: JobSpec, engine: str) -> dict[str, Any]:
    """Give what stands above a specification that this process hands to an engine."""
    return {
        "job_id": spec.job_id,
        "attempt": 1,
        "engine": engine,
        "owner": own_fields(),
        "recipe": spec.recipe,
        "cluster": spec.cluster,
        "walltime_s": spec.walltime_s,
        "environment": dict(spec.environment),
        "files": dict(spec.files),
    }


def take_over(
    directory: RunDirectory,
    engine: str,
    recorded: Recorded | None = None,
    *,
    end: Callable[[str], bool] = lambda _: True,
) -> tuple[dict[str, Any], str] | None:
    """Become the owner of a job that nobody follows.

    Parameters
    ----------
    directory : RunDirectory
        Its files.
    engine : str
        Only a job of this engine.
    recorded : Recorded, optional
        What is written where ``spec`` is missing or damaged.
    end : callable
        Ends the processes of the attempt with this id, and tells whether none is left: who removed
        ``spec`` may have removed the claim of a running attempt, too.

    Returns
    -------
    tuple of dict and str, or None
        Header and body of the specification as it is now; ``None`` where another process owns the
        job, or is about to.

    Raises
    ------
    OSError, BadFile
        The specification cannot be read or written.
    """
    header, _ = _read(directory, recorded)
    if not _is_ours_to_take(header, engine):
        return None
    try:
        with _lock(directory):
            header, body = _read(directory, recorded)
            if not _is_ours_to_take(header, engine):
                return None
            attempt = header["attempt"]
            unclaimed = not directory.has("spec") and not directory.has(f"{attempt}.claim")
            if unclaimed and not end(attempt_id(header["job_id"], attempt)):
                return None
            header = {**header, "owner": own_fields()}
            directory.write_spec(header, body)
    except TimeoutError:
        return None
    return header, body


def write_again(directory: RunDirectory, header: Mapping[str, Any], body: str) -> bool:
    """Write the specification of our own job; ``False`` if it has another owner by now."""
    with _lock(directory):
        try:
            if owns_another(directory.read_header().get("owner")):
                return False
        except (BadFile, FileNotFoundError):
            pass  # that is why it is written
        directory.write_spec(header, body)
    return True


def let_go(directory: RunDirectory, header: Mapping[str, Any], body: str) -> None:
    """Leave the job to whoever asks for it next."""
    write_again(directory, {**header, "owner": None}, body)


def _read(directory: RunDirectory, recorded: Recorded | None) -> tuple[dict[str, Any], str]:
    try:
        header, body = directory.read_spec()
    except (BadFile, FileNotFoundError):
        if recorded is None:
            raise
    else:
        if recorded is None or body == recorded.body:
            return header, body
    more = {"attempt": recorded.attempt, "owner": recorded.owner}
    return {**recorded.header, **more}, recorded.body


def _is_ours_to_take(header: Mapping[str, Any], engine: str) -> bool:
    return header.get("engine") == engine and is_orphan(header.get("owner"))


def _lock(directory: RunDirectory) -> BaseFileLock:
    from filelock import FileLock

    jobs = Path(directory.path).parent
    jobs.mkdir(mode=0o700, parents=True, exist_ok=True)
    return FileLock(jobs / LOCK, timeout=LOCK_S)
