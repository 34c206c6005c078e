"""The batch engine of `docs/writing-an-engine.md`, typed in from the page, on Slurm."""

import os
import sys
from pathlib import Path

from guide_page import type_in

ROOT = Path(__file__).parents[2]
LIGHT = ROOT / "tests/light"


def test_it_keeps_the_contract_past_core(slurm, tmp_path):
    site = type_in("batch", tmp_path / "site")
    boundary = "(launch or probe or release) and not many"
    kit = ("tests/cluster/batch_kit.py", "--config-file=tests/contract/pytest.ini", "-k", boundary)
    done = slurm.run(
        *(sys.executable, "-m", "pytest", "-q", *kit),
        cwd=ROOT,
        # None of these jobs needs quacc, and each is a fresh Python.
        env={"PYTHONPATH": os.pathsep.join([str(site), str(LIGHT), os.environ["PYTHONPATH"]])},
        check=False,
        timeout=3600,
    )
    assert done.returncode == 0, done.stdout[-5000:]
