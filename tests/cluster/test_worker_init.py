"""What a cluster's own commands and environment say on its nodes reaches the jobs there."""

import json
import sys
from pathlib import Path

import pytest

from conftest import LAB

ROOT = Path(__file__).parents[2]
CRYSTALMATH = (sys.executable, "-m", "crystalmath")
CONFIG = """
[clusters.blocks]
engine = "parsl"
scheduler = "slurm"
{both}
[clusters.allocations]
engine = "psij"
scheduler = "slurm"
{both}
"""
#: `module load vasp`, with what modules do.
BOTH = """
worker_init = "export PATH=/sw/vasp/bin:$PATH VASP_PP_PATH=/sw/potcars ESPRESSO_PSEUDO=/sw/pseudo"
environment = { QUACC_VASP_PP_VERSION = "64" }
"""


@pytest.mark.parametrize(("engine", "cluster"), [("parsl", "blocks"), ("psij", "allocations")])
def test_it_reaches_the_jobs(slurm, home, engine, cluster):
    pytest.importorskip(engine)
    (home / "config.toml").write_text(CONFIG.replace("{both}", BOTH))
    environ = {
        "CRYSTALMATH_HOME": str(home),
        "CRYSTALMATH_RECIPES": "lab_recipes",
        "PYTHONPATH": str(LAB),
        "ESPRESSO_PSEUDO": "/mine",
        "VASP_COMMAND": "of-the-server",
    }

    def run(*arguments, env=environ, check=True):
        command = [*CRYSTALMATH, *arguments, "--json"]
        return json.loads(slurm.run(*command, env=env, cwd=ROOT, check=check, timeout=900).stdout)

    try:
        run("submit", "lab_recipes.value", "examples/Al.poscar")  # starts the server
        mine = {name: value for name, value in environ.items() if name != "VASP_COMMAND"}
        asked = ("lab_recipes.where", "examples/Al.poscar", "--cluster", cluster)
        job = run("submit", *asked, env=mine)["job_id"]
        run("wait", job)
        seen = run("result", job)["result"]["environment"]
    finally:
        run("stop", "--cancel", check=False)
    assert seen["PATH"].split(":")[0] == "/sw/vasp/bin"
    assert (seen["VASP_PP_PATH"], seen["QUACC_VASP_PP_VERSION"]) == ("/sw/potcars", "64")
    assert seen["ESPRESSO_PSEUDO"] == "/mine"  # as its submitter has said
    assert "VASP_COMMAND" not in seen  # what the server was started with is no job's
    assert "CRYSTALMATH_BEFORE_INIT" not in seen


def test_commands_that_fail_end_the_job_with_their_words(slurm, home):
    pytest.importorskip("psij")
    table = """[clusters.there]\nengine = "psij"\nscheduler = "slurm"\n"""
    (home / "config.toml").write_text(f"{table}worker_init = 'module load nosuch'\n")
    environ = {"CRYSTALMATH_HOME": str(home)}

    def run(*arguments):
        command = [*CRYSTALMATH, *arguments]
        return slurm.run(*command, env=environ, cwd=ROOT, check=False, timeout=900)

    try:
        checked = run("clusters", "check", "there")
        told = run("doctor")
    finally:
        run("stop", "--cancel")
    assert checked.returncode == 1
    for output in (checked.stdout, told.stdout):
        assert "3 allocations ended without having begun it" in " ".join(output.split())
        assert "module: command not found" in " ".join(output.split())
    assert not slurm.queue()
