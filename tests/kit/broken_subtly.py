"""Engines that are broken in ways that show rarely, or elsewhere than one looks first."""

import json
import logging
import os
import resource
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import ClassVar

from broken_engines import Engine, Plugin
from broken_surroundings import AtLaunch, InAProcess
from good_engines import Processes

from crystalmath.hookspecs import hookimpl


class EnvironmentByLines(InAProcess):
    """Hands its environment over as lines ``NAME=value``, as from ``env``."""

    def environment(self):
        lines = "\n".join(f"{name}={value}" for name, value in os.environ.items()).split("\n")
        return dict(line.split("=", 1) for line in lines if "=" in line)


class LowersHardLimit(InAProcess):
    """Takes from jobs the right to raise a limit, which it leaves as it is."""

    def prepare(self):
        for limit in (resource.RLIMIT_STACK, resource.RLIMIT_CORE):
            soft, _ = resource.getrlimit(limit)
            resource.setrlimit(limit, (soft, soft))


class WritesToCache(AtLaunch):
    """Keeps something below ~/.cache, where others keep theirs."""

    def begin(self):
        folder = Path.home() / ".cache/broken-engine"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "index").touch()


class StampsLogRecords(AtLaunch):
    """Has all log records of the user's process made by itself."""

    def begin(self):
        make = logging.getLogRecordFactory()
        logging.setLogRecordFactory(partial(make))


class LosesWorkers(Processes):
    """Has a worker less for each that was killed."""

    start_s = 30.0

    def _run(self, directory):
        super()._run(directory)
        if not hasattr(self._mine, "process"):
            self._running.clear()
            sys.exit()  # this thread


class AsksItsServer(Engine):
    """Finds out by a command whether it can serve, wherever engines are listed."""


class _Asking(Plugin):
    @hookimpl
    def crystalmath_engine_findings(self, settings):
        del settings
        subprocess.run(["/bin/true"], check=True)
        return []


AsksItsServer.plugin = _Asking(AsksItsServer)


class NotesFindings(Engine):
    """Keeps a note of what it has found, wherever engines are listed."""


class _Noting(Plugin):
    @hookimpl
    def crystalmath_engine_findings(self, settings):
        (settings.home / "findings").touch()
        return []


NotesFindings.plugin = _Noting(NotesFindings)


class RecyclesHandles(Engine):
    """Numbers its tasks by the smallest number that is free, as operating systems do."""

    keeps: ClassVar = {"_tasks": dict}

    def launch(self, attempts):
        super().launch(attempts)
        return {attempt.id: self._task(attempt.id) for attempt in attempts}

    def _task(self, attempt):
        over = {n for n, a in self._tasks.items() if self._see(a).state == "gone"}
        number = min(over | {len(self._tasks)} - {n for n in self._tasks if n not in over})
        self._tasks[number] = attempt
        return str(number)

    def probe(self, attempts):
        known = {a.id: self._tasks.get(int(a.handle), a.id) if a.handle else a.id for a in attempts}
        return {each: self._see(task) for each, task in known.items()}


class ThreadPerRelease(Engine):
    """Has a thread wait for each attempt that it was told to drop."""

    keeps: ClassVar = {"_over": threading.Event}

    def release(self, attempts):
        super().release(attempts)
        for _ in attempts:
            threading.Thread(target=self._over.wait, daemon=True).start()

    def stop(self):
        super().stop()
        self._over.set()


class DescriptorPerFailure(InAProcess):
    """Keeps the log of each job that failed open."""

    keeps: ClassVar = {"_logs": list}

    def _run(self, directory):
        super()._run(directory)
        with Path(directory, "1.outcome").open("rb") as outcome:
            state = json.loads(outcome.readline())["state"]
        if state == "failed":
            self._logs.append(Path(directory, "1.outcome").open("rb"))  # noqa: SIM115 - it is the fault

    def stop(self):
        super().stop()
        for log in self._logs:
            log.close()
