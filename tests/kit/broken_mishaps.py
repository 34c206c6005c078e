"""Engines that fail when something happens to the process that submits."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from broken_surroundings import InAProcess

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
