"""Makes of a job whose calculations could not be read the submission that reads them again."""

from __future__ import annotations

import re
import shlex
import sys
from typing import TYPE_CHECKING

from attrs import evolve

from crystalmath.errors import InvalidJob
from crystalmath.jobs.piecewise import at_once
from crystalmath.jobs.potcars import is_potcar
from crystalmath.models import JobState, Resources
from crystalmath.service.retrying import Again, again

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from crystalmath.config import Config
    from crystalmath.jobs.rundir import RunDirectory
    from crystalmath.models.job_notes import Parent
    from crystalmath.models.retry import Retry
    from crystalmath.preflight.program import Program
    from crystalmath.quacc.store import JobMetadata

#: Of an output so many bytes are looked at, from its end.
_TAIL = 2**16
_SETTING = re.compile(r"[A-Z][A-Z0-9_]*", re.ASCII)
_LINES = 1000


def reading_again(
    job: JobMetadata,
    specification: str,
    configured: Config,
    directory: RunDirectory,
    changes: tuple[Retry, Mapping[str, str]],
    *,
    environ: Mapping[str, str],
) -> Again:
    """Ask for a job whose program is not started: its output is what the program wrote before.

    Parameters
    ----------
    job, specification, configured, directory, environ
        As for :func:`crystalmath.service.retrying.again`.
    changes : tuple of Retry and mapping
        Where it runs this time, and settings of quacc that are other (``CHECK_CONVERGENCE``:
        ``False``).

    Raises
    ------
    InvalidJob
        It has not failed, or its last calculation has not come to its end.
    """
    short = job.job_id[:8]
    if job.state is not JobState.FAILED:
        has = "its result is there" if job.state is JobState.COMPLETED else "it has no calculation"
        raise InvalidJob(
            f"job {job.job_id} is {job.state.value}: {has} to be read again; that is for jobs that "
            "failed after their program had come to its end"
        )
    place, settings = changes
    work = directory.work(job.attempt)
    program = _ended_program(work, short)
    asked = again(job, specification, place, configured, directory, environ=environ)
    environment = asked.submission.environment
    if environment is None or program.launcher is None:
        raise InvalidJob(
            f"job {job.job_id} cannot be read again: this home is restricted, and its jobs take no "
            "settings of their own"
        )
    command = [sys.executable, "-P", "-m", "crystalmath.worker.given_outputs", work]
    command.append(",".join(name for name in program.input_files if not is_potcar(name)))
    for name in settings:
        if not _SETTING.fullmatch(name):
            raise InvalidJob(f"{name!r} is no setting of quacc; write one as CHECK_CONVERGENCE")
    told = {f"QUACC_{name}": value for name, value in settings.items()}
    launcher = {f"QUACC_{program.launcher}": shlex.join(command)}
    reread: Parent = {"job_id": job.job_id, "role": "reread"}
    submission = evolve(
        asked.submission,
        environment={**environment, **told, **launcher},
        resources=Resources(),
    )
    return Again(submission, [*asked.parents[:-1], reread])


def _ended_program(work: str, short: str) -> Program:
    """Return the program of the last calculation, which must have ended as it should."""
    from crystalmath.preflight.programs_here import programs
    from crystalmath.preflight.step_inputs import calculations

    known = [each for each in programs() if each.endings and each.launcher]
    found = at_once(calculations(work, known))
    if not found:
        titles = ", ".join(each.files.title for each in known)
        raise InvalidJob(
            f"job {short} has left no calculation of a program that can be read again ({titles}); "
            f"crystalmath retry {short} runs it once more"
        )
    folder, program = found[-1]
    looked = []
    for name, words in program.endings.items():
        text = _end_of(folder, name)
        if text is not None and words in text:
            return program
        looked += [] if text is None else [f"{name} does not say {words!r}"]
    said = "; ".join(looked) or f"there is no {' or '.join(list(program.endings)[:1])}"
    raise InvalidJob(
        f"the calculation in {folder} did not come to its end ({said}), so that there is nothing "
        f"whole to read; crystalmath retry --continue {short} goes on from its last geometry"
    )


def _end_of(folder: Path, name: str) -> str | None:
    from crystalmath.jobs.workfiles import check_inside, read_tail

    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return at_once(read_tail(check_inside(folder, path), _LINES, _TAIL, whole=True)).text
    return None
