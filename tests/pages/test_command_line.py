"""What docs/command-line.md has a chemist type on Monday morning, line by line."""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from commands import ran

pytestmark = pytest.mark.vasp

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/command-line.md").read_text(encoding="utf-8")
LINES = re.search(r"^## On Monday morning\n+```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[1]
# Here the job has ended before it is cancelled, and that is said with an exit code of 1.
LINES = re.sub(r"^(crystalmath cancel \$id).*$", r"\1 || test $? = 1", LINES, flags=re.MULTILINE)
#: What a line is about that chooses jobs: one that has failed.
BEFORE = """\
crystalmath submit emt.core.relax_job examples/Cu.poscar --param relax_cell=true \\
    --param opt_params.fmax=0.0001 --param opt_params.max_steps=1 --label project=alloys
crystalmath wait --label project=alloys || true
"""


def test_monday_morning(home, tmp_path):
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    environment = {
        **os.environ,
        "CRYSTALMATH_HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }

    def type_in(text):
        script = f"set -xeuo pipefail\n{text}"
        return ran("bash", "-c", script, cwd=tmp_path, env=environment)

    try:
        done = type_in(BEFORE + LINES)
    finally:
        stopped = type_in("crystalmath stop --cancel")
    # What was typed is in there, too.
    assert done.returncode == 0, done.stderr[-3000:]
    assert stopped.returncode == 0
    assert len(re.findall(r"^\+ crystalmath ", done.stderr, re.MULTILINE)) > 30
    assert "-0.006006" in done.stdout
