"""Tests like quacc's own have its recipes run as jobs with `own_tests`: those that pass bare."""

import os
import subprocess
import sys
from pathlib import Path

#: As quacc's are written: arguments by place and by name, classes, settings of the caller's, a flow
#: that gives a table of lists, and an error of the recipe's own.
TESTS = """
import os

import pytest
from ase.build import bulk
from ase.optimize import FIRE
from quacc import change_settings
from quacc.recipes.emt import core
from quacc.recipes.emt.core import relax_job, static_job
from quacc.recipes.emt.md import md_job
from quacc.recipes.emt.slabs import bulk_to_slabs_flow

def test_same_place():
    assert core.static_job is static_job
    with change_settings({"GZIP_FILES": False}):
        output = static_job(bulk("Cu"), additional_fields={"name": "mine"})
    assert output["name"] == "mine"
    # Here it is where the home of the plugin is.
    home = os.environ.get("CRYSTALMATH_HOME", "none")
    assert (home in str(output["dir_name"])) == (os.environ["WAY"] != "bare")

def test_arguments():
    output = relax_job(bulk("Cu"), True, {"optimizer": FIRE, "fmax": 0.1}, asap_cutoff=True)
    assert output["parameters"]["asap_cutoff"] is True
    assert output["parameters_opt"]["optimizer"] == "FIRE"

def test_flow():
    outputs = bulk_to_slabs_flow(bulk("Cu"), False, {"max_index": 1})
    assert outputs["relax"] and outputs["static"] == []

def test_errors():
    with pytest.raises(ValueError, match="Quacc does not support"):
        md_job(bulk("Cu"), md_params={"dynamics_kwargs": {"trajectory": "md.traj"}})
    with pytest.raises(TypeError):
        static_job()

def test_never_passes():
    assert static_job(bulk("Cu"))["name"] == "nothing"
"""


def test_what_passes_bare_passes_as_jobs(monkeypatch, tmp_path):
    monkeypatch.delenv("CRYSTALMATH_HOME")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]), prepend=os.pathsep)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test_theirs.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "--config-file=/dev/null", "--passed=passed"]
    for plugin in ("no:cacheprovider", "no:warnings", "no:asyncio", "same.own_tests"):
        command += ["-p", plugin]
    ends = {
        "bare": "1 failed, 4 passed",
        "runner": "4 passed, 1 deselected",
        "client": "4 passed, 1 deselected",
    }
    for way, end in ends.items():
        monkeypatch.setenv("WAY", way)
        told = [*command, f"--through={way}"]
        done = subprocess.run(told, check=False, capture_output=True, text=True)
        assert end in done.stdout, done.stdout + done.stderr
