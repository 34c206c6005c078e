"""Engines that declare what is not so, or do not end or begin as they must."""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from importlib import import_module
from typing import ClassVar

import psutil
from broken_engines import LEAK, SHM, SLEEP, Engine, declare, engines, leaked
from broken_surroundings import AtLaunch

from crystalmath.errors import EngineUnavailable
from crystalmath.hookspecs import hookimpl
from crystalmath.models import Sighting
from crystalmath.worker import chains


class QueueOutlivesOwner(Engine):
    """Declares that its queue dies with its owner; a process of its own works it off."""

    capabilities = declare(queue_dies_with_owner=True)

    def launch(self, attempts):
        script = (
            "import os, sys, time\n"
            "from crystalmath import worker\n"
            "print(flush=True)\n"
            "deadline = time.monotonic() + 300\n"
            "owner, *directories = sys.argv[1:]\n"
            "while os.getppid() == int(owner) and time.monotonic() < deadline: time.sleep(0.05)\n"
            "for directory in directories: worker.run(directory)\n"
        )
        command = [sys.executable, "-P", "-c", script, str(os.getpid())]
        command += [str(attempt.directory) for attempt in attempts]
        environment = {**os.environ, LEAK: "1"}
        heir = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, start_new_session=True
        )
        # It is ready, so that it comes to it soon enough to be seen.
        heir.stdout.readline()
        return super().launch(attempts)


class GoneIsAlive(Engine):
    """Vouches for processes that are alive."""

    capabilities = declare(gone_means_dead=True)

    def probe(self, attempts):
        return {
            i: Sighting("gone") if s.state == "running" else s
            for i, s in super().probe(attempts).items()
        }


class GoneAfterItsOwner(Engine):
    """Vouches for the processes of an owner that was killed, without looking.

    Its workers do not look after what their supervisors leave, either, as core's do.
    """

    capabilities = declare(gone_means_dead=True)

    def __init__(self, settings):
        super().__init__(settings)
        chains.declare_lost = lambda *_: None


class QueuesNothing(Engine):
    """Cannot be given anything."""

    capabilities = declare(max_queued=0)


class QueuesMany(Engine):
    """Gives a word where a number belongs."""

    capabilities = declare(max_queued="many")


class CapabilitiesInADict(Engine):
    """Gives a dictionary where a record belongs."""

    capabilities: ClassVar = {"max_queued": 10}


class WorksWithNobody(Engine):
    """Says that it runs no jobs at once."""

    def workers(self):
        return 0


def block():
    """Wait for ever."""
    threading.Event().wait()


def detach():
    """Start a process that has nothing of its owner: no parent, session or variable."""
    detached = "import os; os.fork() and os._exit(0); os.setsid(); os.fork() and os._exit(0)"
    code = f"{detached}; os.execv('/bin/sleep', {SLEEP})"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], env={}, check=True)


engines(
    globals(),
    AtLaunch,
    "begin",
    LeaksProcess=lambda _: subprocess.Popen(SLEEP, env={**os.environ, LEAK: "1"}),
    LeavesDaemon=lambda _: detach(),
    LeaksThread=lambda _: threading.Thread(target=block, name="leak", daemon=True).start(),
    LeavesFile=lambda _: os.close(tempfile.mkstemp(prefix="broken-engine-")[0]),
)


class LeavesDaemonAtRelease(Engine):
    """Leaves such a process behind where it drops attempts."""

    start_s = 20.0

    def release(self, attempts):
        super().release(attempts)
        detach()


class LeaksWorkers(Engine):
    """Ends nothing of what it has started."""

    def stop(self):
        pass


class LeavesSharedMemory(AtLaunch):
    """Leaves shared memory behind, as one does whose last process is killed."""

    def begin(self):
        with tempfile.NamedTemporaryFile(prefix=leaked(), dir=SHM, delete=False) as file:
            file.write(b"x")
            file.flush()
            self._memory = mmap.mmap(file.fileno(), 1)

    def end(self):
        self._memory.close()


class LeavesSocket(AtLaunch):
    """Goes on listening."""

    def begin(self):
        self._listening = socket.create_server(("127.0.0.1", 0))


class StopRaises(Engine):
    """Fails to stop."""

    def stop(self):
        super().stop()
        raise RuntimeError("the engine would not stop")


class SecondCloseFails(Engine):
    """Cannot be closed twice."""

    def close(self, *, cancel=True):
        if self.closed:
            raise RuntimeError("already closed")
        super().close(cancel=cancel)


class CannotClose(Engine):
    """Fails to close, also when it has been measured."""

    start_s = None

    def close(self, *, cancel=True):
        super().close(cancel=cancel)
        raise RuntimeError("it cannot be closed")


class CloseLeavesJobs(Engine):
    """Closes without a word to the jobs that run."""

    def close(self, *, cancel=True):
        self._driver.closed = True


class CloseAlwaysCancels(Engine):
    """Ends jobs that were to be let go."""

    def close(self, *, cancel=True):
        super().close()


class NeverClosed(Engine):
    """Says that it is open when it is closed."""

    closed = False


class SubmitsAfterClose(Engine):
    """Takes jobs after it was closed, and forgets them."""

    def start(self, spec, document=None):
        with contextlib.suppress(EngineUnavailable):
            super().start(spec, document)


class LoudAtTheEnd(Engine):
    """Writes to standard error when it ends."""

    def stop(self):
        super().stop()
        os.write(2, b"Exception ignored in: <broken engine>\n")


class StartsWhenMade(Engine):
    """Starts a thread before anybody has asked for anything."""

    def __init__(self, settings):
        super().__init__(settings)
        threading.Thread(target=threading.Event().wait, name="early", daemon=True).start()


class SpawnsWhenMade(Engine):
    """Starts a process before anybody has asked for anything."""

    def __init__(self, settings):
        super().__init__(settings)
        subprocess.Popen(SLEEP, env={**os.environ, LEAK: "1"})


class NoLocalCluster(Engine):
    """Has clusters, but none named local."""

    def clusters(self):
        return ["main"]

    def check_cluster(self, cluster):
        pass


class BlocksInClusters(Engine):
    """Asks somebody slow for its clusters."""

    def clusters(self):
        time.sleep(0.3)
        return ["local"]


class LocksItsClusters(Engine):
    """Has one lock for all that it does."""

    keeps: ClassVar = {"_one_at_a_time": threading.Lock}

    def launch(self, attempts):
        with self._one_at_a_time:
            return super().launch(attempts)

    def clusters(self):
        with self._one_at_a_time:
            return super().clusters()


class SilentAboutLibrary(Engine):
    """Does not say what it needs."""

    library = "fake_library"


@hookimpl
def _make(settings):
    try:
        import_module("fake_library")
    except ImportError:
        raise ImportError("something is missing") from None
    return SilentAboutLibrary(settings)


SilentAboutLibrary.plugin.crystalmath_make_runner = _make


class StopSweepsAll(Engine):
    """Ends at its stop all jobs of the home but those that were let go, whoever's they are."""

    def stop(self):
        super().stop()
        spared = self.spared() | {os.getpid()}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                job_id = process.environ().get("CRYSTALMATH_ATTEMPT", "").rpartition(".")[0]
                is_here = job_id and (self.settings.home / "jobs" / job_id).exists()
                if is_here and process.pid not in spared:
                    process.kill()


class StopNeedsLaunch(Engine):
    """Ends what its first probe has started only if something was launched, too."""

    _helper = None

    def launch(self, attempts):
        self._book = {attempt.id: attempt for attempt in attempts}
        return super().launch(attempts)

    def probe(self, attempts):
        self._helper = self._helper or subprocess.Popen(["cat"], stdin=subprocess.PIPE)
        return super().probe(attempts)

    def stop(self):
        self._book.clear()
        super().stop()
        if self._helper is not None:
            self._helper.stdin.close()
            self._helper.wait()


class PollerIsNoDaemon(Engine):
    """Polls its server from the first probe on, in a thread that a script's end waits for."""

    def __init__(self, settings):
        super().__init__(settings)
        self._over = threading.Event()
        self._poller = None

    def probe(self, attempts):
        if self._poller is None:
            self._poller = threading.Thread(target=self._over.wait, name="poller")
            self._poller.start()
        return super().probe(attempts)

    def stop(self):
        super().stop()
        self._over.set()
        if self._poller is not None:
            self._poller.join()
