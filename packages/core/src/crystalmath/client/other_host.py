"""A home that a server on another host serves: its jobs are read here, and changed only there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalmath import config
from crystalmath._storage import is_shared
from crystalmath.client.client_errors import ConnectionLost
from crystalmath.client.handshake import check_build
from crystalmath.client.transport import Transport
from crystalmath.errors import ServedElsewhere

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crystalmath.client.embedded import InProcess
    from crystalmath.server.endpoint import Place, Server


def require_home(place: Place, server: Server) -> None:
    """Check that this process may read a home whose server it has not reached.

    `ServedElsewhere`: only the host of that server sees the job database. `ProtocolMismatch`: a
    server of another build uses it.
    """
    if server.is_here():
        check_build(server.version, place.home)
        return
    check_build(server.version, place.home, server.identity.host)
    scheme, _, path = config.load().database_url.partition(":///")
    if scheme.startswith("sqlite") and not is_shared(Path(path), place.home):
        raise ServedElsewhere(
            f"the job database of {place.home} is on the host of the {server} alone: "
            f"{place.way_to(server)}; or move the database beside the home or to PostgreSQL "
            "([storage] in config.toml)"
        )


class OtherHost(Transport):
    """Answers requests that only read, by the home itself; refuses all others."""

    def __init__(self, place: Place, server: Server) -> None:
        self._place = place
        self._server = server
        self._here: InProcess | None = None

    def call(
        self, method: str, params: Mapping[str, Any], timeout: float | None = None
    ) -> dict[str, Any]:
        """Return a method's result; `ServedElsewhere`: it changes something."""
        return self._reader(method).call(method, params, timeout)

    def call_raw(
        self, method: str, params: Mapping[str, Any], timeout: float | None = None
    ) -> bytes:
        """Return a method's result as JSON text; see `call`."""
        return self._reader(method).call_raw(method, params, timeout)

    def close(self) -> None:
        """Close the database."""
        if self._here is not None:
            self._here.close()

    def __str__(self) -> str:
        return f"the {self._server}"

    def _reader(self, method: str) -> InProcess:
        from crystalmath.server.handlers import METHODS  # all handlers: not at every start

        if method in METHODS and METHODS[method].by_server:
            server = self._place.read_lock()
            if server is None or server.is_here():
                raise ConnectionLost(f"the {self._server} has ended; connect again")
            raise self._place.elsewhere(server)
        if self._here is None:
            from crystalmath.client.embedded import InProcess

            self._here = InProcess()
        return self._here
