"""Random kills, by seed, under the jobs of the Parsl engine; see `random_kills`.

The long run: ``KILL_RUNS=20 KILLS_A_RUN=25 pytest tests/engine_parsl/test_kills.py``.
"""

import os

import pytest

from engines import random_kills

pytest.importorskip("crystalmath_engine_parsl", reason="the Parsl engine is not installed")

pytestmark = pytest.mark.by_turns

RUNS = int(os.environ.get("KILL_RUNS", "2"))
KILLS = int(os.environ.get("KILLS_A_RUN", "8"))


@pytest.mark.parametrize("seed", range(1, RUNS + 1))
def test_no_job_is_lost_stuck_or_run_twice(seed, home):
    assert random_kills.run("parsl", seed, home, KILLS)["wrong"] == {}
