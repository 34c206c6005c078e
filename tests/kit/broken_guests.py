"""Engines that are bad guests in the process of the user, and on his machine."""

import contextlib
import ctypes
import gc
import logging
import multiprocessing
import os
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
from broken_surroundings import SCRIPT, AtLaunch, InAProcess

# --- to jobs --------------------------------------------------------------------------------------


class BindsToOneCore(InAProcess):
    """Binds each worker to a core, and all of them to the same."""

    crew = 2

    def prepare(self):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


class ScratchOfItsOwn(InAProcess):
    """Has TMPDIR of its workers be a folder of its own, which it removes in `stop`."""

    @property
    def _scratch(self):
        return self.settings.directory / f"scratch-{os.getpid()}"

    def environment(self):
        self._scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        return {**super().environment(), "TMPDIR": str(self._scratch)}

    def stop(self):
        super().stop()
        shutil.rmtree(self._scratch, ignore_errors=True)


# --- to its owner ---------------------------------------------------------------------------------


class SilencesWarnings(AtLaunch):
    """Has the user's process show no warnings any more, as its library warns so much."""

    def begin(self):
        warnings.filterwarnings("ignore")


class PatchesTheLibrary(AtLaunch):
    """Has every connection of the process go by IPv4, as its server has no other address."""

    def begin(self):
        resolve = socket.getaddrinfo
        socket.getaddrinfo = lambda host, port, family=0, *more, **others: resolve(
            host, port, socket.AF_INET, *more, **others
        )


class SubreapsInItsOwner(AtLaunch):
    """Has orphans below the user's process become its children, and collects none of them."""

    def begin(self):
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)


class CollectsNoGarbage(AtLaunch):
    """Switches the collection of garbage off, as its library has it for speed."""

    def begin(self):
        gc.disable()

    def end(self):
        gc.enable()


class WaitsForNoReader(AtLaunch):
    """Has standard output not wait for its reader, and a timer end what takes too long."""

    def begin(self):
        os.set_blocking(1, False)
        signal.setitimer(signal.ITIMER_REAL, 1e6)

    def end(self):
        os.set_blocking(1, True)
        signal.setitimer(signal.ITIMER_REAL, 0)


class KeepsItsLog(AtLaunch):
    """Has its messages go to a file of its own, and no more to the user's logging."""

    _handler = None

    def begin(self):
        self.settings.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._handler = logging.FileHandler(self.settings.directory / "log")
        self.log.addHandler(self._handler)
        self.log.propagate = False

    def end(self):
        if self._handler is not None:
            self.log.removeHandler(self._handler)
            self._handler.close()


class ReapsAll(AtLaunch):
    """Collects every child of the process that has ended, the user's too."""

    def begin(self):
        self._over = threading.Event()
        threading.Thread(target=self._reap, daemon=True).start()

    def _reap(self):
        while not self._over.wait(0.02):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-1, os.WNOHANG)

    def end(self):
        self._over.set()


class EatsStandardInput(AtLaunch):
    """Starts a command at its first launch that reads the user's standard input, as ssh does."""

    def begin(self):
        subprocess.run(["cat"], stdout=subprocess.DEVNULL, check=False)


class SeedsRandomNumbers(AtLaunch):
    """Has the user's random numbers begin anew, so that its own names are the same each time."""

    def begin(self):
        random.seed(7)


class SeedsNumpyForAMoment(AtLaunch):
    """Draws names from numpy's numbers, which it puts back; the user's threads draw them, too."""

    def begin(self):
        before = np.random.get_state()
        np.random.seed(7)
        np.random.set_state(before)


class RunsTheScriptAgain(AtLaunch):
    """Has a worker of `multiprocessing`, which runs the user's script again."""

    def begin(self):
        self._over = multiprocessing.get_context("spawn").Event()
        self._worker = multiprocessing.get_context("spawn").Process(
            target=self._over.wait, daemon=True
        )
        self._worker.start()

    def end(self):
        self._over.set()
        self._worker.join()
        self._worker.close()


class ForksItsWorkers(AtLaunch):
    """Has a worker that it has forked, which has open what the user had open."""

    def begin(self):
        owner = os.getpid()
        self._worker = os.fork()
        if self._worker == 0:
            while os.getppid() == owner:
                time.sleep(0.05)
            os._exit(0)

    def end(self):
        os.kill(self._worker, signal.SIGKILL)
        os.waitpid(self._worker, 0)


# --- to the machine -------------------------------------------------------------------------------


class HearsByUdp(AtLaunch):
    """Takes word of ended jobs by UDP, from whoever sends it to any address of the machine."""

    def begin(self):
        self._ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._ear.bind(("", 0))

    def end(self):
        self._ear.close()


class ListensByAbstractName(AtLaunch):
    """Takes work by a Unix socket without a path, to which everybody may connect."""

    def begin(self):
        self._ear = socket.socket(socket.AF_UNIX)
        self._ear.bind(f"\0broken-engine-{os.getpid()}")
        self._ear.listen()

    def end(self):
        self._ear.close()


class EnvironmentOnCommandLine(InAProcess):
    """Exports the whole environment in the command line, which all users of the host can read."""

    def _run(self, directory):
        exports = "".join(
            f"export {name}={shlex.quote(value)}\n"
            for name, value in os.environ.items()
            if name.isidentifier()
        )
        command = shlex.join([sys.executable, "-P", "-c", SCRIPT, directory])
        subprocess.run(["bash", "-c", f"{exports}{command}\nexit $?"], check=False)
