"""A job sees its submitter's environment, as far as it is forwarded; and no log tells of it."""

import json
import logging
import os

import pytest

from crystalmath.server.log import SIZE, log_to

pytestmark = pytest.mark.server

VALUE = {"recipe": "lab_recipes.value", "structure": {"symbols": "Al"}, "engine": "local"}


def seen(server, job_id):
    """Return what a job of `where` has seen."""
    assert server.finish(job_id)["status"] == "completed"
    return server.call("jobs.result", job_id=job_id)["result"]


# --- whose environment counts --------------------------------------------------------------------


def test_a_job_sees_what_its_submitter_has_and_nothing_of_the_servers(server):
    server.home.mkdir()
    forward = ["PATH", "LD_LIBRARY_PATH", "VASP_*", "ASE_*", "MYLAB"]
    (server.home / "config.toml").write_text(
        f"[environment]\nforward = {json.dumps(forward)}\n[engines.local]\nworkers = 1\n"
        "[environment.set]\nVASP_SET = '/set'\nVASP_PP_PATH = '/set'\n"
    )
    servers = ("VASP_PP_PATH", "ASE_X", "MYLAB", "LD_LIBRARY_PATH", "VASP_OWN")
    server.start(**dict.fromkeys(servers, "/server"))
    path = os.environ["PATH"]
    first = {"PATH": path, "VASP_PP_PATH": "/first", "SECRET": "x"}
    second = {"PATH": path, "VASP_PP_PATH": "/second"}
    given = {"recipe": "lab_recipes.where", "structure": {"symbols": "Al"}, "engine": "local"}
    jobs = [
        server.submit("where", **more)
        for more in ({"environment": first}, {"environment": second}, {"environment": first}, {})
    ]
    told = [seen(server, job_id) for job_id in jobs]
    for job, own in zip(told, (first, second, first), strict=False):
        known = {name: job["environment"].get(name) for name in (*servers, "SECRET")}
        assert known == {**dict.fromkeys(known), "VASP_PP_PATH": own["VASP_PP_PATH"]}
    # What the file sets, each has that has not set it itself.
    assert {job["environment"]["VASP_SET"] for job in told} == {"/set"}
    # Warm runners are kept apart by it: none has run a job of another environment.
    assert len({job["pid"] for job in told[:2]}) == 2
    # Who brings none has the server's.
    assert {told[3]["environment"][name] for name in servers} == {"/server"}
    checked = server.call("jobs.check", **given, environment=first)
    assert checked["status"] == "ok"
    assert checked["environment"] == ["CRYSTALMATH_RECIPES", "PATH", "VASP_PP_PATH", "VASP_SET"]


def test_no_environment_admits_recipes(server):
    server.home.mkdir()
    (server.home / "config.toml").write_text("[environment]\nforward = ['*']\n")
    server.start()
    theirs = {"CRYSTALMATH_RECIPES": "os", "PATH": os.environ["PATH"]}
    refused = server.call("jobs.submit", **{**VALUE, "recipe": "os.listdir"}, environment=theirs)
    assert "not permitted" in refused["error"]
    job = seen(server, server.submit("where", environment=theirs))
    assert job["environment"]["CRYSTALMATH_RECIPES"] == "lab_recipes"


@pytest.mark.parametrize("name", ["", "A=B", "A\0"])
def test_a_name_that_no_variable_can_have_is_refused(served, name):
    refused = served.call("jobs.submit", **VALUE, environment={name: "secret"})
    assert refused["status"] == "error"
    assert "environment variable" in refused["error"]


@pytest.mark.parametrize("value", [7, None, ["x"], "secret\0"])
def test_a_value_that_no_variable_can_have_is_refused(served, value):
    refused = served.call("jobs.submit", **VALUE, environment={"VASP_X": value})
    assert refused["status"] == "error"
    assert "VASP_X" in refused["error"]
    assert "secret" not in refused["error"]


# --- the log -------------------------------------------------------------------------------------

LEAKY = """
from pathlib import Path
from crystalmath.engines.local import LocalRunner
from crystalmath.hookspecs import hookimpl

class Leaky(LocalRunner):
    def launch(self, attempts):
        spec = Path(attempts[0].directory, "spec").read_text()
        self.log.warning("about to fail")
        try:
            raise ValueError(spec)
        except ValueError as error:
            raise RuntimeError(repr(error)) from error

@hookimpl
def crystalmath_make_runner(settings):
    return Leaky(settings)
"""


@pytest.fixture
def leaky(server, tmp_path):
    """Install an engine whose exceptions tell everything."""
    server.install(tmp_path / "site", leaky=LEAKY)
    return server


def test_no_canary_is_ever_in_the_log(leaky, tmp_path):
    server = leaky
    database = tmp_path / "canary-database" / "jobs.sqlite"
    server.start(
        CRYSTALMATH_DATABASE_URL=f"sqlite:///{database}", VASP_CANARY="canary-of-the-server"
    )
    secret = {"environment": {"PATH": os.environ["PATH"], "VASP_KEY": "canary-environment"}}
    parameters = {"params": {"number": "canary-parameter"}}
    # What runs, what an engine fails to launch, and what is refused in many ways.
    for engine in ("local", "leaky"):
        job_id = server.submit("value", engine=engine, **secret, **parameters)
        job = server.finish(job_id)
        assert job["status"] == ("completed" if engine == "local" else "failed")
    assert "canary-environment" in job["error"], "the engine does not leak as it should"
    for wrong in (
        {"params": {"canary-parameter": 1}},
        {"params": "canary-parameter"},
        {"params": {"number": {"@module": "canary-parameter", "@class": "X"}}},
        {"structure": "canary-parameter"},
        {"structure": {"symbols": "canary-parameter"}},
        {"environment": {"canary-environment": 7}},
        {"key": "canary-parameter" * 99},
        {"canary-parameter": 1},
    ):
        answer = server.ask("jobs.submit", **{**VALUE, **secret, **wrong})
        assert "error" in answer or answer["result"]["status"] == "error", wrong
    assert "error" in server.ask("canary-parameter")
    connection = server.connect()
    connection.socket.sendall(b"Content-Length: 20\r\n\r\n{canary-environment}")
    connection.read()
    # The database is no database any more: whoever looks says so.
    for file in database.parent.glob("jobs.sqlite*"):
        file.write_bytes(b"canary-database" * 1000)
    assert server.call("jobs.submit", **VALUE, **secret)["status"] == "error"
    # It can be ended all the same.
    assert server.run("stop", "--cancel").returncode == 0
    assert "cannot look for jobs that nobody follows" in server.log()
    # In the log are the places where it failed, and the error that the leaky engine hides.
    assert "launch" in server.log()
    assert "builtins.RuntimeError" in server.log()
    assert "canary" not in server.log().replace(str(tmp_path), "")


@pytest.fixture
def log(tmp_path):
    """Yield a place for a log of this process."""
    root, ours = logging.getLogger(), logging.getLogger("crystalmath")
    before = root.level, ours.level
    yield tmp_path / "log"
    root.setLevel(before[0])
    ours.setLevel(before[1])


def write(log, *lines, size=SIZE):
    """Write lines into the log; a thread does, and is waited for."""
    url = "postgresql+psycopg://me:p%40ssword@server.host/mine?sslpassword=other"
    with log_to(log, secret=url) as handler:
        handler.maxBytes = size
        for line in lines:
            logging.getLogger("crystalmath.test").warning("cannot open %s today", line)


@pytest.mark.parametrize(
    "said",
    [
        "postgresql+psycopg://me:p%40ssword@server.host/mine?sslpassword=other",
        "postgresql+psycopg://me:***@server.host/mine",
        "password p@ssword",
    ],
)
def test_a_database_url_is_left_out_however_it_is_written(log, said):
    write(log, said)
    text = log.read_text()
    assert "***" in text
    assert "today" in text
    for part in ("p%40ssword", "p@ssword", "server.host", "other"):
        assert part not in text


def test_a_log_is_turned_over(log):
    write(log, *["x" * 30] * 100, size=1000)
    written = list(log.parent.glob("log*"))
    assert {path.name for path in written} == {"log", "log.1", "log.2", "log.3"}
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in written)
