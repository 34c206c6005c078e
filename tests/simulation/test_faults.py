"""The simulation finds each fault that the life of jobs once had, when it is put back."""

import errno
import logging
import math

import pytest
from attrs import evolve

from crystalmath.engines import handover
from crystalmath.jobs import life, ownership, reading
from crystalmath.jobs.changes import EndProcesses, WriteSpec
from crystalmath.jobs.facts import Engine, Moment
from crystalmath.jobs.reconcile import Job
from crystalmath.models import Capabilities
from crystalmath.running.recovery import Recovery

from . import lives
from .disk import MemoryDirectory
from .simulated_owner import SimulatedHost

#: So many lives find any of them.
LIVES = 1500


@pytest.fixture(autouse=True)
def _quiet():
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def spec_is_not_written_again(patch):
    """`spec` empty or garbage although the attempt was claimed: the next attempt cannot begin."""
    patch.setattr(life, "_restored", lambda *_: [])
    patch.setattr(
        "crystalmath.jobs.ownership._read", lambda directory, _recorded: directory.read_spec()
    )


def unreadable_is_gone(patch):
    """A directory that cannot be read for a second is taken for one that was removed."""

    def is_gone(self):
        return self._disk.is_away(self.path) or self.path not in self._disk.folders

    def has(self, name):
        return not is_gone(self) and name in self._files()

    def header(self):
        if is_gone(self):
            raise FileNotFoundError(errno.ENOENT, "none", self.path)
        return self._checked(self._read("spec")[0])

    patch.setattr(MemoryDirectory, "is_gone", is_gone)
    patch.setattr(MemoryDirectory, "has", has)
    patch.setattr(MemoryDirectory, "read_header", header)


def one_look_is_enough(patch):
    """What was missed once is taken for removed."""
    unreadable_is_gone(patch)
    patch.setattr(life, "GONE_LOOKS", 1)
    patch.setattr(life, "GONE_S", 0.0)


def damaged_outcome_is_waited_for(patch):
    """`N.outcome` empty or cut: nobody can publish another, and the job runs for ever."""
    patch.setattr(
        life, "_without_outcome", lambda record, _outcome, _files, now: life._running(record, now)
    )


def damaged_claim_is_waited_for(patch):
    """`N.claim` garbage and the supervisor dead: the job runs for ever."""
    patch.setattr(
        life, "_without_claim", lambda record, _files, now, _engine: life._running(record, now)
    )


def who_looks_acts(patch):
    """`status` publishes `lost`, and ends processes."""
    patch.setattr(life, "_seen", life._owned)


def who_looks_asks_nothing_of_the_engine(patch):
    """`status` shows cancelled what its owner does not: its engine has not vouched for the end."""
    patch.setattr(life, "_unreachable", lambda _: Engine(None, Capabilities(), reachable=False))


def the_engines_word_replaces_an_outcome(patch):
    """A sound `lost` becomes `failed` because of what the engine says afterwards."""

    def replace(self, attempt, error):
        self.replace_outcome(attempt, {"state": "failed", "error": error, "started": 1.0})

    patch.setattr(MemoryDirectory, "note_ended", replace)


def outcomes_of_the_dead_are_left(patch):
    """An outcome on disk is not adopted: its owner has died."""
    patch.setattr(Recovery, "_settle", lambda *_: None)


def descriptors_end_jobs(patch):
    """Without descriptors for 30 s an attempt is lost six times, and given up."""
    patch.setattr(life, "GIVE_UP_S", 0.0)
    patch.setattr(handover, "RELAUNCH_S", 0.0)


def processes_outlive_their_attempt(patch):
    """The next attempt begins while processes of the lost one are alive."""
    patch.setattr(SimulatedHost, "end_processes", lambda *_: True)


def lost_without_end(patch):
    """A lost attempt is repeated without end."""
    patch.setattr(life, "ATTEMPTS", math.inf)


def forget(patch, step, kind):
    """Have a step of a life decide as it does, but for actions of a kind."""
    decide = getattr(life, step)

    def forgetful(*arguments):
        decision = decide(*arguments)
        kept = [action for action in decision.actions if not isinstance(action, kind)]
        return life.evolve(decision, actions=tuple(kept))

    patch.setattr(life, step, forgetful)


def spec_of_the_next_attempt_is_not_written(patch):
    """The job waits as another attempt that nobody may claim."""
    forget(patch, "_lost", WriteSpec)


def prepared_outcomes_are_left(patch):
    """A recipe that came to its end before the power went, unpublished, runs to its end again."""
    patch.setattr(MemoryDirectory, "publish_left", lambda *_: False)


def processes_outlive_their_directory(patch):
    """The directory of a job is removed, and its processes go on when it is told to have failed."""
    forget(patch, "_without_directory", EndProcesses)


def nothing_is_released(patch):
    """The engine is not told to drop what was cancelled: its allocations wait, and begin."""
    patch.setattr(life, "_release", lambda _record: ())


def who_comes_back_holds_on(patch):
    """An owner that stood still follows what another has taken over meanwhile, for ever."""
    patch.setattr(ownership, "is_of_another", lambda *_: False)
    patch.setattr(reading, "is_of_another", lambda *_: False)


def what_was_taken_over_is_written_down(patch):
    """An owner that stood still before it wrote a job down puts its name over its successor's."""

    def write_first(job):
        job.directory.write_spec(job.header, job.body)
        job.update(written=True)

    patch.setattr(Job, "write_first", write_first)


def waits_by_a_clock_that_is_set(patch):
    """The clock is set back while something is seen several times: it is waited for that long."""
    patch.setattr(SimulatedHost, "moment", lambda self: Moment(self.now(), self.now()))


def flows_end_with_their_pass(patch):
    """A flow is told to have failed or been cancelled while its steps run on."""

    def held(record, decision, files, now, *, owns):
        ended = decision.state.is_terminal()
        return decision if ended else _held(record, decision, files, now, owns=owns)

    _held = life._held
    patch.setattr(life, "_held", held)


def a_pass_is_not_written_again(patch):
    """A flow's owner dies between the record of its next pass and its file: that never begins."""
    read = ownership._read

    def older(directory, recorded):
        return read(directory, recorded and evolve(recorded, attempt=0))

    patch.setattr(ownership, "_read", older)


def long_ones_hold_up_their_parcel(patch):
    """What is packed with a job that takes long waits for it, while workers have nothing to do."""
    patch.setattr(handover, "HELD_UP_S", math.inf)


def all_of_a_parcel_are_released(patch):
    """One of several packed jobs is cancelled, and the engine drops them all."""

    def release(self, job):
        job.update(released=True)
        self._to_release.append(job.parcel.attempt if job.parcel else job.attempt())

    patch.setattr(handover.Handover, "release", release)


#: Each fault, and a life that finds it or comes not long before one that does.
FAULTS = {
    spec_is_not_written_again: 0,
    one_look_is_enough: 0,
    damaged_outcome_is_waited_for: 10,
    damaged_claim_is_waited_for: 20,
    who_looks_acts: 0,
    who_looks_asks_nothing_of_the_engine: 390,
    the_engines_word_replaces_an_outcome: 0,
    outcomes_of_the_dead_are_left: 0,
    descriptors_end_jobs: 0,
    processes_outlive_their_attempt: 0,
    lost_without_end: 90,
    spec_of_the_next_attempt_is_not_written: 0,
    prepared_outcomes_are_left: 80,
    processes_outlive_their_directory: 0,
    nothing_is_released: 0,
    who_comes_back_holds_on: 0,
    what_was_taken_over_is_written_down: 260,
    waits_by_a_clock_that_is_set: 1260,
    flows_end_with_their_pass: 0,
    a_pass_is_not_written_again: 0,
    long_ones_hold_up_their_parcel: 10,
    all_of_a_parcel_are_released: 140,
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_the_simulation_finds_it(fault, monkeypatch):
    fault(monkeypatch)
    with pytest.raises(AssertionError, match="replay: CRYSTALMATH_LIFE="):
        lives.run_all(range(FAULTS[fault], FAULTS[fault] + LIVES))
