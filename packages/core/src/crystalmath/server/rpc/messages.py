"""JSON-RPC 2.0: what a request is, and how an error looks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import define

if TYPE_CHECKING:
    from collections.abc import Mapping

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
#: LSP's code for a request that its client cancelled.
CANCELLED = -32800
#: The server refuses: too many connections, it is stopping, an error with a ``code`` in ``data``.
REFUSED = -32000

#: Told to who comes when all places are taken.
BUSY = (
    "there are as many connections already as there may be; close one, or use it for several"
    " requests (what begins with 'system.' is answered all the same)"
)

_BATCH = (
    "batches are not supported; send requests one after another without waiting, or many jobs with"
    " jobs.submit_many and jobs.status_many"
)


class RpcError(Exception):
    """An error of JSON-RPC: a number from above, a message for a person, data for a program."""

    def __init__(
        self,
        code: int,
        message: str,
        *,
        request_id: Any = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.request_id = request_id
        self.data = data

    def document(self, request_id: Any = None) -> dict[str, Any]:
        """Return the message that answers a request with this error."""
        error: dict[str, Any] = {"code": self.code, "message": str(self)}
        if self.data is not None:
            error["data"] = dict(self.data)
        asked = self.request_id if request_id is None else request_id
        return {"jsonrpc": "2.0", "id": asked, "error": error}


@define
class Call:
    """A request, or a notification. Its parameters are dropped once it is carried out."""

    method: str
    params: Mapping[str, Any]
    request_id: Any
    wants_answer: bool


def as_call(document: Any) -> Call:
    """Take a message for a request or a notification; raise `RpcError` where it is neither."""
    if isinstance(document, list):
        raise RpcError(INVALID_REQUEST, _BATCH)
    if not isinstance(document, dict):
        raise RpcError(INVALID_REQUEST, "a message must be an object")
    wants_answer = "id" in document
    request_id = document.get("id")
    if not is_id(request_id):
        raise RpcError(INVALID_REQUEST, "'id' must be a string or a number")
    method = document.get("method")
    if document.get("jsonrpc") != "2.0":
        raise RpcError(INVALID_REQUEST, "'jsonrpc' must be \"2.0\"", request_id=request_id)
    if not isinstance(method, str):
        raise RpcError(INVALID_REQUEST, "'method' must be a string", request_id=request_id)
    params = document.get("params")
    if params is None or params == []:  # how some clients say "none"
        params = {}
    if not isinstance(params, dict):
        if not wants_answer:
            raise RpcError(INVALID_REQUEST, f"the parameters of {method!r:.80} must be an object")
        told = "'params' must be an object: parameters go by their names"
        raise RpcError(INVALID_PARAMS, told, request_id=request_id)
    return Call(method, params, request_id, wants_answer)


def is_id(value: object) -> bool:
    """Return whether a value may be a request's id."""
    return value is None or (isinstance(value, str | int | float) and not isinstance(value, bool))
