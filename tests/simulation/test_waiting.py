"""Jobs that wait for jobs: ends, retries, cancels, crashes and other owners in any order."""

import gzip
import itertools
import json
import os
import random
import threading
import tracemalloc
import uuid
from unittest.mock import Mock

import pytest
from attrs import evolve

from crystalmath import config
from crystalmath.jobs.changes import Change
from crystalmath.models import JobState, NewJob
from crystalmath.models.job_notes import repeated, step_of
from crystalmath.reading import flow_steps
from crystalmath.reading.current_jobs import Onlooker, Presence
from crystalmath.reading.home_jobs import HomeJobs
from crystalmath.reading.job_answers import in_full
from crystalmath.reading.predecessors import Predecessors
from crystalmath.running.recorder import Recorder
from crystalmath.running.recovery import Recovery
from crystalmath.service import flows as service_flows
from crystalmath.service.dependencies import Waiting
from crystalmath.service.flows import Flows
from crystalmath.submitting.references import References

SEEDS = int(os.environ.get("CRYSTALMATH_LIVES", "300")) // 50
STEPS = 60
ENDS = (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)
BAD = {"failed", "cancelled"}
_ENDED = {"completed", *BAD}


class Crash(BaseException):
    """The process ends here."""


class Process:
    """An owner: what waits here is released by its own code, at the command of the test."""

    def __init__(self, world):
        self.world = world
        self.owner = {"life": world.lives}
        self.host = self
        self.flows = Flows(world.jobs, world.recorder, self, self.stop)
        self.waiting = Waiting(world.jobs, world.recorder, self, self, self.flows)
        self.waiting._thread = object()  # the test takes its turns itself
        self.read_events = self.waiting._read_events
        self.waiting._read_events = self.read
        self.crash_in = None

    def is_own(self, owner):
        return owner == self.owner

    def left(self):
        """Find the jobs that nobody follows: some steps of flows that were taken over."""
        return [job for job in self.world.unfinished() if not self.is_own(job.owner)]

    def take_over(self, jobs):
        ids = [job.job_id for job in jobs]
        self.world.recorder.store.set_owner(ids, self.owner, "taken over", 3.0)
        self.waiting.add([job.job_id for job in jobs if job.waits])

    def turn(self):
        with self.waiting._lock:
            self.waiting._later_at = self.waiting._owners_at = 0.0
        self.waiting._turn()

    def read(self):
        """Read the events; the end of a pass may be marked right after."""
        self.read_events()
        if self.world.random.random() < 0.3:
            self.world.end_pass(late=False)

    def stop(self, job_id):
        self.world.recorder.note_cancel([job_id])
        self.waiting.cancel([job_id])

    def record_steps(self, keys, ask, refused):
        """Stand for the intake: record the steps that have no job yet, all at once."""
        known = {key: job.job_id for key, job in self.world.recorder.store.by_key(keys).items()}
        ids, rows = [], []
        for at, key in enumerate(keys):
            asked = ask(at, ids)
            if key not in known:
                rows.append(self.world.row(asked.parents, key=key, body=json.dumps(asked.body)))
                (flow,) = [one["job_id"] for one in asked.parents if one["role"] == "flow"]
                self.world.called_by[rows[-1].job_id] = max(self.world.outcomes[flow])
            ids.append(known.get(key) or rows[-1].job_id)
        self.crash()
        self.world.insert(rows)
        self.crash()
        return [self.world.state(job_id) for job_id in ids]

    def next_pass(self, flow, row, spec, document):
        """Stand for the intake: check that the pass may begin, and record that it does."""
        self.world.check_pass(flow)
        self.crash()
        self.world.recorder.put_in([(flow, row)])
        self.crash()

    def release(self, jobs):
        """Stand for the intake: check what is released, and record it."""
        world = self.world
        for job in jobs:
            for parent in job.parents:
                world.check_met(parent)
        self.crash()
        ready = [(job, world.released(job)) for job in jobs]
        told = world.recorder.put_in(ready)
        for job in told:
            world.launch(job)
        self.crash()
        released = {job.job_id for job in told}
        return [job.job_id for job in jobs if job.job_id not in released]

    def crash(self):
        if self.crash_in is not None:
            self.crash_in -= 1
            if self.crash_in < 0:
                self.crash_in = None
                raise self.world.random.choice([Crash, OSError])


class World:
    """A job database, and the owners that work on it one after another."""

    def __init__(self, seed, recorder, configured):
        self.random = random.Random(seed)
        self.recorder = recorder
        onlooker = Onlooker(configured.jobs_directory, lambda _: True)
        self.jobs = HomeJobs(configured, recorder, onlooker, self)
        self.lives = seed * 1000
        self.process = Process(self)
        self.jobs.directory = lambda job_id: Passes(self.outcomes.get(job_id, {}))
        self.names = []
        #: What its engines were given, once for each time.
        self.launched = []
        #: What each flow calls, and the outcomes of its passes by their attempt.
        self.programs = {}
        self.outcomes = {}
        #: The pass that has called each step first.
        self.called_by = {}
        self.wrong = []

    def following(self, job_id):
        """Say that every job is followed: its row tells all."""
        return self

    def row(self, parents=(), body="{}", header=None, **more):
        job_id = str(uuid.UUID(int=self.random.getrandbits(128), version=4))
        told = {"job_id": job_id, "recipe": "r", **(header or {})}
        more |= {"specification": f"{json.dumps(told)}\n{body}", "owner": self.process.owner}
        fields = {"job_id": job_id, "recipe": "r", "engine": "e", "spec_hash": ""}
        return NewJob(**fields, created_at=1.0, parents=list(parents), **more)

    def insert(self, rows):
        for known in self.recorder.insert(rows):
            assert not isinstance(known, Exception), known
            self.names.append(known.job_id)
            if known.waits:
                self.process.waiting.add([known.job_id])
            elif known.stage is None:
                self.launch(known)

    def record(self, parents=(), retry_of=None):
        roles = [] if retry_of is None else [{"job_id": retry_of, "role": "retry"}]
        self.insert([self.row([*parents, *roles])])

    def released(self, job):
        parents = [{k: v for k, v in one.items() if k != "awaited"} for one in job.parents]
        fields = {"job_id": job.job_id, "recipe": "r", "engine": "e", "created_at": 1.0}
        return NewJob(**fields, spec_hash="", specification="{}\n{}", parents=parents)

    def launch(self, job):
        """See that a step is begun once, and as the last pass of its flow has called it."""
        self.launched.append(job.job_id)
        if job.job_id not in self.called_by:
            return
        flow, name = step_of(job.parents)
        attempt, last = max(self.outcomes[flow].items())
        called = {call["name"]: call["known"] for call in last["calls"]}
        is_new = called.get(name, "") is None and self.called_by[job.job_id] == attempt
        if not (is_new or called.get(name) == job.job_id):
            self.wrong.append(f"{name} begins, and is not called so")
        others = [one for one in self.steps(flow, name) if one.job_id != job.job_id]
        begun = [one for one in others if one.job_id in self.launched]
        if not all(repeated(one.parents) for one in begun):
            self.wrong.append(f"{name} begins twice")
        if (origin := repeated(self.state(flow).parents)) is not None:
            states = {one.state for one in self.steps(origin, name)}
            if JobState.COMPLETED in states:
                self.wrong.append(f"{name} is computed again")

    def steps(self, flow, name=None):
        steps = self.recorder.store.get_many(list(self.recorder.store.step_states(flow)))
        return [job for job in steps if name in {None, step_of(job.parents)[1]}]

    def check_pass(self, flow):
        """See that a pass may begin: what it needs has ended, and nobody has cancelled its flow."""
        if self.state(flow.job_id).cancel_requested_at is not None:
            self.wrong.append(f"another pass of {flow.job_id} begins, which was cancelled")
        for name in self.outcomes[flow.job_id][flow.attempt]["needs"]:
            tries = self.steps(flow.job_id, name)
            if tries and not any(job.state.is_terminal() for job in tries):
                self.wrong.append(f"another pass begins, and {name} has not ended")

    def check_flows(self):
        """See that no flow has ended before its steps, those apart that somebody ran again."""
        assert not self.wrong, self.wrong
        for flow in self.programs:
            if self.state(flow).state.is_terminal():
                living = [job for job in self.steps(flow) if not job.state.is_terminal()]
                assert all(repeated(job.parents) for job in living), f"{flow} ends before {living}"

    def state(self, job_id):
        return self.recorder.store.get(job_id)

    def tries(self, job_id):
        """Return a job and what runs it again, by whatever way."""
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

    def unfinished(self):
        jobs = [self.state(job_id) for job_id in self.names]
        return [job for job in jobs if not job.state.is_terminal()]

    def is_spare(self, job):
        """Return whether no flow needs a job: a step run again whose flow has ended without it."""
        ended = (flow := step_of(job.parents)) and self.state(flow[0]).state.is_terminal()
        return ended and repeated(job.parents) is not None

    def under_way(self):
        own = [job for job in self.unfinished() if self.process.is_own(job.owner)]
        return [job for job in own if not job.waits and job.stage is None]

    def end(self, job, state):
        if job.cancel_requested_at is not None and self.random.random() < 0.7:
            state = JobState.CANCELLED
        error = None if state is JobState.COMPLETED else "no"
        self.apply(Change(job_id=job.job_id, state=state, at=2.0, error=error))

    def apply(self, change, *, late=True):
        """Record a change; perhaps those that wait are looked at before memory has it."""
        put = self.recorder.recent.put

        def put_late(jobs):
            self.recorder.recent.put = put
            self.process.turn()
            put(jobs)

        if late and self.random.random() < 0.2:
            self.recorder.recent.put = put_late
        try:
            self.recorder.apply(change)
        finally:
            self.recorder.recent.put = put

    # --- flows -------------------------------------------------------------------------------

    def submit_flow(self, retry_of=None):
        """Submit a flow that calls some steps, with references and values of those before."""
        parents, taken = [], []
        if retry_of is not None:
            parents = [{"job_id": retry_of, "role": "retry"}]
            taken, _ = flow_steps.taken_over(self.jobs, parents)
        told = {"pass": 1, "steps": taken}
        row = self.row(parents, header={"flow": told}, stage="pass")
        chance, names = self.random, []
        for number in range(chance.randrange(1, 6)) if retry_of is None else ():
            few = [chance.sample(names, min(len(names), chance.randrange(3))) for _ in range(2)]
            few = {"uses": few[0], "needs": few[1][: chance.randrange(2)]}
            unless = chance.choice([None, *names])
            self.programs.setdefault(row.job_id, []).append(
                {"name": f"step#{number}", "unless": unless, **few}
            )
            names.append(f"step#{number}")
        if retry_of is not None:
            self.programs[row.job_id] = self.programs[retry_of]
        self.outcomes[row.job_id] = {}
        self.insert([row])
        self.apply(Change(job_id=row.job_id, state=JobState.RUNNING, at=1.0))

    def end_pass(self, *, late=True):
        """Have a pass of a flow end, if one is under way; return whether one was."""
        flows = [job for job in self.unfinished() if job.stage == "pass"]
        if own := [job for job in flows if self.process.is_own(job.owner)]:
            flow = self.random.choice(own)
            told = self.outcomes[flow.job_id][flow.attempt] = self.body(flow)
            change = Change(job_id=flow.job_id, state=JobState.COMPLETED, at=2.0)
            if told["state"] != "completed":
                waits = {"attempt": flow.attempt, "waits": True}
                change = Change(job_id=flow.job_id, state=JobState.RUNNING, at=2.0, **waits)
            self.apply(change, late=late)
        return bool(own)

    def count_passes(self):
        return sum(map(len, self.outcomes.values()))

    def body(self, flow):
        """Run the body of a flow, as it was told of its steps; return the outcome of the pass."""
        if flow.cancel_requested_at is not None:
            return {"state": "cancelled", "calls": [], "needs": []}
        header = json.loads(self.recorder.store.specification(flow.job_id).partition("\n")[0])
        known = {each["name"]: each for each in header["flow"]["steps"]}
        ended = {name: each["state"] for name, each in known.items() if each["state"] in _ENDED}
        calls, called, needs = [], [], []
        for step in self.programs[flow.job_id]:
            if ended.get(step["unless"]) in BAD:
                continue
            needs = [name for name in step["needs"] if name in called and name not in ended]
            if needs:
                break
            uses = [name for name in step["uses"] if name in called and ended.get(name) not in BAD]
            given = {name: {"$step": name, "path": []} for name in uses}
            entry = known.get(step["name"])
            if entry is not None and entry["state"] == "waiting":
                # A step run again is on record here without its parameters, which are the same.
                asked = entry["document"].get("parameters", given)
                entry = entry if asked.keys() == given.keys() else None
            call = {"name": step["name"], "recipe": "r", "step": "r", "after": []}
            call |= {"known": entry and entry["job_id"]}
            calls.append({**call, "document": {"atoms": None, "parameters": given}})
            called.append(step["name"])
        else:
            living = [name for name in known if name not in ended and name not in called]
            needs = [name for name in called if name not in ended] or living
        return {"state": "waits" if needs else "completed", "calls": calls, "needs": needs}

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
        if job.job_id in self.programs:
            self.submit_flow(job.job_id)
            return
        awaited = [one for one in job.parents if "awaited" in one or one["role"] == "flow"]
        self.record(
            [{k: v for k, v in one.items() if k != "on_failure"} for one in awaited],
            retry_of=job.job_id,
        )

    def cancel(self):
        left = self.unfinished()
        waiting = [job.job_id for job in left if job.waits or job.stage is not None]
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
        except OSError:
            pass  # its thread tries again
        self.process.crash_in = None

    def restart(self):
        """Have another process take over what waits; it may leave out the steps of a flow."""
        self.lives += 1
        self.process = Process(self)
        some = [job for job in self.unfinished() if not step_of(job.parents)]
        steps = [job for job in self.unfinished() if step_of(job.parents)]
        self.process.take_over(some + [job for job in steps if self.random.random() < 0.7])

    def settle(self):
        """Run all that can run to a good end, and run again what others wait for."""
        for _ in range(200):
            before = self.count_passes()
            self.process.turn()
            self.check_flows()
            self.end_pass()
            if self.count_passes() > before:
                continue
            waiting = [job for job in self.unfinished() if job.waits]
            cancelled = [job for job in waiting if job.cancel_requested_at and job.stage is None]
            assert all(step_of(job.parents) for job in cancelled)
            if jobs := self.under_way():
                for job in jobs:
                    self.end(job, JobState.COMPLETED)
                continue
            if spare := [job for job in self.process.left() if self.is_spare(job)]:
                self.process.take_over(spare)
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


def live(world):
    happens = {world.submit: 3, world.submit_flow: 2, world.finish: 7, world.end_pass: 6}
    happens |= {world.retry: 2, world.cancel: 1, world.turn: 6, world.restart: 1}
    for _ in range(STEPS):
        world.random.choices([*happens], happens.values())[0]()
        world.check_flows()
    world.settle()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_each_job_goes_on_once_when_all_that_it_waits_for_has_ended(recorded, seed):
    world = World(seed, *recorded)
    world.submit()
    live(world)
    assert len(set(world.launched)) == len(world.launched)
    for job_id in world.names:
        job = world.state(job_id)
        assert job.state.is_terminal()
        if job.error is not None and job.error.startswith("it needs job"):
            assert any(one.get("on_failure") == "fail" for one in job.parents)
            assert job_id not in world.launched


def outrun_by_the_log(patch):
    """Who waits for a job is looked at before memory has its end, and never again."""
    put = Waiting.put
    patch.setattr(Waiting, "put", lambda self, jobs: put(self, jobs) or self._ended.clear())


def read_twice(patch):
    """The steps that a pass has called are recorded again by whoever reads its outcome next."""
    numbers = itertools.count()
    patch.setattr(service_flows, "_key", lambda *_: f"key {next(numbers)}")


def released_unread(patch):
    """A step goes on between the end of a pass, which may call it otherwise, and its reading."""
    of_flow = Predecessors.of_flow
    told = "of_flow", lambda self, job, _: of_flow(self, job, lambda flow: flow.waits)
    patch.setattr(Predecessors, *told)


def one_more_pass(patch):
    """A flow that was cancelled is looked at as if it were not."""
    look = Flows.look
    as_before = {"cancel_requested_at": None}
    patch.setattr(Flows, "look", lambda self, flow: look(self, evolve(flow, **as_before)))


def nothing_taken_over(patch):
    """The retry of a flow computes again what has completed."""
    patch.setattr(flow_steps, "taken_over", lambda *_: ([], None))


def steps_left(patch):
    """Who takes over a flow leaves its steps to nobody."""
    patch.setattr(Waiting, "_note_foreign", lambda *_: None)


#: Each fault, and a life that finds it or comes not long before one that does.
FAULTS = {
    outrun_by_the_log: 1098,
    read_twice: 2000,
    released_unread: 3075,
    one_more_pass: 4000,
    nothing_taken_over: 5003,
    steps_left: 6002,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_it_is_found_when_it_is_put_back(recorded, fault, monkeypatch):
    fault(monkeypatch)
    worlds = (World(seed, *recorded) for seed in range(FAULTS[fault], FAULTS[fault] + 200))
    with pytest.raises(AssertionError):
        any(live(world) for world in worlds)


class Passes:
    """The run directory of a flow: the outcomes of its passes, by their attempt."""

    path = "/home/jobs/flow"

    def __init__(self, told):
        self.told = told

    def link_steps(self, links):
        """Make no links: there are no directories."""

    def work(self, attempt):
        return f"{self.path}/{attempt}.work"

    is_to_stop = False

    def request_cancel(self):
        self.is_to_stop = True

    def ended(self, attempt):
        return None

    def note_ended(self, attempt, error):
        """Keep no file: nothing is rebuilt."""

    def is_gone(self):
        return False

    def is_packed(self):
        return False

    def outcome(self, attempt):
        return {"state": self.told[attempt]["state"]}

    def payload(self, attempt):
        return gzip.compress(json.dumps(self.told[attempt]).encode())


class BetweenPasses(Passes):
    """A flow whose first pass has ended, its intake, and its run directory."""

    def __init__(self, world, calls=(), needs=(), steps=(), body="{}"):
        super().__init__({1: {"state": "waits", "calls": calls, "needs": needs}})
        self.id = str(uuid.UUID(int=world.random.getrandbits(128), version=4))
        #: The attempts that its next passes were.
        self.begun = []
        row = {"job_id": self.id, "recipe": "r", "engine": "e", "owner": world.process.owner}
        header = {"job_id": self.id, "recipe": "r", "flow": {"pass": 1, "steps": steps}}
        specification = f"{json.dumps(header)}\n{body}"
        world.recorder.insert(
            [NewJob(**row, spec_hash="", specification=specification, created_at=1.0)]
        )
        waits = Change(job_id=self.id, state=JobState.RUNNING, at=2.0, attempt=1, waits=True)
        began = Change(job_id=self.id, state=JobState.RUNNING, at=1.0)
        world.recorder.apply(began, waits)
        world.jobs.directory = lambda _: self
        self.flows = Flows(world.jobs, world.recorder, self, cancel=None)

    def record_steps(self, keys, ask, refused):
        raise AssertionError([ask(at, keys) for at in range(len(keys))])

    def next_pass(self, flow, row, spec, document):
        self.begun.append(row.attempt)


def test_whoever_has_a_flow_takes_over_its_steps(recorded):
    world = World(SEEDS + 1, *recorded)
    flow = BetweenPasses(world, needs=["step#0"], body=json.dumps("a structure" * 2**18))
    process, taken = world.process, []
    mine, process.owner = process.owner, {"life": "ended"}
    world.record([{"job_id": flow.id, "role": "flow", "step": "step#0"}])
    process.owner = mine
    (step,) = world.names
    process.left = lambda: [world.state(step)]
    process.take_over = taken.extend
    process.waiting._flows = flow.flows
    process.waiting.add([flow.id])
    tracemalloc.start()
    process.turn()
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 2**20  # the specification is in the database
    assert [job.job_id for job in taken] == [step]
    assert flow.begun == []


def test_a_flow_whose_pass_ends_as_it_is_taken_over_goes_on(recorded, monkeypatch):
    recorder, configured = recorded
    world, waiting = World(SEEDS + 4, *recorded), []
    row = world.row(header={"flow": {"pass": 1, "steps": []}}, stage="pass")
    world.insert([evolve(row, owner={})])
    (flow,) = world.names
    recovery = Recovery(
        recorder, None, lambda _: False, configured.jobs_directory, wait=waiting.extend
    )

    def adopt(*_):
        change = {"job_id": flow, "state": JobState.RUNNING, "at": 1.0}
        recorder.apply(Change(**change), Change(**change, attempt=1, waits=True))
        return True

    monkeypatch.setattr(Recovery, "_take_over", adopt)
    assert recovery.take_over([world.state(flow)]) == [flow]
    assert waiting == [flow]


def test_who_leaves_has_its_flows_read_cancelled_also_where_the_record_is_made_anew(recorded):
    world = World(SEEDS + 12, *recorded)
    flow, waiting = BetweenPasses(world), world.process.waiting
    waiting._flows, waiting._thread = flow.flows, None
    waiting._ids[flow.id] = None
    waiting.close(cancel=True)
    assert flow.is_to_stop


def test_a_step_has_ended_as_soon_as_the_event_log_tells(recorded, monkeypatch):
    world = World(SEEDS + 9, *recorded)
    flow = BetweenPasses(world, needs=["step#0"])
    world.record([{"job_id": flow.id, "role": "flow", "step": "step#0"}])
    (step,) = world.names
    before = world.state(step)
    world.apply(Change(job_id=step, state=JobState.COMPLETED, at=2.0), late=False)
    monkeypatch.setattr(world.jobs, "some_jobs", lambda _: [before])
    flow.flows.look(world.state(flow.id))
    assert flow.begun == [2]


def test_a_flow_that_could_not_be_looked_at_to_the_end_is_read_again(recorded):
    world = World(SEEDS + 8, *recorded)
    flow = BetweenPasses(world)
    begin, row = flow.next_pass, world.state(flow.id)

    def cannot(*_):
        raise OSError("the disk is full")

    flow.next_pass = cannot
    with pytest.raises(OSError, match="full"):
        flow.flows.look(row)
    # Its waiting steps are looked at again with it.
    assert not flow.flows.has_read(row)
    waiting = world.process.waiting
    waiting._flows = flow.flows
    waiting._look_at_flow(row)
    assert world.state(flow.id).reason == "cannot go on now, trying again: the disk is full"
    flow.next_pass = begin
    flow.flows.look(row)
    assert (flow.begun, flow.flows.has_read(row)) == ([2], True)


def test_no_step_goes_on_where_the_next_pass_of_its_flow_begins_at_once(recorded):
    world = World(SEEDS + 7, *recorded)
    row = world.row(header={"flow": {"pass": 1, "steps": []}}, stage="pass")
    steps = {"step#0": {}, "step#1": {"uses": ["step#0"]}, "step#2": {"needs": ["step#0"]}}
    defaults = {"uses": [], "needs": [], "unless": None}
    world.programs[row.job_id] = [{**defaults, "name": name, **steps[name]} for name in steps]
    world.outcomes[row.job_id] = {}
    world.insert([row])
    world.apply(Change(job_id=row.job_id, state=JobState.RUNNING, at=1.0), late=False)
    world.end_pass(late=False)
    world.process.turn()
    _, first, second = world.names
    world.apply(Change(job_id=first, state=JobState.COMPLETED, at=2.0), late=False)
    world.process.turn()
    assert world.state(row.job_id).attempt == 2
    assert world.state(second).waits
    world.end_pass(late=False)
    world.process.turn()
    assert not world.state(second).waits


def test_where_a_step_that_was_called_is_not_on_record_one_more_pass_tells(recorded):
    lost = str(uuid.UUID(int=1, version=4))
    new = {"name": "new#0", "known": None, "recipe": "r", "step": "r", "after": ["lost#0"]}
    calls = [{"name": "lost#0", "known": lost}, new]
    steps = [{"name": "lost#0", "job_id": lost, "state": "waiting"}]
    world = World(SEEDS + 2, *recorded)
    flow = BetweenPasses(world, calls, steps=steps)
    flow.flows.look(world.state(flow.id))
    assert flow.begun == [2]


def test_an_end_that_is_on_record_before_it_is_in_memory_is_not_missed(recorded, monkeypatch):
    recorder = recorded[0]
    world = World(SEEDS + 3, *recorded)
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


def test_a_job_that_waits_for_one_that_is_not_on_record_holds_up_no_other(recorded):
    world = World(SEEDS + 6, *recorded)
    lost = str(uuid.UUID(int=2, version=4))
    world.record([{"job_id": lost, "role": "after", "awaited": "ok"}])
    world.record()
    lonely, first = world.names
    world.record([{"job_id": first, "role": "after", "awaited": "ok"}])
    assert Predecessors(world.jobs).held_up([world.state(lonely)]) == {}
    world.end(world.state(first), JobState.COMPLETED)
    world.process.turn()
    assert world.launched == world.names[1:]
    assert world.state(lonely).state is JobState.FAILED
    assert world.state(lonely).error == f"it needs job {lost}: no job has the id '{lost}'"


def test_of_a_long_chain_only_the_end_is_looked_at(recorded, monkeypatch):
    world = World(SEEDS, *recorded)
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
    assert References(world.jobs).expected(parents) is None
    assert Predecessors(world.jobs).outlook(parents).reason == f"waits for job {job_id}"
    first, *others = [row.job_id for row in rows]
    beside = [{"job_id": first, "role": "after", "awaited": "ok"}]
    world.insert([world.row(beside) for _ in range(9)])
    asked = [Mock(wraps=ask) for ask in (world.jobs.some_jobs, world.jobs.retries_of)]
    monkeypatch.setattr(world.jobs, "some_jobs", asked[0])
    monkeypatch.setattr(world.jobs, "retries_of", asked[1])
    ids = [*others, *world.names]
    pages = [world.jobs.some_jobs(ids[at : at + 100]) for at in range(0, len(ids), 100)]

    def held_up():
        """Return what holds up all of them, page by page, and how often others were asked for."""
        before, known = sum(ask.call_count for ask in asked), {}
        found = [job for page in reversed(pages) for job in in_full(world.jobs, page, known)]
        return {job.held_up_by for job in found}, sum(ask.call_count for ask in asked) - before

    told, count = held_up()
    assert told == {None}
    assert count <= 2 * len(pages)
    world.end(world.state(first), JobState.FAILED)
    told, count = held_up()
    assert told == {first}
    assert count <= 3 * len(pages)


def test_several_who_begin_at_once_to_look_have_the_kernel_tell_once(tmp_path, monkeypatch):
    presence, asked = Presence(tmp_path), threading.Semaphore(0)

    def watch(_):
        asked.release()
        return os.eventfd(0, os.EFD_NONBLOCK)  # a user may have too many that the kernel tells

    monkeypatch.setattr(Presence, "_watch", watch)
    several = [threading.Thread(target=presence.begin) for _ in range(2)]
    with presence._lock:  # somebody asks what is there
        for thread in several:
            thread.start()
        assert asked.acquire(timeout=60)
        assert not asked.acquire(timeout=0.5)
    for thread in several:
        thread.join(60)
    assert not asked.acquire(blocking=False)
    presence.close()
