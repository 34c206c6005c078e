"""Checks every request before it is handled, and adds the rules for browsers to every answer.

A foreign web page in the same browser can send requests here; it must neither read nor change
anything. Other users of the machine can connect, too.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: This machine's own names, with any port, as `ssh -L` may use another one. A foreign name that
#: resolves to 127.0.0.1 does not match.
_HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?", re.ASCII)
#: The largest request that is read, in bytes.
LARGEST = 32 * 2**20
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class RefusalError(Exception):
    """A request that is not carried out.

    Parameters
    ----------
    status : int
        The status of HTTP.
    why : str
        The reason, for people.
    """

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status

    def response(self) -> Response:
        """Return the answer to the request."""
        return in_json({"error": str(self), "code": "web"}, self.status)

    @staticmethod
    def answer(_: Request, error: RefusalError) -> Response:
        """Answer for Starlette."""
        return error.response()


class Guard:
    """Refuses requests from elsewhere, and adds the rules for browsers to each answer.

    Parameters
    ----------
    app : ASGIApp
        The application that handles all other requests.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request of ASGI."""
        if scope["type"] != "http":
            raise RuntimeError(f"only HTTP is served, not {scope['type']}")

        async def send_with_rules(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        try:
            _require_own(scope["method"], Headers(scope=scope))
        except RefusalError as error:
            await error.response()(scope, receive, send_with_rules)
        else:
            await self._app(scope, receive, send_with_rules)


def _require_own(method: str, headers: Headers) -> None:
    """Refuse a request unless it comes from the page itself, or from the address bar."""
    hosts = headers.getlist("host")
    if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
        raise RefusalError(421, "this is served to 127.0.0.1 and localhost only")
    origins = headers.getlist("origin")
    if any(origin != f"http://{hosts[0]}" for origin in origins):
        raise RefusalError(403, "this page answers to itself only, and not to another origin")
    if method in {"GET", "HEAD"}:
        # These methods return only the page's files, which the package index has as well.
        if headers.get("sec-fetch-site") in {"cross-site", "same-site"} and (
            headers.get("sec-fetch-mode") != "navigate"
        ):
            raise RefusalError(403, "this page answers to itself only, and not to another site")
        return
    if not origins:
        raise RefusalError(403, "a request that carries something must say its origin")
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RefusalError(415, "the content type must be application/json")


def in_json(document: object, status: int = 200) -> Response:
    """Return a document as an answer, in ASCII: texts of jobs may be no valid Unicode."""
    return Response(json.dumps(document), status_code=status, media_type="application/json")


async def read_json(request: Request, largest: int | None = None) -> dict[str, Any]:
    """Return the JSON object of a request; `RefusalError` if it has none, or it is too large."""
    largest = LARGEST if largest is None else largest
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > largest:
            raise RefusalError(413, f"a request must not be larger than {largest} bytes")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RefusalError(400, "the request is no JSON") from error
    if not isinstance(document, dict):
        raise RefusalError(400, "the request is no JSON object")
    return document
