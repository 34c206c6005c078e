"""Engines whose fault shows only after a while: in a long queue, an outage, the tenth release."""

import contextlib
import itertools
import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import ClassVar

import psutil
from broken_engines import Engine, declare
from broken_surroundings import SCRIPT, AtLaunch, InAProcess
from good_engines import FreshProcesses, Processes

from crystalmath import worker
from crystalmath.errors import EngineUnavailable

#: As that of `good_engines`, and says what went wrong.
TELL = """
import os, sys, traceback
from crystalmath import worker
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
worker.end_with_parent(int(sys.argv[1]))
for line in sys.stdin:
    try:
        worker.run(line.rstrip("\\n"))
    except Exception:
        traceback.print_exc()
    print(file=answers, flush=True)
"""


class LexicalOrder(Engine):
    """Works off its queue by the names of its tasks: task-10 comes before task-9."""

    def __init__(self, settings):
        super().__init__(settings)
        self._number = map("task-{}".format, itertools.count(1))


class ReleaseFreesASlot(Engine):
    """Gives the slot of a job that was cancelled back twice: at its release, and at its end."""

    def __init__(self, settings):
        super().__init__(settings)
        self._most = self._workers
        self._workers += 4  # threads
        self._slots = threading.Semaphore(self._most)
        self._begun = set()

    def workers(self):
        return self._most

    def release(self, attempts):
        super().release(attempts)
        for attempt in attempts:
            if attempt.id in self._begun:
                self._begun.discard(attempt.id)
                self._slots.release()

    def _work(self, attempts):
        while True:
            with self._slots:
                attempt = attempts.get()[2]
                if attempt is None:
                    return
                if attempt.id not in self._queued:
                    continue
                self._running.add(attempt.id)
                self._begun.add(attempt.id)
                self._queued.discard(attempt.id)
                self._run(attempt)
                self._running.discard(attempt.id)
                self.notice(attempt.id)


class DropsTooLate(Engine):
    """Does not look again after it has prepared a worker: what was dropped meanwhile is begun."""

    capabilities = declare(drops_queued=True)

    def _work(self, attempts):
        while (attempt := attempts.get()[2]) is not None:
            if attempt.id not in self._queued:
                continue
            time.sleep(0.3)
            self._running.add(attempt.id)
            self._queued.discard(attempt.id)
            self._run(attempt)
            self._running.discard(attempt.id)
            self.notice(attempt.id)


class NobodyReadsItsErrors(Processes):
    """Has the standard error of its workers in a pipe, and reads it nowhere."""

    start_s = 30.0

    def _run(self, directory):
        if not hasattr(self._mine, "process"):
            with self._turn:
                self._mine.process = subprocess.Popen(
                    [sys.executable, "-P", "-c", TELL, str(os.getpid())],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
        super()._run(directory)

    def _put_away(self):
        process = getattr(self._mine, "process", None)
        super()._put_away()
        if process is not None:
            process.stderr.close()


class ThreadPerFailedConnect(Engine):
    """Has a thread that tries to connect, for each call that found nobody."""

    can_be_away = True

    keeps: ClassVar = {"_over": threading.Event}

    def probe(self, attempts):
        if (self.settings.home / "away").exists():
            threading.Thread(target=self._over.wait, name="reconnect", daemon=True).start()
            raise EngineUnavailable("nobody answers")
        return super().probe(attempts)

    def stop(self):
        super().stop()
        self._over.set()


class AllocationEndsFirst(FreshProcesses):
    """Ends an allocation when the walltime of its job is over after its claim, and not later."""

    start_s = 180.0

    keeps: ClassVar = {"_limits": dict}

    def launch(self, attempts):
        self._limits |= {str(a.directory): a.walltime_s for a in attempts}
        return super().launch(attempts)

    def _run(self, directory):
        command = [sys.executable, "-P", "-c", SCRIPT, directory]
        with subprocess.Popen(command, env=self.environment()) as worker:
            # It takes its time to start, on a machine that is busy.
            while worker.poll() is None and not any(Path(directory).glob("*.claim")):
                time.sleep(0.02)
            try:
                worker.wait(self._limits.get(directory))
            except subprocess.TimeoutExpired:
                for each in psutil.Process(worker.pid).children(recursive=True):
                    # Some end with their parent.
                    with contextlib.suppress(psutil.NoSuchProcess):
                        each.kill()
                worker.kill()


class IgnoresOptions(Engine):
    """Takes from its table what it knows, and looks at nothing else."""

    takes_any_option = True


class IgnoresKeysOfClusters(Engine):
    """Takes from a cluster's table what it knows, and looks at nothing else."""

    takes_any_key = True


class IgnoresWorkerInit(Engine):
    """Has clusters, and runs on all of them what it runs on its own."""

    def _run(self, attempt):
        worker.run(attempt.directory)


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

    keeps: ClassVar = {"_kept": dict}

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
