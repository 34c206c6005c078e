"""A simulated home: its clock, disk and processes, an engine, and those who own and run jobs.

What decides and acts is real: `life.step`, `ownership`, `Reconciler`, `Driver`, `Handover`,
`Recovery`. Files, clock, processes and engine are not.
"""

from __future__ import annotations

import errno
import json
import logging
import random
import uuid
from pathlib import Path

from attrs import define

from crystalmath.engines.driver import Driver
from crystalmath.errors import BadFile
from crystalmath.jobs.facts import Record
from crystalmath.jobs.host import Host
from crystalmath.jobs.reconcile import request_cancel
from crystalmath.jobs.rundir import attempt_id
from crystalmath.jobs.view import view
from crystalmath.models import Capabilities, JobState, Sighting
from crystalmath.processes import Identity
from crystalmath.service.recovery import Recovery

from .disk import Crash, Disk, MemoryDirectory
from .ledger import Ledger, settings

JOBS = Path("/home/jobs")


class SimulatedHost(Host):
    """One process of the simulated home."""

    def __init__(self, world):
        self.world = world
        self.process = world.start_process()

    identity = property(lambda self: self.process)

    def now(self):
        return self.world.time

    monotonic = now

    def make_room(self):
        pass

    def own_fields(self):
        return self.process.as_dict()

    def is_own(self, owner):
        return bool(owner) and owner.get("pid") == self.process.pid

    def is_orphan(self, owner):
        return not owner or owner["pid"] not in self.world.alive

    def has_processes(self, attempt):
        return attempt in self.world.left or any(
            each.attempt == attempt for each in self.world.workers
        )

    def end_processes(self, attempt):
        return self.world.end_processes(attempt)


@define(eq=False)
class Worker:
    """Somebody who has claimed an attempt, and runs it."""

    process: Identity
    directory: MemoryDirectory
    number: int
    attempt: str


class Owner:
    """A process that owns jobs, with its engine: a driver without threads, and a recovery."""

    capabilities = Capabilities(queue_dies_with_owner=True, drops_queued=True)
    log = logging.getLogger("crystalmath.simulated")

    def __init__(self, world):
        self.world = world
        self.settings = settings(JOBS.parent)
        self.host = SimulatedHost(world)
        self.driver = Driver(self, self.host, world.directory)
        self.driver._start_threads = lambda: None
        self.driver.listeners.append(lambda changes: world.ledger.apply(*changes))
        self.recovery = Recovery(
            world.ledger, lambda _: self, self.driver.follows, JOBS,
            host=self.host, open_directory=world.directory,
        )  # fmt: skip
        self.queue: list[str] = []
        self.released: set[str] = set()

    def submit(self, job_id):
        header = {"engine": "sim", "cluster": "local", "walltime_s": None, "environment": {}}
        owner = self.host.own_fields()
        self.world.ledger.insert(job_id, json.dumps(header) + "\nbody", owner, self.world.time)
        self.world.acknowledged.add(job_id)
        header |= {"job_id": job_id, "attempt": 1, "owner": owner}
        self.driver.add(header, "body", recorded=True)

    def adopt(self, job_id, recorded):
        return self.driver.adopt(job_id, recorded)

    def turn(self):
        self.driver.turn()
        self.driver._handover.turn()

    def take_over(self):
        self.recovery.take_over(self.world.ledger.unfinished())

    # --- its engine ---

    def launch(self, attempts):
        self.world.need_descriptors()
        self.queue += [attempt.id for attempt in attempts]
        return {attempt.id: attempt.id for attempt in attempts}

    def probe(self, attempts):
        running = {worker.attempt for worker in self.world.workers}
        return {
            attempt.id: Sighting(
                "running" if attempt.id in running
                else "queued" if attempt.id in self.queue else "gone"
            )
            for attempt in attempts
        }  # fmt: skip

    def release(self, attempts):
        for attempt in attempts:
            self.released.add(attempt.id)
            while attempt.id in self.queue:
                self.queue.remove(attempt.id)


class World:
    """All there is; what goes wrong in it is raised as an `AssertionError`."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.time = 1000.0
        self.pid = 0
        self.alive: set[int] = set()
        self.disk = Disk(lambda: self.time)
        self.ledger = Ledger(self.disk)
        self.acknowledged: set[str] = set()
        self.cancelled: set[str] = set()
        self.removed: set[str] = set()
        self.failing: set[str] = set()
        self.damaged: set[str] = set()
        self.shown: dict[str, JobState] = {}
        self.workers: list[Worker] = []
        self.left: dict[str, int] = {}  # what dead supervisors left alive, by attempt
        self.short_until = 0.0
        self.owner: Owner | None = None
        self.begin_owner()

    def start_process(self):
        self.pid += 1
        self.alive.add(self.pid)
        return Identity("host", "boot", self.pid, self.pid)

    def directory(self, path):
        return MemoryDirectory(self.disk, self.alive.__contains__, str(path))

    def of(self, job_id):
        return self.directory(JOBS / job_id)

    def need_descriptors(self):
        if self.time < self.short_until and self.random.random() < 0.3:
            raise OSError(errno.EMFILE, "Too many open files")

    def end_processes(self, attempt):
        for worker in [each for each in self.workers if each.attempt == attempt]:
            self.kill(worker, leaves=False)
        if self.left.get(attempt, 0) > 0:
            self.left[attempt] -= 1  # some take their time
            return False
        self.left.pop(attempt, None)
        return True

    # --- owners ---

    def begin_owner(self):
        self.owner = Owner(self)

    def act(self, action):
        """Have the owner do something; it may crash on the way."""
        if self.owner is None:
            return
        try:
            action(self.owner)
        except Crash:
            self.kill_owner()

    def kill_owner(self):
        if self.owner is not None:
            self.alive.discard(self.owner.host.process.pid)
            self.owner = None

    # --- workers ---

    def begin(self, *, drop=False):
        """Have a worker of the engine take what is first in its queue, or lose it."""
        if self.owner is None or not self.owner.queue:
            return
        attempt = self.owner.queue.pop(0)
        if drop or self.time < self.short_until:
            return
        job_id = attempt.rpartition(".")[0]
        directory = self.of(job_id)
        process = self.start_process()
        try:
            number = directory.read_header()["attempt"]
            if not directory.claim(number, process):
                return
        except (OSError, BadFile):
            return
        except Crash:
            self.alive.discard(process.pid)
            return
        self.disk.held.add((directory.path, number))
        self.workers.append(Worker(process, directory, number, attempt_id(job_id, number)))
        self.check_alive(job_id)

    def check_alive(self, job_id):
        running = {each.attempt for each in self.workers if each.attempt.startswith(job_id)}
        running |= {attempt for attempt in self.left if attempt.startswith(job_id)}
        assert len(running) <= 1, f"several attempts of {job_id} are alive: {running}"

    def work(self, worker):
        """Have a worker go on: it heeds a cancel, or finishes."""
        job_id = worker.attempt.rpartition(".")[0]
        state = "failed" if job_id in self.failing else "completed"
        if worker.directory.cancel_requested():
            state = "cancelled"
        error = None if state == "completed" else f"it {state}"
        header = {"state": state, "error": error, "summary": None, "started": self.time}
        self.workers.remove(worker)
        try:
            worker.directory.publish(worker.number, header, b"result")
        except (OSError, Crash):
            self.die(worker)  # its supervisor ends with that

    def die(self, worker):
        self.alive.discard(worker.process.pid)
        self.disk.held.discard((worker.directory.path, worker.number))

    def kill(self, worker, *, leaves):
        self.workers.remove(worker)
        self.die(worker)
        if leaves:
            self.left[worker.attempt] = 1

    # --- who looks, and strangers ---

    def look(self, job_id):
        """Look at a job as `status` does: that changes nothing, and is never taken back."""
        row, writes, alive = self.ledger.rows[job_id], self.disk.writes, len(self.alive)
        place = str(JOBS / job_id)
        record = Record(job_id=job_id, place=place, state=row.state, attempt=row.attempt)
        host = SimulatedHost(self)
        decision = view(self.of(job_id), record, host)
        self.alive.discard(host.process.pid)
        assert not decision.actions, f"who only looks is told to do {decision.actions}"
        assert (self.disk.writes, len(self.alive)) == (writes, alive), "who looks changed something"
        if decision.state.is_terminal() and job_id not in self.damaged | self.removed:
            first = self.shown.setdefault(job_id, decision.state)
            assert first is decision.state, f"{job_id} was {first}, and is {decision.state}"

    def cancel_by_stranger(self, job_id):
        self.cancelled.add(job_id)
        host = SimulatedHost(self)
        try:
            self.ledger.note_cancel(job_id, self.time)
            request_cancel(self.of(job_id), host)
        except (OSError, Crash):
            pass
        self.alive.discard(host.process.pid)

    def new_job(self):
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))
