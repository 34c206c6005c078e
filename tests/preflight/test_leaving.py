"""Who wants out while a recipe is asked leaves no job behind."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from commands import finish, limited, start
from crystalmath.preflight.inspector import LIMIT_S


@pytest.fixture
def job(environment, monkeypatch, tmp_path):
    """Give a job whose recipe answers once the file `go` is there."""
    from ase.build import bulk

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
        assert "asking the recipe" in line, line + process.stderr.read()
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        answer = finish(process)
    try:
        assert (answer.code, answer.out, answer.err) == (130, "", "")
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
