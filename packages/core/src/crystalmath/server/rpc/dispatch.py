"""JSON-RPC 2.0: from the bytes of a message to a handler, and from its result to an answer.

Faults in the *values* of a request come back in its result. An error of JSON-RPC means that the
message itself cannot be carried out, or that the server has failed.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from typing import TYPE_CHECKING, Any, Protocol

from attrs import define

from crystalmath.errors import CrystalMathError, did_you_mean
from crystalmath.server.pools import in_pool
from crystalmath.server.rpc import large
from crystalmath.wire import messages
from crystalmath.wire.messages import (
    BUSY,
    CANCELLED,
    INTERNAL_ERROR,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    REFUSED,
    Call,
    RpcError,
    as_call,
    is_id,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from crystalmath.server.rpc.declare import Method

_LOG = logging.getLogger("crystalmath.server")


@define
class Pending:
    """A request that is being carried out."""

    task: asyncio.Task[Any] | None
    #: The error that answers it after :meth:`cancel`.
    reason: RpcError | None = None

    def cancel(self, reason: RpcError) -> None:
        """End the work, and answer the request with the reason."""
        self.reason = reason
        if self.task is not None:
            self.task.cancel()


class Caller(Protocol):
    """The part of a session that the dispatcher needs."""

    @property
    def pending(self) -> dict[Any, Pending]:
        """The unanswered requests, by their ids."""

    @property
    def controller(self) -> Any:
        """The job service."""

    @property
    def may_only(self) -> str:
        """The prefix of all methods that it may call."""

    async def send(self, parts: Sequence[large.Part]) -> None:
        """Send one message; no other comes between its parts."""


class Dispatcher:
    """Reads messages, and carries out the methods that they name."""

    def __init__(self, methods: Mapping[str, Method]) -> None:
        self._methods = methods

    async def read(self, body: list[bytes]) -> Call:
        """Decode the parts of a message, in a thread if it is large.

        `RpcError`: the message cannot be carried out.
        """
        is_small = sum(map(len, body)) <= large.IN_THREAD
        try:
            return as_call(
                _decoded(body) if is_small else await in_pool("decoding", _decoded, body)
            )
        except messages.WireError as error:
            raise RpcError(PARSE_ERROR, str(error)) from None

    def note(self, call: Call, session: Caller) -> bool:
        """Carry out a message if it is a notification of the protocol; return whether it was."""
        if call.wants_answer or not call.method.startswith("$/"):
            return False
        if call.method == "$/cancelRequest":
            request_id = call.params.get("id")
            pending = session.pending.get(request_id) if is_id(request_id) else None
            if pending is not None:
                pending.cancel(RpcError(CANCELLED, "the request was cancelled"))
        return True

    async def answer(self, call: Call, session: Caller, request: large.Request) -> None:
        """Carry out a request and send its answer; a notification has none."""
        large.present.set(request)
        pending = Pending(asyncio.current_task())
        if call.wants_answer:
            session.pending[call.request_id] = pending
        try:
            await self._carry_out(call, session, request)
        except RpcError as error:
            await self._refuse(error, call, session)
        except asyncio.CancelledError:
            if pending.reason is None or pending.task is None:
                raise
            pending.task.uncancel()
            await self._refuse(pending.reason, call, session)
        finally:
            self._forget(call, session)

    async def _carry_out(self, call: Call, session: Caller, request: large.Request) -> None:
        method = self._methods.get(call.method)
        if method is None:
            raise RpcError(METHOD_NOT_FOUND, self._unknown(call.method))
        if not call.method.startswith(session.may_only):
            raise RpcError(REFUSED, BUSY, data={"code": "busy"})
        request.method = call.method
        if method.bulk:
            await request.take_turns()
        parts = await self._made(method, call, session)
        request.is_made()
        if parts is not None:
            await session.send(parts)

    async def _made(
        self, method: Method, call: Call, session: Caller
    ) -> Sequence[large.Part] | None:
        """Call a method, and encode its answer."""
        result = await _call(method, call, session)
        self._forget(call, session)  # a cancellation would now tear the answer apart
        if not call.wants_answer:
            return None
        try:
            if isinstance(result, messages.Raw):  # the handler has encoded it
                number = messages.dumps(call.request_id)
                return [b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (number, result.text)]
            document = {"jsonrpc": "2.0", "id": call.request_id, "result": result}
            return await large.encoded(document)
        except messages.WireError as error:
            _LOG.error("the answer of %s cannot be sent", call.method)
            raise RpcError(INTERNAL_ERROR, f"the answer cannot be sent: {error}") from None

    async def _refuse(self, error: RpcError, call: Call, session: Caller) -> None:
        self._forget(call, session)
        if call.wants_answer:
            document = error.document(call.request_id)
            await session.send([messages.dumps(document)])

    def _forget(self, call: Call, session: Caller) -> None:
        pending = session.pending.get(call.request_id) if call.wants_answer else None
        if pending is not None and pending.task is asyncio.current_task():
            del session.pending[call.request_id]

    def _unknown(self, name: str) -> str:
        hint = did_you_mean(name, self._methods, "rpc.discover lists all methods")
        return f"there is no method {name!r:.80}; {hint}"


async def _call(method: Method, call: Call, session: Caller) -> Any:
    try:
        target = session if method.of_session else session.controller
        return await method.handler(target, call.params)
    except RpcError:
        raise
    except CrystalMathError as error:
        raise RpcError(REFUSED, str(error), data={"code": error.code}) from None
    except Exception as error:
        # The text of an unforeseen exception may quote parameters, and the log must not.
        name = type(error).__name__
        where = "".join(traceback.format_tb(error.__traceback__))
        _LOG.error("%s failed with %s\n%s", call.method, name, where)
        message = f"{call.method} failed with {name}: a fault of the server; its log says where"
        raise RpcError(INTERNAL_ERROR, message) from error


def _decoded(body: list[bytes]) -> Any:
    text = b"".join(body)
    body.clear()  # a large message is in memory once
    return messages.loads(text)
