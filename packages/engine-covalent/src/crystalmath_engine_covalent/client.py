"""The requests to a Covalent server, each with a time limit.

Covalent's own client has no time limits, prints, and writes into the user's home when it is
imported. For a dispatch it makes ten requests, where two are enough.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from attrs import frozen

from crystalmath.errors import EngineUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

    from crystalmath_engine_covalent.config import Address

#: How long an answer may take, in seconds. A server that is busy starting tasks takes one or two.
TIMEOUT_S = 10.0
#: The most dispatches in one request, whose first line may have 64 kB.
CHUNK = 500

_DISPATCHES = "/api/v2/dispatches"


class NotListening(EngineUnavailable):
    """Nothing listens at the address of the Covalent server."""


class RefusedError(RuntimeError):
    """The server has refused a request."""


@frozen
class Dispatch:
    """The server's report of a dispatch."""

    id: str
    name: str
    status: str


class Client:
    """A connection to a Covalent server, to be used as a context manager.

    All methods raise `EngineUnavailable` if the server does not answer.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._connection = http.client.HTTPConnection(address.host, address.port, timeout=TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._connection.close()

    def incarnation(self) -> str:
        """Return a name for this run of the server.

        If a server was killed, its dispatches have the status ``RUNNING`` for ever.
        """
        try:
            server = json.loads(self._request("GET", "/api/v1/settings"))
            if server["client"]["sdk"]["no_cluster"] == "true":
                raise RefusedError(
                    f"the Covalent server at {self._address} runs without its Dask cluster; "
                    "start it without `--no-cluster`"
                )
            dask = server["server"]["dask"]
            return f"{dask['pid']}-{urlsplit(dask['scheduler_address']).port}"
        except (ValueError, KeyError, TypeError) as error:
            raise RefusedError(f"what listens at {self._address} is no Covalent 0.240") from error

    def find(self, dispatches: Iterable[str]) -> dict[str, Dispatch]:
        """Look up dispatches by their ids, many with one request."""
        ids = list(dispatches)
        by_id = {}
        for start in range(0, len(ids), CHUNK):
            chunk = ids[start : start + CHUNK]
            query = urlencode({"count": len(chunk), "dispatch_id": chunk}, doseq=True)
            answer = json.loads(self._request("GET", f"{_DISPATCHES}?{query}"))
            for each in answer["dispatches"]:
                by_id[each["dispatch_id"]] = Dispatch(
                    each["dispatch_id"], each["name"], each["status"]
                )
        return by_id

    def send(self, name: str, content: bytes) -> None:
        """Write a file on the server."""
        self._request("PUT", f"/api/v0/files/{name}", content)

    def register(self, manifest: dict[str, Any]) -> None:
        """Register a dispatch."""
        self._request("POST", _DISPATCHES, manifest)

    def start(self, dispatch: str) -> None:
        """Start a registered dispatch; one that was started before is left alone."""
        self._request("PUT", f"{_DISPATCHES}/{dispatch}/status", {"status": "RUNNING"})

    def cancel(self, dispatch: str) -> None:
        """Cancel a dispatch."""
        self._request("PUT", f"{_DISPATCHES}/{dispatch}/status", {"status": "CANCELLED"})

    def complaint(self, dispatch: str) -> str:
        """Return the last line of output of a failed dispatch's task, or of Covalent itself."""
        for key in ("stderr", "error"):
            with contextlib.suppress(EngineUnavailable, RefusedError, ValueError, KeyError):
                path = f"{_DISPATCHES}/{dispatch}/electrons/0/assets/{key}"
                uri = json.loads(self._request("GET", path))["remote_uri"]
                text = self._request("GET", urlsplit(uri).path).decode(errors="replace").strip()
                if text:
                    return text.splitlines()[-1]
        return "Covalent does not say why"

    def _request(self, method: str, path: str, body: object = None) -> bytes:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body)
        try:
            self._connection.request(method, path, data, {"Content-Type": "application/json"})
            response = self._connection.getresponse()
            answer = response.read()
        except ConnectionRefusedError as error:
            raise NotListening(f"no Covalent server listens at {self._address}") from error
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            reason = str(error) or type(error).__name__
            raise EngineUnavailable(
                f"the Covalent server at {self._address} does not answer: {reason}"
            ) from error
        if response.status >= http.HTTPStatus.BAD_REQUEST:
            text = answer.decode(errors="replace")[:500]
            message = (
                f"the Covalent server at {self._address} answers {response.status} "
                f"to {method} {path[:100]}: {text}"
            )
            if response.status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
                raise EngineUnavailable(message)
            raise RefusedError(message)
        return answer


def listens(address: Address, timeout: float = 2.0) -> bool:
    """Return whether a server listens at an address."""
    try:
        socket.create_connection((address.host, address.port), timeout).close()
    except OSError:
        return False
    return True
