"""Seeded lives of jobs: whatever happens to them, and in which order, they keep the promises."""

from __future__ import annotations

import contextlib
import errno

from crystalmath.errors import BadFile
from crystalmath.jobs.life import ATTEMPTS, PASS_ATTEMPTS
from crystalmath.models import JobState

from .simulated_owner import JOBS, LEASE_S, SimulatedHost
from .world import MOST_PASSES, NODES, World

STEPS = 60
#: How long it takes at most until all jobs have ended once nothing goes wrong any more, in seconds.
QUIET_S = 1200.0
GARBAGE = (b"", b"\0" * 40, b'{"format": 1}\n', b"garb")


class Life:
    """One seeded life of a home with a few jobs."""

    def __init__(self, seed):
        self.world = World(seed)
        self.random = self.world.random
        self.trace: list[str] = []

    def run(self):
        rules = [rule for rule, weight in RULES for _ in range(weight)]
        for _ in range(STEPS):
            rule = self.random.choice(rules)
            self.trace.append(f"{self.world.time:.1f} {rule.__name__}")
            rule(self)
            self.check()
        self.quieten()
        self.check_ends()

    # --- what happens ---

    def submit(self):
        # Several at once, so that there are some to pack.
        for _ in range(self.random.randrange(1, 6) if self.world.packs else 1):
            self.submit_one()

    def submit_one(self):
        if len(self.world.ledger.rows) < (8 if self.world.packs else 3):
            job_id = self.world.new_job()
            if self.random.random() < 0.2:
                self.world.failing.add(job_id)
            if self.random.random() < 0.3:
                self.world.flows.add(job_id)
            if self.random.random() < 0.1:
                self.world.slow.add(job_id)
            key = f"key {len(self.world.keys)}"
            self.world.keys.append(key)
            self.world.act(lambda owner: owner.submit(job_id, key))

    def submit_again(self):
        # Whoever had no answer does so, and whoever forgot that he had one.
        if self.world.keys:
            job_id, key = self.world.new_job(), self.random.choice(self.world.keys)
            self.world.act(lambda owner: owner.submit(job_id, key))

    def turn(self):
        self.world.act(lambda owner: owner.turn())

    def begin(self):
        self.world.begin()

    def drop(self):
        self.world.begin(drop=True)

    def launch_twice(self):
        owner = self.world.owner
        if owner is not None and owner.queue:
            owner.queue.append(owner.queue[0])

    def work(self):
        if self.world.workers:
            self.world.work(self.random.choice(self.world.workers))

    def kill_worker(self):
        if self.world.workers:
            worker = self.random.choice(self.world.workers)
            self.world.kill(worker, leaves=self.random.random() < 0.5)

    def publish(self):
        if self.world.ended:
            self.world.publish(self.random.choice(self.world.ended))

    def kill_publisher(self):
        if self.world.ended:
            self.world.kill_publisher(self.random.choice(self.world.ended))

    def cut_power(self):
        if self.world.several_hosts:
            return
        # Soon after something has ended, as is rare by itself, and perhaps once it is on record.
        self.new_owner()
        self.submit()
        for _ in range(self.random.randrange(6)):
            self.turn()
            self.begin()
        for worker in list(self.world.workers):
            self.world.work(worker)
        for worker in list(self.world.ended):
            for _ in range(self.random.randrange(3)):
                if worker in self.world.ended:
                    self.world.publish(worker)
            if worker in self.world.ended and self.random.random() < 0.5:
                self.world.kill_publisher(worker)
        for _ in range(self.random.randrange(4)):
            self.world.let_pass(0.5)
            self.turn()
        self.world.cut_power()

    def damage_journal(self):
        """Have a journal end early; what it told of those that it lacks is not known any more."""
        if self.world.disk.journals:
            journal = self.random.choice(list(self.world.disk.journals.values()))
            kept = self.random.randrange(len(journal.records) + 1)
            for path, attempt, _ in journal.records[kept:]:
                self.world.damaged.add(path.rpartition("/")[2])
                self.world.disk.published.pop((path, attempt), None)
            self.world.disk.tear(journal, kept)

    def cancel(self):
        if job_id := self.some_job():
            self.world.cancelled.add(job_id)

            def cancel(owner):
                self.world.ledger.note_cancel(job_id, self.world.time)
                if owner.driver.follows(job_id):
                    owner.driver.cancel(job_id)

            self.world.act(cancel)

    def cancel_by_stranger(self):
        if job_id := self.some_job():
            self.world.cancel_by_stranger(job_id)

    def look(self):
        if job_id := self.some_job():
            self.world.look(job_id)

    def kill_owner(self):
        self.world.kill_owner()

    def crash_soon(self):
        self.world.disk.crash_in = self.random.randrange(8)

    def cut_off(self):
        busy = [worker.process.host for worker in self.world.workers]
        self.world.cut_off(self.random.choice(busy or self.world.nodes))
        for _ in range(self.random.choice((0, 0, 40))):  # also for longer than several leases
            self.world.let_pass(LEASE_S / 10)
            self.turn()
            self.world.begin()
            self.check()

    def connect(self):
        if self.world.cut:
            self.world.cut.pop(self.random.choice(sorted(self.world.cut)))

    def power_off(self):
        if self.world.several_hosts:
            self.world.power_off(self.random.choice(NODES))

    def stall_owner(self):
        if self.world.several_hosts:
            self.world.stall_owner()

    def resume_owner(self):
        self.world.resume_owner()

    def replace_owner(self):
        """Have another take the place of an owner that stands still, and that one go on then."""
        if self.world.several_hosts and self.world.stalled is None:
            self.stall_owner()
            self.new_owner()
            for _ in range(15):  # longer than a lease
                self.world.let_pass(LEASE_S / 10)
                self.world.act(lambda owner: owner.take_over())
                self.turn()
                self.begin()
                self.check()
            self.resume_owner()

    def new_owner(self):
        if self.world.owner is None:
            self.world.begin_owner()
            self.world.act(lambda owner: owner.take_over())

    def time_passes(self):
        self.world.let_pass(self.random.choice((0.1, 0.5, 1.5, 6.0, 20.0)))

    def set_clock(self):
        self.world.clock_ahead_s += self.random.choice((-2e5, 1e5))

    def unreadable(self):
        job_id = self.some_job()
        places = [""]
        if job_id:
            directory = str(JOBS / job_id)
            files = [f"{directory}/{name}" for name in self.files_of(job_id)]
            places += [directory, *self.random.sample(files, min(len(files), 2))]
        path = self.random.choice(places)
        number = self.random.choice((errno.EACCES, errno.EIO, errno.ESTALE))
        self.world.disk.unreadable[path] = (self.world.time + self.random.random() * 3, number)

    def short_of_descriptors(self):
        # Nothing can be opened or started; what needs no descriptor, as `stat`, works.
        self.world.short_until = self.world.time + 60.0

    def damage(self):
        if job_id := self.some_job():
            files = self.world.disk.folders.get(str(JOBS / job_id), {})
            names = sorted(name for name in files if name != "cancel")
            if names:
                name = self.random.choice(names)
                self.hurt(job_id, files, name)

    def hurt(self, job_id, files, name):
        if name.endswith(".outcome"):
            # A result that was read may be damaged afterwards; what was told stays so.
            self.world.damaged.add(job_id)
            self.world.disk.published.pop((str(JOBS / job_id), int(name.split(".")[0])), None)
        elif name.endswith(".prepared"):
            self.world.damaged.add(job_id)  # it is run once more
        files[name] = self.random.choice((*GARBAGE, files[name][: len(files[name]) // 2]))

    def lose_spec(self):
        if job_id := self.some_job():
            self.world.disk.folders.get(str(JOBS / job_id), {}).pop("spec", None)

    def lose_file(self):
        """Remove a claim, an outcome or a cancel: what it told is not known any more."""
        if (job_id := self.some_job()) and (names := self.files_of(job_id)):
            name = self.random.choice(names)
            if name != "cancel":
                self.world.damaged.add(job_id)
            if name.endswith(".claim"):
                self.world.unclaimed.add(job_id)
            if name.endswith(".outcome"):
                self.world.disk.published.pop((str(JOBS / job_id), int(name.split(".")[0])), None)
            del self.world.disk.folders[str(JOBS / job_id)][name]

    def files_of(self, job_id):
        names = self.world.disk.folders.get(str(JOBS / job_id), {})
        return sorted(name for name in names if name.endswith((".claim", ".outcome", "cancel")))

    def remove(self):
        """Remove the folder of a job; perhaps after its supervisor, and not all else, was ended."""
        if (job_id := self.some_job()) and self.random.random() < 0.5:
            for worker in [each for each in self.world.workers if job_id in each.attempt]:
                if self.random.random() < 0.5:
                    self.world.kill(worker, leaves=True)
            self.world.removed.add(job_id)
            self.world.disk.remove(str(JOBS / job_id))

    def some_job(self):
        return self.random.choice(sorted(self.world.ledger.rows) or [None])

    # --- what must hold ---

    def check(self):
        world = self.world
        assert not world.ledger.changed_ends, world.ledger.changed_ends
        early = [told for told in world.ledger.early_ends if told.split()[0] not in world.damaged]
        assert not early, early
        assert not world.disk.twice, world.disk.twice
        assert not world.wronged, world.wronged
        for job_id in world.ledger.rows:
            world.check_alive(job_id)

    def quieten(self):
        world = self.world
        world.disk.crash_in = None
        world.cut.clear()
        world.resume_owner()
        for attempt in [each for each in world.left if each.partition(".")[0] in world.unclaimed]:
            del world.left[attempt]  # nobody finds it; it ends by itself
        self.trace.append(f"{world.time:.1f} quiet")
        end = world.time + QUIET_S
        while world.ledger.unfinished() and world.time < end:
            if world.owner is None:
                world.begin_owner()
            world.act(lambda owner: owner.take_over())
            world.act(lambda owner: owner.turn())
            world.begin()
            for worker in list(world.workers):
                is_slow = worker.attempt.rpartition(".")[0] in world.slow
                if not is_slow or worker.fenced or not self.others():
                    world.work(worker)
            for worker in list(world.ended):
                world.publish(worker)
            self.check()
            world.let_pass(1.0)
            if world.time > end - QUIET_S / 2:
                world.left.clear()  # what is left running ends by itself some time
                assert not self.others(), f"{self.others()} wait for slow ones: {world.slow}"

    def others(self):
        """Return the unfinished jobs that need not wait for slow ones, though they are packed."""
        world = self.world
        left = {row.job_id for row in world.ledger.unfinished()}
        return left - world.slow - world.damaged - world.removed if world.packs else set()

    def check_ends(self):
        world = self.world
        world.disk.unreadable.clear()
        SimulatedHost(world, world.logins[0]).publish_left()  # as who reads a result does
        assert set(world.acknowledged.values()) <= set(world.ledger.rows)
        if world.owner is not None:
            world.check_released(world.owner)
        for job_id, row in world.ledger.rows.items():
            assert row.state.is_terminal(), f"{job_id} is {row.state} for ever ({row.reason})"
            most = MOST_PASSES * PASS_ATTEMPTS if job_id in world.flows else ATTEMPTS
            assert row.attempt <= most
            if job_id not in world.damaged:
                assert not world.running(job_id), f"{job_id} is {row.state}, and something runs"
            self.check_end(job_id, row)

    def check_end(self, job_id, row):
        """Hold what is on record against what was done to the job."""
        world = self.world
        if job_id in world.shown and job_id not in world.removed | world.damaged:
            assert world.shown[job_id] is row.state
        if row.state is JobState.CANCELLED:
            assert job_id in world.cancelled, f"{job_id} was never cancelled"
        if job_id in world.removed or job_id in world.damaged:
            return
        missed = row.error or ""
        if world.was_cut:  # which may take a claim
            missed = missed.replace("its claim was removed", "")
        assert "was removed" not in missed, f"{job_id}: {row.error}"
        assert "the engine lost" not in (row.error or ""), f"{job_id}: {row.error}"
        attempts = [world.of(job_id).outcome(number) for number in range(1, row.attempt + 1)]
        passed = {"lost", "waits"} if job_id in world.flows else {"lost"}
        assert all(outcome["state"] in passed for outcome in attempts[:-1]), attempts
        begun = [(str(JOBS / job_id), number) in world.begun for number in range(1, row.attempt)]
        assert all(begun), f"{job_id}: attempts that had not begun were counted"
        ends = [number for path, number in world.disk.ended if path == str(JOBS / job_id)]
        ends = [number for number in ends if attempts[number - 1]["state"] != "waits"]
        assert len(ends) <= 1, f"{job_id} was run to its end as attempts {ends}"
        last = attempts[-1]
        if job_id in world.flows and row.state is not JobState.COMPLETED:
            assert row.stage == "steps", f"{job_id} has ended with its pass, whatever its steps do"
        if last["state"] == "waits":
            assert row.state is JobState.CANCELLED
        elif last["state"] != "lost":
            assert last["state"] == row.state.value, f"{job_id}: {last}, and reads {row.state}"
        ended = {JobState.COMPLETED, JobState.FAILED}
        if row.state in ended and not world.several_hosts and job_id not in world.flows:
            with contextlib.suppress(BadFile, FileNotFoundError):
                world.of(job_id).read_header()
                # The files alone tell the same end.
                assert world.view(job_id).state is row.state, f"{job_id} is seen otherwise"


RULES = [
    (Life.submit, 4), (Life.submit_again, 1), (Life.turn, 16), (Life.begin, 6), (Life.drop, 1),
    (Life.launch_twice, 1), (Life.work, 3), (Life.kill_worker, 2), (Life.cancel, 1),
    (Life.cancel_by_stranger, 1), (Life.look, 4), (Life.kill_owner, 1), (Life.crash_soon, 2),
    (Life.new_owner, 4), (Life.cut_off, 2), (Life.connect, 2), (Life.power_off, 1),
    (Life.stall_owner, 1), (Life.resume_owner, 1), (Life.replace_owner, 1), (Life.time_passes, 8),
    (Life.unreadable, 2), (Life.short_of_descriptors, 1), (Life.damage, 2), (Life.lose_spec, 1),
    (Life.publish, 4), (Life.kill_publisher, 1), (Life.cut_power, 1), (Life.damage_journal, 1),
    (Life.lose_file, 1), (Life.remove, 1), (Life.set_clock, 4),
]  # fmt: skip


def run(seed):
    """Run one life; what went wrong comes with what replays it."""
    life = Life(seed)
    try:
        life.run()
    except Exception as error:
        told = "\n".join(life.trace)
        raise AssertionError(
            f"life {seed}: {type(error).__name__}: {error}\n"
            f"replay: CRYSTALMATH_LIFE={seed} pytest tests/simulation\n{told}"
        ) from error


def run_all(seeds):
    """Run many lives, until one breaks a promise."""
    for seed in seeds:
        run(seed)
