"""What core calls comes back in time, and starts nothing before the first launch."""

from __future__ import annotations

import contextlib
import shutil
import time
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import psutil
import pytest

from crystalmath.engines.registry import ENGINES
from crystalmath.testing.attempts import longer_timeout
from crystalmath.testing.contract.base import Base
from crystalmath.testing.early_calls import STEPS, call_early
from crystalmath.testing.oracle import TRANSIENT
from crystalmath.testing.owner import AwayError, OwnerError
from crystalmath.testing.subject import fewer

if TYPE_CHECKING:
    from pathlib import Path

    from crystalmath.testing.contract.base import Kit
    from crystalmath.testing.owner import Owner

#: How long loading the plugin and its findings may take, making the first runner, with all that
#: this imports, making another one, and each call that core makes at a submission, in seconds.
LIMITS_S = {"import": 1.0, "findings": 1.0, "constructor": 60.0, "remade": 0.5}
LIMITS_S |= dict.fromkeys(STEPS[4:], 0.2)
#: How long `stop` may take, in seconds: a server that is stopped waits for it, and a script's end.
STOP_S = 30.0
#: How many wait at the end of an engine that is warm in a moment.
WAITING = 100
#: How long `launch` may take none more before the end, beside a turn, in seconds.
STALLED_S = 5.0
_GUIDE = "docs/writing-an-engine.md"


class Calls(Base):
    """What core calls, when, and how long it may take: "Who calls what" in the guide."""

    guide: ClassVar[str] = "Who calls what"

    # --- before the first launch -------------------------------------------------------------

    @pytest.fixture
    def early(self, kit: Kit, tmp_path: Path) -> Any:
        """Return what fresh processes saw of the calls that precede a launch."""
        name, configure = kit.engine.name, kit.engine.configure
        return kit.once("early", lambda: call_early(ENGINES, name, tmp_path, configure, LIMITS_S))

    @pytest.mark.parametrize("step", STEPS)
    def test_calls_are_quick(self, early: Any, step: str) -> None:
        took, limit = early["steps"][step]["seconds"], LIMITS_S[step]
        assert took <= limit, (
            f"{_CALLS[step]} took {took:.2f} s, and may take {limit:g} s: everybody who submits a "
            "job waits for it"
        )

    @pytest.mark.parametrize("step", STEPS)
    def test_calls_start_nothing(self, early: Any, step: str) -> None:
        started = early["steps"][step]["started"]
        assert not started, (
            f"{_CALLS[step]} must start no process and no thread, open no port and write no file: "
            f"an engine starts at its first launch. It did: {'; '.join(started)}"
        )

    def test_import_brings_no_library(self, early: Any) -> None:
        assert not early["modules"], (
            f"loading the plugin imports {', '.join(early['modules'])}: `crystalmath engines` "
            "loads it, must be quick, and must work where that is missing; import it within "
            f"crystalmath_make_runner ({_GUIDE}, '2. The plugin')"
        )

    # --- at the end --------------------------------------------------------------------------

    def test_stop_ends_in_time(self, kit: Kit) -> None:
        """Of an engine that has begun to serve, and of one whose jobs are let go."""
        idle, busy = kit.owner(), kit.owner()
        begun, others = kit.shared / "begun", kit.shared / "others"
        busy.ask("watch")
        (job_id,) = busy.ask("submit", "count_and_wait", count=str(begun), path=str(kit.gate))
        # It starts the engine, and costs a worker nothing.
        removed = kit.door.write("echo")
        shutil.rmtree(removed.directory)
        kit.door.launch(removed, by=idle)
        kit.eventually(begun.exists, f"the job {job_id} was not begun")
        # What another one has started is not its to end.
        _ends(idle, "of an engine that runs nothing")
        number = kit.engine.workers - 1 + max(0, min(kit.room, fewer(WAITING, kit.engine.turn_s)))
        with longer_timeout(busy, number):
            left = busy.ask(
                "submit", "count_and_wait", number, count=str(others), path=str(kit.gate)
            )
        _all_taken(busy, 1 + number, STALLED_S + kit.engine.turn_s)
        busy.timeout_s = 10 * STOP_S
        took_s = busy.ask("leave", 2 * STOP_S)
        how = "does not come back" if took_s is None else f"took {took_s:.0f} s"
        is_late = took_s is None or took_s >= STOP_S
        assert not is_late, (
            f"stop of an engine whose jobs are let go, {number} of them beside one that runs, "
            f"{how}, and may take {STOP_S:g} s: a script's end and a server's stop wait for it"
        )
        # Nobody is to begin them any more, or to wait behind them.
        unbegun = [each for each in left if not kit.oracle.claimed(each)]
        if unbegun and not kit.capabilities.queue_dies_with_owner:
            kit.door.drop(*unbegun)
        for each in unbegun:
            shutil.rmtree(kit.oracle.directory(each), ignore_errors=True)
        kit.gate.touch()
        for each in set(left).difference(unbegun):
            over = f"the job {each}, which was let go, does not end"
            kit.eventually(partial(kit.oracle.is_over, each), over)
        outcome = kit.outcome(job_id, "what was let go did not end")
        state_and_count = outcome["state"], kit.oracle.attempts(job_id)
        assert state_and_count == ("completed", 1), "the running job of another process was ended"

    def test_stop_ends_in_an_outage(self, kit: Kit) -> None:
        """Of an engine that has begun to serve, and cannot be reached any more."""
        outage, tenant = kit.outage, kit.owner()
        removed = kit.door.write("echo")
        shutil.rmtree(removed.directory)
        kit.door.launch(removed, by=tenant)
        try:
            with outage():
                _ends(tenant, "in an outage")
        except AwayError:
            pass
        except TRANSIENT:
            # It wakes processes, and `stop` has ended some of them: wake the others.
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(*TRANSIENT):
                    process.resume()


_CALLS = {
    "import": "loading the plugin",
    "findings": "crystalmath_engine_findings",
    "constructor": "crystalmath_make_runner",
    "remade": "making another runner",
} | {step: f"{step}()" for step in STEPS[4:]}


def _all_taken(owner: Owner, number: int, stalled_s: float) -> None:
    """Wait until an engine has taken so many attempts, or takes no more for a while."""
    taken, since = 0, time.monotonic()
    while taken < number and time.monotonic() - since < stalled_s:
        if (now := owner.ask("taken")) > taken:
            taken, since = now, time.monotonic()
        time.sleep(0.05)


def _ends(owner: Owner, what: str) -> None:
    owner.timeout_s = STOP_S
    began = time.monotonic()
    try:
        owner.ask("stop")
    except OwnerError as error:
        if time.monotonic() - began < STOP_S:
            raise
        raise AssertionError(
            f"stop {what} did not come back in {STOP_S:g} s: a script's end and a server's stop "
            "wait for it"
        ) from error
