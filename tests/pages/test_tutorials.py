"""The tutorials, word by word, at a shell."""

import re
from pathlib import Path

import pytest

from vasp import standin
from vasp.potcars import library

pytestmark = pytest.mark.vasp

TUTORIALS = Path(__file__).parents[2] / "docs/tutorials"


def _expected(page):
    text = (TUTORIALS / page).read_text(encoding="utf-8")
    shown = re.findall(r"^```text\n(.*?)\n```$", text, re.MULTILINE | re.DOTALL)
    assert shown
    return shown


@pytest.mark.by_turns
@pytest.mark.parametrize("page", ["first-job.md", "first-flow.md"])
def test_a_tutorial(follow, page):
    said = follow(f"tutorials/{page}")
    for text in _expected(page):
        assert text in said


@pytest.mark.by_turns
def test_the_first_vasp_job(follow, tmp_path):
    standin.install(tmp_path / "bin")
    potcars = library(tmp_path / "potcars", "Al")
    # The page names the folders of a machine that has VASP.
    here = {"/opt/vasp/bin": tmp_path / "bin", "/opt/vasp/potcars": potcars}
    said = follow("tutorials/first-vasp-job.md", here)
    for text in _expected("first-vasp-job.md"):
        assert text in said
