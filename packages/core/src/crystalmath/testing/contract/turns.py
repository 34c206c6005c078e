"""Tests that launched attempts run: again, in order, and as many at once as workers."""

from __future__ import annotations

import contextlib
import os
from functools import partial
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, ClassVar

import psutil
import pytest

from crystalmath.testing.attempts import Line
from crystalmath.testing.contract.base import Base, still_unbegun
from crystalmath.testing.contract.hooks import behind_busy_workers
from crystalmath.testing.oracle import TRANSIENT, links
from crystalmath.testing.subject import LEAST_TURN_S
from crystalmath.testing.waiting import eventually, within

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from crystalmath.models import Attempt
    from crystalmath.testing.attempts import Door
    from crystalmath.testing.contract.base import Kit

#: How long an attempt is watched that nobody may begin, in seconds.
WATCH_S = 5.0

#: How many attempts wait on a quick engine, and on a slow one. With more than ten, an engine that
#: sorts numbers as text is found.
WAITING, FEW_WAITING = 12, 3

#: The states that `probe` must not report, by the true state of an attempt.
WRONG = {
    "running": {"gone"},
    "queued": {"gone", "running"},
    "not finished": {"gone"},
    "finished": {"queued", "running"},
    "never launched": {"queued", "running"},
}
_GUIDE = "docs/engine-contract.md"


class Turns(Base):
    """Launches in some order, called by a process of the kit in place of core."""

    guide: ClassVar[str] = "Launch"

    # --- a second launch ---------------------------------------------------------------------

    @pytest.fixture
    def stuck(self, kit: Kit) -> Iterator[Stuck]:
        """Yield an attempt whose worker waits before its claim, until it is killed."""
        go = kit.shared / "go"
        go.touch()
        stuck = Stuck(
            kit.door.write("count_and_wait", count=str(kit.shared / "count"), path=str(go))
        )
        yield stuck
        stuck.let_go()

    def test_launched_again_after_its_worker_was_killed(self, kit: Kit, stuck: Stuck) -> None:
        """A worker was killed before it claimed an attempt: launched again, the attempt runs."""
        kit.needs("workers_here")
        # In an engine of its own, which may lack a worker for a while.
        launcher = kit.owner(A_VARIABLE_OF_THE_OWNER="some words")
        attempt = stuck.attempt
        # Its neighbours in the batch go on, and their states must not be reported for it.
        neighbours = [
            kit.door.write("wait_for", path=str(kit.gate)) for _ in range(kit.engine.workers - 1)
        ]
        handles = kit.door.launch(attempt, *neighbours, by=launcher)
        pid = kit.eventually(stuck.worker, f"no worker called worker.run for {attempt.id}")
        assert pid is not None
        stuck.kill(pid, below=launcher.process.pid)

        def is_over() -> bool:
            seen = kit.door.probe(list(handles), handles, by=launcher)
            state = seen[attempt.job_id][0]
            return kit.oracle.claimed(attempt.job_id) or state not in {"queued", "running"}

        over = f"the worker of {attempt.id} was killed, and probe says that it is under way"
        kit.eventually(is_over, f"{over} ({_GUIDE}, 'What `probe` says')")
        kit.gate.touch()
        # A pool may have lost all its workers, and what they were about to begin.
        lost = [each for each in neighbours if not kit.oracle.claimed(each.job_id)]
        kit.door.launch(attempt, *lost, by=launcher)
        kit.eventually(
            lambda: kit.oracle.claimed(attempt.job_id),
            f"the worker of {attempt.id} was killed before it began; launch took the attempt a "
            f"second time, and nobody began it ({_GUIDE}, 'Ids and handles')",
        )
        assert kit.door.ended(attempt, *neighbours) == ["completed"] * kit.engine.workers
        assert (kit.shared / "count").read_text() == "x"
        if kit.capabilities.workers_inherit:
            path = kit.shared / "go on"
            more = [
                kit.door.write("surroundings", path=str(path)) for _ in range(kit.engine.workers)
            ]
            kit.door.launch(*more, by=launcher)
            # Each worker has one of them if all workers are there again.
            kit.are_begun([each.job_id for each in more])
            path.touch()
            kit.door.ended(*more)
            seen = [kit.oracle.payload(each.job_id)["environment"] for each in more]
            values = {each.get("A_VARIABLE_OF_THE_OWNER") for each in seen}
            assert values == {"some words"}, (
                "after a worker was killed, jobs find A_VARIABLE_OF_THE_OWNER of the process that "
                f"submits to be {values} ({_GUIDE}, 'What a job inherits')"
            )
        launcher.ask("stop")

    # --- many handles ------------------------------------------------------------------------

    @behind_busy_workers
    def test_probe_of_many_in_mixed_states(self, kit: Kit) -> None:
        """`probe` reports the right state for each handle, in any order of the attempts."""
        finished = [kit.door.write("echo") for _ in range(3)]
        handles = kit.door.launch(*finished)
        kit.door.ended(*finished)
        running = [
            kit.door.write("wait_for", path=str(kit.gate)) for _ in range(kit.engine.workers)
        ]
        handles |= kit.door.launch(*running)
        kit.door.started(*running)
        kit.busy.add(each.job_id for each in running)
        queued = [kit.door.write("echo") for _ in range(min(3, kit.room))]
        handles |= kit.door.launch(*queued) if queued else {}
        kinds = {
            "never launched": [kit.door.write("echo") for _ in range(2)],
            "queued": queued[::-1],
            "finished": finished,
            "running": running[::-1],
        }
        mixed = list(filter(None, chain.from_iterable(zip_longest(*kinds.values()))))
        truth = {each.job_id: kind for kind, those in kinds.items() for each in those}
        for attempts in (mixed, mixed[::-1]):
            _check_sightings(kit.door, attempts, truth, handles, kit.engine.limit_s)
        kit.gate.touch()
        assert kit.door.ended(*running, *queued) == ["completed"] * len(running + queued)
        assert not any(kit.oracle.claimed(each.job_id) for each in kinds["never launched"])

    def test_each_of_a_batch_has_its_own_handle(self, kit: Kit, line: Line) -> None:
        """Attempts of a batch end one after another, and each handle shows its own attempt."""
        batch = line.add(kit.engine.workers + min(kit.room, 2))
        handles = kit.door.launch(*batch)
        truth = {each.job_id: "not finished" for each in batch}
        limit = kit.engine.limit_s
        for _ in batch:
            left = [each for each in batch if truth[each.job_id] != "finished"]
            attempt, *_ = eventually(
                partial(line.begun, left), limit, "a worker is free, jobs wait, and none begins"
            )
            line.let_go(attempt)
            kit.door.ended(attempt)
            truth[attempt.job_id] = "finished"
            _check_sightings(kit.door, batch, truth, handles, limit)

    # --- whose turn it is --------------------------------------------------------------------

    @behind_busy_workers
    def test_starts_in_order(self, kit: Kit, line: Line) -> None:
        """With `starts_in_order`, a free worker takes the attempt that was launched first."""
        kit.needs("starts_in_order")
        kit.needs_room(2)
        # In an engine of its own, which has had no task before.
        launcher = kit.owner()
        more = WAITING if kit.engine.turn_s <= LEAST_TURN_S else FEW_WAITING
        first, *others = (
            line.add(kit.engine.workers),
            line.add(1),
            line.add(min(more, kit.room - 1)),
        )
        kit.door.launch(*first, by=launcher)
        kit.door.started(*first)
        kit.busy.add(each.job_id for each in first)
        for some in others:
            kit.door.launch(*some, by=launcher)
        waiting = list(chain.from_iterable(others))
        for number, (leaves, expected) in enumerate(zip(line.attempts, waiting, strict=False)):
            line.let_go(leaves)
            left = waiting[number:]
            begun = eventually(
                partial(line.begun, left),
                kit.engine.limit_s,
                "a worker is free, jobs wait, and none begins",
            )
            assert begun == [expected], (
                f"number {waiting.index(begun[0]) + 1} of those that waited began before number "
                f"{number + 1}, which was launched before it: say starts_in_order=False in "
                f"Capabilities if the engine keeps no order ({_GUIDE}, 'What capabilities promise')"
            )
        line.end()
        launcher.ask("stop")

    @behind_busy_workers
    def test_urgent_ones_are_not_overtaken(self, kit: Kit, line: Line) -> None:
        """With `starts_in_order`, no attempt of lower priority begins before an earlier one."""
        kit.needs("starts_in_order")
        kit.needs_room(2)
        first = line.add(kit.engine.workers)
        kit.door.launch(*first)
        kit.door.started(*first)
        kit.busy.add(each.job_id for each in first)
        waiting = line.add(1, {"priority": 5}) + line.add(1, {"priority": -5})
        for each in waiting:
            kit.door.launch(each)
        line.let_go(first[0])
        begun = kit.eventually(
            partial(line.begun, waiting), "a worker is free, jobs wait, and none begins"
        )
        assert begun == waiting[:1], (
            "an attempt of priority -5 began before one of priority 5 that was launched before it: "
            f"the higher number is the more urgent ({_GUIDE}, 'What capabilities promise')"
        )

    def test_as_many_at_once_as_workers_says(self, kit: Kit, line: Line) -> None:
        """As many jobs run at once, and no more if `workers()` returns a number."""
        self._check_number(kit, line)

    def test_as_many_at_once_after_releases(self, kit: Kit, line: Line) -> None:
        """A released job frees its worker at its end, once, and not at the release."""
        count = kit.shared / "count"
        for turn in (1, 2):
            go = kit.shared / f"go on {turn}"
            running = [
                kit.door.write("count_and_wait", count=str(count), path=str(go))
                for _ in range(kit.engine.workers)
            ]
            kit.door.launch(*running)
            kit.door.started(*running)
            number = turn * kit.engine.workers
            what = "a recipe did not begin"
            kit.eventually(partial(_has_marks, count, number), what)
            kit.door.release(*running)
            go.touch()
            kit.door.over(*running)
        self._check_number(kit, line)

    def _check_number(self, kit: Kit, line: Line) -> None:
        declared = kit.runner.workers() if kit.engine.cluster == "local" else None
        number = kit.engine.workers if declared is None else declared
        who = "EngineUnderTest.workers" if declared is None else "workers()"
        # Core never launches more than `max_queued`.
        attempts = line.add(min(number + 1, kit.runner.capabilities.max_queued))
        kit.door.launch(*attempts)

        def begun() -> int:
            return sum(map(line.has_begun, attempts))

        kit.eventually(
            lambda: begun() >= number,
            lambda: (
                f"{who} says {number}, and {begun()} jobs run at once ({_GUIDE}, 'Who calls what')"
            ),
        )
        if declared is not None and len(attempts) > number:
            (last,) = [each for each in attempts if not line.has_begun(each)] or attempts[-1:]
            assert still_unbegun(kit.oracle, last.job_id, WATCH_S), (
                f"workers() says {number}, and {number + 1} jobs run at once ({_GUIDE}, "
                "'Who calls what')"
            )

    @pytest.fixture
    def line(self, kit: Kit) -> Iterator[Line]:
        """Yield a line of attempts, each of which runs until it is let go."""
        line = Line(kit.door, kit.oracle, kit.shared)
        yield line
        line.end()


class Stuck:
    """An attempt whose specification is a pipe, so that its reader waits and can be found."""

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        self._spec = attempt.directory / "spec"
        self._kept = attempt.directory / "spec.kept"
        self._spec.rename(self._kept)
        os.mkfifo(self._spec, 0o600)
        self._pipe: int | None = os.open(self._spec, os.O_RDWR | os.O_CLOEXEC)

    def worker(self) -> int | None:
        """Return the pid of the process that reads it."""
        name = os.path.realpath(self._spec)
        others = [pid for pid in psutil.pids() if pid != os.getpid()]
        return next((pid for pid in others if name in links(f"/proc/{pid}/fd")), None)

    def kill(self, pid: int, *, below: int) -> None:
        """Kill the worker if it is a process below another; a thread meets an error instead."""
        self._kept.rename(self._spec)
        with contextlib.suppress(*TRANSIENT):
            worker = psutil.Process(pid)
            if below in [each.pid for each in worker.parents()]:
                worker.kill()
        self.let_go()

    def let_go(self) -> None:
        """Close the pipe, so that no reader waits any more."""
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None


def _has_marks(count: Path, number: int) -> bool:
    return count.exists() and len(count.read_text()) == number


def _check_sightings(
    door: Door,
    attempts: list[Attempt],
    truth: Mapping[str, str],
    handles: Mapping[str, str],
    limit_s: float,
) -> None:
    """Probe all attempts at once, until the ended ones are not reported as under way."""
    jobs = [each.job_id for each in attempts]

    wrong: list[tuple[str, str, str]] = []

    def is_decided() -> bool:
        sightings = door.probe(jobs, handles)
        answers = [(job_id, truth[job_id], str(sightings[job_id][0])) for job_id in jobs]
        wrong[:] = [each for each in answers if each[2] in WRONG[each[1]]]
        # An engine may need a while to learn of an end, but of nothing else.
        return not wrong or any(kind != "finished" for _, kind, _ in wrong)

    within(is_decided, limit_s)
    mistakes = [f"{job_id}, which is {kind}, is {state!r}" for job_id, kind, state in wrong]
    assert not wrong, (
        f"probed about {len(jobs)} attempts at once, each with the handle that launch returned, "
        f"probe mixes them up: {'; '.join(mistakes)} ({_GUIDE}, 'Ids and handles')"
    )
