"""Many questions, and the end of the process that asked them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from ase.build import bulk

from crystalmath import processes
from crystalmath.preflight import inspector as inspector_module
from crystalmath.preflight.inspector import CannotAsk, Inspector


def test_a_recipe_that_never_answers_does_not_hold_up_a_batch(environment, questions, monkeypatch):
    monkeypatch.setattr(inspector_module, "FAILURES", 1)
    monkeypatch.setattr(inspector_module, "PAUSE_S", 600.0)
    inspector = Inspector()
    try:
        with pytest.raises(CannotAsk, match="exited with code 3"):
            inspector.ask("asked_recipes.say_and_leave", bulk("Al", a=4.0), {}, environment)
        for number in range(100):
            atoms = bulk("Al", a=4.1 + number / 100)
            with pytest.raises(CannotAsk, match="1 times in a row, and is not asked for a while"):
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
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert processes.start_time(int(ended.stdout)) is None
