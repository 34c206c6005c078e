"""Engines that fail, or leave something, when something happens to the process that submits."""

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from broken_engines import LEAK, SLEEP
from broken_surroundings import AtLaunch, InAProcess

#: Ends with its owner once it has been told who that is, and not before.
UNTOLD = """
import os, sys, time
owner = int(sys.stdin.readline() or 0)
deadline = time.monotonic() + 600
while time.monotonic() < deadline and (not owner or os.path.exists(f"/proc/{owner}")):
    time.sleep(0.05)
"""


class TiedLate(AtLaunch):
    """Starts a process, and a moment later has it end with its owner."""

    start_s = 30.0

    def start_and_tie(self, wait):
        self._process = subprocess.Popen(
            [sys.executable, "-c", UNTOLD],
            env={**os.environ, LEAK: "1"},
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        wait()
        self._process.stdin.write(f"{os.getpid()}\n")
        self._process.stdin.flush()

    def end(self):
        if hasattr(self, "_process"):
            self._process.kill()
            self._process.wait()
            self._process.stdin.close()


class TiedTooLate(TiedLate):
    """Does so while it launches."""

    def begin(self):
        self.start_and_tie(lambda: time.sleep(3.0))


class NeverTied(AtLaunch):
    """Starts a process that only `stop` ends."""

    start_s = 30.0

    def begin(self):
        self._process = subprocess.Popen(SLEEP, env={**os.environ, LEAK: "1"})

    def end(self):
        if hasattr(self, "_process"):
            self._process.kill()
            self._process.wait()


class HelperNotTied(NeverTied):
    """Starts it at the first release, and not at a launch."""

    def begin(self):
        """Nothing is needed for a launch."""

    def release(self, attempts):
        super().release(attempts)
        if not hasattr(self, "_process"):
            super().begin()


class TiedByItsThread(TiedLate):
    """Has a thread start its process, which is tied to its owner once the first job is over."""

    def launch(self, attempts):
        self._first = self.__dict__.get("_first", attempts[0])
        return super().launch(attempts)

    def begin(self):
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self.start_and_tie, args=[self._wait], daemon=True)
        self._thread.start()

    def _wait(self):
        # By files and not by a clock: on a busy machine all processes of the job come later.
        outcome = self._first.directory / "1.outcome"
        self._stopped.wait(1.0)
        while not outcome.exists() and not self._stopped.wait(0.05):
            pass

    def end(self):
        if hasattr(self, "_thread"):
            self._stopped.set()
            self._thread.join()
        super().end()


class KilledLeavesFile(AtLaunch):
    """Has a temporary file that only `stop` removes."""

    def begin(self):
        descriptor, self._name = tempfile.mkstemp(prefix="broken-engine-")
        os.close(descriptor)

    def end(self):
        Path(self._name).unlink()


class KilledLeavesSocket(AtLaunch):
    """Has a socket in its folder that only `stop` removes."""

    def begin(self):
        self.settings.directory.mkdir(parents=True, exist_ok=True)
        self._path = self.settings.directory / f"{os.getpid()}"
        self._listening = socket.socket(socket.AF_UNIX)
        here = os.open(self.settings.directory, os.O_PATH)
        self._listening.bind(f"/proc/self/fd/{here}/{self._path.name}")  # its path may be long
        os.close(here)

    def end(self):
        self._listening.close()
        self._path.unlink()


class KilledLeavesShortSocket(AtLaunch):
    """Has a socket in /tmp, for its short path, that only `stop` removes."""

    def begin(self):
        self._path = Path(f"/tmp/broken-engine-{os.getpid()}.sock")
        self._listening = socket.create_server(str(self._path), family=socket.AF_UNIX)

    def end(self):
        self._listening.close()
        self._path.unlink()


#: Ends its job with itself, as it was told by Ctrl-C.
ENDS_ITS_JOB = """
import sys
import psutil
from crystalmath import worker
try:
    worker.run(sys.argv[1])
except KeyboardInterrupt:
    for each in psutil.Process().children(recursive=True):
        each.kill()
"""


class ResolvesItsPaths(InAProcess):
    """Makes its paths absolute by itself, and so must know where its owner stands."""

    def launch(self, attempts):
        Path(os.getcwd(), self.settings.directory).mkdir(parents=True, exist_ok=True)
        return super().launch(attempts)


class RemovesItsFolderInAChild(InAProcess):
    """Has a temporary folder, which each process removes at its end that has the object for it."""

    def launch(self, attempts):
        if not hasattr(self, "_folder"):
            self._folder = tempfile.TemporaryDirectory()
        for each in attempts:
            Path(self._folder.name, each.id).touch()
        return super().launch(attempts)

    def stop(self):
        super().stop()
        if hasattr(self, "_folder"):
            self._folder.cleanup()


class CtrlCEndsItsJobs(InAProcess):
    """Has workers in the process group of its owner that end their jobs when they are told to."""

    def _run(self, directory):
        command = [sys.executable, "-P", "-c", ENDS_ITS_JOB, directory]
        subprocess.run(command, stderr=subprocess.DEVNULL, check=False)


class CtrlCEndsItsQueue(InAProcess):
    """Has a helper in the process group of its owner, without which it begins nothing."""

    start_s = 20.0

    def __init__(self, settings):
        super().__init__(settings)
        self._helper, self._over = None, threading.Event()

    def launch(self, attempts):
        if self._helper is None:
            self._helper = subprocess.Popen(
                [sys.executable, "-c", "import sys; sys.stdin.read()"],
                stdin=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        return super().launch(attempts)

    def wait(self):
        if self._helper.poll() is not None:
            self._over.wait()

    def stop(self):
        self._queued.clear()
        self._over.set()
        super().stop()
        if self._helper is not None:
            self._helper.kill()
            self._helper.wait()
            self._helper.stdin.close()
