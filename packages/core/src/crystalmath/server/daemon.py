"""The home's server: one process that owns the engines and their jobs, and answers clients."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import gc
import logging
import math
import os
import re
import signal
import socket
import stat
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from crystalmath import build_version
from crystalmath.config import forwarded
from crystalmath.errors import (
    CrystalMathError,
    PlaceError,
    ServerError,
    StoreError,
    UnknownSchemaError,
)
from crystalmath.jobs.host import Host
from crystalmath.jobs.identities import own_identity
from crystalmath.server.handlers import METHODS
from crystalmath.server.lock import HomeLock
from crystalmath.server.log import log_to
from crystalmath.server.pools import in_pool, in_slices
from crystalmath.server.rpc.session import Connections
from crystalmath.service import JobService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from crystalmath.config import Source
    from crystalmath.server.endpoint import Place

_LOG = logging.getLogger("crystalmath.server")

#: Variables that the server and its workers need themselves, also where all are forwarded (`*`).
_OWN = re.compile(
    r"(PATH|LD_LIBRARY_PATH|HOME|USER|LOGNAME|SHELL|LANG|TMPDIR|(CRYSTALMATH_|PYTHON|XDG_|LC_).*)$"
)

#: How often the server looks for jobs without an owner, and whether it may leave, in seconds.
CARE_S = 2.0
#: When the server packs old jobs for the first time, and how often then at most, in seconds.
PACK_FIRST_S, PACK_S = 60.0, 3600.0
#: How long it rests between two slices of that, in seconds.
PACK_REST_S = 0.1
#: How often memory is handed back while large messages come, and otherwise, in seconds.
HAND_BACK_S = 10.0
HAND_BACK_IDLE_S = 300.0
#: A collection of cycles stops all threads: for 0.35 s beside 90,000 waiting jobs. While large
#: messages come, the next one waits this many times as long as the last one took.
_SELDOM = 200
#: How long a server stays at least, in seconds: the process that has started it must find it.
STAY_S = 1.0
#: How long a server that is leaving may keep the next one waiting, in seconds.
LEAVE_S = 60.0
#: How long `stop --cancel` waits for the jobs beyond `[cancel] grace_s`, in seconds.
CANCEL_S = 25.0
#: How long clients then have to ask for the states of those jobs, in seconds.
TELL_S = 0.5
#: How many connections may wait to be accepted.
BACKLOG = 512
#: How long the process may take to end after its work, in seconds.
EXIT_S = 1.0
#: How long a thread may keep the interpreter while another wants it, in seconds. A client's request
#: needs it several times; beside a large submission that is decoded it would wait 5 ms each time.
SWITCH_S = 0.0002
#: The output file is emptied when it is larger, in bytes.
PRINTED = 10_000_000
#: The thresholds of the collector of cycles: it looks at new objects after this many, at older ones
#: at each tenth time, and never at all objects by itself.
_NEW = 20_000
_NEVER = 1_000_000

#: For glibc's `mallopt`: the number of arenas, and the size in bytes of blocks that go back to the
#: system as soon as they are free. By itself glibc makes sixteen arenas and keeps large blocks.
_M_ARENA_MAX, _ARENAS = -8, 2
_M_MMAP_THRESHOLD, _APART = -3, 2**18


def serve(
    place: Place,
    source: Source,
    *,
    stream: Any = None,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve a home until somebody stops the server, or it has been quiet for long enough."""
    place.make()
    Host(place.home / "jobs").require_links()
    own_identity(place.home / "jobs", source.last.lease_s)
    with HomeLock(place) as lock:
        lock.take(LEAVE_S)
        with log_to(place.log, secret=source.last.database_url, stream=stream):
            _serve(place, source, lock, ready)


def _serve(place: Place, source: Source, lock: HomeLock, ready: Callable[[], None]) -> None:
    environ = dict(os.environ)
    _disarm(source)
    server = Server(place, source, environ, lock)
    try:
        server.service.open()
    except UnknownSchemaError:
        raise
    except StoreError as error:
        _LOG.warning("the job database cannot be opened yet: %s", error)
    # The socket must be private from its first moment.
    before = os.umask(0o177)
    try:
        listener = _listen(place)
    finally:
        os.umask(before)
    ready()
    try:
        server.run(listener)
    except Exception as error:
        _LOG.critical("the server failed", exc_info=error)
        raise ServerError(f"the server failed; {place.log} says where") from error


def _disarm(source: Source) -> None:
    """Drop the variables that submitters forward: no job may get those of the server."""
    for name in forwarded(source.last.forward):
        if not _OWN.match(name):
            os.environ.pop(name, None)  # another thread may have dropped it just now


def _listen(place: Place) -> socket.socket:
    """Make the socket, in place of one that a dead server has left."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(place.socket.lstat().st_mode):
            raise PlaceError(f"{place.socket} is in the way and no socket; remove it")
        place.socket.unlink()
    listener = socket.socket(socket.AF_UNIX)
    # Linux makes the file with the mode of the socket. A umask would do the same, but for all
    # threads: one may be writing the files of a job.
    os.fchmod(listener.fileno(), 0o600)
    try:
        listener.bind(os.fspath(place.socket))
    except OSError as error:
        listener.close()
        raise PlaceError(
            f"cannot make the socket {place.socket}: {error.strerror}; set CRYSTALMATH_SOCKET to a "
            "path in a private folder of a local file system"
        ) from error
    listener.listen(BACKLOG)
    return listener


class Server:
    """One server, from the moment when its socket exists."""

    def __init__(
        self, place: Place, source: Source, environ: Mapping[str, str], lock: HomeLock
    ) -> None:
        self._lock = lock
        self.place = place
        self.source = source
        self.service = JobService(source, environ)
        self.started_at = time.time()
        self.connections: Connections
        self._listening: asyncio.Server
        self._mark: tuple[int, ...] | None = None
        self._stop: asyncio.Event
        self._cancel = False
        self._adopting: dict[str, asyncio.Task[None]] = {}
        self._quiet_since = time.monotonic() + STAY_S
        self._handed_back_at = time.monotonic()
        self._rested = False
        self._packs = False
        self._cycles = CycleCollector()
        self._cycles_at = 0.0

    def run(self, listener: socket.socket) -> None:
        """Answer clients until the server stops, then leave in order."""
        version = build_version()
        _LOG.info("version %s serves %s as process %d", version, self.place.home, os.getpid())
        self._mark = self.place.mark()
        sys.setswitchinterval(SWITCH_S)
        _prepare()
        try:
            asyncio.run(self._run(listener))
        finally:
            self._withdraw()
            self._close()
            _LOG.info("gone")

    def stop(self, *, cancel: bool) -> None:
        """Leave soon; with `cancel` end all jobs first, else they go on."""
        self._cancel = self._cancel or cancel
        self._stop.set()

    @property
    def quiet_s(self) -> float:
        """The seconds since the last unfinished job or client."""
        return max(0.0, time.monotonic() - self._quiet_since)

    async def _run(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_report)
        self._stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            # A server that was started with nohup ignores SIGHUP.
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, lambda: self.stop(cancel=False))
        self.connections = Connections(self, METHODS)
        care = asyncio.create_task(self._care())
        warming = asyncio.create_task(self._warm())
        packing = asyncio.create_task(self._pack())
        self._listening = await self._listen_on(listener)
        try:
            await self._stop.wait()
            if self._cancel:
                await in_pool("stopping", self._cancel_jobs)
                # Waiting clients get their answers, and ask for the states of their jobs.
                await asyncio.sleep(TELL_S if self.connections.count else 0.0)
        finally:
            self._listening.close()
            # Before the last answers: a client that finds the socket expects a server that stays.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EXIT_S):  # the home's file system may hang
                    await in_pool("stopping", self._withdraw)
            care.cancel()
            warming.cancel()
            packing.cancel()
            await self.connections.close()

    async def _warm(self) -> None:
        with _logged(logging.WARNING, "no worker can be made ready"):
            await in_pool("warming", self.service.warm)

    async def _pack(self) -> None:
        """Pack jobs that ended long ago, if the configuration says so."""
        pause = PACK_FIRST_S
        while True:
            after_s = self.source.last.pack_after_s
            # A tenth of the time, as nobody minds that a job is packed so much later.
            usual = PACK_FIRST_S if after_s is None else min(PACK_S, max(CARE_S, after_s / 10))
            await asyncio.sleep(min(pause, usual))
            pause = math.inf
            if (after_s := self.source.last.pack_after_s) is None:
                continue
            self._packs = True
            with _logged(logging.WARNING, "cannot pack ended jobs"):
                work = self.service.pack_old(after_s)
                if count := await in_slices("packing", work, rest_s=PACK_REST_S):
                    _LOG.info("jobs packed: %d", count)
            self._packs = False

    async def _listen_on(self, listener: socket.socket) -> asyncio.Server:
        if sys.version_info >= (3, 13):
            # By itself asyncio removes the file of a socket that it closes. The file may be a newer
            # socket of this server, because inode numbers are reused.
            return await asyncio.start_unix_server(
                self._connected, sock=listener, backlog=BACKLOG, cleanup_socket=False
            )
        return await asyncio.start_unix_server(self._connected, sock=listener, backlog=BACKLOG)

    def _withdraw(self) -> None:
        """Remove the socket, unless another server has made it in a home that was replaced."""
        if self._mark is not None and self.place.mark() == self._mark:
            self.place.socket.unlink()

    def _cancel_jobs(self) -> None:
        self.service.cancel_all()
        end = time.monotonic() + CANCEL_S + self.source.last.cancel_grace_s
        while self.service.unfinished() and time.monotonic() < end:
            time.sleep(TELL_S / 10)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self.connections(reader, writer)
        finally:
            self._noise()

    def _noise(self) -> None:
        self._quiet_since = max(self._quiet_since, time.monotonic())

    async def _care(self) -> None:
        """Look after jobs, files and the configuration every few seconds."""
        while True:
            pause = CARE_S
            with _logged(logging.ERROR, "the server cannot look after itself"):
                pause = await self._look()
            await asyncio.sleep(pause)

    async def _look(self) -> float:
        """Look once; return the seconds until the next time."""
        with _logged(logging.WARNING, "cannot look for jobs that nobody follows"):
            await self._adopt()
        mark = await in_pool("caring", self._look_at_files)
        if mark != self._mark:
            await self._listen_again(mark)
        await self._hand_back()
        return await self._leave_if_quiet()

    def _look_at_files(self) -> tuple[int, ...] | None:
        """Look after output and configuration; return the mark of the present socket."""
        self._empty_output()
        self.service.disk.look()
        with contextlib.suppress(CrystalMathError):  # submissions are refused with this error
            self.source.current()
        _disarm(self.source)
        return self.place.mark()

    async def _listen_again(self, mark: tuple[int, ...] | None) -> None:
        """Make the socket again if a clean-up or the end of a login session has removed it."""
        listener = None
        if mark is None:
            try:
                listener = await in_pool("caring", self._made_again)
            except (PlaceError, OSError) as error:
                _LOG.warning("the socket is gone, and cannot be made again yet", exc_info=error)
                return
        if listener is None:
            _LOG.warning("another home is in this place: the next server serves it")
            self.stop(cancel=False)
            return
        self._listening.close()
        self._listening = await self._listen_on(listener)
        _LOG.warning("the socket was gone; it is there again")

    def _made_again(self) -> socket.socket | None:
        """Make the socket again, if the home is still the one of this server."""
        if not self._lock.is_ours():
            return None
        self.place.make()
        listener = _listen(self.place)
        self._mark = self.place.mark()
        return listener

    async def _hand_back(self) -> None:
        """Return free memory to the system: often while large messages come, else seldom."""
        memory = self.connections.memory
        pause = HAND_BACK_IDLE_S if self._rested and not memory.was_used else HAND_BACK_S
        if time.monotonic() - self._handed_back_at >= pause:
            self._rested = not memory.was_used
            memory.was_used = False
            if self._rested or time.monotonic() >= self._cycles_at:
                stood_still_s = await in_pool("caring", self._cycles.free, at_rest=self._rested)
                self._cycles_at = time.monotonic() + _SELDOM * stood_still_s
            await in_pool("caring", _hand_back)
            self._handed_back_at = time.monotonic()

    async def _leave_if_quiet(self) -> float:
        """Stop after a quiet time; return the seconds until the next look."""
        left = self._quiet_since + self.source.last.quiet_s - time.monotonic()
        busy = await in_pool("caring", self.service.is_busy, waiting=left <= 0)
        if busy or self.connections.count or self._adopting or self._packs:
            self._noise()
            return CARE_S
        if left <= 0:
            _LOG.info("it has been quiet for %.0f s", self.quiet_s)
            self.stop(cancel=False)
        return min(CARE_S, max(0.05, left))

    async def _adopt(self) -> None:
        """Take over the jobs that nobody follows."""
        engines = await in_pool("caring", self.service.abandoned)
        for engine in engines - self._adopting.keys():
            # In a task for each engine: loading one may take minutes, or hang.
            task = asyncio.create_task(in_pool(f"adopting {engine}", self._take_over, engine))
            self._adopting[engine] = task
            task.add_done_callback(functools.partial(self._adopted, engine))

    def _adopted(self, engine: str, _: asyncio.Task[None]) -> None:
        del self._adopting[engine]

    def _take_over(self, engine: str) -> None:
        with _logged(logging.WARNING, f"cannot take over jobs of {engine!r}"):
            if taken := self.service.take_over(engine):
                _LOG.info("took over %d jobs of %r", len(taken), engine)

    def _empty_output(self) -> None:
        with contextlib.suppress(OSError):
            if self.place.output.stat().st_size > PRINTED:
                os.truncate(self.place.output, 0)

    def _close(self) -> None:
        if self._cancel:
            self.service.cancel_all()
        self.service.close(cancel=self._cancel)
        # Imported here: a server must start quickly.
        from crystalmath.preflight import inspector

        inspector.close()  # else its processes would end only after this one


@contextlib.contextmanager
def _logged(level: int, message: str) -> Iterator[None]:
    """Log any exception of a block: the server goes on."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - an engine may raise anything
        _LOG.log(level, message, exc_info=error)


def force_exit(code: int) -> None:
    """End this process soon, even if a thread of an engine hangs."""
    timer = threading.Timer(EXIT_S, os._exit, [code])
    timer.daemon = True
    timer.start()


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an error of the event loop without the values that it quotes."""
    del loop
    # The message "Exception in callback f(...)" contains the arguments.
    _LOG.error("%s", context["message"].partition("(")[0], exc_info=context.get("exception"))


# --- memory: after a burst it goes back to the system ---------------------------------------------


def _prepare() -> None:
    """Set up the allocator to return free memory, and the collector of cycles to run seldom.

    A collection of all objects stops all threads, for 50 ms and more beside a large message. Only
    :class:`CycleCollector` makes one.
    """
    gc.set_threshold(_NEW, 10, _NEVER)
    if (library := _glibc()) is not None:
        library.mallopt(_M_ARENA_MAX, _ARENAS)
        library.mallopt(_M_MMAP_THRESHOLD, _APART)


class CycleCollector:
    """Frees cycles of objects, and passes over the imported modules, which take 50 ms."""

    def __init__(self) -> None:
        self._modules = 0  # how many there were when the present objects were frozen

    def free(self, *, at_rest: bool) -> float:
        """Free cycles; return how long all threads stood still, in seconds.

        The objects that are left are frozen: later collections pass over them. A freeze amid work
        includes objects that are garbage soon, such as the errors of 10,000 refused submissions
        with 150 MB of frames. So a collection `at_rest` looks at all objects again.
        """
        if at_rest:
            gc.unfreeze()
        began = time.thread_time()
        gc.collect()
        stood_still_s = time.thread_time() - began
        if at_rest or len(sys.modules) != self._modules:
            self._modules = len(sys.modules)
            gc.freeze()
        return stood_still_s


def _hand_back() -> None:
    """Make the C library return the free memory that it keeps."""
    if (library := _glibc()) is not None:
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None)
    return library if hasattr(library, "malloc_trim") else None
