"""The outcome of a recipe: its header and payload, and the way to the supervisor."""

from __future__ import annotations

import base64
import contextlib
import os
import sys
import traceback
from typing import TYPE_CHECKING, Any

from crystalmath.jobs.rundir import outcome_document
from crystalmath.recipes import codec
from crystalmath.recipes.summary import summarize
from crystalmath.worker.disk_space import when_there_is_room
from crystalmath.worker.postmortem import describe, runaway
from crystalmath.worker.step_replay import raised
from crystalmath.worker.time_left import reached

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from crystalmath.jobs.rundir import RunDirectory

#: Outcomes and results below this size may go into the supervisor's journal, in bytes.
_SMALL = 2**14
#: The number of parts of a result that are reported as stored as text.
_REPORTED = 100


def completed(
    result: object, work: str, more: Mapping[str, Any], flow_steps: Mapping[str, Any] | None = None
) -> tuple[bytes, dict[str, Any]]:
    """Return payload and header of a result; `more` goes into its summary."""
    summary = summarize(result, flow_steps)
    summary["work_dir"] = summary["work_dir"] or work
    summary |= more
    as_text: list[str] = []
    stored = codec.stored_result(result, as_text)
    if as_text:
        summary["as_text"] = as_text[:_REPORTED]
        for part in as_text[:_REPORTED]:
            print(f"crystalmath: warning: {part} is stored as text", file=sys.stderr)
    return stored.data, {"state": "completed", "error": None, "summary": summary, **stored.sizes}


def failed(error: BaseException, directory: RunDirectory, attempt: int) -> dict[str, Any]:
    """Return the header of a recipe that raised an error."""
    note, work = directory.asked_to_stop(attempt), directory.work(attempt)
    error_text = describe(error, work)
    if note:
        error_text = f"{_asked_to_stop(note)}{error_text}{reached(work)}"
    return {
        "state": note["end"] if note else "failed",
        "error": runaway(directory, attempt) + error_text,
        "traceback": "".join(traceback.format_exception(error)),
        "raised": raised(error),
        "summary": None,
    }


def _asked_to_stop(note: Mapping[str, str]) -> str:
    """Return the beginning of the error of a job whose program was asked to stop."""
    return f"{note['time']} was nearly over, and {note['file']} asked the program to stop: "


def delivered(
    directory: RunDirectory, attempt: int, header: dict[str, Any], payload: bytes, *, small: bool
) -> dict[str, Any]:
    """Return the name of an unpublished outcome for the supervisor, or its content if `small`."""
    if small and len(payload) < _SMALL and not header.get("index"):
        content = outcome_document(header, payload)
        if len(content) < _SMALL:
            return {"content": base64.b64encode(content).decode()}
    # The supervisor watches, so a cancel or the walltime ends this wait, too.
    prepared = when_there_is_room(
        lambda: directory.prepare_outcome(attempt, header, payload), os.path.dirname(directory.path)
    )
    return {"outcome": prepared}


@contextlib.contextmanager
def results_in(work: Path) -> Iterator[None]:
    """Set quacc's results directory to the job's work directory."""
    quacc = sys.modules.get("quacc")
    if quacc is None:
        yield
        return
    # quacc's own `change_settings` reads the whole configuration again, twice for each job.
    before = quacc.get_settings().RESULTS_DIR
    object.__setattr__(quacc.get_settings(), "RESULTS_DIR", work)
    try:
        yield
    finally:
        object.__setattr__(quacc.get_settings(), "RESULTS_DIR", before)
