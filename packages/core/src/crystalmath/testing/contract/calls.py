"""Tests that core's calls return in time, and start nothing before the first launch."""

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

#: The limits of each call, in seconds: loading the plugin, its findings, the first runner with all
#: its imports, another runner, and each call of core at a submission.
LIMITS_S = {"import": 1.0, "findings": 1.0, "constructor": 60.0, "remade": 0.5}
LIMITS_S |= dict.fromkeys(STEPS[4:], 0.2)
#: How long `stop` may take, in seconds: the end of a server, or of a script, waits for it.
STOP_S = 30.0
#: How many jobs wait when a quick engine stops.
WAITING = 100
#: If `launch` takes no more jobs for so long beside a turn, in seconds, the engine is stopped.
STALLED_S = 5.0
_GUIDE = "docs/engine-contract.md"


class Calls(Base):
    """The duration and the side effects of core's calls ("Who calls what" in the guide)."""

    guide: ClassVar[str] = "Who calls what"

    # --- before the first launch -------------------------------------------------------------

    @pytest.fixture
    def early(self, kit: Kit, tmp_path: Path) -> Any:
        """Return the reports of fresh processes on the calls that precede a launch."""
        name, configure = kit.engine.name, kit.engine.configure
        return kit.once("early", lambda: call_early(ENGINES, name, tmp_path, configure, LIMITS_S))

    @pytest.mark.parametrize("step", STEPS)
    def test_calls_are_quick(self, early: Any, step: str) -> None:
        """Every submission waits for these calls."""
        took, limit = early["steps"][step]["seconds"], LIMITS_S[step]
        assert took <= limit, (
            f"{_CALLS[step]} took {took:.2f} s, and may take {limit:g} s: every submission waits "
            "for it"
        )

    @pytest.mark.parametrize("step", STEPS)
    def test_calls_start_nothing(self, early: Any, step: str) -> None:
        """Before the first launch an engine has no process, thread, port or file of its own."""
        started = early["steps"][step]["started"]
        assert not started, (
            f"{_CALLS[step]} must start no process and no thread, open no port and write no file: "
            f"an engine starts at its first launch. It did: {'; '.join(started)}"
        )

    def test_import_brings_no_library(self, early: Any) -> None:
        """Loading the plugin does not import the engine's library, which may be missing."""
        assert not early["modules"], (
            f"loading the plugin imports {', '.join(early['modules'])}: `crystalmath engines` "
            "loads the plugin, must be quick, and must work without the library; import it within "
            f"crystalmath_make_runner ({_GUIDE}, 'The plugin')"
        )

    # --- at the end --------------------------------------------------------------------------

    def test_stop_ends_in_time(self, kit: Kit) -> None:
        """`stop` is quick for an idle engine, and for one whose jobs are let go."""
        idle, busy = kit.owner(), kit.owner()
        begun, others = kit.shared / "begun", kit.shared / "others"
        busy.ask("watch")
        (job_id,) = busy.ask("submit", "count_and_wait", count=str(begun), path=str(kit.gate))
        # This starts the engine, and keeps no worker busy.
        removed = kit.door.write("echo")
        shutil.rmtree(removed.directory)
        kit.door.launch(removed, by=idle)
        kit.eventually(begun.exists, f"the job {job_id} was not begun")
        # This must not end the job of the other process.
        _ends(idle, "of an engine that runs nothing")
        number = kit.engine.workers - 1 + max(0, min(kit.room, fewer(WAITING, kit.engine.turn_s)))
        with longer_timeout(busy, number):
            left = busy.ask(
                "submit", "count_and_wait", number, count=str(others), path=str(kit.gate)
            )
        _all_taken(busy, 1 + number, STALLED_S + kit.engine.turn_s)
        busy.timeout_s = 10 * STOP_S
        took_s = busy.ask("leave", 2 * STOP_S)
        how = "does not return" if took_s is None else f"took {took_s:.0f} s"
        is_late = took_s is None or took_s >= STOP_S
        assert not is_late, (
            f"stop of an engine whose jobs are let go, {number} of them beside one that runs, "
            f"{how}, and may take {STOP_S:g} s: the end of a script or a server waits for it"
        )
        # Nobody may begin these jobs any more, or wait behind them.
        unbegun = [each for each in left if not kit.oracle.claimed(each)]
        if unbegun and not kit.capabilities.queue_dies_with_owner:
            kit.door.drop(*unbegun)
        for each in unbegun:
            shutil.rmtree(kit.oracle.directory(each), ignore_errors=True)
        kit.gate.touch()
        for each in set(left).difference(unbegun):
            over = f"the job {each}, which was let go, does not end"
            kit.eventually(partial(kit.oracle.is_over, each), over)
        outcome = kit.outcome(job_id, "a job that was let go did not end")
        state_and_count = outcome["state"], kit.oracle.attempts(job_id)
        assert state_and_count == ("completed", 1), "the running job of another process was ended"

    def test_stop_ends_in_an_outage(self, kit: Kit) -> None:
        """`stop` returns in time, even if the engine cannot be reached any more."""
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
            # The outage wakes processes, some of which `stop` has ended: wake the others.
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
    """Wait until an engine has taken a number of attempts, or takes no more for a while."""
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
            f"stop {what} did not return in {STOP_S:g} s: the end of a script or a server waits "
            "for it"
        ) from error
