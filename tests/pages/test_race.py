"""The page of the race has the table of all contestants and tasks, and each cell says something."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/race.md").read_text(encoding="utf-8")
RACE = ROOT / "benchmarks/race"


def test_the_table_has_each_contestant_and_each_task():
    declared = tomllib.loads((RACE / "contestants.toml").read_text(encoding="utf-8"))["contestant"]
    tasks = re.search(r"^TASKS = \((.*)\)$", (RACE / "race.py").read_text(), re.MULTILINE)[1]
    table = re.search(r"^\|  \| noop .*?(?=\n\n)", PAGE, re.MULTILINE | re.DOTALL)[0]
    head, _, *rows = (
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()
    )
    assert head[1:] == re.findall(r"\w+", tasks)
    assert [row[0] for row in rows] == [each["name"] for each in declared]
    assert all(len(row) == len(head) and all(row) for row in rows)
