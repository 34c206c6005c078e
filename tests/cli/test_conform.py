"""`crystalmath conform`, on the real kit and on engines that cannot pass it."""

import os
import re
import sys

import pytest

from commands import Answer, ran
from crystalmath import __version__

pytestmark = pytest.mark.processes

REFUSED = "test_an_unknown_cluster_is_refused"
PROMISE = (
    "an unknown cluster is refused: `submit` raises a `ValueError` that names all clusters, and "
    "leaves no job behind."
)
#: With these nothing is measured.
LIMITS = ("--start", "60s", "--turn", "3s")

PLUGIN = """
import os

from crystalmath.engines.local import LocalRunner
from crystalmath.errors import ConfigError, EngineUnavailable
from crystalmath.hookspecs import hookimpl


class Runner(LocalRunner):
    def clusters(self):
        return ["local"]

    def launch(self, attempts):
        if self.settings.options.get("away"):
            raise EngineUnavailable(f"nobody answers at port {len(attempts)}")
        return super().launch(attempts)

    def check_cluster(self, cluster):
        if self.settings.options.get("exits"):
            os._exit(7)
        if self.settings.options.get("refuses"):
            super().check_cluster(cluster)


@hookimpl
def crystalmath_make_runner(settings):
    if settings.options["workers"] != settings.options.get("expected", 2):
        raise ConfigError(f"there are {settings.options['workers']} workers")
    return Runner(settings)
"""


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """Install an engine that takes any cluster, and one that cannot be imported."""
    folder = tmp_path / "site"
    metadata = folder / "lax-1.5.dist-info"
    metadata.mkdir(parents=True)
    (folder / "lax_engine.py").write_text(PLUGIN)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: lax\nVersion: 1.5\n")
    (metadata / "entry_points.txt").write_text(
        "[crystalmath.engines]\nlax = lax_engine\nbroken = a_module_that_is_not_there\n"
    )
    path = os.pathsep.join([str(folder), os.environ["PYTHONPATH"]])
    monkeypatch.setenv("PYTHONPATH", path)
    return "lax"


def conform(*arguments, code=None, **environment):
    """Run the command; `code` is run before it, in the same process."""
    run = f"{code or ''}\nfrom crystalmath.cli import main\nmain({['conform', *arguments]!r})"
    done = ran(sys.executable, "-c", run, env={**os.environ, **environment})
    return Answer(done.returncode, done.stdout, done.stderr)


def test_a_good_engine(tmp_path, home, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)  # lines are whole unless it says how long
    # What the user has set for pytest is no business of the kit.
    answer = conform(
        "local", "-k", f"{REFUSED} or one_job", TMPDIR=str(tmp_path), PYTEST_ADDOPTS="--no-such"
    )
    assert answer.code == 0, answer.err
    rows = [" ".join(line.split()) for line in answer.out.splitlines()]
    assert f"submission kept {PROMISE}" in rows
    # Whole, as it goes to no terminal.
    assert (
        "first_job kept one job ends: The engine launches a job, a worker runs it, and its result "
        "is there." in rows
    )
    assert f"local {__version__}: 2 passed in " in answer.out
    assert re.search(rf"PASSED .*::{REFUSED}", answer.err)
    told = r"a job takes [\d.]+ s on the cold engine, [\d.]+ s on the warm one: .* take about \d"
    assert re.search(told, answer.err)
    assert list(tmp_path.iterdir()) == []
    assert list(home.iterdir()) == []


def test_one_that_breaks_a_rule(engine):
    answer = conform(engine, *LIMITS, "-k", REFUSED, "--json")
    assert answer.code == 1, answer.err
    document = answer.json
    (test,) = document.pop("tests")
    assert document.pop("seconds") > 0
    (promise,) = document.pop("promises")
    assert "DID NOT RAISE" in promise.pop("reason")
    assert promise == {
        "topic": "submission",
        "test": REFUSED,
        "promise": PROMISE,
        "guide": "Who calls what",
        "state": "broken",
    }
    assert document == {
        "error": None,
        "pace": None,
        "engine": "lax",
        "version": "1.5",
        "passed": 0,
        "failed": 1,
        "skipped": 0,
        "xfailed": 0,
    }
    assert test.pop("seconds") > 0
    assert "DID NOT RAISE" in test.pop("reason")
    assert test == {"name": REFUSED, "topic": "submission", "outcome": "failed"}
    assert "with pytest.raises" in answer.err


def test_the_table_says_why(engine):
    limits = (*LIMITS, "--linger", "20s")
    answer = conform(engine, *limits, "-k", REFUSED, "--option", "refuses=false")
    assert answer.code == 1
    assert "DID NOT RAISE" in answer.out
    assert "See 'Who calls what' in docs/engine-contract.md." in answer.out
    again = "crystalmath conform lax --option=refuses=false --start=60s --turn=3s --linger=20s"
    assert f"Look closer: {again} -k {REFUSED}\n" in answer.out
    assert "lax 1.5: 1 failed" in answer.out
    assert re.search(
        "-- What is asked of the engine --+\nan unknown cluster is refused", answer.err
    )


@pytest.mark.by_turns
def test_options_come_from_the_configuration_and_the_command_line(engine, home):
    (home / "config.toml").write_text("[engines.lax]\nrefuses = true\nworkers = 3\n")
    chosen = (engine, *LIMITS, "-k", REFUSED)
    assert conform(*chosen, "--option", "expected=3").code == 0
    assert conform(*chosen, "--option", "expected=4", "--workers", "4").code == 0
    other = conform(*chosen, "--option", "expected=3", "--option", "refuses=false")
    assert other.code == 1
    assert "there are 3 workers" in conform(*chosen).err


def test_jobs_go_to_a_cluster(engine, home):
    (home / "config.toml").write_text(
        '[clusters.big]\nengine = "lax"\nscheduler = "slurm"\nqueue = "long"\n'
        "[clusters.odd]\nengine = \"lax\"\noptions = {qos = 'low'}\n"
    )
    chosen = (engine, *LIMITS, "-k", "one_job", "--option", "refuses=true", "--option", "workers=2")
    answer = conform(*chosen, "--cluster", "big")
    # It was asked for the cluster: one that takes none says so.
    assert "[clusters.big] the engine 'lax' takes no clusters from the configuration" in answer.out
    assert "--cluster=big --start=60s --turn=3s -k test_one_job_ends" in answer.out
    assert list(home.iterdir()) == [home / "config.toml"]
    assert "has no cluster 'huge' in config.toml; it has: big, odd" in " ".join(
        conform(*chosen, "--cluster", "huge").err.split()
    )
    told = " ".join(conform(*chosen, "--cluster", "odd").err.split())
    assert "options is {'qos': 'low'}" in told


TELLING = """
from crystalmath.testing import run

def tell(subject, folder, keyword):
    raise SystemExit(f"it may linger {subject.linger_s:g} s")

run.list_kit = tell
"""


@pytest.mark.parametrize(
    ("arguments", "seconds"),
    [((), 10), (("--linger", "2m"), 120), (("--cluster", "big", "--linger", "90s"), 90)],
)
def test_how_long_a_process_may_linger(engine, home, arguments, seconds):
    (home / "config.toml").write_text('[clusters.big]\nengine = "lax"\n')
    answer = conform(engine, "--list", *arguments, code=TELLING)
    assert f"it may linger {seconds} s" in answer.err


def test_an_engine_that_ends_the_process(engine):
    answer = conform(engine, *LIMITS, "-k", REFUSED, "--option", "exits=true", "--json")
    assert answer.code == 1, answer.err
    (test,) = answer.json["tests"]
    assert (test["name"], test["outcome"]) == (REFUSED, "failed")
    assert "crashed while running" in test["reason"]


def test_one_that_runs_no_job(engine):
    chosen = ("-k", f"{REFUSED} or clusters")
    answer = conform(engine, *chosen, "--option", "away=true", "--start", "2s", "--json")
    assert answer.code == 1, answer.err
    (test,) = answer.json["tests"]
    assert test["name"] == "test_one_job_ends"
    # The engine's own words.
    assert "a job that does nothing did not end in 2 s" in test["reason"]
    assert "nobody answers at port 1" in test["reason"]
    states = [promise["state"] for promise in answer.json["promises"]]
    assert states[0] == "broken"
    assert set(states[1:]) == {"not tried"}
    assert "no job completed" in answer.json["promises"][1]["reason"]


def test_one_whose_constructor_fails(engine):
    answer = conform(engine, "-k", REFUSED, "--option", "expected=7")
    assert answer.code == 1
    (broken,) = [part for part in answer.out.split("\n\n") if part.startswith("broken:")]
    assert "in crystalmath_make_runner" in broken
    assert "ConfigError: there are 2 workers" in broken


def test_the_first_failure_ends_it(engine):
    # Each of its tests fails.
    chosen = ("-k", "signatures", "--option", "expected=7")
    for more, failures in (((), 4), (("-x",), 1)):
        answer = conform(engine, *LIMITS, *chosen, *more, "--json")
        assert answer.code == 1
        assert answer.json["failed"] == failures


def test_tests_are_listed(engine):
    answer = conform(engine, "--list", "-k", "signatures or one_job", "--json")
    assert answer.code == 0, answer.err
    tests = answer.json["tests"]
    assert len(tests) == 5
    assert tests[0] == {
        "name": "test_one_job_ends",
        "topic": "first_job",
        "promise": "one job ends: The engine launches a job, a worker runs it, and its result "
        "is there.",
        "guide": "Launch",
    }
    text = conform(engine, "--list", "-k", "signatures")
    assert [line.split()[:2] for line in text.out.splitlines()] == [
        ["TOPIC", "TEST"],
        ["hygiene", "test_signatures"],
    ]


def test_one_that_cannot_be_loaded(engine):
    answer = conform("broken", "--json")
    assert answer.code == 1
    assert "a_module_that_is_not_there" in answer.json["error"]
    assert answer.json["tests"] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nope"], "installed are: broken,"),
        (["lax", "--workers", "0"], "--workers"),
        (["lax", "--option", "workers"], "KEY=VALUE"),
        (["lax", "--option", "workers=many"], "workers must be a whole number from 1, not 'many'"),
        (["lax", "--option", "table={}"], "table is {}"),
        (["lax", "-k", "no_such_test"], "no test of the kit"),
        (["lax", "--list", "-k", "no_such_test"], "no test of the kit"),
        (["lax", "--turn", "soon"], "--turn"),
        (["lax", "--start", "0"], "--start"),
        (["lax", "--linger", "long"], "--linger"),
        (["lax", "-k", "a and"], "a and"),
    ],
)
def test_wrong_usage(engine, arguments, said):
    answer = conform(*arguments)
    assert answer.code == 2
    assert said in " ".join(answer.err.split())
    assert answer.out == ""


@pytest.mark.parametrize("missing", ["pytest", "psutil", "xdist"])
def test_what_is_missing_is_named(missing):
    # As good as not installed: nobody finds it.
    code = (
        "import importlib.abc, importlib.util, sys\n"
        "find = importlib.util.find_spec\n"
        f"importlib.util.find_spec = lambda name: None if name == {missing!r} else find(name)\n"
    )
    answer = conform("local", code=code)
    assert answer.code == 1
    needed = {"xdist": "pytest-xdist"}.get(missing, missing)
    assert f"the tests need {needed}: pip install 'crystalmath[testing]'" in answer.err


def test_help_has_an_example():
    assert "Example: crystalmath conform local" in conform("-h").out
