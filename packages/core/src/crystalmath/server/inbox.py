"""Requests of other hosts, which see the home and cannot reach the server's socket, as files.

A request is a file ``<name>.request`` with a message of JSON-RPC in the folder ``server/inbox``.
The server takes it by renaming it, sends it through its own socket, as any client would, and leaves
the answer as ``<name>.answer``. The client removes that. A file appears with all its content, or
not at all. If a server is killed with a taken request, the next one carries it out, provided that
this may happen twice: a submission has a key (`crystalmath.client.other_host`). A taken request
never gets its old name again. So a client that removes a file of that name knows that nothing was
done.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
import time
from typing import TYPE_CHECKING

from crystalmath.jobs.documents import write
from crystalmath.server.pools import in_pool
from crystalmath.wire import messages
from crystalmath.wire.messages import REFUSED, RpcError

if TYPE_CHECKING:
    from pathlib import Path

    from crystalmath.server.endpoint import Place

_LOG = logging.getLogger("crystalmath.server")

#: How the name of a request ends, of one that is being carried out, and of an answer.
REQUEST, TAKEN, ANSWER = ".request", ".taken", ".answer"
_NAME = re.compile(r"[0-9a-f]{32}\.request")
#: How often is looked for requests, in seconds: usually, while some come, and at last while it
#: cannot be.
PAUSE_S, BUSY_PAUSE_S, TROUBLE_PAUSE_S = 1.0, 0.1, 30.0
BUSY_S = 10.0
#: How many requests are carried out at a time.
AT_ONCE = 16
#: To who asked for what a killed server may have done, and what must not be done twice.
_UNKNOWN = RpcError(
    REFUSED,
    "the server died while it carried this out, and may have made the new jobs: look for them "
    "(crystalmath list), and ask again for what is not there",
    data={"code": "unknown_outcome"},
)
#: An answer that nobody has come for is thrown away after so long, in seconds.
KEPT_S = 86400.0


class Inbox:
    """The inbox of a home."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._folder = place.inbox
        self._tasks: set[asyncio.Task[None]] = set()
        # The requests that a dead server has taken, and that are still to be carried out.
        self._left: list[str] = []
        self._busy_until = 0.0

    async def run(self) -> None:
        """Carry out requests as they come, until this is cancelled."""
        step, trouble_s = self._open, 0.0
        try:
            while True:
                try:
                    await step()
                except Exception as error:  # noqa: BLE001 - whatever it is, requests go on coming
                    trouble_s = min(max(2 * trouble_s, PAUSE_S), TROUBLE_PAUSE_S)
                    _warn(
                        f"cannot look for requests of other hosts, again in {trouble_s:g} s", error
                    )
                    await asyncio.sleep(trouble_s)
                else:
                    step, trouble_s = self._look, 0.0
                    busy = time.monotonic() < self._busy_until
                    await asyncio.sleep(BUSY_PAUSE_S if busy else PAUSE_S)
        finally:
            # The next server answers the taken requests that have no answer.
            for task in list(self._tasks):
                task.cancel()

    async def _open(self) -> None:
        self._left = await in_pool("inbox", _make_ready, self._folder)

    async def _look(self) -> None:
        while self._left and len(self._tasks) < AT_ONCE:
            self._begin(self._left.pop())
        for name in await in_pool("inbox", _take, self._folder, AT_ONCE - len(self._tasks)):
            self._begin(name)

    def _begin(self, name: str) -> None:
        self._busy_until = time.monotonic() + BUSY_S
        task = asyncio.create_task(self._carry_out(name))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry_out(self, name: str) -> None:
        taken = self._folder / f"{name}{TAKEN}"
        try:
            try:
                message = await in_pool("inbox", taken.read_bytes)
            except FileNotFoundError:
                return  # whoever asked has withdrawn it
            answer = await self._ask(message)
            if messages.is_stopping(answer):
                return  # the next server takes it
            await in_pool("inbox", _leave, taken, answer)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is in the log
            _warn("a request of another host could not be answered", error)
            await asyncio.sleep(TROUBLE_PAUSE_S)
            with contextlib.suppress(OSError):  # whoever asked has withdrawn it, perhaps
                if await in_pool("inbox", _is_repeatable, taken):
                    self._left.append(name)

    async def _ask(self, message: bytes) -> bytes:
        reader, writer = await asyncio.open_unix_connection(self._place.socket)
        try:
            writer.write(messages.frame(message))
            await writer.drain()
            header = await reader.readuntil(b"\r\n\r\n")
            return await reader.readexactly(messages.read_length(header[:-2], most=None))
        finally:
            writer.close()


def _warn(what: str, error: Exception) -> None:
    # The log leaves out what an exception says, which may be anything; a system call's is known.
    reason = f": {error}" if isinstance(error, OSError) else ""
    _LOG.warning("%s%s", what, reason, exc_info=error)


def publish(file: Path, content: bytes) -> None:
    """Make a file that is there with all its content, whoever looks, or not at all."""
    draft = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        write(str(draft), content, durable=True)
        draft.rename(file)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _is_repeatable(file: Path) -> bool:
    from crystalmath.server.handlers import is_repeatable  # a client imports this module

    try:
        message = messages.loads(file.read_bytes())
    except messages.WireError:
        return True  # it is refused, as often as it comes
    if not isinstance(message, dict):
        return True
    return is_repeatable(message.get("method"), message.get("params"))


def _leave(taken: Path, answer: bytes) -> None:
    """Leave an answer, unless whoever asked has given up: he has removed what was taken."""
    if taken.exists():
        place = taken.with_suffix(ANSWER)
        if not place.exists():  # else a dead server has answered it
            publish(place, answer)
        taken.unlink(missing_ok=True)


def _make_ready(folder: Path) -> list[str]:
    """Make the folder, and tidy it up; name what a dead server has taken, and is to be done."""
    folder.mkdir(mode=0o700, exist_ok=True)
    left: list[str] = []
    for file in folder.iterdir():
        try:
            if file.suffix == TAKEN and _is_repeatable(file):
                left.append(file.stem)
            elif file.suffix == TAKEN:
                _leave(file, messages.dumps(_UNKNOWN.document(1)))
            elif time.time() - file.stat().st_mtime > KEPT_S and not _NAME.fullmatch(file.name):
                file.unlink()
        except FileNotFoundError:
            continue  # whoever asked may remove a file at any moment
        except OSError as error:  # one that is bad keeps none of the others back
            _warn("a request of another host was left alone", error)
    return left


def _take(folder: Path, most: int) -> list[str]:
    taken: list[str] = []
    for file in folder.iterdir():
        if len(taken) >= most:
            break
        if _NAME.fullmatch(file.name):
            try:
                file.rename(file.with_suffix(TAKEN))
            except FileNotFoundError:
                # Withdrawn by whoever asked, unless a network lost the answer.
                if not file.with_suffix(TAKEN).exists():
                    continue
            except OSError:
                if not taken:
                    raise
                break  # those that were taken are to be carried out
            taken.append(file.stem)
    return taken
