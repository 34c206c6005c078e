"""The engine boundary: `launch`, `probe` and `release`, called as core calls them."""

from __future__ import annotations

import shutil
import time
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import pytest

from crystalmath.quacc.runner import generate_job_id
from crystalmath.testing.contract.base import Base, still_unbegun
from crystalmath.testing.contract.busy_workers import behind_busy_workers
from crystalmath.testing.waiting import eventually, own_time

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from crystalmath.models import Attempt
    from crystalmath.testing.contract.base import Call
    from crystalmath.testing.contract.busy_workers import BusyWorkers
    from crystalmath.testing.contract.door import Door
    from crystalmath.testing.oracle import Oracle
    from crystalmath.testing.subject import EngineUnderTest

MANY = 60
#: How long an engine may take to answer a `launch` of what cannot run yet, in seconds.
ANSWER_S = 30.0
#: How long it may take to be asked about 500 attempts, in seconds.
MANY_PROBED_S = 30.0
#: How often it is asked while workers take what was launched, in seconds.
PAUSE_S = 0.1
#: How long nobody must begin what nobody may begin, in seconds.
WATCH_S = 1.0
#: How long after its launch an attempt is dropped that a worker is about to begin, in seconds.
ON_ITS_WAY_S = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)
#: How many attempts without a directory each worker gets at once in the end, and after how long it
#: has had enough of them, in seconds.
REMOVED, REMOVED_S = 64, 10.0
#: How many times a state is asked for that must not change.
LOOKS = 5

_GUIDE = "docs/writing-an-engine.md"

UNDER_WAY = {"queued", "running"}
OVER = {"gone", "unknown"}


class Boundary(Base):
    """Attempts are handed over, looked for and dropped past core, in a process of its own.

    That process refuses handles that are no strings, sightings that are none, and answers about
    attempts that it did not ask about.
    """

    guide: ClassVar[str] = "Who calls what"

    @pytest.fixture(params=["recorded", "unrecorded"])
    def handles(
        self, request: pytest.FixtureRequest
    ) -> Callable[[dict[str, str]], dict[str, str] | None]:
        """Pass on the handles that `launch` gave, or lose them."""
        return lambda given: given if request.param == "recorded" else None

    # --- launch ------------------------------------------------------------------------------

    def test_launch_gives_handles(self, door: Door) -> None:
        attempts = [door.write("echo") for _ in range(3)]
        given = door.launch(*attempts)
        assert set(given) == {attempt.job_id for attempt in attempts}
        assert all(given.values()), given
        assert len(set(given.values())) == len(attempts), f"two attempts, one handle: {given}"
        assert door.ended(*attempts) == ["completed"] * 3

    def test_what_was_not_taken_is_not_run(self, door: Door, oracle: Oracle) -> None:
        attempts = [door.write("echo") for _ in range(3)]
        jobs = [attempt.job_id for attempt in attempts]
        given = door.again("given attempts", lambda: door.owner.ask("launch", jobs))
        door.ended(*[attempt for attempt in attempts if attempt.job_id in given])
        for attempt in attempts:
            if attempt.job_id not in given:
                assert still_unbegun(oracle, attempt.job_id, WATCH_S)

    def test_launched_attempt_runs_once(self, door: Door, oracle: Oracle, shared: Path) -> None:
        count, go = shared / "count", shared / "go"
        go.touch()
        attempt = door.write("count_and_wait", count=str(count), path=str(go))
        door.launch(attempt)
        assert door.ended(attempt) == ["completed"]
        assert count.read_text() == "x"
        assert oracle.attempts(attempt.job_id) == 1

    def test_launched_twice_runs_once(
        self, engine: EngineUnderTest, door: Door, oracle: Oracle, gate: Path, shared: Path
    ) -> None:
        count = shared / "count"
        attempt = door.write("count_and_wait", count=str(count), path=str(gate))
        door.launch(attempt)
        door.launch(attempt)
        eventually(count.exists, engine.start_s + 10 * engine.turn_s, "it did not run")
        door.launch(attempt)
        gate.touch()
        assert door.ended(attempt) == ["completed"]
        door.launch(attempt)
        limit = engine.start_s + 10 * engine.turn_s
        over = "launched again, it is under way for ever"
        eventually(lambda: door.seen(attempt) not in UNDER_WAY, limit, over)
        assert count.read_text() == "x"
        assert oracle.attempts(attempt.job_id) == 1

    def test_launched_by_two_processes_runs_once(
        self, door: Door, owner: Call, oracle: Oracle, gate: Path, shared: Path
    ) -> None:
        count = shared / "count"
        attempt = door.write("count_and_wait", count=str(count), path=str(gate))
        after = door.write("echo")
        other = owner()
        door.launch(attempt)
        door.launch(attempt, by=other)
        gate.touch()
        door.launch(after, by=other)
        assert door.ended(attempt, after) == ["completed"] * 2
        assert count.read_text() == "x"
        assert oracle.attempts(attempt.job_id) == 1

    def test_a_handle_means_the_same_in_another_process(self, door: Door, owner: Call) -> None:
        attempts = [door.write("echo"), door.write("echo")]
        one, another = (door.launch(each, by=owner())[each.job_id] for each in attempts)
        assert one != another, f"two processes gave the handle {one!r}, each to another attempt"
        assert door.ended(*attempts) == ["completed"] * 2

    def test_launch_of_many(
        self, engine: EngineUnderTest, door: Door, oracle: Oracle, room: int, shared: Path
    ) -> None:
        """All of them run; none is said to be gone on its way to a worker."""
        count, go = shared / "count", shared / "go"
        recipe = partial(door.write, "count_and_wait", count=str(count), path=str(go))
        attempts = [recipe() for _ in range(MANY)]
        # Nobody has to take more than these before others end.
        first = attempts[: engine.workers + room]
        given = door.launch(*first)

        # While workers take theirs; whether it has so many workers is asked elsewhere.
        end = time.monotonic() + engine.start_s + 10 * engine.turn_s
        begun = 0
        while begun < engine.workers and time.monotonic() < end:
            begun = sum(oracle.claimed(each.job_id) for each in first)
            seen = door.probe([each.job_id for each in first], given)
            lost = sorted(job_id for job_id, (state, _) in seen.items() if state == "gone")
            assert not lost, (
                f"of {len(first)} attempts that were launched and have not ended, probe says that "
                f"{len(lost)} are gone, {lost[0]}.1 among them ({_GUIDE}, 'What `probe` says')"
            )
            time.sleep(PAUSE_S)
        go.touch()
        given |= door.launch(*attempts[len(first) :])
        assert len(set(given.values())) == MANY
        assert door.ended(*attempts) == ["completed"] * MANY
        assert count.read_text() == "x" * MANY

    def test_launch_does_not_wait(
        self,
        engine: EngineUnderTest,
        door: Door,
        room: int,
        gate: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        # What starts at the first launch may take its time.
        first = door.write("echo")
        door.launch(first)
        door.ended(first)
        # More than there are workers: nothing of it is run before the file is there.
        count = engine.workers + min(room, 1)
        more = [door.write("wait_for", path=str(gate)) for _ in range(count)]
        monkeypatch.setattr(door.owner, "timeout_s", ANSWER_S)
        door.launch(*more)
        gate.touch()
        assert door.ended(*more) == ["completed"] * len(more)

    def test_removed_directory_hinders_nothing(self, engine: EngineUnderTest, door: Door) -> None:
        """Nor do many, whatever their workers have to say about each."""
        began = time.monotonic()
        # Two for each worker, which could die of it.
        count = 2
        while count <= REMOVED and time.monotonic() - began < REMOVED_S:
            removed = [door.write("echo") for _ in range(count * engine.workers)]
            for attempt in removed:
                shutil.rmtree(attempt.directory)
            door.launch(*removed)
            after = [door.write("echo") for _ in range(engine.workers)]
            door.launch(*after)
            assert door.ended(*after) == ["completed"] * len(after)
            count *= 2

    # --- probe -------------------------------------------------------------------------------

    @pytest.mark.usefixtures("occupied")
    @behind_busy_workers
    def test_probe_of_queued(self, door: Door, handles: Call, gate: Path) -> None:
        attempt = door.write("echo")
        known = handles(door.launch(attempt))
        for _ in range(LOOKS):
            assert door.seen(attempt, known) in {"queued", "unknown"}
            time.sleep(0.1)
        gate.touch()
        door.ended(attempt)

    def test_probe_of_running(self, door: Door, handles: Call, gate: Path) -> None:
        attempt = door.write("wait_for", path=str(gate))
        known = handles(door.launch(attempt))
        door.started(attempt)
        for _ in range(LOOKS):
            assert door.seen(attempt, known) != "gone"
            time.sleep(0.1)
        gate.touch()
        door.ended(attempt)

    def test_probe_of_finished(self, engine: EngineUnderTest, door: Door, handles: Call) -> None:
        attempt = door.write("echo")
        known = handles(door.launch(attempt))
        door.ended(attempt)
        limit = engine.start_s + 10 * engine.turn_s
        what = "a finished attempt is under way for ever"
        eventually(lambda: door.seen(attempt, known) not in UNDER_WAY, limit, what)

    def test_probe_of_never_launched(self, door: Door, oracle: Oracle) -> None:
        attempt = door.write("echo")
        assert door.seen(attempt) in OVER
        assert still_unbegun(oracle, attempt.job_id, WATCH_S), "probe began it"
        assert door.seen(attempt) in OVER

    def test_probe_of_a_cluster_that_was_taken_out(self, door: Door) -> None:
        """Its table is in no configuration file any more: others are told of all the same."""
        known, other = door.write("echo"), door.write("echo", terms={"cluster": "taken-out"})
        answers = door.probe([other.job_id, known.job_id])
        assert {state for state, _ in answers.values()} <= set(OVER)

    @behind_busy_workers
    def test_probe_of_many(self, door: Door, occupied: list[Attempt], gate: Path) -> None:
        queued = door.write("echo")
        door.launch(queued)
        # Of another engine, or of a home that was restored: nobody here knows of them.
        foreign = [generate_job_id() for _ in range(500)]
        asked = [*foreign[:250], occupied[0].job_id, queued.job_id, *foreign[250:]]
        took = 0.0

        def probe() -> dict[str, list[str]]:
            nonlocal took
            began = own_time()
            try:
                answers: dict[str, list[str]] = door.owner.ask("probe", asked)
            finally:
                took = own_time() - began
            return answers

        answers = door.again("probed", probe)
        assert answers[occupied[0].job_id][0] != "gone"
        assert answers[queued.job_id][0] in {"queued", "unknown"}
        assert {answers[job_id][0] for job_id in foreign} <= OVER
        assert took < MANY_PROBED_S, f"probe took {took:.1f} s for {len(asked)} attempts"
        gate.touch()
        door.ended(queued)

    # --- release -----------------------------------------------------------------------------

    @behind_busy_workers
    def test_release_drops_what_is_queued(
        self,
        needs: Call,
        needs_room: Call,
        door: Door,
        occupied: list[Attempt],
        busy_workers: BusyWorkers,
        oracle: Oracle,
        gate: Path,
    ) -> None:
        needs("drops_queued")
        needs_room(2)
        dropped, kept = door.write("echo"), door.write("echo")
        door.launch(dropped, kept)
        busy_workers.require_waiting(dropped.job_id, partial(door.seen, dropped))
        door.release(dropped)
        gate.touch()
        door.ended(*occupied, kept)
        assert still_unbegun(oracle, dropped.job_id, WATCH_S), "it was released, and begun"
        assert door.seen(dropped) in OVER

    def test_release_on_the_way_to_a_worker(
        self, needs: Call, engine: EngineUnderTest, door: Door, oracle: Oracle
    ) -> None:
        """Workers are free: what is begun all the same is not said to be gone before."""
        needs("drops_queued")
        gone: list[Attempt] = []
        others: list[Attempt] = []
        for wait_s in ON_ITS_WAY_S:
            attempts = [door.write("echo") for _ in range(engine.workers)]
            door.launch(*attempts)
            time.sleep(wait_s)
            door.release(*attempts)
            seen = door.probe([each.job_id for each in attempts])
            for each in attempts:
                is_dropped = seen[each.job_id][0] == "gone" and not oracle.claimed(each.job_id)
                (gone if is_dropped else others).append(each)
        limit = engine.start_s + 10 * engine.turn_s
        over = "released on its way to a worker, it is under way for ever"
        for each in others:
            eventually(lambda it=each: door.seen(it) not in UNDER_WAY, limit, over)  # type: ignore[misc]
        time.sleep(WATCH_S)
        begun = [each.id for each in gone if oracle.claimed(each.job_id)]
        assert not begun, (
            f"{begun[0]} was released on its way to a worker; probe said that it is gone, and it "
            f"was begun ({_GUIDE}, 'What `probe` says')"
        )

    def test_release_leaves_others(
        self, needs_room: Call, door: Door, occupied: list[Attempt], gate: Path
    ) -> None:
        needs_room(3)
        first, dropped, last = (door.write("echo") for _ in range(3))
        door.launch(first, dropped, last)
        door.release(dropped)
        gate.touch()
        others = [*occupied, first, last]
        assert door.ended(*others) == ["completed"] * len(others)

    def test_release_of_what_is_not_queued(
        self, door: Door, occupied: list[Attempt], gate: Path
    ) -> None:
        queued, never, removed = (door.write("echo") for _ in range(3))
        shutil.rmtree(removed.directory)
        door.launch(queued)
        running = occupied.pop(0)
        door.release(removed, never, running)
        gate.touch()
        assert door.ended(queued) == ["completed"]
        door.release(queued)
        door.release(queued)
        others = [*occupied, door.write("echo")]
        door.launch(others[-1])
        assert door.ended(*others) == ["completed"] * len(others)
        door.over(running)
