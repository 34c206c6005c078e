"""The arguments that most commands have, and their connections to a server."""

from __future__ import annotations

import contextlib
import inspect
import sys
import threading
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crystalmath.cli.shared import completion, output
from crystalmath.config import remote_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from crystalmath.client import Client
    from crystalmath.client.home_reader import HomeReader
    from crystalmath.errors import CrystalMathError
    from crystalmath.models.fields import Field, Option
    from crystalmath.wire.answers import JobDocument

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
JobId = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="A job's id, or its first characters.", autocompletion=completion.job_ids
    ),
]
_IDS = "Ids of jobs, or their first characters; filters keep the matching ones."
JobIds = Annotated[
    list[str] | None,
    typer.Argument(metavar="[ID]...", help=_IDS, autocompletion=completion.job_ids),
]
UnfinishedIds = Annotated[
    list[str] | None,
    typer.Argument(metavar="[ID]...", help=_IDS, autocompletion=completion.unfinished_ids),
]


_COMPLETED: dict[str, Any] = {
    "state": completion.states,
    "engine": completion.engines,
    "cluster": completion.clusters,
    "recipe": completion.recipes,
    "labels": completion.labels,
    "after": completion.job_ids,
}


def declared_option(one: Field) -> Option:
    """Return the option that a field declares; a field without one is an error of ours."""
    if one.about.option is None:
        raise TypeError(f"the field {one.name!r} declares no option")
    return one.about.option


def option_of(
    one: Field, kind: Any, least: float | None = None, most: float | None = None
) -> inspect.Parameter:
    """Make the parameter of a command's function for a field that declares an option."""
    option = declared_option(one)
    declaration = typer.Option(
        option.name,
        metavar=option.metavar,
        help=option.help,
        autocompletion=_COMPLETED.get(one.name),
        min=least,
        max=most,
    )
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(
        one.name, keyword, default=None, annotation=Annotated[kind, declaration]
    )


def taking(
    function: Callable[..., int],
    parameters: Sequence[inspect.Parameter],
    read: Callable[[dict[str, Any]], dict[str, Any]],
) -> Callable[..., int]:
    """Return a command with other parameters; `read` turns them into those of its function."""

    @wraps(function)
    def command(**arguments: Any) -> int:
        return function(**read(arguments))

    command.__annotations__ = {one.name: one.annotation for one in parameters}
    vars(command)["__signature__"] = inspect.Signature(parameters)
    return command


def any_client(*, runs: bool = False) -> Client:
    """Return a client of the home's server; if none runs, of this process.

    A command that `runs` a job on this host does not use a server on another host.
    """
    from crystalmath.client import in_process
    from crystalmath.client.opening import is_served_elsewhere
    from crystalmath.errors import ServerNotRunning

    if remote_name():
        return connected()
    if runs and is_served_elsewhere():
        return in_process()
    try:
        return connected(start=False)
    except ServerNotRunning:
        return in_process()


def connected(*, start: bool = True) -> Client:
    """Connect to the home's server; on a terminal offer to replace a server of another build."""
    from crystalmath.client import ProtocolMismatch, connect

    _warn_of_a_lock_later()
    try:
        return connect(start=start)
    except ProtocolMismatch as error:
        _end_other_build(error)
    return connect(start=start)


def tell_unserved(jobs: Sequence[JobDocument]) -> None:
    """Note on a terminal that unfinished jobs may wait for a server."""
    if sys.stderr.isatty() and (message := unserved(jobs)):
        output.note(message)


def unserved(jobs: Sequence[JobDocument]) -> str | None:
    """Return a note about unfinished jobs without a server; ``None`` if there is no need."""
    from crystalmath.config import home
    from crystalmath.server.endpoint import Place

    is_served = remote_name() or Place.of(home()).read_lock() is not None
    if is_served or all(job["finished_at"] for job in jobs):
        return None
    return (
        "no server runs: pending jobs start when one does (crystalmath wait or serve starts it), "
        "unless another process runs these jobs"
    )


@contextlib.contextmanager
def home_reader() -> Iterator[HomeReader]:
    """Read jobs from the server, or from the home itself; otherwise like `connected`."""
    from crystalmath.client.client_errors import ProtocolMismatch
    from crystalmath.client.home_reader import HomeReader

    if name := remote_name():
        from crystalmath.client.remote_reader import reader_of

        with reader_of(name) as remote:
            yield remote
        return
    warning = _warn_of_a_lock_later()
    try:
        with HomeReader() as reader:
            try:
                reader.require_build()
            except ProtocolMismatch as error:
                _end_other_build(error)
            yield reader
    finally:
        warning.cancel()


def _end_other_build(error: Exception) -> None:
    """Stop a server of another build if the user agrees; else raise the error."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise error
    output.note(f"error: {error}")
    if not typer.confirm("Stop it now, and go on?", err=True):
        raise typer.Exit(1)
    import subprocess

    if subprocess.run([sys.executable, "-P", "-m", "crystalmath", "stop"], check=False).returncode:
        raise typer.Exit(1)


def _warn_of_a_lock_later() -> threading.Timer:
    warning = threading.Timer(1.0, _warn_of_a_lock)
    warning.daemon = True
    if not remote_name():
        warning.start()
    return warning


def _warn_of_a_lock() -> None:
    """Report that the server waits for a database that does not answer."""
    from crystalmath.cli.shared.health import waits_for_database

    if waits_for_database():
        output.note(
            "waiting for the job database, which does not answer the server: another program may "
            "have locked it, or it was removed and the server makes its rows again"
        )


def require_choice(job_ids: Sequence[str] | None, filters: Mapping[str, Any]) -> None:
    """Refuse a command without ids and filters."""
    from crystalmath.models.filters import choosing

    if not job_ids and not choosing(filters):
        output.refuse("name jobs, or choose them with --label, --state or others")


def find_each(
    client: Client, prefixes: Iterable[str]
) -> tuple[dict[str, str], dict[str, CrystalMathError]]:
    """Return the whole ids and the errors of others, by the given prefixes."""
    from crystalmath.errors import CrystalMathError

    ids: dict[str, str] = {}
    wrong: dict[str, CrystalMathError] = {}
    for prefix in prefixes:
        try:
            ids[prefix] = client.find(prefix)
        except CrystalMathError as error:
            wrong[prefix] = error
    return ids, wrong


def chosen(
    asks: Client | HomeReader, job_ids: Sequence[str] | None, filters: Mapping[str, Any]
) -> list[str] | None:
    """Return the whole ids of named jobs that match the filters; ``None`` without named jobs.

    It is an error if none of the named jobs matches.
    """
    from crystalmath.client import transport

    named = [asks.find(prefix) for prefix in job_ids or ()] or None
    ids = transport.chosen(asks.ask, named, filters)
    if ids == []:
        raise none_fits(filters)
    return ids


def chosen_jobs(
    asks: Client | HomeReader, job_ids: Sequence[str] | None, filters: Mapping[str, Any]
) -> list[JobDocument]:
    """Return the records of the jobs that are `chosen`; it is an error if there are none."""
    from crystalmath.client.transport import filters_document, pages, records

    named = chosen(asks, job_ids, filters)
    if named is None:
        jobs = list(pages(asks.ask, None, filters_document(filters)))
    else:
        jobs = list(records(asks.ask, named))
    if not jobs:
        raise none_fits(filters)
    return jobs


def none_fits(filters: Mapping[str, Any]) -> CrystalMathError:
    """Return the error for filters that no job matches."""
    from crystalmath.errors import CrystalMathError

    states = " or ".join(filters.get("state") or ())
    labels = ", ".join(f"{name}={value}" for name, value in filters.get("labels", {}).items())
    names = (name for name in filters if name not in {"state", "labels"})
    others = [f"--{name.replace('_', '-')}" for name in names]
    error = CrystalMathError(
        (f"there is no {states} job" if states else "there is no job")
        + (f" labelled {labels}" if labels else "")
        + (f" that fits {' and '.join(others)}" if others else "")
    )
    error.code = "none_fits"
    return error
