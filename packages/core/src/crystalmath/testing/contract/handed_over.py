"""What `launch` is given: names, clusters that are none any more, and as many as may wait."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, ClassVar

from crystalmath.testing.contract.base import Base
from crystalmath.testing.contract.busy_workers import behind_busy_workers
from crystalmath.testing.owner import OwnerError, is_unavailable
from crystalmath.testing.pace import fewer
from crystalmath.testing.passing import listed
from crystalmath.testing.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from crystalmath.models import Attempt
    from crystalmath.quacc.engine import EngineRunner
    from crystalmath.testing.contract.base import Call
    from crystalmath.testing.contract.door import Door
    from crystalmath.testing.oracle import Oracle
    from crystalmath.testing.subject import EngineUnderTest

#: What a user may call a job, and a shell must not read.
NAME = "a b é's $(x)"
#: How many wait on an engine that is warm in a moment and drops them at the end, and on one that
#: does not: its workers find nothing of them.
WAITING, WAITING_TO_THE_END = 300, 150
#: Of so many it is asked what each costs its owner: more than a pool of threads or of connections
#: has, which hands them over. And so long may be kept what is of use for that alone, in seconds.
COSTLY, SETTLE_S = 110, 15.0
_GUIDE = "docs/writing-an-engine.md"


class HandedOver(Base):
    """Attempts are handed over past core, as in `Boundary`."""

    guide: ClassVar[str] = "Ids and handles"

    def test_launch_beside_a_cluster_that_was_taken_out(
        self, needs_room: Call, engine: EngineUnderTest, owner: Call, door: Door
    ) -> None:
        """Its table is in no configuration file any more: others are begun all the same."""
        needs_room(2 - engine.workers)
        # An engine of its own: nobody knows what it makes of the other one.
        launcher = owner()
        lost, good = door.write("echo", {"cluster": "taken-out"}), door.write("echo")
        told = "launch took neither of them"

        def is_decided() -> bool:
            nonlocal told
            try:
                return bool(door.offer(lost, good, by=launcher))
            except OwnerError as error:
                if launcher.closed:
                    raise
                told = str(error).partition("\n")[0]
                # After any other error core hands over each of them alone.
                return not is_unavailable(error)

        eventually(
            is_decided,
            engine.start_s,
            lambda: (
                "an attempt whose cluster was taken out of the configuration keeps back one on a "
                f"cluster that is there, launched with it, for ever: {told}. EngineUnavailable is "
                "for what passes: leave the one out of the answer, or raise something else "
                f"({_GUIDE}, 'What exceptions mean')"
            ),
        )
        door.launch(good, by=launcher)
        assert door.ended(good) == ["completed"]

    def test_names_are_free_text(
        self, engine: EngineUnderTest, door: Door, oracle: Oracle, room: int, gate: Path
    ) -> None:
        """Any text, and that of several jobs: all of them are begun."""
        terms = {"name": NAME, "labels": {"project": NAME}}
        count = engine.workers + min(room, 1)
        attempts = [door.write("wait_for", terms, path=str(gate)) for _ in range(count)]
        door.launch(*attempts)

        def begun() -> int:
            return sum(oracle.claimed(each.job_id) for each in attempts)

        for number in (min(engine.workers, count), count):
            eventually(
                lambda number=number: begun() >= number,  # type: ignore[misc]
                engine.start_s + 10 * engine.turn_s,
                lambda number=number: (  # type: ignore[misc]
                    f"of {count} attempts with the name {NAME!r} {begun()} were begun, and "
                    f"{number} could be: names and labels are the user's, any text, and not "
                    "unique; quote them, and tag your work with the attempt's id "
                    f"({_GUIDE}, 'Ids and handles')"
                ),
            )
            gate.touch()
        assert door.ended(*attempts) == ["completed"] * count

    @behind_busy_workers
    def test_as_many_wait_as_max_queued_says(
        self,
        engine: EngineUnderTest,
        runner: EngineRunner,
        door: Door,
        oracle: Oracle,
        room: int,
        request: pytest.FixtureRequest,
        gate: Path,
    ) -> None:
        """None of them is lost, and the last one is begun in the end."""
        request.getfixturevalue("occupied")
        drops = runner.capabilities_of(engine.cluster).drops_queued
        most = WAITING if drops else WAITING_TO_THE_END
        count = min(room, fewer(most, engine.turn_s))
        before = _held(door)
        waiting, given = _handed_over(door, [door.write("echo") for _ in range(count)])
        seen = door.probe([each.job_id for each in waiting], given)
        lost = [
            each.id
            for each in waiting
            if seen[each.job_id][0] == "gone" and not oracle.claimed(each.job_id)
        ]
        assert not lost, (
            f"of {len(waiting)} attempts that launch took while all workers were busy, probe says "
            f"that {len(lost)} are gone, {lost[0]} among them: max_queued, which is "
            f"{runner.capabilities.max_queued}, says how many may wait ({_GUIDE}, 'What "
            "capabilities promise')"
        )
        if len(waiting) >= COSTLY:
            _costs_nothing(door, before, len(waiting))
        *others, last = waiting
        if drops and others:
            door.release(*others)
        elif others:
            _remove(others, oracle)
        gate.touch()
        left = 1 if drops else len(waiting)
        outcome = eventually(
            lambda: oracle.outcome(last.job_id),
            engine.start_s + (10 + left) * engine.turn_s,
            f"launch took {len(waiting)} attempts while all workers were busy, and the last of "
            f"them has no outcome: max_queued, which is {runner.capabilities.max_queued}, says "
            f"how many may wait ({_GUIDE}, 'What capabilities promise')",
        )
        assert outcome is not None
        assert outcome["state"] == "completed"
        _remove(others, oracle)


def _held(door: Door) -> dict[str, int]:
    """Count what the process has that hands over."""
    place = f"/proc/{door.owner.process.pid}"
    return {"descriptors": len(listed(f"{place}/fd")), "threads": len(listed(f"{place}/task"))}


def _costs_nothing(door: Door, before: dict[str, int], waiting: int) -> None:
    """Check that it does not have one more for each attempt that waits."""

    def grown() -> list[str]:
        return [
            f"{more} more {what}"
            for what, n in _held(door).items()
            if (more := n - before[what]) >= waiting
        ]

    eventually(
        lambda: not grown(),
        SETTLE_S,
        lambda: (
            f"while {waiting} attempts that launch took wait, the process that launched has "
            f"{' and '.join(grown())} than before: max_queued says how many may wait, and each of "
            "them costs its owner no descriptor and no thread. Keep a list, and wait for all of "
            f"them in one thread ({_GUIDE}, 'What your engine leaves as it was')"
        ),
    )


def _handed_over(door: Door, attempts: list[Attempt]) -> tuple[list[Attempt], dict[str, str]]:
    """Hand attempts over until the engine takes no more; give those that it took."""
    given = door.launch(attempts[0])
    while left := [each for each in attempts if each.job_id not in given]:
        try:
            more = door.offer(*left)
        except OwnerError as error:
            if not is_unavailable(error):
                raise
            break
        if not more:
            break
        given |= more
    return [each for each in attempts if each.job_id in given], given


def _remove(attempts: list[Attempt], oracle: Oracle) -> None:
    """Leave nothing to begin of those that nobody has begun."""
    for each in attempts:
        if not oracle.claimed(each.job_id):
            shutil.rmtree(each.directory, ignore_errors=True)
