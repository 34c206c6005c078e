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
from conftest import LAB, LIGHT
from crystalmath.cli import COMMANDS, _added, build
from crystalmath.client import connect
from crystalmath.models import Submission
from crystalmath.service import JobService
from ends import finish

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
    # The commands of other distributions are listed without `importlib.metadata` and `email`.
    for (code, modules), most in zip(
        imported(["--help"], ["-h"], ["--version"]), (9, 9, 9), strict=True
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
    of_it = re.sub(r"crystalmath (\w+ )?--\S+", "", " ".join(texts))  # another command's
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


#: What is asked of Python, and what that may not import.
ASKED = {
    """
from crystalmath.quacc.engines import get_installed_engines
assert 'local' in get_installed_engines()
""": {"ase", "numpy", "sqlalchemy", "crystalmath_engine_parsl", "crystalmath.engines.local"},
    """
from crystalmath.quacc import get_runner
get_runner('local')
""": {"parsl", "covalent", "quacc", "crystalmath_engine_parsl"},
    """
from crystalmath.quacc.engines import describe_engines
assert {info.name: info.loads for info in describe_engines()}['local']
""": {"parsl", "covalent", "quacc", "ase"},
    """
from crystalmath.recipes.lookup import catalogue, look_up
found = look_up('quacc.recipes.emt.core.relax_job')
assert found.kind == 'job' and found.docstring.startswith('Carry out')
assert list(found.signature.parameters)[:2] == ['atoms', 'relax_cell']
assert len(list(catalogue())) > 50
""": {"quacc", "ase", "numpy", "monty", "pymatgen"},
    """
from crystalmath.preflight.programs_here import presets
assert presets({})
""": {"quacc"},
    "import crystalmath.cli.conform": {"pytest", "psutil", "crystalmath.testing"},
}


@pytest.mark.parametrize(("code", "heavy"), ASKED.items())
def test_what_is_asked_of_python_imports_nothing_heavy(code, heavy):
    code = f"import sys\n{code}\nprint(*sys.modules)"
    assert not heavy & {*subprocess.check_output([sys.executable, "-c", code], text=True).split()}


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
    _added.cache_clear()
    yield install("greetings", "greet", GREET, group="crystalmath.commands", attribute=":greet")
    _added.cache_clear()


def test_a_distribution_adds_a_command(cli, greeting):
    done = cli("greet", "you", "--loud")
    assert (done.code, done.out, done.err) == (3, "HELLO you\n", "")
    told = cli("greet", "--help").out
    assert "Greet somebody." in told
    assert "--loud" in told
    assert cli("greet", "--quiet").code == 2
    assert re.search(r"^  greet +Made for a test$", cli("--help").out, re.MULTILINE)


def test_an_added_command_is_imported_by_itself_alone(greeting, jobs):
    own, *others = imported(
        ["greet", "you"], ["--help"], ["list"], ["status", jobs[0]], ["statsu"], ["--version"]
    )
    assert greeting in own[1]
    for _, modules in others:
        assert greeting not in modules
    # The group is not even read where the name is in the table.
    assert all("importlib.metadata" not in others[which][1] for which in (1, 2, 4))


def test_an_added_command_that_cannot_be_used_hinders_no_other(cli, install, greeting):
    group = "crystalmath.commands"
    install("broken", "shatter", "raise RuntimeError('in pieces')", group, ":shatter")
    install("thief", "status", GREET, group, ":greet")
    install("second", "greet", GREET, group, ":greet")
    told = cli("--help")
    assert told.code == 0
    assert "shatter" in told.out
    assert "Show a job's state" in cli("status", "--help").out
    shattered = cli("shatter", "--json")
    assert (shattered.code, shattered.err.strip()) == (
        1,
        (
            "Error: the command 'shatter' of 'broken' cannot be loaded: RuntimeError: in pieces; "
            "mend or uninstall it"
        ),
    )
    assert "is provided by" in cli("greet", "you").err


def test_what_python_does_not_take_for_a_command_is_none(cli, install, tmp_path, monkeypatch):
    install("greetings", "greet", GREET, "crystalmath.commands", ":greet")
    points = tmp_path / "greetings-1.0.dist-info/entry_points.txt"
    points.write_text(points.read_text() + "# wave = greetings_plugin:wave\n")
    # Of a distribution that is there twice, the first on the path.
    older = tmp_path / "older/Greetings-0.9.dist-info"
    older.mkdir(parents=True)
    (older / "METADATA").write_text("Metadata-Version: 2.1\nName: Greetings\nVersion: 0.9\n")
    (older / "entry_points.txt").write_text("[crystalmath.commands]\nhail = greetings:hail\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(older.parent)])
    _added.cache_clear()
    assert "greet" in _added()
    assert not {"# wave", "hail"} & _added().keys()
    assert "No such command 'hail'" in cli("hail").err
    _added.cache_clear()


@pytest.mark.parametrize(("name", "package"), [("ui", "web"), ("top", "top"), ("mcp", "mcp")])
def test_a_command_whose_package_is_missing_says_so(cli, monkeypatch, name, package):
    monkeypatch.setattr("crystalmath.cli._added", dict)
    refused = cli(name)
    assert refused.code == 2
    assert f"pip install ./packages/{package}" in refused.err


def test_a_distribution_that_cannot_be_read_hinders_no_other(install, greeting, tmp_path):
    install("latin", "salute", GREET, group="crystalmath.commands", attribute=":greet")
    (tmp_path / "latin-1.0.dist-info/METADATA").write_bytes(b"Name: latin\nSummary: gr\xfc\xdfen\n")
    install("broken", "shatter", "")
    broken = tmp_path / "broken-1.0.dist-info/entry_points.txt"
    broken.write_text("[crystalmath.commands]\nshatter\n")
    command = (sys.executable, "-m", "crystalmath")
    told = ran(*command, "--help")
    assert told.returncode == 0
    assert {"greet", "salute"} <= set(told.stdout.split())
    assert f"{broken} cannot be read" in told.stderr
    assert "local" in ran(*command, "engines").stdout


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


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Make a home with a job that completed, and one that failed."""
    environ = {
        "CRYSTALMATH_HOME": str(tmp_path_factory.mktemp("shared")),
        "CRYSTALMATH_RECIPES": "lab_recipes",
        "PYTHONPATH": os.pathsep.join([str(LIGHT), os.environ["PYTHONPATH"]]),
    }
    common = {"atoms": bulk("Al"), "labels": {"set": "a"}, "engine": "local"}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(LAB)
        for name, value in environ.items():
            patch.setenv(name, value)
        with JobService() as service:
            asked = [
                Submission(recipe="lab_recipes.value", name="good", **common),
                Submission(recipe="lab_recipes.fail", parameters={"message": "bad"}, **common),
            ]
            ids = [service.submit(one).job_id for one in asked]
            for job_id in ids:
                finish(service, job_id)
    return ids, environ["CRYSTALMATH_HOME"]


@pytest.fixture
def jobs(shared, lab, monkeypatch):
    ids, home = shared
    monkeypatch.setenv("CRYSTALMATH_HOME", home)
    return ids


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


def test_a_recipe_or_a_label_that_no_job_has_is_asked_back(jobs, cli):
    told = cli("list", "--recipe", "lab_recipes.valeu")
    none = "no jobs; none on record has the recipe"
    assert (told.code, told.err.strip()) == (
        0,
        f"{none} 'lab_recipes.valeu'; did you mean 'lab_recipes.value'?",
    )
    assert cli("list", "--recipe", "vasp").err.strip() == f"{none} 'vasp'"
    # Another filter leaves none of it.
    assert cli("list", "--recipe", "lab_recipes", "--state", "cancelled").err.strip() == "no jobs"
    none = "no jobs; none on record has the label"
    assert cli("list", "--label", "set=b").err.strip() == f"{none} set=b; did you mean 'set=a'?"
    assert cli("list", "--label", "project=new").err.strip() == f"{none} project=new"
    assert cli("list", "--label", "set=a", "--state", "cancelled").err.strip() == "no jobs"


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
