"""A simulated home: its clock, disk and processes, an engine, and those who own and run jobs.

What decides and acts is real: `life.step`, `ownership`, `Reconciler`, `Driver`, `Handover`,
`Recovery`. Files, clock, processes and engine are not.
"""

from __future__ import annotations

import contextlib
import errno
import random
import uuid

from attrs import define, evolve

from crystalmath.errors import BadFile
from crystalmath.jobs.facts import Engine, Record, Spec
from crystalmath.jobs.heartbeat import Heart
from crystalmath.jobs.life import step
from crystalmath.jobs.reading import read, view
from crystalmath.jobs.reconcile import request_cancel
from crystalmath.jobs.rundir import attempt_id
from crystalmath.models import Capabilities, JobState
from crystalmath.processes import Identity

from .disk import Crash, Disk, MemoryDirectory
from .ledger import Ledger
from .simulated_owner import JOBS, LEASE_S, Owner, SimulatedHost

LOGINS = ("login1", "login2")
NODES = ("node1", "node2", "node3")
#: In seconds.
BEAT_S = LEASE_S / 10
#: Attempts of a flow after which its passes wait no more.
MOST_PASSES = 8
#: For so long an owner that comes back may follow what is not its own any more, at most.
LETS_GO_S = 40


@define(eq=False)
class InTurn:
    """What a worker of the engine was given: its attempts, of which it runs one at a time."""

    attempt: str
    owner: Owner
    where: str
    rest: list[tuple[str, int | None]]
    is_busy: bool = False
    #: Whether its supervisor may write outcomes into a journal.
    together: bool = False

    def is_of(self, attempt, owner):
        return self.attempt == attempt and self.owner is owner


@define(eq=False)
class Worker:
    """Somebody who has claimed an attempt, and runs it."""

    process: Identity
    directory: MemoryDirectory
    number: int
    attempt: str
    parcel: InTurn
    #: Whether it has ended what it ran, because it could not beat.
    fenced: bool = False


class World:
    """All there is; what goes wrong in it is raised as an `AssertionError`."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.time = 1000.0
        #: How far the clock is ahead that people set.
        self.clock_ahead_s = 0.0
        self.pid = 0
        self.alive: set[int] = set()
        self.disk = Disk(lambda: self.time)
        self.ledger = Ledger(self.disk, self.running)
        #: The keys that were submitted, and the job that was answered first to each.
        self.keys: list[str] = []
        self.acknowledged: dict[str, str] = {}
        self.cancelled: set[str] = set()
        self.removed: set[str] = set()
        self.failing: set[str] = set()
        self.flows: set[str] = set()
        #: These run until all others have ended.
        self.slow: set[str] = set()
        self.begun: set[tuple[str, int]] = set()
        self.wronged: list[str] = []
        self.parcels: list[InTurn] = []
        self.damaged: set[str] = set()
        #: Of these a claim was removed: nobody can find what its dead supervisor has left.
        self.unclaimed: set[str] = set()
        self.shown: dict[str, JobState] = {}
        self.workers: list[Worker] = []
        #: Whose outcome is in a journal, and not published yet.
        self.ended: list[Worker] = []
        # What dead supervisors left alive, by attempt: how long its end takes, and whose it was.
        self.left: dict[str, tuple[int, Identity]] = {}
        self.timed_out: set[str] = set()
        self.short_until = 0.0
        self.several_hosts = self.random.random() < 0.5
        #: How many jobs are packed together.
        self.parcel = self.random.choice((None, 2, 3, 8))
        self.packs = self.parcel and not self.several_hosts
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
        self.was_cut = False
        self.boots: dict[str, int] = {}
        #: The hosts that lost their power, by the attempts that ran there.
        self.fell: dict[str, str] = {}
        self.beats: dict[int, Heart] = {}
        self.stalled: Owner | None = None
        self.owner: Owner | None = None
        self.begin_owner()

    def start_process(self, where):
        self.pid += 1
        self.alive.add(self.pid)
        return Identity(where, self.boot_of(where), self.pid, self.pid, "pid:[1]", where)

    def boot_of(self, where):
        return f"boot {self.boots.get(where, 1)} of {where}"

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
        """Return the heart of a process as it stands on the disk: it beats while it can."""
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
            self.fell[worker.attempt] = where
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
        is_long = other is not None and self.random.random() < 0.5
        for _ in range(LETS_GO_S if is_long else 3):
            self.act(lambda owner: owner.turn())
            self.begin()
            if is_long:
                self.let_pass(1.0)
        if is_long and self.owner is not None:
            self.check_let_go(self.owner)
        self.kill_owner()
        self.owner = other

    def check_let_go(self, owner):
        """See that who came back follows no job that another living process owns by now."""
        # What an engine has queued, which no attempt of this world is for so long, it lets go once
        # that begins.
        for job_id in set(owner.driver.unfinished()) - self.damaged:
            try:
                claimed = self.of(job_id).read_header().get("owner") or owner.host.own_fields()
            except (OSError, BadFile):
                continue
            assert owner.host.is_own(claimed) or claimed["pid"] not in self.alive, (
                f"{job_id} is followed by {owner.host.process.pid}, and owned by {claimed['pid']}"
            )

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
        """Have a worker of the engine take what is next, or lose it."""
        between = [each for each in self.parcels if not each.is_busy]
        if between and self.random.random() < 0.7:
            parcel = self.random.choice(between)
            if drop:
                self.parcels.remove(parcel)
            else:
                self.go_on(parcel)
            return
        if self.owner is None or not self.owner.queue:
            return
        attempt = self.owner.queue.pop(0)
        if drop or self.time < self.short_until:
            return
        job_id = attempt.rpartition(".")[0]
        where = self.random.choice([each for each in self.nodes if each not in self.cut])
        rest: list[tuple[str, int | None]] = [(job_id, None)]
        try:
            directory = self.of(job_id)
            rest += directory.parcel(directory.read_header()["attempt"])
        except (OSError, BadFile):
            if self.random.random() < 0.5:
                return  # it cannot be run; or that passes in a moment
        # Those that are alone use no journal as yet; that they might costs the rules nothing.
        together = not self.several_hosts and (len(rest) > 1 or self.random.random() < 0.5)
        self.parcels.append(InTurn(attempt, self.owner, where, rest, together=together))
        self.go_on(self.parcels[-1])

    def has_parcel(self, attempt, owner):
        return any(each.is_of(attempt, owner) for each in self.parcels)

    def go_on(self, parcel):
        """Have a worker begin the next of its attempts that it may."""
        while parcel.rest and not parcel.is_busy:
            job_id, number = parcel.rest.pop(0)
            host = SimulatedHost(self, parcel.where)
            if not self.claim(parcel, job_id, number, host):
                self.alive.discard(host.process.pid)
        if not parcel.rest and not parcel.is_busy:
            self.parcels.remove(parcel)

    def claim(self, parcel, job_id, number, host):
        directory, process = self.directory(JOBS / job_id, host), host.process
        try:
            present = directory.read_header()["attempt"]
            if number not in {None, present} or not directory.claim(present, process):
                return False
        except (OSError, BadFile):
            return False
        except Crash:
            self.begun.add((directory.path, present))  # perhaps its claim was there before
            return False
        self.disk.held.add((directory.path, present))
        self.begun.add((directory.path, present))
        parcel.is_busy = True
        attempt = attempt_id(job_id, present)
        self.workers.append(Worker(process, directory, present, attempt, parcel))
        self.check_alive(job_id)
        return True

    def check_alive(self, job_id):
        workers = [each for each in self.workers if not each.fenced]
        running = {each.attempt for each in workers if each.attempt.startswith(job_id)}
        if job_id not in self.unclaimed:
            running |= {attempt for attempt in self.left if attempt.startswith(job_id)}
        assert len(running) <= 1, f"several attempts of {job_id} are alive: {running}"

    def running(self, job_id):
        """Return the attempts of a job of which something lives that its owner sees."""
        if self.owner is None:
            return set()
        sees = self.owner.host.sees
        workers = [each for each in self.workers if not each.fenced and sees(each.process)]
        running = {each.attempt for each in workers if each.attempt.startswith(job_id)}
        left = {name for name, (_, process) in self.left.items() if sees(process)}
        return running | {name for name in left if name.startswith(job_id)}

    def check_released(self, owner):
        """See that the engine was told to drop what it was given, and what was stopped since."""
        rows = self.ledger.rows
        stopped = {
            job_id
            for job_id, row in rows.items()
            if row.state is JobState.CANCELLED or "its run directory" in (row.error or "")
        }
        for row in rows.values():
            attempt = attempt_id(row.job_id, row.attempt)
            jobs = owner.parcels.get(attempt, set())
            # Of several one may have run: then nothing of it waits.
            is_due = attempt in (owner.launched if len(jobs) < 2 else owner.queue)
            # Of a flow that was stopped between two passes nothing is left with the engine.
            if is_due and jobs and jobs <= stopped and row.stage != "steps":
                assert attempt in owner.released, f"{attempt} was stopped, and is not released"

    def work(self, worker):
        """Have a worker go on: it heeds a cancel, or finishes."""
        if not self.can_write(worker.process):
            return
        job_id = worker.attempt.rpartition(".")[0]
        state = "failed" if job_id in self.failing else "completed"
        if job_id in self.flows and worker.number < MOST_PASSES and self.random.random() < 0.6:
            state = "waits"
        if worker.directory.cancel_requested():
            state = "cancelled"
        if worker.fenced:
            state = "lost"
        error = None if state == "completed" else f"it {state}"
        header = {"state": state, "error": error, "summary": None, "started": self.time}
        self.workers.remove(worker)
        directory = worker.directory
        try:
            ran = state in {"completed", "failed", "waits"}
            if ran and worker.parcel.together and self.random.random() < 0.8:
                directory.journal(worker.number, worker.process, header, b"result")
                self.ended.append(worker)
                self.leave(worker.parcel, lost=False)
                return
            if ran:
                prepared = directory.prepare_outcome(worker.number, header, b"result")
                directory.publish_prepared(worker.number, prepared)
            else:
                directory.publish(worker.number, header)
        except (OSError, Crash):
            pass
        self.die(worker)  # its supervisor ends, with that or some time after
        self.leave(worker.parcel, lost=False)

    def publish(self, worker):
        """Have a supervisor sync its journal, then publish what is in it, then let go of it."""
        journal, directory = self.disk.journals.get(worker.process.pid), worker.directory
        try:
            if journal is None or journal.synced < len(journal.records):
                with self.disk.change():
                    journal.synced = len(journal.records)
            elif (directory.path, f"{worker.number}.outcome") not in self.disk.unsynced:
                with contextlib.suppress(FileNotFoundError):
                    directory.publish_in(worker.number, journal)
                if self.random.random() < 0.5:
                    self.end_publishing(worker)  # before its journal is let go
            else:
                with self.disk.change():
                    self.disk.sync(directory.path)
                    del self.disk.journals[worker.process.pid]
                self.end_publishing(worker)
        except OSError:
            pass  # it is tried again
        except Crash:
            self.end_publishing(worker)

    def end_publishing(self, worker):
        self.ended.remove(worker)
        self.die(worker)

    def kill_publisher(self, worker):
        """Kill a supervisor that may not have written all of its journal."""
        journal = self.disk.journals.get(worker.process.pid)
        if journal is not None and self.random.random() < 0.5:
            self.disk.tear(journal, self.random.randint(journal.synced, len(journal.records)))
        self.end_publishing(worker)

    def cut_power(self):
        """Have all of the only host end at once."""
        self.was_cut = True
        self.kill_owner()
        for worker in list(self.workers):
            self.kill(worker, leaves=False)
        for worker in list(self.ended):
            self.end_publishing(worker)
        self.parcels.clear()
        self.left.clear()
        self.boots[LOGINS[0]] = self.boots.get(LOGINS[0], 1) + 1
        self.disk.cut_power(self.random)

    def leave(self, parcel, *, lost):
        """Have a worker whose supervisor has ended go on with the next, or end with it."""
        parcel.is_busy = False
        if lost or not parcel.rest:
            self.parcels.remove(parcel)

    def die(self, worker):
        self.alive.discard(worker.process.pid)
        self.disk.held.discard((worker.directory.path, worker.number))

    def kill(self, worker, *, leaves):
        self.workers.remove(worker)
        self.die(worker)
        self.leave(worker.parcel, lost=self.random.random() < 0.5)
        if self.random.random() < 0.2:
            self.timed_out.add(worker.attempt)
        if leaves and not worker.fenced:
            self.left[worker.attempt] = (1, worker.process)

    # --- who looks, and strangers ---

    def view(self, job_id):
        """Return what a process sees of a job that knows its files alone."""
        host, place = SimulatedHost(self, self.logins[0]), str(JOBS / job_id)
        self.alive.discard(host.process.pid)
        return view(self.directory(place, host), Record(job_id=job_id, place=place), host)

    def look(self, job_id):
        """Look at a job as `status` does: that changes nothing, and is never taken back."""
        row, writes, alive = self.ledger.rows[job_id], self.disk.writes, len(self.alive)
        place = str(JOBS / job_id)
        if row.waits:
            return  # nobody looks at its files
        flow = row.stage is not None
        told = {"state": row.state, "attempt": row.attempt, "is_flow": flow}
        record = Record(job_id=job_id, place=place, **told)
        host = SimulatedHost(self, self.random.choice(self.logins))
        directory = self.directory(JOBS / job_id, host)
        left = host.left()
        decision = view(directory, record, host, left)
        files = read(directory, record, host, left=left)
        if isinstance(files.spec, Spec):
            files = evolve(files, spec=evolve(files.spec, foreign=False))
        engine = Engine(None, self.capabilities)
        owned = step(record, files, now=host.moment(), engine=engine).state
        self.alive.discard(host.process.pid)
        ended = decision.state.is_terminal() and owned is not decision.state
        assert not ended, f"who looks sees {job_id} {decision.state}, to its owner it is {owned}"
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
