"""JSON-RPC 2.0: from a message's bytes to a handler, and from what it says to an answer.

What a caller did wrong with *values* comes back in a result; an error of JSON-RPC means that the
message itself was none that can be carried out, or a fault of ours.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

from attrs import define

from crystalmath.errors import CrystalMathError
from crystalmath.server.rpc import wire
from crystalmath.server.rpc.messages import (
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
    from collections.abc import Awaitable, Callable, Mapping

__all__ = ["Caller", "Dispatcher", "Method", "Pending"]

_LOG = logging.getLogger("crystalmath.server")

#: From how many bytes on a message is decoded in a thread.
_LARGE = 64 * 2**10

#: From how many bytes on an answer waits for its turn; and what a value counts beside its text.
_LARGE_ANSWER = 2**20
_VALUE = 8

#: How many large answers are made, and how many are written, at once; each is in memory until then.
_LARGE_AT_ONCE = 4


class Method(Protocol):
    """What the registry says of a method."""

    @property
    def handler(self) -> Callable[[Any, Mapping[str, Any]], Awaitable[Any]]:
        """What answers; its first argument is the job service, or the caller's session."""

    @property
    def of_session(self) -> bool:
        """Whether the handler gets the session, not the job service."""

    @property
    def large(self) -> bool:
        """Whether answers may be so large that few are made at once."""


@define
class Pending:
    """A request that is being worked on."""

    task: asyncio.Task[Any] | None
    #: Why it is being cancelled, for its answer.
    reason: RpcError | None = None

    def cancel(self, reason: RpcError) -> None:
        """End the work; the request is answered with the reason."""
        self.reason = reason
        if self.task is not None:
            self.task.cancel()


class Caller(Protocol):
    """What the dispatcher needs of a session."""

    @property
    def pending(self) -> dict[Any, Pending]:
        """The requests that are not answered yet, by their id."""

    @property
    def large(self) -> asyncio.Lock:
        """Held while a large answer of this session is made and written."""

    @property
    def controller(self) -> Any:
        """The job service."""

    async def send(self, document: Mapping[str, Any]) -> None:
        """Send a message, whole and between others."""


class Dispatcher:
    """Read messages and carry them out.

    Parameters
    ----------
    methods : mapping of str to Method
        What there is, by name.
    """

    def __init__(self, methods: Mapping[str, Method]) -> None:
        self._methods = methods
        self._making = asyncio.Semaphore(_LARGE_AT_ONCE)
        self._writing = asyncio.Semaphore(_LARGE_AT_ONCE)
        # One thread: large messages are decoded one after another, beside everything else.
        self._decoder = ThreadPoolExecutor(1, "crystalmath-wire")

    def close(self) -> None:
        """End the thread that decodes."""
        self._decoder.shutdown(wait=False, cancel_futures=True)

    async def read(self, body: bytes) -> Call:
        """Read a message.

        Raises
        ------
        RpcError
            It is none that can be carried out.
        """
        if len(body) < _LARGE:
            document, told = _decoded(body)
        else:
            loop = asyncio.get_running_loop()
            document, told = await loop.run_in_executor(self._decoder, _decoded, body)
        if told is not None:
            raise RpcError(PARSE_ERROR, told)
        return as_call(document)

    def note(self, call: Call, session: Caller) -> bool:
        """Carry out a notification of the protocol itself; tell whether it was one."""
        if call.wants_answer or not call.method.startswith("$/"):
            return False
        if call.method == "$/cancelRequest":
            asked = call.params.get("id")
            pending = session.pending.get(asked) if is_id(asked) else None
            if pending is not None:
                pending.cancel(RpcError(CANCELLED, "the request was cancelled"))
        return True

    async def answer(self, call: Call, session: Caller) -> None:
        """Carry out a request and send its answer; a notification is carried out only."""
        pending = Pending(asyncio.current_task())
        if call.wants_answer:
            session.pending[call.request_id] = pending
        try:
            await self._carry_out(call, session)
        except RpcError as error:
            await self._refuse(error, call, session)
        except asyncio.CancelledError:
            if pending.reason is None or pending.task is None:
                raise
            pending.task.uncancel()
            await self._refuse(pending.reason, call, session)
        finally:
            self._forget(call, session)

    async def _carry_out(self, call: Call, session: Caller) -> None:
        method = self._methods.get(call.method)
        if method is None:
            raise RpcError(METHOD_NOT_FOUND, self._unknown(call.method))
        if method.large:
            async with session.large:
                await self._carry_out_large(method, call, session)
        else:
            await self._send(await _ask(method, call, session), call, session)

    async def _carry_out_large(self, method: Method, call: Call, session: Caller) -> None:
        """Let clients that do not read hold up large answers only, with few of them in memory."""
        async with self._making:
            result = await _ask(method, call, session)
            large = _is_large(result)
            if large and self._writing.locked():
                # It would wait in memory. It is made again when its turn has come.
                result = None
        if not large:
            await self._send(result, call, session)
            return
        async with self._writing:
            if result is None:
                result = await _ask(method, call, session)
            await self._send(result, call, session)

    async def _send(self, result: Any, call: Call, session: Caller) -> None:
        # From here on a cancellation would tear the answer apart.
        self._forget(call, session)
        if call.wants_answer:
            document = {"jsonrpc": "2.0", "id": call.request_id, "result": result}
            try:
                await session.send(document)
            except wire.WireError as error:
                _LOG.error("the answer of %s cannot be sent", call.method)
                raise RpcError(INTERNAL_ERROR, f"the answer cannot be sent: {error}") from None

    async def _refuse(self, error: RpcError, call: Call, session: Caller) -> None:
        self._forget(call, session)
        if call.wants_answer:
            await session.send(error.document(call.request_id))

    def _forget(self, call: Call, session: Caller) -> None:
        found = session.pending.get(call.request_id) if call.wants_answer else None
        if found is not None and found.task is asyncio.current_task():
            del session.pending[call.request_id]

    def _unknown(self, name: str) -> str:
        near = difflib.get_close_matches(name[:80], self._methods, 1)
        hint = f"did you mean {near[0]!r}?" if near else "rpc.discover lists those there are"
        return f"there is no method {name!r:.80}; {hint}"


def _is_large(result: Any) -> bool:
    """Tell whether an answer is large, without looking at all of one that is."""
    left, values = _LARGE_ANSWER, [result]
    while values and left > 0:
        value = values.pop()
        if isinstance(value, wire.Raw):
            left -= len(value.text)
        elif isinstance(value, str):
            left -= len(value)
        elif isinstance(value, dict | list):
            left -= _VALUE * len(value)
            if left > 0:
                values += value.values() if isinstance(value, dict) else value
    return left <= 0


async def _ask(method: Method, call: Call, session: Caller) -> Any:
    try:
        target = session if method.of_session else session.controller
        return await method.handler(target, call.params)
    except RpcError:
        raise
    except CrystalMathError as error:
        raise RpcError(REFUSED, str(error), data={"code": error.code}) from None
    except Exception as error:
        # The text of a stranger's exception may hold parameters; the log must not.
        name = type(error).__name__
        where = "".join(traceback.format_tb(error.__traceback__))
        _LOG.error("%s failed with %s\n%s", call.method, name, where)
        told = f"{call.method} failed with {name}: a fault of the server; its log says where"
        raise RpcError(INTERNAL_ERROR, told) from error


def _decoded(body: bytes) -> tuple[Any, str | None]:
    """Give the document, or what is wrong: an exception would keep the body until it is gone."""
    try:
        return wire.loads(body), None
    except wire.WireError as error:
        return None, str(error)
