"""What every request must be before anything looks at it, and what every answer says.

A web page of somebody else, which runs in the same browser, can send requests here: it must not
read anything, nor have anything done. Other users of the machine can connect, too.
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

#: This machine's own names, with any port: `ssh -L` brings another one. A name that somebody has
#: had resolved to 127.0.0.1 is none of them.
_HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?", re.ASCII)
#: No larger request is read, in bytes.
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


class Refused(Exception):  # noqa: N818 - it says what became of a request
    """A request that is not carried out.

    Parameters
    ----------
    status : int
        The status of HTTP that says so.
    why : str
        Why, for people.
    """

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status

    def response(self) -> Response:
        """Return the answer to the request."""
        return in_json({"error": str(self), "code": "web"}, self.status)

    @staticmethod
    def answer(_: Request, error: Refused) -> Response:
        """Answer for Starlette."""
        return error.response()


class Guard:
    """Refuse requests from elsewhere, and put the rules for browsers into each answer.

    Parameters
    ----------
    app : ASGIApp
        What carries out the others.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request as ASGI has it."""
        if scope["type"] != "http":
            raise RuntimeError(f"only HTTP is served, not {scope['type']}")

        async def send_with_rules(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        try:
            _require_own(scope["method"], Headers(scope=scope))
        except Refused as error:
            await error.response()(scope, receive, send_with_rules)
        else:
            await self._app(scope, receive, send_with_rules)


def _require_own(method: str, headers: Headers) -> None:
    """Refuse a request that does not come from the page itself, or from the address bar."""
    hosts = headers.getlist("host")
    if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
        raise Refused(421, "this is served to 127.0.0.1 and localhost only")
    origins = headers.getlist("origin")
    if any(origin != f"http://{hosts[0]}" for origin in origins):
        raise Refused(403, "this page answers to itself only, and not to another origin")
    if method in {"GET", "HEAD"}:
        # Nothing but the page's own files, which everybody can have from the package index.
        if headers.get("sec-fetch-site") in {"cross-site", "same-site"} and (
            headers.get("sec-fetch-mode") != "navigate"
        ):
            raise Refused(403, "this page answers to itself only, and not to another site")
        return
    if not origins:
        raise Refused(403, "a request that carries something must say its origin")
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refused(415, "the content type must be application/json")


def in_json(document: object, status: int = 200) -> Response:
    """Answer with a document, in ASCII: what comes from jobs may be no Unicode."""
    return Response(json.dumps(document), status_code=status, media_type="application/json")


async def read_json(request: Request, largest: int | None = None) -> dict[str, Any]:
    """Read the object that a request carries; `Refused` if it is none, or is too large."""
    largest = LARGEST if largest is None else largest
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > largest:
            raise Refused(413, f"a request must not be larger than {largest} bytes")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "the request is no JSON") from error
    if not isinstance(document, dict):
        raise Refused(400, "the request is no JSON object")
    return document
