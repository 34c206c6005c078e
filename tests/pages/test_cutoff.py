"""`docs/cutoff.md`, word by word, at a shell, with the real ``pw.x``."""

import json
import shutil
from pathlib import Path

import pytest

from crystalmath.client import connect

pytestmark = pytest.mark.vasp

PSEUDO = Path("/usr/share/espresso/pseudo/Al.pz-vbc.UPF")


@pytest.mark.skipif(
    shutil.which("pw.x") is None or not PSEUDO.exists(),
    reason="there is no pw.x, or not Debian's pseudopotentials: apt-get install quantum-espresso",
)
def test_cutoff(follow, home_server, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    said = follow("cutoff.md")
    with connect(start=False) as client:
        assert client.totals(labels={"project": "pw"})["completed"] == 6
    (curve,) = json.loads((tmp_path / "pw-cutoff.json").read_text())["series"]
    assert curve["x"] == [8, 12, 16, 20, 24, 28]
    # A larger basis has a lower energy, and the last step is the smallest.
    steps = [before - after for before, after in zip(curve["y"], curve["y"][1:], strict=False)]
    assert min(steps) == steps[-1] > 0
    assert said.splitlines()[-1] == "ecutwfc 24 Ry"
