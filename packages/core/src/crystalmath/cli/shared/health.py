"""Checks of file systems, the database and the server, for doctor and clusters check."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

from attrs import asdict

from crystalmath.cli.shared import output
from crystalmath.errors import CrystalMathError, ServerNotRunning
from crystalmath.models.cluster import Check

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from crystalmath.config import Config
    from crystalmath.plugins.program import Condition
    from crystalmath.quacc.store import JobStore
    from crystalmath.server.endpoint import Place, Server


#: How long the server may take to answer, in seconds.
ANSWER_S = 5.0
#: The bytes at the end of its log that are searched for errors.
TAIL = 200_000


def show(check: Check) -> None:
    """Print a check at once."""
    output.write(f"{check.state:8}{check.name:12}{check.message}")
    if check.remedy:
        output.write(f"{'':20}{check.remedy}")
    sys.stdout.flush()


def report(checks: Iterable[Check], *, as_json: bool, **more: object) -> int:
    """Print checks as they come, or all with `more` as JSON; return the exit code."""
    seen = []
    for check in checks:
        seen.append(check)
        if not as_json:
            show(check)
    wrong = any(check.state == "error" for check in seen)
    if as_json:
        documents = [asdict(check) for check in seen]
        output.write_json({"status": "error" if wrong else "ok", **more, "checks": documents})
    return 1 if wrong else 0


def condition(each: Condition) -> Check:
    """Return the check of a condition that a program needs."""
    return Check(each.name, "ok" if each.ok else "warning", each.message, each.remedy)


def server_checks(configured: Config) -> Iterator[Check]:
    """Check that the server runs, answers, and has the versions of this process."""
    from crystalmath.client.other_host import require_home
    from crystalmath.server.endpoint import Place

    try:
        place = Place.of(configured.home)
        server = place.read_lock()
        if server is None:
            yield _nobody(place)
        elif not server.is_here():
            require_home(place, server)
            message = f"{server}; this host reads jobs in the home, and changes none"
            yield Check("server", "ok", message, f"to change jobs, {place.way_to(server)}")
        else:
            yield from _present(place, server)
    except (CrystalMathError, OSError) as error:
        yield Check("server", "error", str(error))


@contextlib.contextmanager
def job_rows(config: Config) -> Iterator[JobStore | None]:
    """Open the job database, if there is one."""
    from crystalmath.quacc.store import JobStore

    if not JobStore.exists(config.database_url):
        yield None
        return
    with JobStore(config.database_url, create=False, network=config.network) as store:
        yield store


def waits_for_database() -> bool:
    """Return whether the job database does not answer the home's server now."""
    from crystalmath.config import home
    from crystalmath.server.endpoint import Place

    try:
        answers = _ask(Place.of(home()), "system.status")
    except (CrystalMathError, OSError):
        return False
    return answers is not None and answers[0].get("failures", ()) is None


def _nobody(place: Place) -> Check:
    if place.directory.exists():
        place.make()  # raises if others can write to it
    message = "none runs; `crystalmath submit` starts one"
    if not place.has_crashed():
        return Check("server", "ok", message)
    return Check(
        "server",
        "warning",
        "none runs, and the last one died; `crystalmath submit` starts another",
        f"its running jobs went on, and the next server follows them; see {place.log}",
    )


def _present(place: Place, server: Server) -> Iterator[Check]:
    from crystalmath.client.handshake import check_build, differences

    check_build(server.version, place.home)
    answers = _ask(place, "system.version", "system.status")
    if answers is None:
        remedy = f"see {place.log}; running jobs go on when `kill -9 {server.identity.pid}` ends it"
        message = f"the {server} does not answer"
        yield Check("server", "error", message, remedy)
        return
    version, status = answers
    jobs = status["jobs"]
    yield Check(
        "server",
        "ok",
        f"{server}, {output.age(server.started_at)} old, {jobs['running']} running and "
        f"{jobs['pending']} pending jobs{_by_engine(status)}, at {server.socket}",
    )
    for difference in differences(version, place.home):
        yield Check("server", "warning", difference)
    for engine, state in status["engines"].items():
        if state.startswith("broken"):
            remedy = "only the next server sees later installations: `crystalmath stop`"
            message = f"its engine {engine} is {state}"
            yield Check("server", "warning", message, remedy)
    yield from _log(place.log)


def _by_engine(status: dict[str, Any]) -> str:
    """Return the workers and the backlog of each loaded engine."""
    engines = [
        f"{name}: {'?' if workers is None else workers} workers, {status['backlog'][name]} waiting"
        for name, workers in status.get("workers", {}).items()
    ]
    return f" ({'; '.join(engines)})" if engines else ""


def _ask(place: Place, *methods: str) -> list[dict[str, Any]] | None:
    from crystalmath.client.transport import read_result
    from crystalmath.server.endpoint import Connection

    with (
        contextlib.suppress(ServerNotRunning),
        contextlib.closing(Connection.to(place)) as connection,
        contextlib.suppress(OSError, EOFError),
    ):
        return [read_result(connection.ask(name, {}, ANSWER_S)) for name in methods]
    return None


def _log(log: Path) -> Iterator[Check]:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL))
        lines = file.read().decode(errors="replace").splitlines()
    begins = [number for number, line in enumerate(lines) if " serves " in line]
    since = lines[begins[-1] if begins else 0 :]
    errors = [line for line in since if " ERROR " in line or " CRITICAL " in line]
    if errors:
        message = f"{len(errors)} error(s) of this server; the last: {errors[-1]}"
        yield Check("log", "warning", message, f"see {log}")
