"""Tests that parameters reach the recipe, and that results and failures reach the caller.

Core's own tests cover how recipes can fail and what they can return. These few jobs show that the
engine changes nothing on the way.
"""

from __future__ import annotations

import copy
import datetime as dt
import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms

from crystalmath.quacc import JobState
from crystalmath.testing.attempts import aluminium
from crystalmath.testing.contract.base import Base
from crystalmath.testing.contract.hooks import behind_busy_workers
from crystalmath.testing.owner import RECIPES

if TYPE_CHECKING:
    from crystalmath.testing.contract.base import Kit


class FirstJob(Base):
    """One simple job; an engine that fails here fails everywhere."""

    guide: ClassVar[str] = "Launch"

    def test_one_job_ends(self, kit: Kit) -> None:
        """The engine launches a job, a worker runs it, and its result is there."""
        if kit.unmeasured is not None:
            pytest.fail(str(kit.unmeasured))
        state, result = kit.finish(kit.submit("echo", x=1))
        assert state is JobState.COMPLETED, result
        assert result == {"symbols": ["Al"], "x": 1}


#: How much longer than other jobs one may take that returns 50 MB or imports quacc, in seconds.
LARGE_S = 90.0
#: A walltime that suffices for a recipe that does next to nothing, in seconds.
WALLTIME_S = 4.0
#: Values that JSON alone would mix up, and text that is not ASCII.
VALUES: dict[str, Any] = {
    "numbers": [0, -1, 2**70, 1.5, -0.0, 1e-308, 0.1 + 0.2, 1 - 2j, True, None],
    "nested": {"tuple": (1, (2, [3])), "sets": [{1, 2}, frozenset("x")], 1: {"@module": "os"}},
    "text": "\u00c5 \U0001f9ea \u05d0\u202e \0\x1b \u2028 $HOME `x`",
    "others": [b"\0\xff", Path("/somewhere/a file"), dt.datetime(2026, 1, 2, tzinfo=dt.UTC)],
}


class Outcomes(Base):
    """Parameters, structures, results and failures."""

    guide: ClassVar[str] = "What an engine is"

    def test_a_job_gets_what_was_submitted_and_gives_it_back(self, kit: Kit) -> None:
        """Structure and parameters are those of the submission; later changes have no effect."""
        atoms, array = _rich_atoms(), np.arange(6.0).reshape(2, 3)
        parameters = {**copy.deepcopy(VALUES), "array": array, "other": bulk("Cu")}
        job_id = kit.runner.submit(f"{RECIPES}.structure", atoms, kit.engine.cluster, **parameters)
        atoms.positions += 1.0
        atoms.set_constraint()
        array += 1.0
        parameters["nested"].clear()
        state, result = kit.finish(job_id)
        assert state is JobState.COMPLETED, result
        expected = _rich_atoms()
        assert result.pop("atoms") == expected
        seen = result.pop("seen")
        assert seen["magmoms"] == expected.get_initial_magnetic_moments().tolist()
        assert (seen["tags"], seen["fixed"]) == ([1, 0, 2], [0, 2])
        assert result.pop("other") == bulk("Cu")
        np.testing.assert_array_equal(result.pop("array"), np.arange(6.0).reshape(2, 3))
        # Words tell -0.0 from 0.0, and types from each other.
        assert repr(result) == repr(VALUES)
        assert (kit.runner.get_result(job_id) or {}).keys() == {*parameters, "atoms", "seen"}

    def test_a_result_of_50_mb(self, kit: Kit) -> None:
        """It reaches the caller complete and unchanged."""
        limit = kit.engine.limit_s + LARGE_S
        state, result = kit.finish(kit.submit("large", megabytes=50), limit)
        assert state is JobState.COMPLETED
        assert len(result["data"]) * 4 // 3 + result["array"].size * 5 >= 50 * 2**20 * 0.99
        assert hashlib.sha256(result["data"]).hexdigest() == result["digest"]
        assert int(result["array"].sum()) == result["sum"]

    def test_a_recipe_of_quacc(self, kit: Kit) -> None:
        """A worker runs it, with the same energy as ASE gives without quacc and engine."""
        # In a process of its own: the workers of other tests may not have imported quacc.
        (job_id,) = kit.owner().ask("submit", "quacc.recipes.emt.core.static_job")
        outcome = kit.oracle.ended(job_id, kit.engine.limit_s + LARGE_S)
        assert outcome["state"] == "completed", outcome["error"]
        atoms = aluminium()
        atoms.calc = EMT()
        energy = kit.oracle.payload(job_id)["results"]["energy"]
        assert energy == pytest.approx(atoms.get_potential_energy(), abs=1e-9)

    def test_an_exception_is_told(self, kit: Kit) -> None:
        """The job reads failed, with the message and the traceback of the recipe."""
        job_id = kit.submit("fail", message="the box is too small")
        state, result = kit.finish(job_id)
        assert state is JobState.FAILED
        assert "RuntimeError: the box is too small" in result["error"]
        assert "recipes.py" in result["traceback"]
        assert ", in fail" in result["traceback"]
        assert kit.oracle.state(job_id) == "failed"

    def test_what_fails_is_not_run_again(self, kit: Kit) -> None:
        """Neither core nor the engine repeats a job whose recipe failed."""
        count = kit.shared / "count"
        job_id = kit.submit("count_and_fail", count=str(count))
        assert kit.finish(job_id)[0] is JobState.FAILED
        # By the end of another job a second run would have begun.
        assert kit.finish(kit.submit("fail", message="later"))[0] is JobState.FAILED
        assert count.read_text() == "x"
        assert kit.oracle.attempts(job_id) == 1

    def test_a_killed_process_is_a_lost_attempt(self, kit: Kit) -> None:
        """A job whose process was killed by SIGKILL is run once more, as a second attempt."""
        job_id = kit.submit("kill_once", count=str(kit.shared / "count"))
        assert kit.finish(job_id) == (JobState.COMPLETED, {"runs": 2})
        assert kit.oracle.state(job_id) == "lost"

    # --- walltime -------------------------------------------------------------------------------

    def test_the_walltime_is_kept(self, kit: Kit) -> None:
        """A job is stopped when its walltime is over, counted from the start of the recipe."""
        job_id = kit.start("wait_for", {"path": str(kit.shared / "never")}, 1.0)
        state, result = kit.finish(job_id)
        outcome = kit.oracle.outcome(job_id) or {}
        assert state is JobState.FAILED
        assert "walltime" in result["error"], (
            f"its error is {result['error']!r}, and does not say that the walltime was over: if "
            "the engine ends jobs or allocations itself, it must leave core a margin before that "
            "(docs/engine-contract.md, 'Walltime and its margin')"
        )
        assert 1.0 <= outcome["finished"] - outcome["started"] < 10.0 + kit.engine.start_s

    @behind_busy_workers
    def test_the_walltime_does_not_run_while_a_job_waits(self, kit: Kit, blocked: Path) -> None:
        """A job that waits longer than its walltime completes in the end."""
        job_id = kit.start("echo", {}, WALLTIME_S)
        time.sleep(WALLTIME_S + 0.5)
        assert not kit.oracle.claimed(job_id)
        blocked.touch()
        assert kit.finish(job_id)[0] is JobState.COMPLETED


def _rich_atoms() -> Atoms:
    return Atoms(
        "Fe2O",
        positions=[[0.1, 0.2, 1 / 3], [1.5, 1.5, 1.5], [0, 0, -2e-17]],
        cell=[[3, 0, 0], [0.5, 3, 0], [0, 0, 9]],
        pbc=[True, True, False],
        tags=[1, 0, 2],
        magmoms=[2.5, -1.0, 0.0],
        constraint=FixAtoms([0, 2]),
        info={"note": "\u00e9", "number": 3},
    )
