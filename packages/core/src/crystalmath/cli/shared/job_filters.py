"""Whom a command asks, and which jobs it means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from crystalmath.cli.shared import completion
from crystalmath.cli.shared.parameter_options import parse_labels
from crystalmath.errors import CrystalMathError, ServerNotRunning

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from crystalmath.client import Client, Job

__all__ = [
    "JobId",
    "JobIds",
    "LabelFilter",
    "StateFilter",
    "UnfinishedIds",
    "any_client",
    "find",
    "require_choice",
    "select",
    "states",
]

JobId = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="A job's id, or its beginning.", autocompletion=completion.job_ids
    ),
]
JobIds = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[ID]...", help="Jobs' ids, or their beginnings.", autocompletion=completion.job_ids
    ),
]
UnfinishedIds = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[ID]...",
        help="Jobs' ids, or their beginnings.",
        autocompletion=completion.unfinished_ids,
    ),
]
LabelFilter = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        metavar="K=V",
        help="Only jobs with this label; repeated: with all of them.",
        autocompletion=completion.labels,
    ),
]
StateFilter = Annotated[
    list[str] | None,
    typer.Option(
        "--state",
        metavar="STATE",
        help="Only jobs in this state; repeated: in one of them.",
        autocompletion=completion.states,
    ),
]

_FULL = 36  # characters of an id


def any_client() -> Client:
    """Give a client of the home's server; where none runs, of this process."""
    from crystalmath.client import connect, in_process

    try:
        return connect(start=False)
    except ServerNotRunning:
        return in_process()


def find(client: Client, prefix: str) -> str:
    """Give the one id that begins so; a full one goes through as it is."""
    return prefix if len(prefix) == _FULL else client.find(prefix)


def states(names: Iterable[str] | None) -> list[str] | None:
    """Check the names of states; ``None`` where all are meant.

    Raises
    ------
    typer.BadParameter
        One is none.
    """
    from crystalmath.models import JobState

    known = [state.value for state in JobState]
    for name in names or ():
        if name not in known:
            raise typer.BadParameter(
                f"{name!r} is no state; there are {', '.join(known)}", param_hint="--state"
            )
    return list(names) if names else None


def select(
    client: Client,
    job_ids: Sequence[str] | None,
    labels: Mapping[str, str],
    wanted: Sequence[str] | None,
) -> list[Job]:
    """Give the jobs that are meant: by their ids, or all, and of these what fits the filters.

    Raises
    ------
    CrystalMathError
        There is none.
    """
    if job_ids:
        found = [client.job(find(client, prefix)) for prefix in dict.fromkeys(job_ids)]
        chosen = [job for job in found if _fits(job, labels, wanted)]
    else:
        chosen = list(client.list(labels=labels or None, state=wanted))
    if not chosen:
        kind = f"{' or '.join(wanted)} job" if wanted else "job"
        labelled = ", ".join(f"{key}={value}" for key, value in labels.items())
        raise CrystalMathError(f"there is no {kind}" + (labelled and f" labelled {labelled}"))
    return chosen


def _fits(job: Job, labels: Mapping[str, str], wanted: Sequence[str] | None) -> bool:
    return labels.items() <= job.labels.items() and (not wanted or job.state.value in wanted)


def require_choice(
    job_ids: Sequence[str] | None, label: Sequence[str] | None, state: Sequence[str] | None
) -> tuple[dict[str, str], list[str] | None]:
    """Refuse a command that names no jobs; give the filters, read.

    Raises
    ------
    typer.BadParameter
        Nothing says which jobs are meant, or a filter cannot be read.
    """
    if not job_ids and not label and not state:
        raise typer.BadParameter("name jobs, or choose them with --label or --state")
    return parse_labels(label or ()), states(state)
