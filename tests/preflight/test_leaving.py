"""Who wants out while a recipe is asked leaves no job behind."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from commands import finish, limited, start

JOB = ("vasp.core.static_job", "Al.cif")


@pytest.fixture
def shell(environment, monkeypatch, tmp_path):
    from ase.build import bulk

    bulk("Al").write(tmp_path / "Al.cif")
    monkeypatch.chdir(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("QUACC_VASP_CMD", sys.executable)  # is found, as VASP would be
    # None of the other tests' children is asked.
    monkeypatch.setenv("VASP_PP_PATH", os.path.join(environment["VASP_PP_PATH"], ""))


@pytest.mark.parametrize("command", ["check", "run", "submit"])
def test_a_signal_while_a_recipe_is_asked(home, shell, cli, command):
    with start(command, *JOB) as process, limited(process):
        line = process.stderr.readline()
        assert "asking the recipe" in line, line + process.stderr.read()
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        answer = finish(process)
    try:
        assert (answer.code, answer.out, answer.err) == (130, "", "")
        assert time.monotonic() - began < 3
        if command == "submit":
            # Its server asks on; this waits behind.
            assert cli("check", *JOB).code == 0
            assert cli("list", "--json").json["jobs"] == []
        else:
            assert list(home.iterdir()) == []
    finally:
        cli("stop", "--cancel")
