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
from crystalmath.jobs.heartbeat import Heart
from crystalmath.jobs.hearts import Hearts
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
LOGINS = ("login1", "login2")
NODES = ("node1", "node2", "node3")
#: In seconds.
LEASE_S = 60.0
BEAT_S = LEASE_S / 10


class SimulatedHost(Host):
    """One process of the simulated home."""

    def __init__(self, world, where):
        self.world = world
        self.process = world.start_process(where)
        self.listening = Hearts(lambda: world.time)

    identity = property(lambda self: self.process)

    def now(self):
        return self.world.time

    monotonic = now

    def make_room(self):
        pass

    def own_fields(self):
        return self.process.as_dict()

    def rest(self):
        pass

    def is_own(self, owner):
        return bool(owner) and owner.get("pid") == self.process.pid

    lease_s = LEASE_S
    hearts = property(lambda self: self.listening)

    def sees(self, process):
        return process.boot_id == self.process.boot_id

    def knows(self, process):
        """Tell whether a process is alive, as far as this host can know."""
        alive = process.pid in self.world.alive
        return alive if self.sees(process) else self.world.locks(alive)

    def is_orphan(self, owner):
        if not owner:
            return True
        process = Identity.read(owner)
        if self.sees(process):
            return not self.knows(process)
        heard = self.hearts.listen(f"owner {process.pid}", self.world.heart_of(process))
        return heard.for_s >= heard.lease_s

    def has_processes(self, attempt):
        return self.world.left_on(self.process, attempt) or any(
            each.attempt == attempt and self.sees(each.process) for each in self.world.workers
        )

    def end_processes(self, attempt):
        return self.world.end_processes(attempt, self)


@define(eq=False)
class Worker:
    """Somebody who has claimed an attempt, and runs it."""

    process: Identity
    directory: MemoryDirectory
    number: int
    attempt: str
    #: Whether it has ended what it ran, because it could not beat.
    fenced: bool = False


class Owner:
    """A process that owns jobs, with its engine: a driver without threads, and a recovery."""

    log = logging.getLogger("crystalmath.simulated")

    def __init__(self, world):
        self.world = world
        self.capabilities = world.capabilities
        self.settings = settings(JOBS.parent)
        self.host = SimulatedHost(world, world.random.choice(world.logins))
        self.driver = Driver(self, self.host, self.open)
        self.driver._start_threads = lambda: None
        self.driver.listeners.append(lambda changes: world.ledger.apply(*changes))
        self.recovery = Recovery(
            world.ledger, lambda _: self, self.driver.follows, JOBS,
            host=self.host, open_directory=self.open,
        )  # fmt: skip
        self.queue: list[str] = []
        self.released: set[str] = set()

    def open(self, path):
        return self.world.directory(path, self.host)

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
        return {attempt.id: self._see(attempt.id) for attempt in attempts}

    def _see(self, attempt):
        ran = [each for each in self.world.workers if each.attempt == attempt]
        if any(each.process.host in self.world.cut for each in ran):
            # Nothing is heard of that host, and some time it is given up.
            return Sighting("gone", "NODE_FAIL", unseen=True)
        if ran or attempt in self.world.left:
            return Sighting("running")
        return Sighting("queued" if attempt in self.queue else "gone")

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
        # What dead supervisors left alive, by attempt: how long its end takes, and whose it was.
        self.left: dict[str, tuple[int, Identity]] = {}
        self.short_until = 0.0
        self.several_hosts = self.random.random() < 0.5
        self.logins = LOGINS if self.several_hosts else LOGINS[:1]
        self.nodes = (*LOGINS, *NODES) if self.several_hosts else LOGINS[:1]
        #: What a lock tells on another host: nothing, the truth, or that all are alive for ever.
        self.locks = self.random.choice(
            (lambda alive: None, lambda alive: True if alive else None, lambda alive: True)
        )
        self.capabilities = Capabilities(
            queue_dies_with_owner=True,
            drops_queued=True,
            workers_here=not self.several_hosts,
            gone_means_dead=self.several_hosts and self.random.random() < 0.5,
        )
        #: Hosts that the file system is away from, and since when; processes that stand still.
        self.cut: dict[str, float] = {}
        self.still: set[int] = set()
        self.boots: dict[str, int] = {}
        self.beats: dict[int, Heart] = {}
        self.stalled: Owner | None = None
        self.owner: Owner | None = None
        self.begin_owner()

    def start_process(self, where):
        self.pid += 1
        self.alive.add(self.pid)
        return Identity(where, f"boot {self.boots.get(where, 1)} of {where}", self.pid, self.pid)

    def directory(self, path, host=None):
        return MemoryDirectory(self.disk, host, str(path))

    def of(self, job_id):
        return self.directory(JOBS / job_id)

    def need_descriptors(self):
        if self.time < self.short_until and self.random.random() < 0.3:
            raise OSError(errno.EMFILE, "Too many open files")

    def left_on(self, process, attempt):
        return attempt in self.left and self.left[attempt][1].boot_id == process.boot_id

    def end_processes(self, attempt, host):
        for worker in [each for each in self.workers if each.attempt == attempt]:
            if host.sees(worker.process):
                self.kill(worker, leaves=False)
        if self.left_on(host.process, attempt):
            count, process = self.left[attempt]
            if count > 0:
                self.left[attempt] = (count - 1, process)  # some take their time
                return False
            del self.left[attempt]
        return True

    # --- hosts that cannot see each other ---

    def heart_of(self, process):
        """Give the heart of a process as it stands on the disk: it beats while it can."""
        if self.can_write(process):
            self.beats[process.pid] = Heart(str(int(self.time / BEAT_S)), LEASE_S)
        return self.beats.setdefault(process.pid, Heart("0", LEASE_S))

    def can_write(self, process):
        away = process.host in self.cut or process.pid in self.still
        return process.pid in self.alive and not away

    def let_pass(self, seconds):
        """Let time pass; who cannot write for half of a lease ends what it runs."""
        self.time += seconds
        for worker in self.workers:
            since = self.cut.get(worker.process.host, self.time)
            cut_off = self.time - since >= LEASE_S / 2
            worker.fenced = worker.fenced or cut_off or self.has_no_claim(worker)
        for attempt, (_, process) in list(self.left.items()) if self.several_hosts else ():
            if self.owner is None or not self.owner.host.sees(process):
                del self.left[attempt]  # its guardian, or the engine's worker there, has ended it

    def has_no_claim(self, worker):
        """Tell whether a supervisor, when it looks at its claim, finds none of its own."""
        try:
            return worker.directory.claimant(worker.number) != worker.process
        except BadFile:
            return True
        except OSError:
            return False

    def cut_off(self, where):
        """Take the file system away from a node; what runs there goes on."""
        if where in NODES:
            self.cut.setdefault(where, self.time)

    def power_off(self, where):
        for worker in [each for each in self.workers if each.process.host == where]:
            self.kill(worker, leaves=False)
        self.left = {name: each for name, each in self.left.items() if each[1].host != where}
        self.cut.pop(where, None)
        self.boots[where] = self.boots.get(where, 1) + 1

    def stall_owner(self):
        """Have the owner stand still; another may take its jobs over meanwhile."""
        if self.owner is not None and self.stalled is None:
            self.stalled, self.owner = self.owner, None
            self.still.add(self.stalled.host.process.pid)

    def resume_owner(self):
        """Have the one that stood still go on for a while, beside the one that took its place."""
        if self.stalled is None:
            return
        other, self.owner, self.stalled = self.owner, self.stalled, None
        self.still.discard(self.owner.host.process.pid)
        for _ in range(3):
            self.act(lambda owner: owner.turn())
            self.begin()
        self.kill_owner()
        self.owner = other

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
        where = self.random.choice([each for each in self.nodes if each not in self.cut])
        host = SimulatedHost(self, where)
        directory, process = self.directory(JOBS / job_id, host), host.process
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
        workers = [each for each in self.workers if not each.fenced]
        running = {each.attempt for each in workers if each.attempt.startswith(job_id)}
        running |= {attempt for attempt in self.left if attempt.startswith(job_id)}
        assert len(running) <= 1, f"several attempts of {job_id} are alive: {running}"

    def work(self, worker):
        """Have a worker go on: it heeds a cancel, or finishes."""
        if not self.can_write(worker.process):
            return
        job_id = worker.attempt.rpartition(".")[0]
        state = "failed" if job_id in self.failing else "completed"
        if worker.directory.cancel_requested():
            state = "cancelled"
        if worker.fenced:
            state = "lost"
        error = None if state == "completed" else f"it {state}"
        header = {"state": state, "error": error, "summary": None, "started": self.time}
        self.workers.remove(worker)
        directory = worker.directory
        try:
            if state in {"completed", "failed"}:
                prepared = directory.prepare_outcome(worker.number, header, b"result")
                directory.publish_prepared(worker.number, prepared)
            else:
                directory.publish(worker.number, header)
        except (OSError, Crash):
            self.die(worker)  # its supervisor ends with that

    def die(self, worker):
        self.alive.discard(worker.process.pid)
        self.disk.held.discard((worker.directory.path, worker.number))

    def kill(self, worker, *, leaves):
        self.workers.remove(worker)
        self.die(worker)
        if leaves and not worker.fenced:
            self.left[worker.attempt] = (1, worker.process)

    # --- who looks, and strangers ---

    def look(self, job_id):
        """Look at a job as `status` does: that changes nothing, and is never taken back."""
        row, writes, alive = self.ledger.rows[job_id], self.disk.writes, len(self.alive)
        place = str(JOBS / job_id)
        record = Record(job_id=job_id, place=place, state=row.state, attempt=row.attempt)
        host = SimulatedHost(self, self.random.choice(self.logins))
        decision = view(self.directory(JOBS / job_id, host), record, host)
        self.alive.discard(host.process.pid)
        assert not decision.actions, f"who only looks is told to do {decision.actions}"
        assert (self.disk.writes, len(self.alive)) == (writes, alive), "who looks changed something"
        if decision.state.is_terminal() and job_id not in self.damaged | self.removed:
            first = self.shown.setdefault(job_id, decision.state)
            assert first is decision.state, f"{job_id} was {first}, and is {decision.state}"

    def cancel_by_stranger(self, job_id):
        self.cancelled.add(job_id)
        host = SimulatedHost(self, self.random.choice(self.logins))
        try:
            self.ledger.note_cancel(job_id, self.time)
            request_cancel(self.directory(JOBS / job_id, host), host)
        except (OSError, Crash):
            pass
        self.alive.discard(host.process.pid)

    def new_job(self):
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))
