"""``crystalmath remotes``: list homes on other machines, check one, or add one."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crystalmath.cli.shared import common_arguments, output
from crystalmath.cli.shared.health import report
from crystalmath.errors import CrystalMathError
from crystalmath.models.cluster import Check

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from crystalmath.remotes.remote_home import RemoteHome


def remotes(
    action: Annotated[
        str | None,
        typer.Argument(
            metavar="[check|add]",
            help="check says what is wrong with a remote; add writes one to config.toml.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="The name of the remote.")
    ] = None,
    ssh: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ME@HOST]",
            help="Where ssh goes. Arguments of ssh come after two dashes: add hawk -- -p 2222 "
            "-J gate me@hawk.",
        ),
    ] = None,
    *,
    command: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="How a shell there calls crystalmath: a full path, or 'module load x && "
            "crystalmath'.",
        ),
    ] = None,
    home: Annotated[
        str | None, typer.Option(metavar="DIR", help="The home there; default: the default there.")
    ] = None,
    as_json: common_arguments.Json = False,
) -> int:
    """List homes on other machines, check one, or add one.

    crystalmath --on NAME COMMAND asks a remote over SSH. The list tries each of them, and asks
    for no password. In a terminal, check NAME also asks for a password or a second factor. Further
    commands use its connection, until none has used it for 10 minutes.
    """
    from crystalmath.remotes import remote_home

    if action not in {None, "check", "add"} or (action and name is None):
        output.refuse("write check NAME, add NAME ME@HOST, or nothing", "[check|add]")
    if action is None:
        return _list(remote_home.all_remotes(), as_json=as_json)
    if action == "check":
        return report(_checks(remote_home.named(str(name))), as_json=as_json, remote=name)
    if not ssh:
        output.refuse("name the host as ssh does: me@hawk", "ME@HOST")
    path = remote_home.add(str(name), ssh, command, home)
    if as_json:
        return output.write_json({"path": str(path), "remote": name})
    output.write(f"wrote [remotes.{name}] to {path}; `crystalmath remotes check {name}` tries")
    return 0


def _list(every: Sequence[RemoteHome], *, as_json: bool) -> int:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor() as threads:
        looks = list(threads.map(_look, every))
    if as_json:
        return output.write_json({"remotes": looks})
    if not every:
        output.note("there is none; `crystalmath remotes add hawk me@hawk` writes one")
        return 0
    rows = []
    for one, look in zip(every, looks, strict=True):
        jobs = "cannot be reached" if look["jobs"] is None else output.counts(look["jobs"])
        rows.append((look["name"], one.destination, look["version"] or "", jobs))
    output.table(("REMOTE", "HOST", "VERSION", "UNFINISHED JOBS"), rows, whole=("REMOTE", "HOST"))
    for look in looks:
        if look["error"]:
            output.note(f"{look['name']}: {look['error']}")
    return 0


def _look(remote: RemoteHome) -> dict[str, Any]:
    """Return the state of a remote, without asking the user for anything."""
    from crystalmath.remotes import ssh

    ssh.ask_nobody(remote)
    document: dict[str, Any] = {**remote._asdict(), "version": None, "jobs": None, "error": None}
    try:
        version, status = _asked(remote)
    except CrystalMathError as error:
        return {**document, "error": str(error), "code": error.code}
    return {**document, "version": version["version"], "jobs": status["jobs"]}


def _asked(remote: RemoteHome) -> tuple[dict[str, Any], dict[str, Any]]:
    from crystalmath.client.over_ssh import OverSsh

    with contextlib.closing(OverSsh(remote, reads=True)) as transport:
        return transport.call("system.version", {}), transport.call("system.status", {})


def _checks(remote: RemoteHome) -> Iterator[Check]:
    try:
        version, status = _asked(remote)
    except CrystalMathError as error:
        message, _, remedy = str(error).partition("; ")
        yield Check("remote", "error", message, remedy or None)
        return
    yield Check("ssh", "ok", f"{remote} answers; others use the connection for 10 minutes")
    theirs = f"crystalmath {version['version']}, Python {version['python']} in {version['prefix']}"
    yield Check("version", "ok", theirs)
    home = f"{remote.path(version['home'])}, served by process {version['pid']} on "
    yield Check(
        "home", "ok", f"{home}{version['host']}; unfinished: {output.counts(status['jobs'])}"
    )
    for engine, state in status["engines"].items():
        if state.startswith("broken"):
            yield Check("engine", "warning", f"its engine {engine} is {state}")


def run_on(name: str, arguments: Sequence[str]) -> int:
    """Run a command on a remote, and print what it has written; return its exit code."""
    from crystalmath.remotes.remote_home import named
    from crystalmath.remotes.ssh import run_there

    code, text, errors = run_there(named(name), *arguments)
    sys.stdout.write(output.printable(text))
    if errors:
        output.note(errors)
    return code
