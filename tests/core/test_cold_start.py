"""What a command imports: a shell user waits for each module. A count depends on no machine."""

import contextlib
import json
import os
import re
import subprocess
import sys

import pytest
from ase.build import bulk

from commands import ran
from crystalmath.cli import COMMANDS, build
from crystalmath.client import connect

#: Runs each command in a fork of a process that has imported Typer, and tells what else it imports.
FORKS = """
import json, os, sys, threading, typer
threading.Timer.start = lambda _: None  # begins what is told after a second: not on a busy machine
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
    """Return the exit code of each command, and what it imports beside Typer."""
    asked = [sys.executable, "-c", FORKS, json.dumps(commands)]
    out = subprocess.check_output(asked, text=True)
    return [(code, set(modules)) for code, modules in map(json.loads, out.splitlines())]


def commands_in(modules):
    """Return the modules of commands among modules."""
    places = {f"crystalmath.cli.{one.place.partition(':')[0]}" for one in COMMANDS.values()}
    return places & modules


def test_the_help_of_all_imports_no_command():
    # To list the commands of other distributions takes `importlib.metadata`.
    for (code, modules), most in zip(
        imported(["--help"], ["-h"], ["--version"]), (58, 58, 9), strict=True
    ):
        assert code == 0
        assert commands_in(modules) == set()
        assert len(modules) <= most, sorted(modules)


def test_the_help_of_a_command_imports_that_alone():
    asked = imported(*([name, "--help"] for name in COMMANDS))
    for listed, (code, modules) in zip(COMMANDS.values(), asked, strict=True):
        assert code == 0
        assert commands_in(modules) == {f"crystalmath.cli.{listed.place.partition(':')[0]}"}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_has_the_first_line_of_the_help(name):
    assert build(name).help.partition("\n")[0] == COMMANDS[name].line


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_options_of_the_command_alone(name):
    command = build(name)
    texts = [command.help, *(getattr(one, "help", None) or "" for one in command.params)]
    of_it = re.sub(r"crystalmath \w+ --\S+", "", " ".join(texts))  # another command's
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", of_it))
    assert named <= {option for one in command.params for option in one.opts}


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


# --- commands of other distributions ---------------------------------------------------------

GREET = '''
from typing import Annotated
import typer

Loud = Annotated[bool, typer.Option("--loud", help="Shout.")]

def greet(whom: str, *, loud: Loud = False) -> int:
    """Greet somebody."""
    print("HELLO" if loud else "hello", whom)
    return 3
'''


@pytest.fixture
def greeting(install, tmp_path, monkeypatch):
    """Install a distribution that adds a command; commands in processes of their own see it."""
    paths = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    monkeypatch.setenv("PYTHONPATH", paths)
    return install("greetings", "greet", GREET, group="crystalmath.commands", attribute=":greet")


def crystalmath(*arguments):
    return ran(sys.executable, "-m", "crystalmath", *arguments)


def test_a_distribution_adds_a_command(greeting):
    done = crystalmath("greet", "you", "--loud")
    assert (done.returncode, done.stdout, done.stderr) == (3, "HELLO you\n", "")
    told = crystalmath("greet", "--help").stdout
    assert "Greet somebody." in told
    assert "--loud" in told
    assert crystalmath("greet", "--quiet").returncode == 2
    assert re.search(r"^  greet +Made for a test$", crystalmath("--help").stdout, re.MULTILINE)


def test_an_added_command_is_imported_by_itself_alone(greeting, jobs):
    own, *others = imported(
        ["greet", "you"], ["--help"], ["list"], ["status", jobs[0]], ["statsu"], ["--version"]
    )
    assert greeting in own[1]
    for _, modules in others:
        assert greeting not in modules
    # The group is not even read where the name is in the table.
    assert all("importlib.metadata" not in others[which][1] for which in (1, 2, 4))


def test_an_added_command_that_cannot_be_used_hinders_no_other(install, greeting):
    group = "crystalmath.commands"
    install("broken", "shatter", "raise RuntimeError('in pieces')", group, ":shatter")
    install("thief", "status", GREET, group, ":greet")
    install("second", "greet", GREET, group, ":greet")
    told = crystalmath("--help")
    assert told.returncode == 0
    assert "shatter" in told.stdout
    assert "Show what became of a job." in crystalmath("status", "--help").stdout
    shattered = crystalmath("shatter", "--json")
    assert (shattered.returncode, shattered.stderr.strip()) == (
        1,
        (
            "Error: the command 'shatter' of 'broken' cannot be loaded: RuntimeError: in pieces; "
            "mend or uninstall it"
        ),
    )
    assert "is provided by" in crystalmath("greet", "you").stderr


def test_a_distribution_that_cannot_be_read_hinders_no_other(install, greeting, tmp_path):
    install("latin", "salute", GREET, group="crystalmath.commands", attribute=":greet")
    (tmp_path / "latin-1.0.dist-info/METADATA").write_bytes(b"Name: latin\nSummary: gr\xfc\xdfen\n")
    install("broken", "shatter", "")
    broken = tmp_path / "broken-1.0.dist-info/entry_points.txt"
    broken.write_text("[crystalmath.commands]\nshatter\n")
    told = crystalmath("--help")
    assert told.returncode == 0
    assert {"greet", "salute"} <= set(told.stdout.split())
    assert f"{broken} cannot be read" in told.stderr
    assert "local" in crystalmath("engines").stdout


# --- commands that read ----------------------------------------------------------------------

#: Without a server, and with one: no more modules than these beside Typer's, and none of those.
BOUNDS = {
    "status": (93, 38),
    "list": (95, 44),
    "list --json": (95, 44),
    "list --state completed --label set=a --sort energy_ev": (99, 48),
    "show": (95, 39),
    "counts --json": (95, 44),
    "result": (93, 64),
    "result --json": (99, 38),
    "logs": (97, 39),
}
HEAVY = {
    *("sqlalchemy", "asyncio", "ase", "numpy", "jsonschema", "quacc", "pluggy", "alembic"),
    *("logging", "importlib.metadata", "concurrent", "rich.table", "rich.console"),
    *("mcp", "pydantic", "starlette", "textual"),  # of front ends
    *(
        "crystalmath.client.client",
        "crystalmath.server.handlers",
        "crystalmath.service.job_service",
    ),
}


@pytest.fixture
def jobs(home, lab, cli, tmp_path):
    """Make a home with a job that completed, and one that failed."""
    poscar = tmp_path / "Al.poscar"
    bulk("Al").write(poscar, format="vasp")
    options = ["--json", "--label", "set=a", "--engine", "local"]
    done = cli("run", "lab_recipes.value", poscar, "--name", "good", *options).json
    failed = cli("run", "lab_recipes.fail", poscar, "--param", "message=bad", *options).json
    return [done["job_id"], failed["job_id"]]


@contextlib.contextmanager
def serving(cli):
    """Have the home's server run."""
    connect(start=True).close()
    try:
        yield
    finally:
        assert cli("stop", "--cancel").code == 0


def named(command, job_id):
    """Add the id where a command wants one."""
    name, *options = command.split()
    return [name, *([job_id] if name in {"status", "show", "result", "logs"} else []), *options]


def test_commands_that_read_import_little(jobs, cli):
    asked = [named(command, jobs[0]) for command in BOUNDS]
    alone = imported(*asked)
    with serving(cli):
        served = imported(*asked)
    for way, answers in enumerate((alone, served)):
        for (command, most), (code, modules) in zip(BOUNDS.items(), answers, strict=True):
            assert code == 0, command
            heavy = HEAVY & modules
            assert heavy == set(), command
            assert len(modules) <= most[way], (command, len(modules))
    assert not any("sqlite3" in modules for _, modules in served)
    # To read a job as a record takes attrs; to show what the server answers does not.
    assert [
        name for name, (_, modules) in zip(BOUNDS, served, strict=True) if "attr" in modules
    ] == ["result"]


def test_answers_are_the_same_with_a_server_and_without(jobs, cli):
    commands = ["status", "show", "result --json", "logs --json", "result --field value --json"]
    asked = [named(command, job_id) for command in commands for job_id in jobs]
    asked += [["status", jobs[0][:12]], ["status", "ffff"], ["show", "ffff"], ["status", ""]]
    asked += [["list", "--limit", "1"], ["list", "--summary"], ["counts", "--last", "2h"]]
    asked += [["list", "--state", "failed", "--exclude", "name=good", "--sort", "-runtime_s"]]
    asked += [["list", "--formula", "Xx"], ["list", "--elements", "Al", "--energy-max", "1"]]
    asked = [one if "--json" in one else [*one, "--json"] for one in asked]
    alone = [cli(*one) for one in asked]
    with serving(cli):
        server = [cli(*one) for one in asked]
    for command, one, other in zip(asked, alone, server, strict=True):
        assert (one.code, one.json, one.err) == (other.code, other.json, other.err), command
        assert one.out == other.out, command
