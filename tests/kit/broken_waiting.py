"""Engines that cost too much while something waits: a core, or a part of their owner for each."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading

from broken_engines import Engine
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


class LooksForJobsAllTheTime(Engine):
    """Has workers that look all the time whether there is a job, while there is none."""

    def __init__(self, settings):
        super().__init__(settings)
        self._queue = _NeverEmpty()


class _NeverEmpty(queue.PriorityQueue):
    def get(self):
        while True:
            with contextlib.suppress(queue.Empty):
                return super().get(block=False)


class AsksForTheEndAllTheTime(InAProcess):
    """Asks all the time whether a worker has ended, as long as that works."""

    def _run(self, directory):
        command = [sys.executable, "-P", "-c", SCRIPT, directory]
        with subprocess.Popen(command, env=self.environment()) as process:
            while process.poll() is None:
                pass


class KeepsOfEachThatWaits(Engine):
    """Keeps something of each attempt until a worker begins it, or until it is dropped."""

    def __init__(self, settings):
        super().__init__(settings)
        self._kept = {}

    def launch(self, attempts):
        for each in attempts:
            kept = self._kept[each.id] = contextlib.ExitStack()
            self.keep(kept)
        return super().launch(attempts)

    def release(self, attempts):
        super().release(attempts)
        for each in attempts:
            self._let_go(each)

    def stop(self):
        super().stop()
        for each in list(self._kept):
            self._kept.pop(each).close()

    def _run(self, attempt):
        self._let_go(attempt)
        super()._run(attempt)

    def _let_go(self, attempt):
        if kept := self._kept.pop(attempt.id, None):
            kept.close()


class DescriptorPerWaiting(KeepsOfEachThatWaits):
    def keep(self, kept):
        kept.callback(os.close, os.open(os.devnull, os.O_RDONLY))


class ThreadPerWaiting(KeepsOfEachThatWaits):
    def keep(self, kept):
        over = threading.Event()
        threading.Thread(target=over.wait, daemon=True).start()
        kept.callback(over.set)
