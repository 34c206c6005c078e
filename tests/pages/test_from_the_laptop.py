"""What docs/from-the-laptop.md has a chemist type: the first remote job, and two clusters."""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from commands import ran
from remotes.machine import Machine

pytestmark = pytest.mark.vasp

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/from-the-laptop.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def machine(tmp_path):
    machine = Machine(tmp_path, light=False)
    yield machine
    machine.end()


def ended_by_ctrl_c(command):
    return f"timeout --foreground --signal=INT 6 {command[0]} || test $? = 124"


def test_the_first_remote_job_and_two_clusters(machine, home, tmp_path):
    kite = machine.table("kite", home=str(tmp_path / "kite"))
    (home / "config.toml").write_text(machine.table() + kite)
    (first,) = [block for block in BLOCKS if "submit emt.core.relax_job" in block]
    (both,) = [block for block in BLOCKS if "hawk,kite list" in block]
    both = "".join(line for line in both.splitlines(keepends=True) if "remotes add" not in line)
    both = both.replace("3f2a91c4", "$id").replace(" --label project=alloys", "")
    both, watches = re.subn(".*--watch$", ended_by_ctrl_c, both, flags=re.MULTILINE)
    assert watches == 1
    (check,) = [block for block in BLOCKS if "remotes check hawk      #" in block]
    folder = tmp_path / "laptop"
    folder.mkdir()
    shutil.copy(ROOT / "examples/Al.poscar", folder)
    environment = {
        **os.environ,
        "XDG_RUNTIME_DIR": str(home),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    script = f"set -xeuo pipefail\n{check}{first}{both}crystalmath --on kite stop"
    answer = ran("bash", "-c", script, cwd=folder, env=environment)
    assert answer.returncode == 0, answer.stderr
    assert {path.name for path in folder.iterdir()} == {"Al.poscar", "Al", "Al.csv"}
    assert [path.stat().st_size for path in folder.glob("Al/*/opt.log.gz")] > [0]
    assert "REMOTE" in answer.stdout
