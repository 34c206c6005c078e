"""Engines that cost too much while something waits: a core, or a part of their owner for each."""

from __future__ import annotations

import contextlib
import queue
import subprocess
import sys
import threading

from broken_surroundings import SCRIPT, AtLaunch, InAProcess


class NeverSleeps(AtLaunch):
    """Looks all the time whether there is something to do, from its first launch on."""

    def begin(self):
        self._over, self._events = threading.Event(), queue.SimpleQueue()
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self):
        while not self._over.is_set():
            with contextlib.suppress(queue.Empty):
                self._events.get_nowait()

    def end(self):
        if hasattr(self, "_over"):
            self._over.set()


class AsksForTheEndAllTheTime(InAProcess):
    """Asks all the time whether a worker has ended, as long as that works."""

    def _run(self, directory):
        command = [sys.executable, "-P", "-c", SCRIPT, directory]
        with subprocess.Popen(command, env=self.environment()) as process:
            while process.poll() is None:
                pass
