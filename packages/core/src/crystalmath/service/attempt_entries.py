"""What the run directory tells of each try at a job: where it ran, and how it ended."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from crystalmath.errors import BadFile
from crystalmath.jobs.documents import cleaned

if TYPE_CHECKING:
    from crystalmath.jobs.rundir import RunDirectory
    from crystalmath.models.answers import AttemptEntry


def attempts(directory: RunDirectory, last: int) -> list[AttemptEntry]:
    """Describe a job's attempts, the first one first.

    Parameters
    ----------
    directory : RunDirectory
        The job's; it may be gone.
    last : int
        The number of its present attempt.
    """
    return [_attempt(directory, number) for number in range(1, last + 1)]


def _attempt(directory: RunDirectory, number: int) -> AttemptEntry:
    entry: AttemptEntry = {
        "attempt": number,
        "host": None,
        "pid": None,
        "outcome": None,
        "error": None,
        "begun_from": directory.begun_from(number),
        "work_dir": str(Path(directory.work(number))),
    }
    try:
        if (claimant := directory.claimant(number)) is not None:
            entry["host"], entry["pid"] = claimant.host, claimant.pid
        if (outcome := directory.outcome(number)) is not None:
            entry["outcome"], entry["error"] = outcome["state"], cleaned(outcome.get("error"))
    except (BadFile, OSError) as error:
        entry["error"] = str(error)
    return entry
