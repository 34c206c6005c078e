"""Random kills, by seed, under the jobs of the local engine; see `random_kills`.

The long run: ``KILL_RUNS=20 KILLS_A_RUN=25 pytest tests/engines/test_local_kills.py``.
"""

import os

import pytest

from engines import random_kills

pytestmark = pytest.mark.processes

RUNS = int(os.environ.get("KILL_RUNS", "2"))
KILLS = int(os.environ.get("KILLS_A_RUN", "8"))


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("seed", range(1, RUNS + 1))
def test_no_job_is_lost_stuck_or_run_twice(seed, batch, home):
    told = random_kills.run("local", seed, home, KILLS, batch=batch)
    assert told["wrong"] == {}
