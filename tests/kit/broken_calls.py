"""Engines that start something too early, do not come back, or serve out of turn."""

import importlib
import os
import shlex
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import ClassVar

import attrs
from broken_engines import Engine, Plugin
from broken_surroundings import SCRIPT
from good_engines import FreshProcesses

from crystalmath.errors import EngineUnavailable
from crystalmath.models import Sighting


def block():
    """Wait for somebody, in many short sleeps: see `own_time`."""
    for _ in range(30):
        time.sleep(0.05)


def start():
    """Start a process and a thread, open a port and write a file; nothing of it stays."""
    subprocess.run(["/bin/true"], check=True)
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    socket.create_server(("127.0.0.1", 0)).close()
    Path(os.environ["CRYSTALMATH_HOME"], "note").write_text("x")


class Loading:
    """A plugin that does something when its entry point is loaded."""

    def __init__(self, runner, fault):
        self._runner, self._fault = runner, fault
        self._plugin = None

    def __get__(self, instance, owner):
        if self._plugin is None:
            self._plugin = Plugin(self._runner)
            self._fault()
        return self._plugin


class InEachCall(Engine):
    """Does something in each of the calls that precede a launch."""

    fault = staticmethod(int)

    def __init_subclass__(cls, **keywords):
        super().__init_subclass__(**keywords)
        cls.plugin = Loading(cls, cls.fault)

    def __init__(self, settings):
        super().__init__(settings)
        self.fault()

    def clusters(self):
        self.fault()
        return super().clusters()

    def workers(self):
        self.fault()
        return super().workers()


class SlowInEachCall(InEachCall):
    fault = staticmethod(block)


class StartsInEachCall(InEachCall):
    fault = staticmethod(start)


class BringsItsLibrary(Engine):
    """Imports its library when its plugin is loaded, and tells nobody of the library."""


class BringsNumpy(Engine):
    """Imports what core has, but does not load before it needs it."""


BringsItsLibrary.plugin = Loading(BringsItsLibrary, lambda: importlib.import_module("fake_library"))
BringsNumpy.plugin = Loading(BringsNumpy, lambda: importlib.import_module("numpy"))


class StopHangs(Engine):
    """Waits for ever at its end."""

    def stop(self):
        super().stop()
        threading.Event().wait()


class StopHangsInAnOutage(Engine):
    """Waits at its end for its server to answer."""

    can_be_away = True

    def stop(self):
        super().stop()
        while (self.settings.home / "away").exists():
            time.sleep(0.05)


class IgnoresASecondLaunch(Engine):
    """Takes what it has seen before for done, and says that it took it."""

    start_s = 30.0

    keeps: ClassVar = {"_seen": set}

    def launch(self, attempts):
        new = [attempt for attempt in attempts if attempt.id not in self._seen]
        self._seen |= {attempt.id for attempt in new}
        super().launch(new)
        return {attempt.id: attempt.id for attempt in attempts}


class DeadWorkerIsRunning(Engine):
    """Says running of what failed before it began."""

    start_s = 30.0

    def probe(self, attempts):
        return {
            i: Sighting("running") if s.reason else s for i, s in super().probe(attempts).items()
        }


class MixesUpHandles(Engine):
    """Takes the answers of its library in the wrong order where it asks about many."""

    def probe(self, attempts):
        seen = super().probe(attempts)
        return dict(zip(seen, reversed(seen.values()), strict=True))


class LastComeFirst(Engine):
    """Starts what was launched last first."""

    def __init__(self, settings):
        super().__init__(settings)
        numbers = self._number
        self._number = iter(lambda: -next(numbers), None)


class FewerAtOnce(Engine):
    """Says that it runs one job more at once than it does."""

    start_s = 30.0

    def workers(self):
        return super().workers() + 1


class MoreAtOnce(Engine):
    """Runs one job more at once than it says."""

    def __init__(self, settings):
        super().__init__(settings)
        self._workers += 1

    def workers(self):
        return super().workers() - 1


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

    keeps: ClassVar = {"_names": dict}

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

    keeps: ClassVar = {"_named": dict}

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
