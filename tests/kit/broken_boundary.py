"""Engines that break `launch`, `probe` or `release`."""

import contextlib
import importlib
import itertools
import os
import signal
import threading
import time
from pathlib import Path
from typing import ClassVar

from broken_engines import Engine, declare

from crystalmath import processes, worker
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.models import Sighting


class RunsPastTheClaim(Engine):
    """Runs the recipe itself when an attempt is launched again, whoever has claimed it."""

    keeps: ClassVar = {"_seen": set}

    def launch(self, attempts):
        again = [a for a in attempts if RunDirectory(a.directory).claimed(1) or a.id in self._seen]
        self._seen |= {a.id for a in attempts}
        for attempt in again:
            threading.Thread(target=self._run_here, args=[attempt], daemon=True).start()
        return super().launch(attempts)

    @staticmethod
    def _run_here(attempt):
        from crystalmath.recipes import codec

        header, body = RunDirectory(attempt.directory).read_spec()
        module, _, name = header["recipe"].rpartition(".")
        atoms, parameters = codec.decode_spec(body)
        getattr(importlib.import_module(module), name)(atoms, **parameters)


class DropsEveryTenth(Engine):
    """Takes every tenth attempt, and says that it is queued; nothing else happens to it."""

    start_s = 30.0

    def __init__(self, settings):
        super().__init__(settings)
        self._count = 0
        self._dropped = set()

    def launch(self, attempts):
        for attempt in attempts:
            self._count += 1
            if self._count % 10 == 0:
                self._dropped.add(attempt.id)
        super().launch([a for a in attempts if a.id not in self._dropped])
        return {attempt.id: attempt.id for attempt in attempts}

    def probe(self, attempts):
        dropped = {a.id: Sighting("queued") for a in attempts if a.id in self._dropped}
        return {**super().probe(attempts), **dropped}


class OnlyTheFirst(Engine):
    """Starts only the first of several attempts, and says that it took them all."""

    start_s = 30.0

    def launch(self, attempts):
        super().launch(attempts[:1])
        return {attempt.id: attempt.id for attempt in attempts}

    def probe(self, attempts):
        return {a.id: Sighting("queued") for a in attempts} | {
            i: s for i, s in super().probe(attempts).items() if s.state != "gone"
        }


class BlocksUntilDone(Engine):
    """Comes back from launch when the jobs have ended."""

    def launch(self, attempts):
        for attempt in attempts:
            worker.run(attempt.directory)
            self.notice(attempt.id)
        return {attempt.id: attempt.id for attempt in attempts}


class WaitsForAWorker(Engine):
    """Comes back from launch when a worker has taken the attempts."""

    def launch(self, attempts):
        handles = super().launch(attempts)
        deadline = time.monotonic() + 100
        while not self._queue.empty() and time.monotonic() < deadline:
            time.sleep(0.01)
        return handles


class NumbersAsHandles(Engine):
    """Gives handles that are no strings."""

    def launch(self, attempts):
        return dict.fromkeys(super().launch(attempts), 17)


class OneSpoilsTheBatch(Engine):
    """Refuses a whole batch for the one of it whose directory is gone."""

    def launch(self, attempts):
        for attempt in attempts:
            RunDirectory(attempt.directory).read_header()
        return super().launch(attempts)


class HandlesByJob(Engine):
    """Answers by the job's id, not the attempt's."""

    def launch(self, attempts):
        super().launch(attempts)
        return {attempt.job_id: attempt.id for attempt in attempts}


class HandleOfThisProcess(Engine):
    """Gives handles that only the process that launched can read."""

    start_s = 30.0

    keeps: ClassVar = {"_mine": dict}

    def launch(self, attempts):
        handles = {attempt.id: f"{id(attempt):x}" for attempt in attempts}
        self._mine |= {handle: attempt for attempt, handle in handles.items()}
        super().launch(attempts)
        time.sleep(1.0)  # who was killed before has recorded none
        return handles

    def probe(self, attempts):
        return {a.id: self._see(self._mine[a.handle] if a.handle else a.id) for a in attempts}


class RunsTwice(Engine):
    """Runs what failed once more, before its next job and behind core's back."""

    def _work(self, attempts):
        while (attempt := attempts.get()[2]) is not None:
            if attempt.id not in self._queued:
                continue
            self._running.add(attempt.id)
            self._queued.discard(attempt.id)
            with contextlib.suppress(Exception):
                worker.run(attempt.directory)
                outcome = RunDirectory(attempt.directory).outcome(1) or {}
                if outcome.get("state") == "failed":
                    RunsPastTheClaim._run_here(attempt)
            self._running.discard(attempt.id)
            self.notice(attempt.id)


class QueuedIsGone(Engine):
    """Says gone of what waits in its queue."""

    def probe(self, attempts):
        seen = super().probe(attempts)
        return {i: Sighting("gone") if s.state == "queued" else s for i, s in seen.items()}


class QueuedForEver(Engine):
    """Says queued of all that it is asked about."""

    start_s = 30.0

    def probe(self, attempts):
        return {attempt.id: Sighting("queued") for attempt in attempts}


class RunningForEver(Engine):
    """Says running of what has ended long ago."""

    start_s = 30.0

    keeps: ClassVar = {"_launched": set}

    def launch(self, attempts):
        self._launched |= {a.id for a in attempts}
        return super().launch(attempts)

    def probe(self, attempts):
        return {
            i: Sighting("running") if s.state == "gone" and i in self._launched else s
            for i, s in super().probe(attempts).items()
        }


class ProbeRaises(Engine):
    """Raises for what it does not know."""

    def probe(self, attempts):
        seen = super().probe(attempts)
        for attempt, sighting in seen.items():
            if sighting.state == "gone":
                raise KeyError(attempt)
        return seen


class ProbeStarts(Engine):
    """Starts what it is asked about and does not know."""

    def probe(self, attempts):
        seen = super().probe(attempts)
        self.launch([a for a in attempts if seen[a.id].state == "gone"])
        return super().probe(attempts)


class ProbeNeedsHandle(Engine):
    """Finds nothing without a handle."""

    def probe(self, attempts):
        seen = super().probe(attempts)
        return {a.id: seen[a.id] if a.handle else Sighting("gone") for a in attempts}


class ProbeAsksOneByOne(Engine):
    """Asks its server about one attempt after the other."""

    def probe(self, attempts):
        time.sleep(0.1 * len(attempts))
        return super().probe(attempts)


class ProbeInWords(Engine):
    """Answers with words of its own."""

    def probe(self, attempts):
        words = {"queued": "PENDING", "running": "RUNNING", "gone": "DONE"}
        return {i: Sighting(words[s.state]) for i, s in super().probe(attempts).items()}


class ReleasesAnother(Engine):
    """Drops another attempt than the one it was told to."""

    start_s = 30.0
    capabilities = declare(drops_queued=True)

    def release(self, attempts):
        named = {attempt.id for attempt in attempts}
        for other in sorted(self._queued - named)[:1]:
            self._queued.discard(other)


class ReleasesAll(Engine):
    """Drops its whole queue with the one attempt."""

    start_s = 30.0
    capabilities = declare(drops_queued=True)

    def release(self, attempts):
        self._queued.clear()


class ReleaseRaises(Engine):
    """Raises for what is not in its queue any more."""

    def release(self, attempts):
        for attempt in attempts:
            self._queued.remove(attempt.id)


class ReleaseKillsNeighbours(Engine):
    """Tidies up so thoroughly that other jobs end, too."""

    start_s = 30.0

    def release(self, attempts):
        super().release(attempts)
        for pid in processes.children(os.getpid()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if _is_supervisor(pid):
                    os.kill(pid, signal.SIGKILL)


def _is_supervisor(pid):
    with contextlib.suppress(OSError):
        return b"crystalmath.worker.supervisor" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


class ReleaseDoesNothing(Engine):
    """Declares that it drops what is queued, and keeps it."""

    capabilities = declare(drops_queued=True)

    def release(self, attempts):
        pass


class ReleasesTheFirst(Engine):
    """Drops the first of several attempts, and declares that it drops what is queued."""

    capabilities = declare(drops_queued=True)

    def release(self, attempts):
        super().release([each for each in attempts if each.id in self._queued][:1])


class ReleaseStopsAtAStranger(Engine):
    """Drops those of several attempts that stand before one that it does not know."""

    capabilities = declare(drops_queued=True)

    def release(self, attempts):
        super().release(itertools.takewhile(lambda each: each.id in self._queued, attempts))


class SerialHandles(Engine):
    """Numbers its tasks from 1 in each process."""

    def __init__(self, settings):
        super().__init__(settings)
        self._numbers = itertools.count(1)

    def launch(self, attempts):
        super().launch(attempts)
        return {attempt.id: str(next(self._numbers)) for attempt in attempts}


class NeighboursHandles(Engine):
    """Gives each attempt of a batch the handle of the next one, and goes by handles."""

    start_s = 15.0
    crew = 2

    def launch(self, attempts):
        ids = list(super().launch(attempts))
        return dict(zip(ids, [*ids[1:], *ids[:1]], strict=True))

    def probe(self, attempts):
        return {each.id: self._see(each.handle or each.id) for each in attempts}


class ProbeByCluster(Engine):
    """Asks cluster by cluster, and knows none that was taken out of the configuration."""

    def probe(self, attempts):
        by_cluster = {name: [] for name in self.clusters()}
        for attempt in attempts:
            by_cluster[attempt.cluster].append(attempt)
        seen = {}
        for some in by_cluster.values():
            seen |= super().probe(some)
        return seen


class FirstPageOnly(Engine):
    """Reads the first page of its server's list of tasks alone."""

    PAGE = 50

    keeps: ClassVar = {"_listed": dict}

    def launch(self, attempts):
        self._listed |= dict.fromkeys(attempt.id for attempt in attempts)
        return super().launch(attempts)

    def probe(self, attempts):
        seen = super().probe(attempts)
        active = (each for each in self._listed if self._see(each).state != "gone")
        page = set(itertools.islice(active, self.PAGE))
        return {each: told if each in page else Sighting("gone") for each, told in seen.items()}


class GoneOnItsWay(Engine):
    """Says gone of what has left its queue and is on its way to a worker."""

    keeps: ClassVar = {"_on_its_way": set, "_first": list}

    def _run(self, attempt):
        self._on_its_way.add(attempt.id)
        # The first for longer than a launch of many takes on a busy machine.
        time.sleep(0.3 if self._first else 5.0)
        self._first.append(attempt.id)
        self._on_its_way.discard(attempt.id)
        super()._run(attempt)

    def _see(self, attempt):
        return Sighting("gone") if attempt in self._on_its_way else super()._see(attempt)
