"""Calls the job service of this process, through the same handlers as a server."""

from __future__ import annotations

import asyncio
import atexit
import logging
import math
import os
import threading
import time
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from crystalmath import config
from crystalmath.client.client_errors import ClientClosed
from crystalmath.client.transport import Transport
from crystalmath.errors import CrystalMathError, InvalidJob
from crystalmath.server.handlers import METHODS
from crystalmath.server.handlers.system import describe_process, describe_service
from crystalmath.service import JobService
from crystalmath.wire import messages

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

_LOG = logging.getLogger("crystalmath.client")

#: The shortest time between two looks for orphans, in seconds.
RECONCILE_S = 2.0


class InProcess(Transport):
    """A job service with an event loop in a thread, apart from a notebook's own loop."""

    ends_jobs = True
    is_cold = True

    def __init__(self) -> None:
        self._service = JobService(config.Source())
        self._process = os.getpid()
        self._started_at = time.time()
        self._reconcile_at = 0.0
        self._closing = threading.Lock()
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="crystalmath-client", daemon=True
        )
        self._thread.start()
        # The engines register their own end on import. This one is registered later and so runs
        # earlier, while the store can still record the end of the jobs.
        import crystalmath.quacc.engines  # noqa: F401 - imported for that registration

        atexit.register(self.close)

    def __str__(self) -> str:
        return f"this process, with the jobs of {self._service.config.home}"

    def call(
        self, method: str, params: Mapping[str, Any], timeout: float | None = None
    ) -> dict[str, Any]:
        """Return a method's result; see :class:`~crystalmath.client.transport.Transport`."""
        answer: dict[str, Any]
        answer = messages.loads(self.call_raw(method, params, timeout), limited=False)
        return answer

    def call_raw(
        self,
        method: str,
        params: Mapping[str, Any],
        timeout: float | None = None,  # noqa: ARG002 - a call in this process always ends
    ) -> bytes:
        """Return a method's result as JSON text."""
        self._check()
        if method == "system.version":
            configured = self._service.config
            return messages.dumps(describe_process(configured.home, configured, self._started_at))
        if method == "system.status":
            self._service.disk.look()
            return self._awaited(lambda: describe_service(self._service))
        known = METHODS.get(method)
        if known is None or known.of_session:
            raise InvalidJob(f"there is no method {method!r} without a server")
        return self._awaited(lambda: known.handler(self._service, params))

    def _awaited(self, ask: Callable[[], Awaitable[Any]]) -> bytes:
        with self._closing:
            self._check()  # again: after the end of the loop a request would never be answered
            answer = asyncio.run_coroutine_threadsafe(_carried_out(ask()), self._loop)
        try:
            return messages.dumps(answer.result())
        except CancelledError:
            raise ClientClosed("this client was closed") from None
        except BaseException:
            answer.cancel()  # such as Ctrl-C
            raise

    def adopt_orphans(self, job_ids: Collection[str]) -> None:
        """Adopt orphans in a thread, because an engine may be slow."""
        now = time.monotonic()
        if now < self._reconcile_at:
            return
        self._reconcile_at = math.inf  # one at a time
        threading.Thread(target=self._take_over, args=(list(job_ids),), daemon=True).start()

    def _take_over(self, job_ids: list[str]) -> None:
        try:
            self._service.adopt_orphans(job_ids)
        except CrystalMathError as error:
            if not self._closed:
                _LOG.warning("cannot adopt jobs whose owner has died: %s", error)
        finally:
            self._reconcile_at = time.monotonic() + RECONCILE_S

    def finish(self) -> None:
        """Cancel this service's own unfinished jobs, and wait until they have ended."""
        self._service.finish()

    def close(self) -> None:
        """End the service and the loop."""
        if os.getpid() != self._process:
            return
        with self._closing:
            if self._closed:
                return
            self._closed = True
        atexit.unregister(self.close)
        self._service.finish()
        asyncio.run_coroutine_threadsafe(_end_others(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._service.close()

    def _check(self) -> None:
        if os.getpid() != self._process:
            raise ClientClosed(
                f"this client's jobs belong to process {self._process}, the parent of this forked "
                "one; crystalmath.client.in_process() makes a client for it"
            )
        if self._closed:
            raise ClientClosed("this client was closed")


async def _carried_out(answer: Awaitable[Any]) -> Any:
    return await answer


async def _end_others() -> None:
    """Cancel the requests under way, such as long polls."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
