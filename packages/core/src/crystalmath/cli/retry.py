"""``crystalmath retry``: run jobs again, as new jobs that point to the old ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from crystalmath.cli.shared import output
from crystalmath.cli.shared.job_filters import (
    JobIds,
    LabelFilter,
    StateFilter,
    any_client,
    find,
    states,
)
from crystalmath.cli.shared.parameter_options import parse_labels, parse_parameters
from crystalmath.cli.shared.submission_options import Json, Params, ParamsFile, with_changes
from crystalmath.cli.submit import tell_alike
from crystalmath.errors import CrystalMathError
from crystalmath.models.retry import RetryOptions  # noqa: TC001 - read when the command is made

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from crystalmath.client import Client

__all__ = ["retry"]

_Answer = dict[str, Any]


@with_changes
def retry(
    job_ids: JobIds = None,
    *,
    label: LabelFilter = None,
    state: StateFilter = None,
    error: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Only jobs whose error contains this.")
    ] = None,
    param: Params = None,
    params: ParamsFile = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would come of it, and submit nothing.")
    ] = False,
    options: RetryOptions,
    as_json: Json = False,
) -> int:
    """Run jobs again: those named, or all that fit the filters, as new jobs.

    All is as it was submitted, the environment too, but for what is changed here. Filters mean jobs
    that failed or were cancelled, unless --state says otherwise, and pass over those that were run
    again already. Each job is accepted or refused on its own. Exits 1 where one was refused.
    """
    from crystalmath.client import connect

    filters = {"labels": parse_labels(label or ()), "state": states(state), "error": error}
    chosen = {name: value for name, value in filters.items() if value}
    if bool(job_ids) == bool(chosen):
        raise typer.BadParameter("name jobs, or choose them with --label, --state or --error")
    changes = {"parameters": parse_parameters(param or (), params), **options}
    with any_client() if dry_run else connect() as client:
        named, unknown = _found(client, job_ids or ())
        which = {"job_ids": named} if job_ids else {"filters": chosen}
        told = client.asked_again(changes, dry_run=dry_run, **which) if named or chosen else []
    answers = [*unknown, *told]
    if as_json:
        output.write_json({"jobs": answers, "error": None})
    else:
        _tell(answers, chosen, dry_run=dry_run)
    refused = any(answer["status"] == "error" and answer["code"] != "retried" for answer in answers)
    return 1 if refused or not answers else 0


def _found(client: Client, prefixes: Sequence[str]) -> tuple[list[str], list[_Answer]]:
    """Give the whole ids; what is wrong with one hinders none of the others."""
    found, unknown = [], []
    for prefix in prefixes:
        try:
            found.append(find(client, prefix))
        except CrystalMathError as error:
            told = output.error_document(error, error.code)
            unknown.append({"retry_of": prefix, "name": None, **told})
    return found, unknown


def _tell(answers: Sequence[_Answer], chosen: Mapping[str, Any], *, dry_run: bool) -> None:
    for answer in answers:
        if answer["job_id"] is not None:
            output.write(answer["job_id"])
    again = [answer for answer in answers if answer.get("code") == "retried"]
    tell_alike(
        [
            {**answer, "name": answer["name"] or answer["retry_of"][:8]}
            for answer in answers
            if answer not in again
        ]
    )
    output.note(_counted(answers, len(again), dry_run=dry_run) if answers else _none(chosen))


def _counted(answers: Sequence[_Answer], again: int, *, dry_run: bool) -> str:
    accepted = sum(answer["status"] != "error" for answer in answers)
    refused = len(answers) - accepted - again
    told = [f"{accepted} {'would be' if dry_run else 'are'} run again"]
    told += [f"{refused} cannot be"] if refused else []
    told += [f"{again} were run again before, and are passed over"] if again else []
    return ", ".join(told)


def _none(chosen: Mapping[str, Any]) -> str:
    kinds: Iterable[str] = chosen.get("state") or ("failed", "cancelled")
    labelled = [f"{key}={value}" for key, value in chosen.get("labels", {}).items()]
    told = [f"labelled {', '.join(labelled)}"] if labelled else []
    told += [f"whose error contains {chosen['error']!r}"] if "error" in chosen else []
    return output.printable(f"there is no {' or '.join(kinds)} job {' '.join(told)}".rstrip())
