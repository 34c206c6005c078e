"""``crystalmath retry`` and ``reread``: run jobs again, or only read their output again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from crystalmath.cli.shared import output
from crystalmath.cli.shared.common_arguments import (
    JobId,
    JobIds,
    Json,
    any_client,
    chosen,
    connected,
    find_each,
    none_fits,
    require_choice,
)
from crystalmath.cli.shared.job_filters import with_filters_but
from crystalmath.cli.shared.parameter_options import parse_parameters
from crystalmath.cli.shared.submission_options import (
    Params,
    ParamsFile,
    PlaceOptions,
    with_changes,
    with_place,
)
from crystalmath.models.job_notes import NO_RESULT
from crystalmath.models.retry import RetryOptions  # noqa: TC001 - read when the command is made

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


_Answer: TypeAlias = "Mapping[str, Any]"


# --engine and --cluster are changes here, not filters; jobs that were retried are skipped anyway.
@with_filters_but("engine", "cluster", "all_tries")
@with_changes
def retry(
    job_ids: JobIds = None,
    *,
    filters: dict[str, Any],
    param: Params = None,
    params: ParamsFile = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be accepted, and submit nothing.")
    ] = False,
    options: RetryOptions,
    as_json: Json = False,
) -> int:
    """Run jobs again: by their ids, or all that match filters.

    Each retry is a new job with the parameters, options and environment of the old one. Options
    change them: crystalmath retry 3f2a91c4 --walltime 4h --param fmax=0.02.
    Without ids it retries the matching jobs that failed or were cancelled, or have the --state,
    and skips jobs that were retried before. Jobs are accepted or refused one by one. Exits 1 if
    one was refused.
    """
    require_choice(job_ids, filters)
    from crystalmath.client.request import ask_again

    changes = {"parameters": parse_parameters(param or (), params), **options}
    named: list[str] | None
    unknown: list[_Answer] = []
    with any_client() if dry_run else connected() as client:
        if job_ids and not filters:
            ids, wrong = find_each(client, job_ids)
            named = [ids[prefix] for prefix in job_ids if prefix in ids]
            for prefix, error in wrong.items():
                told_of = output.error_document(error, error.code)
                unknown.append({"retry_of": prefix, "name": None, **told_of})
        else:
            named = chosen(client, job_ids, filters)
        which = {"filters": filters} if named is None else {"job_ids": named}
        answered = [] if named == [] else ask_again(client.ask, changes, dry_run=dry_run, **which)
    answers: list[_Answer] = [*unknown, *answered]
    if not answers:
        raise none_fits({"state": [state.value for state in NO_RESULT], **filters})
    if as_json:
        output.write_json({"jobs": answers})
    else:
        _tell(answers, dry_run=dry_run)
    refused = any(answer["status"] == "error" and answer["code"] != "retried" for answer in answers)
    return 1 if refused else 0


def _tell(answers: Sequence[_Answer], *, dry_run: bool) -> None:
    for answer in answers:
        if answer["job_id"] is not None:
            output.write(answer["job_id"])
    again = [answer for answer in answers if answer.get("code") == "retried"]
    output.tell_alike(
        [
            {**answer, "name": answer["name"] or answer["retry_of"][:8]}
            for answer in answers
            if answer not in again
        ]
    )
    if any(answer.get("code") == "refused" for answer in answers):
        output.note(
            "a retry has the environment (PATH, ...) of its old job, not that of this shell; to "
            "use this shell's, submit the job anew"
        )
    output.note(_counted(answers, len(again), dry_run=dry_run))


def _counted(answers: Sequence[_Answer], again: int, *, dry_run: bool) -> str:
    accepted = sum(answer["status"] != "error" for answer in answers)
    refused = len(answers) - accepted - again
    would = "would be" if dry_run else "is" if accepted == 1 else "are"
    parts = [f"{accepted} {would} run again"]
    parts += [f"{refused} cannot be"] if refused else []
    before = "was run again before, and is" if again == 1 else "were run again before, and are"
    parts += [f"{again} {before} passed over"] if again else []
    return ", ".join(parts)


@with_place
def reread(
    job_id: JobId,
    *,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--setting",
            metavar="K=V",
            help="Change a setting of quacc: CHECK_CONVERGENCE=False; may be repeated.",
        ),
    ] = None,
    options: PlaceOptions,
    as_json: Json = False,
) -> int:
    """Read a failed job's calculations again, as a new job.

    Use it if the program (VASP, pw.x) finished, but its output could not be read or was rejected,
    for example as not converged. The recipe runs again and gets the old output files instead of
    the program. Nothing is computed: the new job fails if the recipe starts another calculation.
    """
    settings = dict(_read(text) for text in setting or ())
    with connected() as client:
        future = client.reread(client.find(job_id), settings=settings, **options)
        state = future.info().state.value
    if as_json:
        return output.write_json({"job_id": future.job_id, "status": state})
    output.write(future.job_id)
    return 0


def _read(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    name = name.removeprefix("QUACC_")
    if not equals or not name.isidentifier() or not name.isupper():
        output.refuse(
            f"{text!r} is not SETTING=VALUE, for example CHECK_CONVERGENCE=False", "--setting"
        )
    return name, value
