"""Many questions, and the end of the process that asks them."""

import os
import signal
import sys
import time

import pytest
from ase.build import bulk

from commands import finish, limited, ran, start
from crystalmath import processes
from crystalmath.preflight import inspector as inspector_module
from crystalmath.preflight.inspector import LIMIT_S, CannotAsk, Inspector

pytestmark = pytest.mark.vasp


def test_a_recipe_that_never_answers_does_not_hold_up_a_batch(environment, questions, monkeypatch):
    monkeypatch.setattr(inspector_module, "FAILURES", 1)
    monkeypatch.setattr(inspector_module, "PAUSE_S", 600.0)
    inspector = Inspector()
    try:
        with pytest.raises(CannotAsk, match="exited with code 3"):
            inspector.ask("asked_recipes.say_and_leave", bulk("Al", a=4.0), {}, environment)
        for number in range(100):
            atoms = bulk("Al", a=4.1 + number / 100)
            with pytest.raises(CannotAsk, match="1 times in a row"):
                inspector.ask("asked_recipes.say_and_leave", atoms, {}, environment)
        assert questions == ["asked_recipes.say_and_leave"]
        # Others are asked, and so is this one later.
        assert inspector.ask("asked_recipes.calculate", bulk("Al"), {}, environment).steps
        monkeypatch.setattr(inspector_module, "PAUSE_S", 0.0)
        with pytest.raises(CannotAsk, match="exited with code 3"):
            inspector.ask("asked_recipes.say_and_leave", bulk("Al", a=3.9), {}, environment)
    finally:
        inspector.close()


SCRIPT = """
from ase.build import bulk
from crystalmath.preflight import required
from crystalmath.preflight.inspector import _default

assert required("vasp.core.static_job", bulk("Al")).steps
(child,) = _default._children.values()
print(child._process.pid)
"""


def test_nothing_is_left_when_the_interpreter_has_ended(environment):
    command = (sys.executable, "-W", "error", "-c", SCRIPT)
    ended = ran(*command, env={**os.environ, **environment}, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert processes.start_time(int(ended.stdout)) is None


@pytest.fixture
def job(environment, monkeypatch, tmp_path):
    """Return a job whose recipe answers once the file `go` is there."""
    bulk("Al").write(tmp_path / "Al.cif")
    monkeypatch.chdir(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("QUACC_VASP_CMD", sys.executable)  # is found, as VASP would be
    # None of the other tests' children is asked.
    monkeypatch.setenv("VASP_PP_PATH", os.path.join(environment["VASP_PP_PATH"], ""))
    return ("asked_recipes.wait_for", "Al.cif", "--param", f"path={tmp_path / 'go'}")


@pytest.mark.parametrize("command", ["check", "run", "submit"])
def test_a_signal_while_a_recipe_is_asked(home, job, cli, tmp_path, command):
    with start(command, *job) as process, limited(process):
        line = process.stderr.readline()
        assert "finding the files" in line, line + process.stderr.read()
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        answer = finish(process)
    try:
        assert (answer.code, answer.out) == (130, "")
        # One that was sent to a server is told to be under way.
        assert ("may still carry it out" in answer.err) == (command == "submit"), answer.err
        assert time.monotonic() - began < LIMIT_S
        if command == "submit":
            # Its server asks on; this waits behind.
            (tmp_path / "go").touch()
            assert cli("check", *job).code == 0
            assert cli("list", "--json").json["jobs"] == []
        else:
            assert list(home.iterdir()) == []
    finally:
        cli("stop", "--cancel")
