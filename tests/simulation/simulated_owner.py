"""Who owns the jobs of a simulated home, on one of its hosts, and the engine of that process."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

from crystalmath.engines.driver import Driver
from crystalmath.errors import BadFile
from crystalmath.jobs.changes import Change
from crystalmath.jobs.heartbeat import Hearts
from crystalmath.jobs.host import Host
from crystalmath.models import JobState, Sighting
from crystalmath.processes import Identity
from crystalmath.running.recovery import Recovery

from .ledger import settings

JOBS = Path("/home/jobs")
#: In seconds.
LEASE_S = 60.0


_END = {"lost": "cancelled"}


class SimulatedHost(Host):
    """One process of the simulated home."""

    def __init__(self, world, where):
        self.world = world
        self.process = world.start_process(where)
        self.listening = Hearts(lambda: world.time)

    identity = property(lambda self: self.process)

    def now(self):
        return self.world.time + self.world.clock_ahead_s

    def monotonic(self):
        return self.world.time

    def make_room(self):
        pass

    def require_links(self):
        pass

    def sync_entries(self):
        pass

    def left(self):
        found = {}
        for journal in filter(self.is_over, self.world.disk.journals.values()):
            for path, attempt, content in journal.records:
                with contextlib.suppress(OSError):
                    if self.is_writers(journal, path, attempt):
                        found[f"{Path(path).name}.{attempt}"] = content
        return found

    def is_over(self, journal):
        return self.knows(journal.writer) is False

    def is_writers(self, journal, path, attempt):
        claimant = None
        with contextlib.suppress(BadFile):
            claimant = self.world.directory(path, self).claimant(attempt)
        return claimant in {None, journal.writer}

    def publish_left(self):
        disk = self.world.disk
        for pid, journal in list(disk.journals.items()):
            if not self.is_over(journal):
                continue
            journal.synced = len(journal.records)
            with contextlib.suppress(OSError):
                for path, attempt, _ in journal.records:
                    if self.is_writers(journal, path, attempt):
                        with contextlib.suppress(FileNotFoundError):
                            self.world.directory(path, self).publish_in(attempt, journal)
                            disk.sync(path)
                del disk.journals[pid]

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
        # No lock outlives the boot of its own host.
        here = process.host == self.process.host
        return alive if here else self.world.locks(alive)

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

    def sweep(self, attempt, then):
        return self.end_processes(attempt)


class Owner:
    """A process that owns jobs, with its engine: a driver without threads, and a recovery."""

    log = logging.getLogger("crystalmath.simulated")

    def __init__(self, world):
        self.world = world
        self.capabilities = world.capabilities
        self.settings = settings(JOBS.parent, world.parcel)
        self.host = SimulatedHost(world, world.random.choice(world.logins))
        self.driver = Driver(self, self.host, self.open)
        self.driver._start_threads = lambda: None
        self.driver.listeners.append(lambda changes: world.ledger.apply(*changes))
        self.recovery = Recovery(
            world.ledger, lambda _: self, self.driver.follows, JOBS,
            host=self.host, open_directory=self.open,
        )  # fmt: skip
        self.queue: list[str] = []
        #: What it was given, and has not told to be gone.
        self.launched: set[str] = set()
        self.released: set[str] = set()
        #: The jobs of each of these.
        self.parcels: dict[str, set[str]] = {}

    def open(self, path):
        return self.world.directory(path, self.host)

    def submit(self, job_id, key):
        """Submit a job; a key that is known gives the job that it gave, and starts nothing."""
        header = {"engine": "sim", "cluster": "local", "walltime_s": None, "environment": {}}
        if job_id in self.world.flows:
            header["flow"] = {"attempt": 1}
        owner, now = self.host.own_fields(), self.world.time
        recorded = self.world.ledger.insert(job_id, header, "body", key, owner, now)
        assert self.world.acknowledged.setdefault(key, recorded.job_id) == recorded.job_id
        if recorded.job_id != job_id:
            self.recovery.seen([recorded])
            return
        header |= {"job_id": job_id, "attempt": 1, "owner": owner}
        self.driver.add(header, "body", recorded=True)

    def adopt(self, job_id, recorded):
        return self.driver.adopt(job_id, recorded)

    def go_on(self):
        """Have flows go on whose pass has ended: to the next pass, or to their end."""
        ledger = self.world.ledger
        for row in ledger.unfinished():
            if not row.waits or not self.host.is_own(row.owner):
                continue
            try:
                end = self.open(JOBS / row.job_id).outcome(row.attempt)
            except OSError:
                continue
            except BadFile:
                end = None  # one more pass tells the same
            if end is None or end.get("state") in {None, "waits"}:
                end = {"state": "cancelled" if row.cancel_requested_at else "waits"}
            if end["state"] != "waits":
                lost = end["state"] == "lost" and not end.get("cancelled")
                state = JobState.FAILED if lost else JobState(_END.get(end["state"], end["state"]))
                at, error = self.world.time, end.get("error")
                ledger.apply(Change(job_id=row.job_id, state=state, at=at, error=error))
                continue
            ledger.next_pass(row)
            header = ledger.header(row.job_id)
            header |= {"job_id": row.job_id, "attempt": row.attempt + 1}
            header["owner"] = self.host.own_fields()
            self.driver.add(header, "body", recorded=True)

    def turn(self):
        self.go_on()
        self.driver.turn()
        self.driver._handover.turn()

    def take_over(self):
        self.recovery.take_over(self.world.ledger.unfinished())

    # --- its engine ---

    def capabilities_of(self, cluster):
        return self.capabilities

    def workers(self):
        return None

    def runs_here(self, cluster):
        return False

    def launch(self, attempts):
        self.world.need_descriptors()
        for attempt in attempts:
            others = self.open(attempt.directory).parcel(attempt.number)
            self.parcels[attempt.id] = {attempt.job_id, *(job_id for job_id, _ in others)}
        self.queue += [attempt.id for attempt in attempts]
        self.launched |= {attempt.id for attempt in attempts}
        return {attempt.id: attempt.id for attempt in attempts}

    def probe(self, attempts):
        return {attempt.id: self._see(attempt.id) for attempt in attempts}

    def _see(self, attempt):
        ran = [
            each
            for each in self.world.workers
            if each.attempt == attempt or each.parcel.is_of(attempt, self)
        ]
        if cut := {each.process.host for each in ran if each.process.host in self.world.cut}:
            # Nothing is heard of that host, and some time it is given up.
            return self._unseen(cut.pop())
        if ran or attempt in self.world.left or self.world.has_parcel(attempt, self):
            return Sighting("running")
        if attempt in self.queue:
            return Sighting("queued")
        self.launched.discard(attempt)
        if attempt in self.world.fell:
            return self._unseen(self.world.fell[attempt])
        # Of some that had no time left another attempt would have none, either.
        return Sighting("gone", "TIMEOUT", fatal=attempt in self.world.timed_out)

    def _unseen(self, host):
        """Give up a host, of which may be known in which boot it is."""
        known = self.world.random.random() < 0.5
        boot_id = self.world.boot_of(host) if known else None
        return Sighting("gone", "NODE_FAIL", unseen=True, boot_id=boot_id)

    def release(self, attempts):
        for attempt in attempts:
            self.released.add(attempt.id)
            rows = [self.world.ledger.rows[each] for each in self.parcels.get(attempt.id, ())]
            wanted = [
                row.job_id
                for row in rows
                if not (row.state.is_terminal() or row.job_id in self.world.cancelled)
            ]
            if len(rows) > 1 and wanted and attempt.id in self.queue:
                self.world.wronged.append(f"{attempt.id} is released, and {wanted} are wanted")
            while attempt.id in self.queue:
                self.queue.remove(attempt.id)
