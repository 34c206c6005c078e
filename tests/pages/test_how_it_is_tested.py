"""The pages about the tests name what is there: files, numbers and sessions."""

import re
import tomllib
from pathlib import Path

from simulation.test_faults import FAULTS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/how-it-is-tested.md").read_text(encoding="utf-8")
SESSIONS = tomllib.loads((ROOT / "noxfile.toml").read_text(encoding="utf-8"))["sessions"]


def test_the_page_names_files_that_are_there():
    named = re.findall(r"`((?:tests|benchmarks)/[\w/.]+)`", PAGE)
    assert len(named) > 6
    assert not [path for path in named if not (ROOT / path).exists()]


def test_the_page_has_the_present_numbers():
    assert f"{len(FAULTS)} of them, are put back" in " ".join(PAGE.split())
    (lives, drawn) = (
        re.search(r"CRYSTALMATH_LIVES=(\d+)", session["run"][0])[1]
        for session in (SESSIONS["kit"], SESSIONS["drawn"]["cases"]["lives"])
    )
    assert f"Each landing runs {int(lives):,} lives, and {int(drawn):,} by turns" in PAGE


def test_the_table_for_contributors_has_all_sessions():
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?) \|", page.partition("\n## Sessions\n")[2], re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)", row)}
    # The default sessions stand above the table.
    assert SESSIONS.keys() - {"lint", "types", "tests"} <= named
    functions = {"own", "release", "together", "coverage"}
    assert named <= SESSIONS.keys() | functions
