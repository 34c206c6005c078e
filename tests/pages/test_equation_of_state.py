"""`docs/equation-of-state.md`, word by word, at a shell."""

import csv
import re
from pathlib import Path

import pytest

from crystalmath.client import connect

pytestmark = pytest.mark.vasp

PAGE = (Path(__file__).parents[2] / "docs/equation-of-state.md").read_text(encoding="utf-8")


@pytest.mark.by_turns
def test_equation_of_state(follow, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    said = follow("equation-of-state.md")
    shown = re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(shown) == 4
    for text in shown:
        assert text in said
    assert (tmp_path / "eos.png").read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "eos.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 21
    with connect(start=False) as client:
        jobs = [job.job_id for job in client.list(labels={"project": "eos"})]
        states = client.equations_of_state(jobs, by="metal").states
    # The commands and ase.eos find the same minimum.
    for state in states:
        fitted = f"{state.name.removeprefix('metal=')} birchmurnaghan"
        (line,) = [line for line in said.splitlines() if line.startswith(fitted)]
        assert f"{state.v0_ang3:7.3f} Å³  {state.b_gpa:6.1f} GPa" in line
