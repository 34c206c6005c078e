"""``crystalmath cancel``: stop jobs for real."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crystalmath.cli.shared import output
from crystalmath.cli.shared.job_filters import (
    LabelFilter,
    StateFilter,
    UnfinishedIds,
    any_client,
    find,
    require_choice,
    select,
)
from crystalmath.cli.shared.submission_options import Json  # noqa: TC001 - Typer reads annotations
from crystalmath.errors import CrystalMathError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystalmath.client import Client

__all__ = ["cancel"]

_UNFINISHED = ("pending", "running")


def cancel(
    job_ids: UnfinishedIds = None,
    *,
    label: LabelFilter = None,
    state: StateFilter = None,
    as_json: Json = False,
) -> int:
    """Ask for jobs to be stopped: those named, or all unfinished ones that fit the filters.

    A job reads cancelled once none of its processes is alive. Exits 1 where one had ended before.
    """
    labels, states = require_choice(job_ids, label, state)
    many = len(job_ids or ()) != 1 or bool(labels or states)
    with any_client() as client:
        if not many and job_ids:
            answers = [_cancel(client, find(client, job_ids[0]))]
        else:
            wanted = _wanted(client, job_ids or (), labels, states)
            answers = [_guarded(client, job_id) for job_id in wanted]
    if as_json:
        output.write_json({"jobs": answers, "error": None} if many else answers[0])
    else:
        _tell(answers)
    return 0 if all(answer["cancelled"] for answer in answers) else 1


def _wanted(
    client: Client, job_ids: Sequence[str], labels: dict[str, str], states: list[str] | None
) -> list[str]:
    if labels or states:
        chosen = states or (None if job_ids else _UNFINISHED)
        return [job.job_id for job in select(client, job_ids, labels, chosen)]
    return list(dict.fromkeys(job_ids))


def _guarded(client: Client, prefix: str) -> dict[str, Any]:
    """Cancel one of several: what is wrong with it hinders none of the others."""
    try:
        return _cancel(client, find(client, prefix))
    except CrystalMathError as error:
        return output.error_document(error, error.code, prefix, cancelled=False)


def _cancel(client: Client, job_id: str) -> dict[str, Any]:
    requested = client.cancel(job_id)
    error = None
    if not requested:
        state = client.job(job_id).state.value
        # Its outcome may not be on record yet.
        ended = f"{output.ENDED[state]} before" if state in output.ENDED else "has just ended"
        error = f"the job {ended}"
    return {"job_id": job_id, "cancelled": requested, "error": error}


def _tell(answers: Sequence[dict[str, Any]]) -> None:
    for answer in answers:
        if answer["cancelled"]:
            output.write(f"cancellation of {answer['job_id']} requested")
        elif "code" in answer:
            output.note(output.printable(f"error: {answer['error']}"))
        else:
            output.note(f"{answer['job_id']}: {answer['error']}; nothing was changed")
