"""The arguments that most commands have, and whom they ask about jobs."""

from __future__ import annotations

import contextlib
import inspect
import sys
import threading
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crystalmath.cli.shared import completion, output

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from crystalmath.client import Client, Job
    from crystalmath.client.home_reader import HomeReader
    from crystalmath.models.fields import Field

Json = Annotated[bool, typer.Option("--json", help="Write one JSON document.")]
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


_COMPLETED: dict[str, Any] = {
    "state": completion.states,
    "engine": completion.engines,
    "cluster": completion.clusters,
    "recipe": completion.recipes,
    "labels": completion.labels,
}


def option_of(
    one: Field, kind: Any, least: float | None = None, most: float | None = None
) -> inspect.Parameter:
    """Make a command's option of a field that declares one."""
    option = one.about.option
    assert option is not None  # noqa: S101 - whoever calls has no others
    told = typer.Option(
        option.name,
        metavar=option.metavar,
        help=option.help,
        autocompletion=_COMPLETED.get(one.name),
        min=least,
        max=most,
    )
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(one.name, keyword, default=None, annotation=Annotated[kind, told])


def taking(
    function: Callable[..., int],
    parameters: Sequence[inspect.Parameter],
    read: Callable[[dict[str, Any]], dict[str, Any]],
) -> Callable[..., int]:
    """Have a command take other parameters, of which its own are read."""

    @wraps(function)
    def command(**given: Any) -> int:
        return function(**read(given))

    command.__annotations__ = {one.name: one.annotation for one in parameters}
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return command


def any_client(*, runs: bool = False) -> Client:
    """Return a client of the home's server; where none runs, of this process.

    A command that `runs` a job on this host does not ask a server on another one.
    """
    from crystalmath.client import in_process
    from crystalmath.client.opening import is_served_elsewhere
    from crystalmath.errors import ServerNotRunning

    if runs and is_served_elsewhere():
        return in_process()
    try:
        return connected(start=False)
    except ServerNotRunning:
        return in_process()


def connected(*, start: bool = True) -> Client:
    """Connect to the home's server; on a terminal offer to replace one of another build."""
    from crystalmath.client import ProtocolMismatch, connect

    _tell_later()
    try:
        return connect(start=start)
    except ProtocolMismatch as error:
        _end_other_build(error)
    return connect(start=start)


@contextlib.contextmanager
def home_reader() -> Iterator[HomeReader]:
    """Ask about jobs only: the server, or the home itself; otherwise as `connected`."""
    from crystalmath.client.client_errors import ProtocolMismatch
    from crystalmath.client.home_reader import HomeReader

    telling = _tell_later()
    try:
        with HomeReader() as reader:
            try:
                reader.require_build()
            except ProtocolMismatch as error:
                _end_other_build(error)
            yield reader
    finally:
        telling.cancel()


def _end_other_build(error: Exception) -> None:
    """Stop a server of another build, if that is wanted; else raise what is wrong."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise error
    output.note(output.printable(f"error: {error}"))
    if not typer.confirm("Stop it now, and go on?", err=True):
        raise typer.Exit(1)
    import subprocess

    if subprocess.run([sys.executable, "-P", "-m", "crystalmath", "stop"], check=False).returncode:
        raise typer.Exit(1)


def _tell_later() -> threading.Timer:
    telling = threading.Timer(1.0, _tell_of_a_lock)
    telling.daemon = True
    telling.start()
    return telling


def _tell_of_a_lock() -> None:
    """Say what a command waits for, if its server waits for a database that does not answer."""
    from crystalmath.cli.shared.health import waits_for_database

    if waits_for_database():
        output.note(
            "waiting for the job database, which does not answer the server: another program may "
            "have locked it"
        )


def select(
    client: Client,
    job_ids: Sequence[str] | None,
    labels: Mapping[str, str],
    wanted: Sequence[str] | None,
) -> list[Job]:
    """Return the jobs that are meant: by their ids, or all, and of these what fits the filters."""
    if job_ids:
        found = [client.job(client.find(prefix)) for prefix in dict.fromkeys(job_ids)]
        chosen = [job for job in found if _fits(job, labels, wanted)]
    else:
        chosen = list(client.list(labels=labels or None, state=wanted))
    if not chosen:
        from crystalmath.errors import CrystalMathError

        kind = f"{' or '.join(wanted)} job" if wanted else "job"
        labelled = ", ".join(f"{key}={value}" for key, value in labels.items())
        raise CrystalMathError(f"there is no {kind}" + (labelled and f" labelled {labelled}"))
    return chosen


def _fits(job: Job, labels: Mapping[str, str], wanted: Sequence[str] | None) -> bool:
    return labels.items() <= job.labels.items() and (not wanted or job.state.value in wanted)
