"""`docs/slurm.md`, word by word, by somebody on the login node."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from conftest import eventually

pytest.importorskip("psij")

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/slurm.md").read_text(encoding="utf-8")
#: What is typed, and what is written into the configuration file, in the page's order.
BLOCKS = re.findall(r"^```(sh|toml)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path):
    """Return a folder with the examples."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    return tmp_path


def test_the_page(slurm, home, folder):
    assert [kind for kind, _ in BLOCKS] == ["sh", "sh", "sh", "toml", "sh", "sh"]
    environment = {
        "CRYSTALMATH_HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    said = []
    try:
        for kind, text in BLOCKS:
            if kind == "toml":
                with (home / "config.toml").open("a") as file:
                    file.write(text)
                continue
            # One after the other, and with what the page's reader has set before.
            script = f"set -euo pipefail\n{text}"
            command = ("bash", "-c", script)
            done = slurm.run(*command, cwd=folder, env=environment, timeout=900)
            said.append(done.stdout + done.stderr)
    finally:
        stop = (sys.executable, "-m", "crystalmath", "stop", "--cancel")
        slurm.run(*stop, env=environment, check=False)
    written, ran, stopped, allocation, batch = said
    (listed,) = (line for line in written.splitlines() if line.endswith("configured"))
    assert listed.startswith("slurm")
    assert re.search(r"^ok +queue +the job waited \d+ s", written, re.MULTILINE)
    assert re.search(r"^ok +node +node[12], \d+ cores, Python 3", written, re.MULTILINE)
    assert re.search(r"^ok +clock", written, re.MULTILINE)
    assert "-0.006006" in ran
    assert '"energy"' in ran
    assert len(stopped.strip().splitlines()) <= 2  # squeue's head
    assert "-0.006006" in allocation
    assert "Submitted batch job" in batch
    eventually(lambda: not slurm.queue(), 300)
    asked = (sys.executable, "-m", "crystalmath", "list", "--json")
    done = slurm.run(*asked, env=environment | {"CRYSTALMATH_HOME": str(folder / "many")})
    states = [job["status"] for job in json.loads(done.stdout)["jobs"]]
    assert states == ["completed", "completed"]
