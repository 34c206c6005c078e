"""How often the other machine is asked, and what a lost connection changes."""

import sys
from pathlib import Path

import pytest
from ase.build import bulk
from ase.io import write

pytestmark = pytest.mark.server


@pytest.fixture
def turns(hawk, home, tmp_path):
    """Count the round trips of commands to the machine."""
    log = tmp_path / "turns"
    command = f"{sys.executable} {counting_file()} {log} {hawk.command}"
    (home / "config.toml").write_text(hawk.table(command=command))

    def since():
        count = len(log.read_text().splitlines()) if log.exists() else 0
        log.unlink(missing_ok=True)
        return count

    return since


def counting_file():
    return Path(__file__).with_name("counting.py")


def test_the_commands_of_every_day_take_few_round_trips(there, turns, tmp_path):
    assert there("list").code == 0
    assert turns() == 1
    assert there("list", "--json").code == 0
    assert turns() == 1
    many = tmp_path / "many.extxyz"
    write(many, [bulk("Al", a=4 + number / 1e4) for number in range(1000)])
    answer = there("submit", "lab_recipes.value", many, "--engine", "none")
    assert answer.code == 1  # each is refused, and none is run
    assert turns() <= 3
