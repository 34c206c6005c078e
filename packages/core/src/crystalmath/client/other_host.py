"""Asks the server of a home on another host, through files in the home.

Methods that only read are answered in this process, from the home, which both hosts see. Requests
that change something are written to the home's inbox (`crystalmath.server.inbox`), where the
server leaves its answers.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalmath import config
from crystalmath._storage import is_shared
from crystalmath.client.client_errors import ConnectionLost
from crystalmath.client.handshake import check_build
from crystalmath.client.remote import ANSWER_S
from crystalmath.client.transport import Transport
from crystalmath.errors import BadFile, ServedElsewhere
from crystalmath.jobs.heartbeat import Hearts
from crystalmath.jobs.host import heart_of
from crystalmath.server.endpoint import require_private
from crystalmath.server.inbox import ANSWER, REQUEST, TAKEN, publish
from crystalmath.wire import messages

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crystalmath.client.embedded import InProcess
    from crystalmath.server.endpoint import Place, Server

_LOG = logging.getLogger("crystalmath.client")

#: The time within which a server must take a request, in seconds; NFS may show a new file to
#: another host only after a minute.
TAKEN_S = 120.0
#: The time after which the log says that a request waits, in seconds.
NOTICE_S = 10.0
#: The first and the longest pause between looks for an answer, in seconds.
FIRST_S, LAST_S = 0.05, 1.0


def can_read_here(configured: config.Config) -> bool:
    """Return whether every host that sees the home sees the job database, too."""
    scheme, _, path = configured.database_url.partition(":///")
    return not scheme.startswith("sqlite") or is_shared(Path(path), configured.home)


def require_home(place: Place, server: Server) -> None:
    """Check that this process may read a home whose server it has not reached.

    `ServedElsewhere`: a server on another host has the job database for itself. `ProtocolMismatch`:
    a server of another build uses it.
    """
    check_build(server.version, place.home, None if server.is_here() else server.identity.host)
    if not server.is_here():
        require_readable_here(place, server)


def require_readable_here(place: Place, server: Server) -> None:
    """Raise `ServedElsewhere` if only another host sees the job database."""
    if not can_read_here(config.load()):
        raise ServedElsewhere(
            f"the job database of {place.home} is on the host of the {server} alone: submit the "
            "job, so that it runs there, or move the database beside the home or to PostgreSQL "
            "([storage] in config.toml)"
        )


class OtherHost(Transport):
    """The server of a home on another host; `ServedElsewhere`: it has no inbox yet."""

    def __init__(self, place: Place, server: Server) -> None:
        self._place = place
        self._server = server
        self._here: InProcess | None = None
        if not place.inbox.is_dir():
            raise place.elsewhere(server)
        require_private(place.inbox)
        self._reads = can_read_here(config.load())

    def call(
        self, method: str, params: Mapping[str, Any], timeout: float | None = None
    ) -> dict[str, Any]:
        """Return a method's result; see :class:`~crystalmath.client.transport.Transport`."""
        if self._is_read_here(method):
            return self._reader().call(method, params, timeout)
        return super().call(method, params, timeout)

    def call_raw(
        self, method: str, params: Mapping[str, Any], timeout: float | None = None
    ) -> bytes:
        """Return a method's result as JSON text."""
        if self._is_read_here(method):
            return self._reader().call_raw(method, params, timeout)
        return super().call_raw(method, params, timeout)

    def close(self) -> None:
        """Close the database."""
        if self._here is not None:
            self._here.close()

    def __str__(self) -> str:
        return f"the {self._server}"

    def _is_read_here(self, method: str) -> bool:
        from crystalmath.server.handlers import METHODS  # all handlers: not at every start

        return self._reads and method in METHODS and not METHODS[method].by_server

    def _reader(self) -> InProcess:
        if self._here is None:
            from crystalmath.client.embedded import InProcess

            self._here = InProcess()
        return self._here

    def message(self, method: str, params: Mapping[str, Any], timeout: float | None) -> bytes:
        """Write a request to the inbox, and wait for its answer."""
        name = secrets.token_hex(16)
        request = self._place.inbox / f"{name}{REQUEST}"
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": _keyed(params, name)}
        answer = self._place.inbox / f"{name}{ANSWER}"
        try:
            publish(request, messages.dumps(message))
            return self._awaited(method, request, answer, timeout)
        except BaseException:
            # Ctrl-C, too, withdraws the request, so that no server begins it afterwards.
            _withdraw_all(request)
            raise
        finally:
            answer.unlink(missing_ok=True)

    def _awaited(self, method: str, request: Path, answer: Path, timeout: float | None) -> bytes:
        begun = time.monotonic()
        taken_s = min(TAKEN_S, timeout or TAKEN_S)
        most_s = TAKEN_S + (ANSWER_S if timeout is None else timeout)
        pause = FIRST_S
        listening = _Listening(self._place, self._server)
        noticed = False
        while True:
            with contextlib.suppress(FileNotFoundError):
                return answer.read_bytes()
            waited = time.monotonic() - begun
            liveness = listening.liveness()
            if listening.is_dead and _withdrawn(request):
                raise ConnectionLost(
                    f"{liveness}, so that its host is gone, or cut off; {method} was withdrawn: "
                    f"nothing was changed. {self._place.elsewhere(self._server)}"
                )
            if waited >= NOTICE_S and not noticed:
                noticed = True
                is_taken = not request.exists()
                _LOG.warning(
                    "the %s has not %s %s yet; it has %.0f s (%s)",
                    self._server,
                    "answered" if is_taken else "taken",
                    method,
                    most_s if is_taken else taken_s,
                    liveness,
                )
            if waited >= taken_s and _withdrawn(request):
                raise ConnectionLost(
                    f"the {self._server} has not taken {method} out of {self._place.inbox} for "
                    f"{waited:.0f} s, and it was withdrawn: nothing was changed; {liveness}. "
                    f"{self._place.elsewhere(self._server)}"
                )
            if waited >= most_s:
                # If that server has died, the next one must not carry the request out.
                _withdraw_all(request)
                with contextlib.suppress(FileNotFoundError):
                    return answer.read_bytes()
                raise ConnectionLost(
                    f"the {self._server} has taken {method} and not answered for {waited:.0f} s "
                    f"({liveness}): list the jobs to see whether it was carried out; nobody begins "
                    f"with it from now on. Its log is {self._place.log}"
                )
            time.sleep(pause)
            pause = min(1.2 * pause, LAST_S)


class _Listening:
    """Watches the heartbeat of a server on another host, from now on."""

    def __init__(self, place: Place, server: Server) -> None:
        self._jobs = place.home / "jobs"
        self._server = server
        self._hearts = Hearts()
        self._beats: set[str] = set()
        self.is_dead = False

    def liveness(self) -> str:
        """Return what the heartbeat has shown so far, as part of a sentence."""
        try:
            heart = heart_of(self._server.identity, self._jobs)
        except (BadFile, OSError):
            heart = None
        if heart is None:
            return "whether it lives cannot be seen here"
        silence = self._hearts.listen("", heart)
        self._beats.add(heart.beat)
        self.is_dead = silence.for_s >= silence.lease_s
        if len(self._beats) > 1 and not self.is_dead:
            return "it has shown meanwhile that it lives"
        return (
            f"nothing was heard of the {self._server} for {silence.for_s:.0f} s of its lease of "
            f"{silence.lease_s:g} s"
        )


def _withdraw_all(request: Path) -> None:
    """Keep every server from beginning a request, also after one has taken it and died."""
    for file in (request, request.with_suffix(TAKEN)):
        file.unlink(missing_ok=True)


def _withdrawn(request: Path) -> bool:
    """Take a request back; return whether no server has taken it."""
    try:
        request.unlink()
    except FileNotFoundError:
        return False
    return True


def _keyed(params: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Add a key to each submitted job, so that a request carried out twice makes one job."""
    jobs = params.get("jobs")
    if isinstance(jobs, list):
        return {**params, "jobs": [_with_key(job, f"{name}-{at}") for at, job in enumerate(jobs)]}
    return _with_key(params, name) if "recipe" in params else dict(params)


def _with_key(job: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {**job, "key": key if job.get("key") is None else job["key"]}
