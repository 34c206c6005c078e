"""Tests of the engine boundary: `launch`, `probe` and `release`, called as core calls them."""

from __future__ import annotations

import contextlib
import shutil
import time
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import pytest

from crystalmath.quacc.runner import generate_job_id
from crystalmath.testing import traces
from crystalmath.testing.contract.base import Base, still_unbegun
from crystalmath.testing.contract.hooks import behind_busy_workers
from crystalmath.testing.owner import AwayError, OwnerError
from crystalmath.testing.subject import fewer
from crystalmath.testing.waiting import eventually, own_time

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

    from crystalmath.models import Attempt
    from crystalmath.testing.attempts import Door
    from crystalmath.testing.contract.base import Call, Kit
    from crystalmath.testing.oracle import Oracle


#: How many attempts are launched at once.
MANY = 60
#: How long `launch` may take for attempts that cannot run yet, in seconds.
ANSWER_S = 30.0
#: How long `probe` may take for 500 attempts, in seconds.
MANY_PROBED_S = 30.0
#: The pause between two probes while workers begin attempts, in seconds.
PAUSE_S = 0.1
#: How long an attempt is watched that nobody may begin, in seconds.
WATCH_S = 1.0
#: How long after its launch an attempt is released that a worker is about to begin, in seconds.
ON_ITS_WAY_S = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)
#: The most attempts without a directory that a worker gets at once, and for how long, in seconds.
REMOVED, REMOVED_S = 64, 10.0
#: How many times an attempt is probed whose state must not change.
LOOKS = 5

_GUIDE = "docs/engine-contract.md"

UNDER_WAY = {"queued", "running"}
OVER = {"gone", "unknown"}


class Boundary(Base):
    """Launch, probe and release, called by a process of the kit in place of core.

    That process refuses handles that are no strings, and probes whose values are no `Sighting`. It
    also refuses answers about attempts that it did not name.
    """

    guide: ClassVar[str] = "Who calls what"

    @pytest.fixture(params=["recorded", "unrecorded"])
    def handles(
        self, request: pytest.FixtureRequest
    ) -> Callable[[dict[str, str]], dict[str, str] | None]:
        """Return a function that passes on the handles of `launch`, or loses them."""
        return lambda handles: handles if request.param == "recorded" else None

    # --- launch ------------------------------------------------------------------------------

    def test_launch_gives_handles(self, kit: Kit) -> None:
        """`launch` returns a handle of its own for each attempt, and all attempts run."""
        attempts = [kit.door.write("echo") for _ in range(3)]
        handles = kit.door.launch(*attempts)
        assert set(handles) == {attempt.job_id for attempt in attempts}
        assert all(handles.values()), handles
        assert len(set(handles.values())) == len(attempts), f"two attempts, one handle: {handles}"
        assert kit.door.ended(*attempts) == ["completed"] * 3

    def test_what_was_not_taken_is_not_run(self, kit: Kit) -> None:
        """No attempt runs that `launch` left out of its answer: core launches it again."""
        attempts = [kit.door.write("echo") for _ in range(3)]
        jobs = [attempt.job_id for attempt in attempts]
        handles = kit.door.again("called to launch", lambda: kit.door.owner.ask("launch", jobs))
        kit.door.ended(*[attempt for attempt in attempts if attempt.job_id in handles])
        for attempt in attempts:
            if attempt.job_id not in handles:
                assert still_unbegun(kit.oracle, attempt.job_id, WATCH_S)

    def test_launched_twice_runs_once(self, kit: Kit) -> None:
        """The second launch of an attempt, before or after its end, starts no second run."""
        count = kit.shared / "count"
        attempt = kit.door.write("count_and_wait", count=str(count), path=str(kit.gate))
        kit.door.launch(attempt)
        kit.door.launch(attempt)
        kit.eventually(count.exists, "it did not run")
        kit.door.launch(attempt)
        kit.gate.touch()
        assert kit.door.ended(attempt) == ["completed"]
        kit.door.launch(attempt)
        over = "launched again, it is under way for ever"
        kit.eventually(lambda: kit.door.seen(attempt) not in UNDER_WAY, over)
        assert count.read_text() == "x"
        assert kit.oracle.attempts(attempt.job_id) == 1

    def test_launched_by_two_processes_runs_once(self, kit: Kit) -> None:
        """A second process that launches the same attempt starts no second run."""
        count = kit.shared / "count"
        attempt = kit.door.write("count_and_wait", count=str(count), path=str(kit.gate))
        after = kit.door.write("echo")
        other = kit.owner()
        kit.door.launch(attempt)
        kit.door.launch(attempt, by=other)
        kit.gate.touch()
        kit.door.launch(after, by=other)
        assert kit.door.ended(attempt, after) == ["completed"] * 2
        assert count.read_text() == "x"
        assert kit.oracle.attempts(attempt.job_id) == 1

    def test_a_handle_means_the_same_in_another_process(self, kit: Kit) -> None:
        """Two processes never use the same handle for two attempts."""
        attempts = [kit.door.write("echo"), kit.door.write("echo")]
        one, another = (kit.door.launch(each, by=kit.owner())[each.job_id] for each in attempts)
        assert one != another, f"two processes gave the handle {one!r}, each to another attempt"
        assert kit.door.ended(*attempts) == ["completed"] * 2

    def test_launch_of_many(self, kit: Kit) -> None:
        """All of them run, and `probe` calls none `gone` while it is on its way to a worker."""
        count, go = kit.shared / "count", kit.shared / "go"
        recipe = partial(kit.door.write, "count_and_wait", count=str(count), path=str(go))
        attempts = [recipe() for _ in range(MANY)]
        # An engine need not take more than these before others end.
        first = attempts[: kit.engine.workers + kit.room]
        handles = kit.door.launch(*first)

        # Another test checks whether there are so many workers.
        end = time.monotonic() + kit.engine.limit_s
        begun = 0
        while begun < kit.engine.workers and time.monotonic() < end:
            begun = sum(kit.oracle.claimed(each.job_id) for each in first)
            seen = kit.door.probe([each.job_id for each in first], handles)
            lost = sorted(job_id for job_id, (state, _) in seen.items() if state == "gone")
            assert not lost, (
                f"of {len(first)} attempts that were launched and have not ended, probe says that "
                f"{len(lost)} are gone, among them {lost[0]}.1 ({_GUIDE}, 'What `probe` says')"
            )
            time.sleep(PAUSE_S)
        go.touch()
        handles |= kit.door.launch(*attempts[len(first) :])
        assert len(set(handles.values())) == MANY
        assert kit.door.ended(*attempts) == ["completed"] * MANY
        assert count.read_text() == "x" * MANY

    def test_launch_does_not_wait(self, kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
        """`launch` returns before its attempts have ended, and before all of them have begun."""
        # The first launch may take longer, because it starts the engine.
        first = kit.door.write("echo")
        kit.door.launch(first)
        kit.door.ended(first)
        # More attempts than workers; none ends before the file exists.
        count = kit.engine.workers + min(kit.room, 1)
        more = [kit.door.write("wait_for", path=str(kit.gate)) for _ in range(count)]
        monkeypatch.setattr(kit.door.owner, "timeout_s", ANSWER_S)
        kit.door.launch(*more)
        kit.gate.touch()
        assert kit.door.ended(*more) == ["completed"] * len(more)

    def test_removed_directory_hinders_nothing(self, kit: Kit) -> None:
        """Nor do many: workers go on after each of them, however much they write about it."""
        began = time.monotonic()
        # Two for each worker, which may die of the first one.
        count = 2
        while count <= REMOVED and time.monotonic() - began < REMOVED_S:
            removed = [kit.door.write("echo") for _ in range(count * kit.engine.workers)]
            for attempt in removed:
                shutil.rmtree(attempt.directory)
            kit.door.launch(*removed)
            after = [kit.door.write("echo") for _ in range(kit.engine.workers)]
            kit.door.launch(*after)
            assert kit.door.ended(*after) == ["completed"] * len(after)
            count *= 2

    # --- probe -------------------------------------------------------------------------------

    @pytest.mark.usefixtures("occupied")
    @behind_busy_workers
    def test_probe_of_queued(self, kit: Kit, handles: Call) -> None:
        """An attempt that waits for a worker is `queued` or `unknown`, with and without handle."""
        attempt = kit.door.write("echo")
        known = handles(kit.door.launch(attempt))
        for _ in range(LOOKS):
            assert kit.door.seen(attempt, known) in {"queued", "unknown"}
            time.sleep(0.1)
        kit.gate.touch()
        kit.door.ended(attempt)

    def test_probe_of_running(self, kit: Kit, handles: Call) -> None:
        """An attempt that a worker runs is never `gone`, with and without its handle."""
        attempt = kit.door.write("wait_for", path=str(kit.gate))
        known = handles(kit.door.launch(attempt))
        kit.door.started(attempt)
        for _ in range(LOOKS):
            assert kit.door.seen(attempt, known) != "gone"
            time.sleep(0.1)
        kit.gate.touch()
        kit.door.ended(attempt)

    def test_probe_of_finished(self, kit: Kit, handles: Call) -> None:
        """An attempt that has ended is soon `gone` or `unknown`, with and without its handle."""
        attempt = kit.door.write("echo")
        known = handles(kit.door.launch(attempt))
        kit.door.ended(attempt)
        what = "a finished attempt is under way for ever"
        kit.eventually(lambda: kit.door.seen(attempt, known) not in UNDER_WAY, what)

    def test_probe_of_never_launched(self, kit: Kit) -> None:
        """It is `gone` or `unknown`, and the probe does not start it."""
        attempt = kit.door.write("echo")
        assert kit.door.seen(attempt) in OVER
        assert still_unbegun(kit.oracle, attempt.job_id, WATCH_S), "probe began it"
        assert kit.door.seen(attempt) in OVER

    def test_probe_of_a_cluster_that_was_taken_out(self, kit: Kit) -> None:
        """`probe` answers for the other attempts, too, when a cluster's table was removed."""
        known, other = (
            kit.door.write("echo"),
            kit.door.write("echo", terms={"cluster": "taken-out"}),
        )
        answers = kit.door.probe([other.job_id, known.job_id])
        assert {state for state, _ in answers.values()} <= set(OVER)

    @behind_busy_workers
    def test_probe_of_many(self, kit: Kit, occupied: list[Attempt]) -> None:
        """One probe of 500 unknown attempts and two known ones is right, and quick."""
        queued = kit.door.write("echo")
        kit.door.launch(queued)
        # Attempts of another engine, or of a restored home, which this engine does not know.
        foreign = [generate_job_id() for _ in range(500)]
        jobs = [*foreign[:250], occupied[0].job_id, queued.job_id, *foreign[250:]]
        took = 0.0

        def probe() -> dict[str, list[str]]:
            nonlocal took
            began = own_time()
            try:
                answers: dict[str, list[str]] = kit.door.owner.ask("probe", jobs)
            finally:
                took = own_time() - began
            return answers

        answers = kit.door.again("called to probe", probe)
        assert answers[occupied[0].job_id][0] != "gone"
        assert answers[queued.job_id][0] in {"queued", "unknown"}
        assert {answers[job_id][0] for job_id in foreign} <= OVER
        assert took < MANY_PROBED_S, f"probe took {took:.1f} s for {len(jobs)} attempts"
        kit.gate.touch()
        kit.door.ended(queued)

    # --- release -----------------------------------------------------------------------------

    @behind_busy_workers
    def test_release_drops_what_is_queued(self, kit: Kit, occupied: list[Attempt]) -> None:
        """`release` drops all queued attempts that it names, also after an unknown one."""
        kit.needs("drops_queued")
        kit.needs_room(3)
        never, *dropped, kept = (kit.door.write("echo") for _ in range(4))
        kit.door.launch(*dropped, kept)
        for each in dropped:
            kit.busy.require_waiting(each.job_id, partial(kit.door.seen, each))
        kit.door.release(never, *dropped)
        kit.gate.touch()
        kit.door.ended(*occupied, kept)
        for each in dropped:
            assert still_unbegun(kit.oracle, each.job_id, WATCH_S), "it was released, and begun"
            assert kit.door.seen(each) in OVER

    def test_release_on_the_way_to_a_worker(self, kit: Kit) -> None:
        """With free workers, no released attempt begins after `probe` has called it `gone`."""
        kit.needs("drops_queued")
        gone: list[Attempt] = []
        others: list[Attempt] = []
        for wait_s in ON_ITS_WAY_S:
            attempts = [kit.door.write("echo") for _ in range(kit.engine.workers)]
            kit.door.launch(*attempts)
            time.sleep(wait_s)
            kit.door.release(*attempts)
            seen = kit.door.probe([each.job_id for each in attempts])
            for each in attempts:
                is_dropped = seen[each.job_id][0] == "gone" and not kit.oracle.claimed(each.job_id)
                (gone if is_dropped else others).append(each)
        over = "released on its way to a worker, it is under way for ever"
        for each in others:
            kit.eventually(partial(_is_over, kit.door, each), over)
        time.sleep(WATCH_S)
        begun = [each.id for each in gone if kit.oracle.claimed(each.job_id)]
        assert not begun, (
            f"{begun[0]} was released on its way to a worker; probe said that it is gone, and it "
            f"was begun ({_GUIDE}, 'What `probe` says')"
        )

    def test_release_leaves_others(self, kit: Kit, occupied: list[Attempt]) -> None:
        """Attempts that `release` does not name run to their end, queued or running."""
        kit.needs_room(3)
        first, dropped, last = (kit.door.write("echo") for _ in range(3))
        kit.door.launch(first, dropped, last)
        kit.door.release(dropped)
        kit.gate.touch()
        others = [*occupied, first, last]
        assert kit.door.ended(*others) == ["completed"] * len(others)

    def test_release_of_what_is_not_queued(self, kit: Kit, occupied: list[Attempt]) -> None:
        """`release` raises nothing for running, ended, unknown and removed attempts."""
        queued, never, removed = (kit.door.write("echo") for _ in range(3))
        shutil.rmtree(removed.directory)
        kit.door.launch(queued)
        running = occupied.pop(0)
        kit.door.release(removed, never, running)
        kit.gate.touch()
        assert kit.door.ended(queued) == ["completed"]
        kit.door.release(queued)
        kit.door.release(queued)
        others = [*occupied, kit.door.write("echo")]
        kit.door.launch(others[-1])
        assert kit.door.ended(*others) == ["completed"] * len(others)
        kit.door.over(running)


#: A name of a job that a shell must not interpret.
NAME = "a b é's $(x)"
#: How many attempts wait on a quick engine that drops them at the end, and on one that does not.
WAITING, WAITING_TO_THE_END = 300, 150
#: The least number of waiting attempts for which their cost is checked: no pool of threads or of
#: connections is as large. And how long the owner may keep such a pool, in seconds.
COSTLY, SETTLE_S = 110, 15.0


class HandedOver(Base):
    """More tests of `launch`, called by a process of the kit in place of core."""

    guide: ClassVar[str] = "Ids and handles"

    def test_launch_beside_a_cluster_that_was_taken_out(self, kit: Kit) -> None:
        """Attempts on other clusters begin, even if one's cluster has no table any more."""
        kit.needs_room(2 - kit.engine.workers)
        # In an engine of its own, because the attempt that is lost may disturb others.
        launcher = kit.owner()
        lost, good = kit.door.write("echo", {"cluster": "taken-out"}), kit.door.write("echo")
        reason = "launch took neither of them"

        def is_decided() -> bool:
            nonlocal reason
            try:
                return bool(kit.door.offer(lost, good, by=launcher))
            except OwnerError as error:
                if launcher.closed:
                    raise
                reason = str(error).partition("\n")[0]
                # After any other error core launches each attempt alone.
                return not isinstance(error, AwayError)

        eventually(
            is_decided,
            kit.engine.start_s,
            lambda: (
                "an attempt on a cluster that was removed from the configuration keeps back for "
                "ever an attempt on another cluster, which was launched with it: "
                f"{reason}. EngineUnavailable is for errors that pass: leave the first attempt "
                f"out of the answer, or raise another exception ({_GUIDE}, 'What exceptions mean')"
            ),
        )
        kit.door.launch(good, by=launcher)
        assert kit.door.ended(good) == ["completed"]

    def test_names_are_free_text(self, kit: Kit) -> None:
        """A job's name may be any text, and several jobs may have the same: all of them begin."""
        terms = {"name": NAME, "labels": {"project": NAME}}
        count = kit.engine.workers + min(kit.room, 1)
        attempts = [kit.door.write("wait_for", terms, path=str(kit.gate)) for _ in range(count)]
        kit.door.launch(*attempts)

        def begun() -> int:
            return sum(kit.oracle.claimed(each.job_id) for each in attempts)

        def wait_until_begun(number: int) -> None:
            eventually(
                lambda: begun() >= number,
                kit.engine.limit_s,
                lambda: (
                    f"of {count} attempts with the name {NAME!r} {begun()} were begun, and "
                    f"{number} could be: names and labels are the user's, any text, and not "
                    "unique; quote them, and tag your work with the attempt's id"
                ),
            )

        wait_until_begun(min(kit.engine.workers, count))
        kit.gate.touch()
        wait_until_begun(count)
        assert kit.door.ended(*attempts) == ["completed"] * count

    @behind_busy_workers
    def test_as_many_wait_as_max_queued_says(
        self, kit: Kit, request: pytest.FixtureRequest
    ) -> None:
        """The engine loses none of them, and begins the last one in the end."""
        request.getfixturevalue("occupied")
        drops = kit.capabilities.drops_queued
        most = WAITING if drops else WAITING_TO_THE_END
        count = min(kit.room, fewer(most, kit.engine.turn_s))
        promise = (
            f"max_queued, which is {kit.runner.capabilities.max_queued}, says how many may wait "
            f"({_GUIDE}, 'What capabilities promise')"
        )
        before = traces.held(kit.door.owner.process.pid)
        waiting, handles = _handed_over(kit.door, [kit.door.write("echo") for _ in range(count)])
        seen = kit.door.probe([each.job_id for each in waiting], handles)
        lost = [
            each.id
            for each in waiting
            if seen[each.job_id][0] == "gone" and not kit.oracle.claimed(each.job_id)
        ]
        assert not lost, (
            f"of {len(waiting)} attempts that launch took while all workers were busy, probe says "
            f"that {len(lost)} are gone, {lost[0]} among them: {promise}"
        )
        if len(waiting) >= COSTLY:
            _costs_nothing(kit.door, before, len(waiting))
        *others, last = waiting
        if drops and others:
            kit.door.release(*others)
        elif others:
            _remove(others, kit.oracle)
        kit.gate.touch()
        left = 1 if drops else len(waiting)
        outcome = kit.oracle.ended(
            last.job_id,
            kit.engine.limit_of(left),
            f"launch took {len(waiting)} attempts while all workers were busy, and the last of "
            f"them has no outcome: {promise}",
        )
        assert outcome["state"] == "completed"
        _remove(others, kit.oracle)


def _costs_nothing(door: Door, before: dict[str, Counter[str]], waiting: int) -> None:
    """Check that no waiting attempt costs its owner a descriptor, thread or process."""

    def grown() -> list[str]:
        return traces.grown(door.owner.process.pid, before, waiting)

    eventually(
        lambda: not grown(),
        SETTLE_S,
        lambda: (
            f"while {waiting} attempts that launch took wait, the process that launched has "
            f"{' and '.join(grown())}: max_queued says how many may wait, and each of them must "
            "cost its owner no descriptor, thread or process. Keep a list, and wait for all of "
            f"them in one thread ({_GUIDE}, 'What your engine leaves as it was')"
        ),
    )


def _handed_over(door: Door, attempts: list[Attempt]) -> tuple[list[Attempt], dict[str, str]]:
    """Launch attempts until the engine takes no more; return those that it took, and handles."""
    handles = door.launch(attempts[0])
    more = handles
    with contextlib.suppress(AwayError):
        while more and (left := [each for each in attempts if each.job_id not in handles]):
            more = door.offer(*left)
            handles |= more
    return [each for each in attempts if each.job_id in handles], handles


def _remove(attempts: list[Attempt], oracle: Oracle) -> None:
    """Remove the directories of attempts that nobody has begun, so that nobody does."""
    for each in attempts:
        if not oracle.claimed(each.job_id):
            shutil.rmtree(each.directory, ignore_errors=True)


def _is_over(door: Door, attempt: Attempt) -> bool:
    return door.seen(attempt) not in UNDER_WAY
