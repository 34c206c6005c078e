"""``crystalmath cancel``: stop jobs for real."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from crystalmath.cli.shared import output
from crystalmath.cli.shared.common_arguments import Json, UnfinishedIds, any_client
from crystalmath.cli.shared.job_filters import with_filters
from crystalmath.errors import CrystalMathError
from crystalmath.models.job_notes import UNFINISHED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from crystalmath.client import Client


@with_filters
def cancel(job_ids: UnfinishedIds = None, *, filters: dict[str, Any], as_json: Json = False) -> int:
    """Stop jobs: those named, or all that fit the filters.

    A job reads cancelled once none of its processes is alive. Exits 1 where one had ended before.
    """
    if not job_ids and not filters:
        raise typer.BadParameter("name jobs, or choose them with --label, --state or others")
    many = len(job_ids or ()) != 1 or bool(filters)
    with any_client() as client:
        if not many and job_ids:
            answers = _cancel(client, [client.find(job_ids[0])])
            if "code" in answers[0]:
                raise _refusal(answers[0])
        elif job_ids:
            answers = _cancel(client, _wanted(client, job_ids, filters))
        else:
            answers = [dict(answer) for answer in client.cancel_many(**filters)]
            if not answers:
                unfinished = [state.value for state in UNFINISHED]
                raise CrystalMathError(_none({"state": unfinished, **filters}))
    if as_json:
        output.write_json({"jobs": answers, "error": None} if many else answers[0])
    else:
        _tell(answers)
    return 0 if all(answer["cancelled"] for answer in answers) else 1


def _refusal(answer: Mapping[str, Any]) -> CrystalMathError:
    from crystalmath.client.client_errors import answered_error

    return answered_error(answer)


def _wanted(client: Client, job_ids: Sequence[str], filters: Mapping[str, Any]) -> list[str]:
    if not filters:
        return list(dict.fromkeys(job_ids))
    named = {client.find(prefix) for prefix in job_ids}
    fitting = [job.job_id for job in client.list(**filters) if job.job_id in named]
    if not fitting:
        raise CrystalMathError(_none(filters))
    return fitting


def _none(filters: Mapping[str, Any]) -> str:
    states = " or ".join(filters.get("state") or ())
    labels = ", ".join(f"{name}={value}" for name, value in filters.get("labels", {}).items())
    said = f"there is no {states} job" if states else "there is no job"
    others = filters.keys() - {"state", "labels"}
    fits = " that fits the filters" if others else ""
    return said + (f" labelled {labels}" if labels else "") + fits


def _cancel(client: Client, prefixes: Sequence[str]) -> list[dict[str, Any]]:
    """Cancel jobs: what is wrong with one of them hinders none of the others."""
    answers: dict[str, dict[str, Any]] = {}
    found: dict[str, str] = {}
    for prefix in prefixes:
        try:
            found[prefix] = client.find(prefix)
        except CrystalMathError as error:
            answers[prefix] = output.error_document(error, error.code, prefix, cancelled=False)
    told = {answer["job_id"]: answer for answer in client.cancel_many([*found.values()])}
    answers |= {prefix: dict(told[job_id]) for prefix, job_id in found.items()}
    return [answers[prefix] for prefix in prefixes]


def _tell(answers: Sequence[dict[str, Any]]) -> None:
    for answer in answers:
        if answer["cancelled"]:
            output.write(f"cancellation of {answer['job_id']} requested")
        elif "code" in answer:
            output.note(output.printable(f"error: {answer['error']}"))
        else:
            output.note(f"{answer['job_id']}: {answer['error']}; nothing was changed")
