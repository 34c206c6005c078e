"""Jobs that wait for jobs: ends, retries, cancels, crashes and other owners in any order."""

import gzip
import json
import os
import random
import uuid

import pytest

from crystalmath import config
from crystalmath.jobs.changes import Change
from crystalmath.models import JobState, NewJob
from crystalmath.service.current_jobs import Onlooker
from crystalmath.service.dependencies import Waiting
from crystalmath.service.flows import Flows
from crystalmath.service.home_jobs import HomeJobs
from crystalmath.service.recorder import Recorder
from crystalmath.service.references import References

SEEDS = int(os.environ.get("CRYSTALMATH_LIVES", "300")) // 30
STEPS = 60
ENDS = (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)


class Crash(BaseException):
    """The process ends here."""


class Process:
    """An owner: what waits here is released by its own code, at the command of the test."""

    def __init__(self, world):
        self.world = world
        self.owner = {"life": world.lives}
        self.host = self
        self.waiting = Waiting(world.jobs, world.recorder, self, self, self)
        self.waiting._thread = object()  # the test takes its turns itself
        self.crash_in = None

    def is_own(self, owner):
        return owner == self.owner

    def left(self):
        """Find no jobs that nobody follows: the test has all taken over at once."""
        return []

    def take_over(self, jobs):
        assert jobs == []

    def turn(self):
        with self.waiting._lock:
            self.waiting._later_at = 0.0
        self.waiting._turn()

    def release(self, jobs):
        """Stand for the intake: check what is released, and record it."""
        world = self.world
        for job in jobs:
            for parent in job.parents:
                world.check_met(parent)
        self.crash()
        ready = [(job, world.released(job)) for job in jobs]
        told = {job.job_id for job in world.recorder.put_in(ready)}
        world.launched += told
        self.crash()
        return [job.job_id for job in jobs if job.job_id not in told]

    def crash(self):
        if self.crash_in is not None:
            self.crash_in -= 1
            if self.crash_in < 0:
                raise Crash


class World:
    """A job database, and the owners that work on it one after another."""

    def __init__(self, recorder, configured, seed):
        self.random = random.Random(seed)
        self.recorder = recorder
        onlooker = Onlooker(configured.jobs_directory, lambda _: True)
        self.jobs = HomeJobs(configured, recorder, onlooker, self)
        self.lives = seed * 1000
        self.process = Process(self)
        self.names = []
        #: What its engines were given, once for each time.
        self.launched = []

    def following(self, job_id):
        """Say that every job is followed: its row tells all."""
        return self

    def record(self, parents=(), retry_of=None):
        roles = [] if retry_of is None else [{"job_id": retry_of, "role": "retry"}]
        job = NewJob(
            job_id=str(uuid.UUID(int=self.random.getrandbits(128), version=4)),
            recipe="r",
            engine="e",
            spec_hash="",
            specification="{}\n{}",
            created_at=1.0,
            owner=self.process.owner,
            parents=[*parents, *roles],
        )
        (known,) = self.recorder.insert([job])
        assert not isinstance(known, Exception), known
        self.names.append(job.job_id)
        if known.waits:
            self.process.waiting.add([job.job_id])
        else:
            self.launched.append(job.job_id)

    def released(self, job):
        parents = [{k: v for k, v in one.items() if k != "awaited"} for one in job.parents]
        fields = {"job_id": job.job_id, "recipe": "r", "engine": "e", "created_at": 1.0}
        return NewJob(**fields, spec_hash="", specification="{}\n{}", parents=parents)

    def state(self, job_id):
        return self.recorder.store.get(job_id)

    def tries(self, job_id):
        """Give a job and what runs it again, by whatever way."""
        return [
            job_id,
            *(
                x
                for r in self.recorder.store.retries([job_id]).get(job_id, ())
                for x in self.tries(r)
            ),
        ]

    def check_met(self, parent):
        if parent.get("awaited") == "any":
            assert self.state(parent["job_id"]).state.is_terminal()
        elif "awaited" in parent:
            states = {self.state(each).state for each in self.tries(parent["job_id"])}
            assert JobState.COMPLETED in states

    def under_way(self):
        jobs = [self.state(job_id) for job_id in self.names]
        return [job for job in jobs if not job.state.is_terminal() and not job.waits]

    def end(self, job, state):
        error = None if state is JobState.COMPLETED else "no"
        self.recorder.apply(Change(job_id=job.job_id, state=state, at=2.0, error=error))

    # --- what happens ------------------------------------------------------------------------

    def submit(self):
        count = self.random.choice([0, 0, 1, 1, 2, 3])
        named = self.random.choices(self.names, k=count) if self.names else []
        fails = {"on_failure": "fail"} if self.random.random() < 0.2 else {}
        self.record(
            {
                "job_id": job_id,
                "role": self.random.choice(["after", "value"]),
                "awaited": self.random.choice(["ok", "ok", "any"]),
                **fails,
            }
            for job_id in named
        )

    def finish(self):
        if jobs := self.under_way():
            self.end(self.random.choice(jobs), self.random.choice(ENDS))

    def retry(self):
        ended = [self.state(job_id) for job_id in self.names]
        if failed := [job for job in ended if job.state in ENDS[1:]]:
            self.retry_one(self.random.choice(failed))

    def retry_one(self, job):
        awaited = [one for one in job.parents if "awaited" in one]
        self.record(
            [{k: v for k, v in one.items() if k != "on_failure"} for one in awaited],
            retry_of=job.job_id,
        )

    def cancel(self):
        waiting = [job_id for job_id in self.names if self.state(job_id).waits]
        if waiting:
            job_id = self.random.choice(waiting)
            self.recorder.note_cancel([job_id])
            if self.random.random() < 0.5:
                self.process.waiting.cancel([job_id])

    def turn(self):
        if self.random.random() < 0.3:
            self.process.crash_in = self.random.randrange(4)
        try:
            self.process.turn()
        except Crash:
            self.restart()
        self.process.crash_in = None

    def restart(self):
        """Have another process take over what waits."""
        self.lives += 1
        self.process = Process(self)
        left = [job.job_id for job in self.recorder.store.unfinished() if job.job_id in self.names]
        self.recorder.store.set_owner(left, self.process.owner, "taken over", 3.0)
        self.process.waiting.add([job_id for job_id in left if self.state(job_id).waits])

    def settle(self):
        """Run all that can run to a good end, and run again what others wait for."""
        for _ in range(200):
            self.process.turn()
            waiting = [job for job_id in self.names if (job := self.state(job_id)).waits]
            assert not any(job.cancel_requested_at for job in waiting)
            if jobs := self.under_way():
                for job in jobs:
                    self.end(job, JobState.COMPLETED)
                continue
            if not waiting:
                return
            wanted = {one["job_id"] for job in waiting for one in job.parents if "awaited" in one}
            again = 0
            for job_id in sorted(wanted):
                tries = [self.state(each) for each in self.tries(job_id)]
                if all(job.state in ENDS[1:] for job in tries):
                    again += 1
                    self.retry_one(tries[-1])
            assert again, waiting
        raise AssertionError([self.state(job_id) for job_id in self.names])


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    configured = config.load({"CRYSTALMATH_HOME": str(home)})
    recorder = Recorder(configured.database_url, configured.jobs_directory)
    yield recorder, configured
    recorder.close()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_each_job_goes_on_once_when_all_that_it_waits_for_has_ended(recorded, seed):
    world = World(*recorded, seed)
    world.submit()
    happens = [world.submit, world.finish, world.retry, world.cancel, world.turn, world.restart]
    weights = [4, 5, 2, 1, 5, 1]
    for _ in range(STEPS):
        world.random.choices(happens, weights)[0]()
    world.settle()
    assert len(set(world.launched)) == len(world.launched)
    for job_id in world.names:
        job = world.state(job_id)
        assert job.state.is_terminal()
        if job.error is not None and job.error.startswith("it needs job"):
            assert any(one.get("on_failure") == "fail" for one in job.parents)
            assert job_id not in world.launched


class BetweenPasses:
    """A flow whose first pass has ended, its intake, and its run directory."""

    path = "/home/jobs/flow"

    def __init__(self, world, calls=(), needs=(), steps=()):
        self.told = {"calls": calls, "needs": needs}
        self.id = str(uuid.UUID(int=world.random.getrandbits(128), version=4))
        #: The attempts that its next passes were.
        self.begun = []
        row = {"job_id": self.id, "recipe": "r", "engine": "e", "owner": world.process.owner}
        header = {"job_id": self.id, "recipe": "r", "flow": {"pass": 1, "steps": steps}}
        specification = f"{json.dumps(header)}\n{{}}"
        world.recorder.insert(
            [NewJob(**row, spec_hash="", specification=specification, created_at=1.0)]
        )
        waits = Change(job_id=self.id, state=JobState.RUNNING, at=2.0, attempt=1, waits=True)
        began = Change(job_id=self.id, state=JobState.RUNNING, at=1.0)
        world.recorder.apply(began, waits)
        world.jobs.directory = lambda _: self
        self.flows = Flows(world.jobs, world.recorder, self, cancel=None)

    def is_gone(self):
        return False

    def outcome(self, attempt):
        return {"state": "waits"}

    def payload(self, attempt):
        return gzip.compress(json.dumps(self.told).encode())

    def record_steps(self, keys, ask, refused):
        raise AssertionError([ask(at, keys) for at in range(len(keys))])

    def next_pass(self, flow, row, spec, document):
        self.begun.append(row.attempt)


def test_whoever_has_a_flow_takes_over_its_steps(recorded):
    world = World(*recorded, SEEDS + 1)
    flow = BetweenPasses(world, needs=["step#0"])
    process, taken = world.process, []
    mine, process.owner = process.owner, {"life": "ended"}
    world.record([{"job_id": flow.id, "role": "flow", "step": "step#0"}])
    process.owner = mine
    (step,) = world.names
    process.left = lambda: [world.state(step)]
    process.take_over = taken.extend
    process.waiting._flows = flow.flows
    process.waiting.add([flow.id])
    process.turn()
    assert [job.job_id for job in taken] == [step]
    assert flow.begun == []


def test_where_a_step_that_was_called_is_not_on_record_one_more_pass_tells(recorded):
    lost = str(uuid.UUID(int=1, version=4))
    new = {"name": "new#0", "known": None, "recipe": "r", "step": "r", "after": ["lost#0"]}
    calls = [{"name": "lost#0", "known": lost}, new]
    steps = [{"name": "lost#0", "job_id": lost, "state": "waiting"}]
    world = World(*recorded, SEEDS + 2)
    flow = BetweenPasses(world, calls, steps=steps)
    flow.flows.look(world.state(flow.id))
    assert flow.begun == [2]


def test_an_end_that_is_on_record_before_it_is_in_memory_is_not_missed(recorded, monkeypatch):
    recorder = recorded[0]
    world = World(*recorded, SEEDS + 3)
    world.record()
    (first,) = world.names
    world.record([{"job_id": first, "role": "after", "awaited": "ok"}])
    world.process.turn()
    put = recorder.recent.put

    def put_late(jobs):
        world.process.turn()
        put(jobs)

    monkeypatch.setattr(recorder.recent, "put", put_late)
    world.end(world.state(first), JobState.COMPLETED)
    monkeypatch.undo()
    world.process.turn()
    assert world.launched == world.names


def test_of_a_long_chain_only_the_end_is_looked_at(recorded):
    world = World(*recorded, SEEDS)
    parents, rows = [], []
    for number in range(1500):
        job_id = str(uuid.UUID(int=2**100 + number, version=4))
        rows.append(
            NewJob(
                job_id=job_id,
                recipe="quacc.recipes.emt.core.relax_job",
                engine="e",
                spec_hash="",
                specification='{}\n{"atoms": null, "parameters": {}}',
                created_at=1.0,
                owner={},
                parents=parents,
            )
        )
        parents = [{"job_id": job_id, "role": "structure", "awaited": "ok"}]
    assert not any(isinstance(row, Exception) for row in world.recorder.insert(rows))
    references = References(world.jobs)
    assert references.expected(parents) is None
    assert references.outlook(parents).reason == f"waits for job {job_id}"
