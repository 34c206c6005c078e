"""A program that core never heard of, checked by a stranger's plugin: DFTB+.

What is said is held against the same job run bare, by quacc and ASE, with a stand-in for DFTB+ that
opens the files which DFTB+ opens.
"""

import itertools
import json
import os
import sys
from pathlib import Path

import pytest
from ase.build import molecule

from commands import ran
from crystalmath.engines.registry import plugins
from crystalmath.models import JobSpec
from crystalmath.preflight import inspector
from crystalmath.preflight.commands import check_commands
from crystalmath.recipes import codec
from crystalmath.testing import PreflightCase, PreflightContract

pytestmark = pytest.mark.vasp

SOURCE = Path(__file__).parents[2] / "examples/preflight-dftb/src/crystalmath_preflight_dftb.py"
RECIPE = "quacc.recipes.dftb.core.static_job"
# As dftb.org's: a grid, then the element's own line, with the occupations of d, p and s.
SKF = "0.02 500\n-0.1 -0.2 -0.3 0.0 0.4 0.4 0.4 0.0 {} 1.0\n"

STANDIN = """#!{python}
import itertools, re, sys
text = open("dftb_in.hsd").read()
told = dict(re.findall(r"(Prefix|Separator|Suffix) = (.*?) *\\n", text))
if told:
    prefix, separator, suffix = (told[k].strip('"') for k in ("Prefix", "Separator", "Suffix"))
    symbols = open("geo_end.gen").read().splitlines()[1].split()
    for pair in itertools.product(symbols, repeat=2):
        if not open(prefix + separator.join(pair) + suffix).read():
            sys.exit("cannot read it")
open("detailed.out", "w").write("Total energy:   -1.0 H\\n")
open("results.tag", "w").write("\\n")
"""

RUN = """
import json, sys
from ase.build import molecule
from quacc.recipes.dftb.core import static_job
for parameters in json.loads(sys.argv[1]):
    try:
        static_job(molecule("H2O"), **parameters)
    except Exception:
        print("died")
    else:
        print("ran")
"""


@pytest.fixture(scope="module")
def standin(tmp_path_factory):
    program = tmp_path_factory.mktemp("bin") / "dftb+"
    program.write_text(STANDIN.format(python=sys.executable))
    program.chmod(0o755)
    return program


@pytest.fixture
def environment(install, standin, tmp_path, monkeypatch):
    """Install the plugin, and give what a job would see."""
    install("dftb-preflight", "dftb", SOURCE.read_text(), group="crystalmath.plugins")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ['PYTHONPATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("DFTB_PREFIX", "DFTB_COMMAND"):
        monkeypatch.delenv(name, raising=False)
    path = f"{standin.parent}:{os.environ['PATH']}"
    yield {"PATH": path, "HOME": str(tmp_path), "QUACC_RESULTS_DIR": str(tmp_path)}
    inspector.close()


def library(folder, *, name="", content=None):
    """Make a good library, but for one file."""
    folder.mkdir()
    for pair in itertools.product("HO", repeat=2):
        good = SKF.format("2.0" if pair[0] == "O" else "0.0")
        (folder / f"{'-'.join(pair)}.skf").write_text(good)
    if content is not None:
        (folder / name).write_text(content)
    elif name:
        (folder / name).unlink()
    return {"method": "DFTB", "slako_dir": f"{folder}/"}


def test_jobs_are_refused_if_and_only_if_they_die_for_want_of_their_files(environment, tmp_path):
    pair = library(tmp_path / "pair", name="H-O.skf")
    own = library(tmp_path / "own", name="O-O.skf")
    angular = {f"Hamiltonian_MaxAngularMomentum_{each}": "p" for each in "HO"}
    broken = library(tmp_path / "broken", name="O-O.skf", content="x\n0 0 0 0 0 0 0 x\n")
    jobs = [
        (library(tmp_path / "good"), None),
        ({"slako_dir": "/none"}, None),  # xTB reads no files
        (pair, "skf_missing"),
        (own, "skf_missing"),
        ({**own, **angular}, "skf_missing"),
        ({**broken, **angular}, None),  # ASE does not look into it then
        (broken, "input_fails"),
        (library(tmp_path / "empty", name="O-O.skf", content=""), "skf_empty"),
        ({"method": "DFTB", "slako_dir": f"{tmp_path}/gone/"}, "skf_path"),
        ({"method": "DFTB"}, "skf_unset"),
    ]
    found = {}
    for number, (parameters, code) in enumerate(jobs):
        spec = JobSpec(job_id="", recipe=RECIPE, atoms=molecule("H2O"), parameters=parameters)
        asked = {"recipe": RECIPE, "atoms": spec.atoms, "parameters": parameters}
        asked["document"] = codec.encode_spec(spec)
        found[number] = plugins().preflight(**asked, environment=environment)
        told = [(each.severity, each.code) for each in found[number]]
        assert told == ([] if code is None else [("error", code)]), found[number]
    assert found[2][0].message.startswith(
        "no Slater-Koster file for H: parameter slako_dir wants H-O.skf, but "
    )
    assert found[2][0].path == f"{tmp_path}/pair/H-O.skf"
    assert found[8][0].message.endswith("does not exist; wanted for H, O")
    assert "set DFTB_PREFIX to the folder that holds them" in found[9][0].remedy

    command = (sys.executable, "-c", RUN, json.dumps([parameters for parameters, _ in jobs]))
    bare = ran(*command, env={**os.environ, **environment}, cwd=tmp_path, check=True)
    assert bare.stdout.split() == ["died" if code else "ran" for _, code in jobs]


def test_its_command(environment, standin, tmp_path):
    nowhere = {**environment, "PATH": str(tmp_path)}
    assert "dftb+ (ASE's default) is not on the PATH" in check_commands(RECIPE, nowhere).message
    assert check_commands(RECIPE, environment) is None
    assert check_commands(RECIPE, {**nowhere, "DFTB_COMMAND": str(standin)}) is None


class TestContract(PreflightContract):
    """It keeps the contract of preflights, as core's own do."""

    @pytest.fixture
    def plugin(self, environment):
        return "dftb"

    @pytest.fixture
    def cases(self, environment, tmp_path):
        water = molecule("H2O")
        broken = {"name": "O-O.skf", "content": "x\n0 0 0 0 0 0 0 x\n"}

        def case(parameters, **findings):
            given = {"parameters": parameters, "environment": environment, **findings}
            return PreflightCase(RECIPE, water, **given)

        return [
            case(library(tmp_path / "good")),
            case({"slako_dir": "/none"}),
            case(library(tmp_path / "pair", name="H-O.skf"), errors=["skf_missing"]),
            case(library(tmp_path / "empty", name="O-O.skf", content=""), errors=["skf_empty"]),
            case(library(tmp_path / "broken", **broken), errors=["input_fails"]),
            case({"method": "DFTB", "slako_dir": f"{tmp_path}/gone/"}, errors=["skf_path"]),
            case({"method": "DFTB"}, errors=["skf_unset"]),
        ]
