"""Engines that are right, of the kinds that there are; each keeps what it declares.

Beside these: the local engine (threads of its owner), that of `crystalmath engine-template` (an
agent), and the batch engine of the guide.
"""

import contextlib
import gc
import itertools
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import ClassVar

import attrs
import psutil
from broken_engines import Engine
from broken_surroundings import InAProcess

from crystalmath.errors import EngineUnavailable

#: Calls core's worker for each run directory that it reads; standard output is for the answers.
SERVE = """
import contextlib, os, sys
from crystalmath import worker
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
worker.end_with_parent(int(sys.argv[1]))
for line in sys.stdin:
    with contextlib.suppress(Exception):
        worker.run(line.rstrip("\\n"))
    print(file=answers, flush=True)
"""
#: Where quacc seems not to be installed, so that no worker imports it.
LIGHT = str(Path(__file__).parents[1] / "light")


class Good(Engine):
    """Measured by the kit, as engines are of which nothing is known."""

    start_s = None


class FillsUp(Good):
    """Keeps a pool of descriptors, which is full after some jobs."""

    size = 12

    keeps: ClassVar = {"_pool": list}

    def launch(self, attempts):
        missing = self.size - len(self._pool)
        self._pool += [os.open(os.devnull, os.O_RDONLY) for _ in attempts[:missing]]
        return super().launch(attempts)

    def stop(self):
        super().stop()
        while self._pool:
            os.close(self._pool.pop())


class Falters(Good):
    """Cannot be reached each other time that it is asked about attempts, given some or told."""

    start_s = 60.0

    def __init__(self, settings):
        super().__init__(settings)
        self._times = itertools.count()

    def launch(self, attempts):
        self._falter()
        return super().launch(attempts)

    def probe(self, attempts):
        self._falter()
        return super().probe(attempts)

    def release(self, attempts):
        self._falter()
        super().release(attempts)

    def _falter(self):
        if next(self._times) % 2 == 0:
            raise EngineUnavailable("come again")


class LeavesItToPython(Good):
    """Lets go at its end of a socket, in a circle, which the garbage collector closes some day."""

    start_s = 60.0

    def launch(self, attempts):
        # Some day, and not by chance before the kit looks.
        gc.disable()
        if not self._threads:
            self._circle = [socket.create_server(("127.0.0.1", 0))]
            self._circle.append(self._circle)
        return super().launch(attempts)

    def stop(self):
        super().stop()
        self._circle = None


class FreshProcesses(InAProcess):
    """Starts a process for each job."""

    start_s = None


class Processes(InAProcess):
    """Has processes that stay, and each runs one job after the other."""

    start_s = None
    #: Where several start at once, one can stay behind when the owner is killed, as the guide says.
    _turn = threading.Lock()

    keeps: ClassVar = {"_mine": threading.local}

    def _work(self, attempts):
        try:
            super()._work(attempts)
        finally:
            self._put_away()

    def _run(self, directory):
        if not hasattr(self._mine, "process"):
            with self._turn:
                self._mine.process = subprocess.Popen(
                    [sys.executable, "-P", "-c", SERVE, str(os.getpid())],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
        process = self._mine.process
        with contextlib.suppress(BrokenPipeError):
            print(directory, file=process.stdin, flush=True)
        if not process.stdout.readline():
            self._put_away()  # it was killed

    def _put_away(self):
        process = self._mine.__dict__.pop("process", None)
        if process is not None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            process.stdout.close()
            process.wait()


class OneWorker(Processes):
    """Has a single process."""


class Many(Good):
    """Runs many jobs at once."""


class SlowQueue(InAProcess):
    """Lets each job wait for a while before it starts a process for it."""

    start_s = None
    #: In seconds.
    WAIT_S = 2.0

    def wait(self):
        time.sleep(self.WAIT_S)


class Restricted(InAProcess):
    """Declares that its workers have an environment of their own."""

    start_s = None
    capabilities = attrs.evolve(Engine.capabilities, workers_inherit=False)

    def environment(self):
        return {"PATH": os.environ["PATH"], "HOME": "/", "PYTHONPATH": LIGHT}


class Roomy(Good):
    """Runs more at once than its author tells the kit, and cannot say how many."""

    start_s = 60.0

    def __init__(self, settings):
        super().__init__(settings)
        self._workers = 20

    def workers(self):
        return None


class EndsWhatIsReleased(FreshProcesses):
    """Kills what is released with its worker and all that this has started, as schedulers do."""

    start_s = 60.0

    def release(self, attempts):
        super().release(attempts)
        directories = {str(attempt.directory) for attempt in attempts}
        for worker in psutil.Process().children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if directories.intersection(worker.cmdline()):
                    for each in (worker, *worker.children(recursive=True)):
                        each.kill()


class LastOneFirst(Roomy):
    """Has room for all, and begins each a while after it was launched, the last one soonest."""

    keeps: ClassVar = {"_pauses": dict}

    def launch(self, attempts):
        if len(attempts) > 1:
            *others, last = attempts
            self._pauses |= {each.id: 2.0 for each in others} | {last.id: 1.0}
        return super().launch(attempts)

    def _run(self, attempt):
        time.sleep(self._pauses.pop(attempt.id, 0.0))
        super()._run(attempt)


class Strict(Good):
    """Refuses more than it declares that it takes."""

    start_s = 60.0
    capabilities = attrs.evolve(Engine.capabilities, max_queued=10)

    keeps: ClassVar = {"_taken": dict}

    def launch(self, attempts):
        for i in [i for i, each in self._taken.items() if not self._goes_on(each)]:
            del self._taken[i]
        self._taken.update({each.id: each for each in attempts})
        if len(self._taken) > self.capabilities.max_queued:
            raise RuntimeError(f"{len(self._taken)} are too many")
        return super().launch(attempts)

    def release(self, attempts):
        super().release(attempts)
        for each in attempts:
            if not self.has_begun(each):
                self._taken.pop(each.id, None)

    def _goes_on(self, attempt):
        return attempt.directory.exists() and not self.has_ended(attempt)


class Queueless(Good):
    """Takes what it can run at once, and leaves the rest."""

    start_s = 60.0
    capabilities = attrs.evolve(Engine.capabilities, max_queued=2)

    def launch(self, attempts):
        free = self._workers - len(self._queued | self._running)
        return super().launch(attempts[: max(free, 0)])
