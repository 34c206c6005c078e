"""What a command imports: a shell user waits for each module. A count depends on no machine."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from crystalmath.cli import COMMANDS, build

#: Runs each command in a fork of a process that has imported Typer, and tells what else it imports.
FORKS = """
import json, os, sys, typer
before = set(sys.modules)
for command in json.loads(sys.argv[1]):
    reading, writing = os.pipe()
    if not os.fork():
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        from crystalmath.cli import main
        try:
            main(command)
        except SystemExit as left:
            code = left.code
        os.write(writing, json.dumps([code, sorted(set(sys.modules) - before)]).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as told:
        print(told.read().decode())
    os.wait()
"""


def imported(*commands):
    """Give the exit code of each command, and what it imports beside Typer."""
    asked = [sys.executable, "-c", FORKS, json.dumps(commands)]
    out = subprocess.check_output(asked, text=True)
    return [(code, set(modules)) for code, modules in map(json.loads, out.splitlines())]


def commands_in(modules):
    """Give the modules of commands among modules."""
    places = {f"crystalmath.cli.{one.place.partition(':')[0]}" for one in COMMANDS.values()}
    return places & modules


def test_the_help_of_all_imports_no_command():
    for code, modules in imported(["--help"], ["-h"], ["--version"]):
        assert code == 0
        assert commands_in(modules) == set()
        assert len(modules) <= 12, sorted(modules)


def test_the_help_of_a_command_imports_that_alone():
    asked = imported(*([name, "--help"] for name in COMMANDS))
    for (name, listed), (code, modules) in zip(COMMANDS.items(), asked, strict=True):
        assert code == 0
        # What both tell stands with one of them.
        shared = {"show": {"crystalmath.cli.status"}, "retry": {"crystalmath.cli.submit"}}
        own = {f"crystalmath.cli.{listed.place.partition(':')[0]}"}
        assert commands_in(modules) == own | shared.get(name, set())


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_has_the_first_line_of_the_help(name):
    assert build(name).help.partition("\n")[0] == COMMANDS[name].line


def test_commands_are_completed(cli, monkeypatch):
    for words, offered in (
        ("crystalmath sta", ["status"]),
        ("crystalmath status --verb", ["--verbose"]),
        ("crystalmath list --state comp", ["completed"]),
    ):
        monkeypatch.setenv("_CRYSTALMATH_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
        assert cli().out.split() == offered


def test_a_mistyped_command_is_told_of_the_nearest(cli):
    answer = cli("statsu")
    assert answer.code == 2
    assert "No such command 'statsu'. Did you mean 'status'" in answer.err
