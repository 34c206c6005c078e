"""``crystalmath conform ENGINE --cluster`` on Slurm, as an administrator runs it on the login node.

Here it runs what is another matter where workers are on hosts of their own, for all of it takes
half an hour: ``KIT=test nox -s slurm -- -k conform``.
"""

import os
import sys
from pathlib import Path

import pytest

from conftest import LIGHT

pytest.importorskip("psij")

COMMAND = (sys.executable, "-m", "crystalmath")
ROOT = Path(__file__).parents[2]
#: What jobs leave and find elsewhere, and servers that go and come.
ELSEWHERE = "one_job_ends or blanks or no_file_elsewhere or lets_go or does_not_close"
#: Handles that were lost, attempts that were launched twice, what is queued.
BOUNDARY = "(launch or probe or release) and not many"
CLUSTERS = {
    # Each process has pilot jobs of its own, and there are two nodes for all of them.
    "parsl": ('workers_per_node = 1\nmax_blocks = 2\nmax_idletime = "5s"\n', 2, ELSEWHERE),
    "psij": ("", 4, f"{ELSEWHERE} or {BOUNDARY}"),
}


@pytest.mark.parametrize("engine", CLUSTERS)
def test_engines_keep_the_contract_on_a_cluster(slurm, home, engine):
    more, workers, part = CLUSTERS[engine]
    cluster = f'[clusters.slurm]\nengine = "{engine}"\nscheduler = "slurm"\n{more}'
    (home / "config.toml").write_text(cluster, encoding="ascii")
    limits = (f"--workers={workers}", "--start=3m", "--turn=20s")
    # Here the workers find no quacc.
    chosen = f"({os.environ.get('KIT', part)}) and not recipe_of_quacc"
    done = slurm.run(
        *(*COMMAND, "conform", engine, "--cluster=slurm", *limits, "-k", chosen),
        env={"PYTHONPATH": os.pathsep.join([str(LIGHT), os.environ["PYTHONPATH"]])},
        check=False,
        timeout=7200,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout
