"""`docs/convergence.md`, word by word, at a shell."""

import json
import re
from pathlib import Path

import pytest

from crystalmath.client import connect

pytestmark = pytest.mark.vasp

PAGE = (Path(__file__).parents[2] / "docs/convergence.md").read_text(encoding="utf-8")


@pytest.mark.by_turns
def test_convergence(follow, home_server, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    said = follow("convergence.md")
    shown = re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(shown) == 1
    assert shown[0] in said
    assert (tmp_path / "cutoff.svg").read_text(encoding="utf-8").startswith("<?xml")
    with connect(start=False) as client:
        assert client.totals(labels={"project": "cutoff"})["completed"] == 24
        ids = [job.job_id for job in client.list(labels={"project": "cutoff"})]
        sweep = client.sweep(ids, "rc", by="smooth")
    assert json.loads((tmp_path / "cutoff.json").read_text())["series"] == [
        {"name": one.name, "x": one.x, "y": list(one.y), "job_ids": list(one.job_ids)}
        for one in sweep.series
    ]
    assert [one.name for one in sweep.series] == ["smooth=false", "smooth=true"]
    # It converges: the last step is less than a fortieth of the first.
    for one in sweep.series:
        assert abs(one.y[-1] - one.y[-2]) < abs(one.y[1] - one.y[0]) / 40
