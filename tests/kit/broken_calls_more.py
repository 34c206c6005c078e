"""Engines that get wrong what `launch` is given: names, clusters, priorities, a long queue."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time

import attrs
from broken_engines import Engine
from broken_surroundings import SCRIPT
from good_engines import FreshProcesses

from crystalmath.errors import EngineUnavailable


class RunsHereByTable(Engine):
    """Looks a cluster up in its tables, which do not have one that was taken out."""

    def runs_here(self, cluster):
        return {"local": True, **dict.fromkeys(self.settings.clusters, True)}[cluster]


class UnknownClusterIsAway(Engine):
    """Says that it cannot be reached when one attempt is for a cluster that was taken out."""

    start_s = 10.0

    def launch(self, attempts):
        for each in attempts:
            if each.cluster not in self.clusters():
                raise EngineUnavailable(f"the cluster {each.cluster} does not answer")
        return super().launch(attempts)


class NamesUnquoted(FreshProcesses):
    """Gives the job's name to a shell as it is."""

    start_s = 20.0

    def __init__(self, settings):
        super().__init__(settings)
        self._names = {}

    def launch(self, attempts):
        self._names |= {str(each.directory): each.name or "" for each in attempts}
        return super().launch(attempts)

    def _run(self, directory):
        command = shlex.join([sys.executable, "-P", "-c", SCRIPT, directory])
        name = self._names.pop(directory, "")
        subprocess.run(f"JOB_NAME={name} exec {command}", shell=True, check=False)


class SameNameOnce(Engine):
    """Tags its work with the job's name, where it has one, and has one of each."""

    start_s = 30.0
    crew = 2

    def __init__(self, settings):
        super().__init__(settings)
        self._named = {}

    def launch(self, attempts):
        first = {
            each.id: self._named.setdefault(each.name or each.id, each.id) for each in attempts
        }
        super().launch([each for each in attempts if first[each.id] == each.id])
        return first


class UrgentLast(Engine):
    """Takes a high priority for a late turn, as `nice` has it."""

    def launch(self, attempts):
        return super().launch([attrs.evolve(each, priority=-each.priority) for each in attempts])


class RingBuffer(Engine):
    """Has room for 128 that wait, declares 1000, and drops what is more, which it calls queued."""

    start_s = 30.0

    def launch(self, attempts):
        given = super().launch(attempts)
        with self._queue.mutex:
            del self._queue.queue[128:]
        return given


class StopsOneByOne(Engine):
    """Cancels at its end what waits, by a command for each, which takes a while."""

    def stop(self):
        for _ in list(self._queued):
            time.sleep(0.4)  # scancel NUMBER
        super().stop()
