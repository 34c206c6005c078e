"""`docs/several-clusters.md`, word by word, by somebody on the login node."""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

pytest.importorskip("parsl")
pytest.importorskip("psij")

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/several-clusters.md").read_text(encoding="utf-8")


def blocks(kind):
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_page(slurm, home, tmp_path):
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    (tables,) = blocks("toml")
    # The nodes have no modules.
    (home / "config.toml").write_text(re.sub('"module load [^"]*"', '"export SITE=here"', tables))
    environment = {
        "CRYSTALMATH_HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    said = []
    try:
        for text in blocks("sh"):
            script = f"set -euo pipefail\n{text}"
            done = slurm.run(*("bash", "-c", script), cwd=tmp_path, env=environment, timeout=900)
            said.append(done.stdout + done.stderr)
    finally:
        stop = (sys.executable, "-m", "crystalmath", "stop", "--cancel")
        slurm.run(*stop, env=environment, check=False)
    checked, judged, ran, flow, again = said
    assert len(re.findall(r"^ok +queue +the job waited \d+ s", checked, re.MULTILINE)) == 2
    refusal, remote = blocks("text")
    assert refusal.strip() in judged
    assert "remotes add" in remote
    assert len(re.findall(r"^\S+ +many +emt.core.static_job", ran, re.MULTILINE)) == 2
    assert len(re.findall(r"^\S+ +large +emt.core.relax_job", ran, re.MULTILINE)) == 1
    assert "this job would be accepted" in flow
    assert "1 job: 1 completed" in again
