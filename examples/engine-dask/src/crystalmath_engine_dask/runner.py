"""The Dask engine: hands run directories to Dask's workers, and says what it sees."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

from distributed import Client, Future, Security
from tornado.ioloop import IOLoop

from crystalmath import worker
from crystalmath.errors import EngineUnavailable
from crystalmath.models import Capabilities, Sighting
from crystalmath.quacc.engine import EngineRunner

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from crystalmath.models import Attempt, EngineSettings

#: How long a scheduler may take to answer, a cluster to start, and it to end, in seconds.
ANSWER_S, START_S, STOP_S = 5.0, 60.0, 10.0


class DaskRunner(EngineRunner):
    """Run jobs on a Dask cluster of our own, on this machine; it ends with this process."""

    # Dask drops what is queued, but not always: a cancel outruns a task that is on its way.
    capabilities = Capabilities(queue_dies_with_owner=True)

    def __init__(self, settings: EngineSettings, workers: int) -> None:
        super().__init__(settings)
        self._workers = workers
        self._client: Client | None = None
        self._futures: dict[str, Future] = {}  # Dask drops a task whose future nobody holds
        self._started = contextlib.ExitStack()  # how to end what we started, last things first

    def launch(self, attempts: Sequence[Attempt]) -> Mapping[str, str]:
        """Submit one task for each attempt, with the attempt's id for its key."""
        directories = {attempt.id: str(attempt.directory) for attempt in attempts}
        keys = list(directories)

        async def submit(client: Client) -> Any:
            await client.nthreads()  # `map` alone waits for no answer
            return client.map(worker.run, directories.values(), key=keys, pure=False, retries=0)

        self.release(attempts)  # else Dask answers a second launch with the first one's future
        self._futures |= zip(keys, self._ask(submit), strict=True)
        return {key: key for key in keys}

    def probe(self, attempts: Sequence[Attempt]) -> Mapping[str, Sighting]:
        """Ask the scheduler, which finds tasks by their keys."""
        if self._client is None:
            return {attempt.id: Sighting("gone", "its Dask cluster ended") for attempt in attempts}
        keys = [attempt.id for attempt in attempts]
        # What was submitted a moment ago may still be on its way to the scheduler.
        sent = {key for key, future in self._futures.items() if future.status == "pending"}

        def look(dask_scheduler: Any) -> dict[str, Sighting]:
            seen = {key: Sighting("queued" if key in sent else "gone") for key in keys}
            for task in filter(None, map(dask_scheduler.tasks.get, keys)):
                if task.state in {"memory", "erred", "forgotten"}:
                    seen[task.key] = Sighting("gone", task.exception_text or None)
                else:
                    runs = task.processing_on and task in task.processing_on.executing
                    seen[task.key] = Sighting("running" if runs else "queued")
            return seen

        return dict(self._ask(lambda client: client.run_on_scheduler(look)))

    def release(self, attempts: Sequence[Attempt]) -> None:
        """Have the scheduler drop the tasks; one that is running is core's to stop."""
        over = {key for key, future in self._futures.items() if future.status == "finished"}
        for key in self._futures.keys() & (over | {attempt.id for attempt in attempts}):
            self._futures.pop(key).release()

    def stop(self) -> None:
        """End what we started: the client, its thread, the cluster."""
        self._client = None
        self._futures.clear()
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):  # the rest is ended, too
            self._started.close()

    def _ask(self, question: Callable[[Client], Any]) -> Any:
        try:
            if self._client is None or self._client.status != "running":
                self.stop()
                self._client = self._connect(*self._start_cluster())
            # In the client's own thread its methods are coroutines, which can have a time limit.
            return self._client.sync(question, self._client, callback_timeout=ANSWER_S)
        except OSError as error:  # a TimeoutError is one, too
            raise EngineUnavailable(f"the Dask scheduler does not answer: {error!r}") from error

    def _start_cluster(self) -> Any:
        self.settings.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        command = [sys.executable, "-P", "-m", "crystalmath_engine_dask.cluster"]
        command += [str(self._workers), str(self.settings.directory)]
        line, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        log_file = self.settings.directory / "log"
        with theirs, log_file.open("ab") as log:  # a session of its own: Ctrl-C is for us alone
            cluster = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                command, stdin=theirs.fileno(), stdout=log, stderr=log, start_new_session=True
            )
        # At the end, the last comes first: the line. The cluster should end then; if not, it is
        # killed, and its workers end because of that.
        self._started.callback(cluster.wait)
        self._started.callback(cluster.kill)
        self._started.callback(cluster.wait, STOP_S)
        self._started.enter_context(line).settimeout(START_S)
        told = line.recv(100_000)
        if not told:
            raise RuntimeError(f"the Dask cluster could not start; it said why in {log_file}")
        return pickle.loads(told)  # noqa: S301 - our own process wrote it

    def _connect(self, address: str, tls: Security) -> Client:
        # A client that cannot connect, or lost its scheduler, leaves its thread: it gets ours.
        loop = IOLoop(make_current=False)
        thread = threading.Thread(target=loop.start, daemon=True)
        thread.start()
        self._started.callback(loop.close, all_fds=True)
        self._started.callback(thread.join)
        self._started.callback(loop.add_callback, loop.stop)
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop.asyncio_loop).result()
        client = Client(address, security=tls, loop=loop, timeout=ANSWER_S, set_as_default=False)
        return self._started.enter_context(contextlib.closing(client))
