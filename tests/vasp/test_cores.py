"""What quacc makes of the number of cores is certain only of jobs that run on this machine."""

import asyncio
from pathlib import Path

import pytest
from ase.build import bulk

from crystalmath import config
from crystalmath.models import Inputs, Submission
from crystalmath.server.handlers import METHODS
from crystalmath.service import JobService
from vasp import potcars

# Parsl, which looks for this host's addresses, leaves sockets open.
pytestmark = [
    pytest.mark.vasp,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

AL = bulk("Al", a=4.1, cubic=True)
STATIC = "quacc.recipes.vasp.core.static_job"
EXAMPLE = Path(__file__).parents[2] / "examples" / "Al.poscar"
CLUSTER = '[clusters.hpc]\nengine = "parsl"\nscheduler = "slurm"\nwalltime = "1h"\n'


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    return potcars.beside_vasp(tmp_path_factory.mktemp("cores"), "Al", versions=["64"])


@pytest.fixture(autouse=True)
def hpc(home):
    """Configure a cluster that is elsewhere."""
    pytest.importorskip("crystalmath_engine_parsl", reason="the Parsl engine is not installed")
    (home / "config.toml").write_text(CLUSTER)


@pytest.fixture
def service(home):
    with JobService(config.load({"CRYSTALMATH_HOME": str(home)})) as service:
        yield service


def steps(service, environment, cluster, recipe=STATIC, **parameters):
    asked = Submission(
        recipe=recipe, atoms=AL, parameters=parameters, environment=environment, cluster=cluster
    )
    return service.check(asked, inputs=True).inputs.steps


def unsure(step):
    return [each.name for each in step.settings if not each.certain]


def test_the_nodes_of_a_cluster_decide(service, environment):
    (step,) = steps(service, environment, "hpc")
    assert unsure(step) == ["NCORE"]
    assert not step.certain
    (here,) = steps(service, environment, "local")
    assert here.certain
    assert unsure(here) == []
    assert here.files == step.files


@pytest.mark.parametrize("given", [{"ncore": 4}, {"npar": 2}, {"incar_copilot_mode": "off"}])
def test_what_is_given_is_certain_anywhere(service, environment, given):
    (step,) = steps(service, environment, "hpc", **given)
    assert step.certain
    assert unsure(step) == []


def test_later_steps_and_other_programs(service, environment):
    first, second = steps(service, environment, "hpc", "quacc.recipes.vasp.core.double_relax_flow")
    assert unsure(first) == ["NCORE"]
    assert set(unsure(second)) == {"NCORE", "ISPIN", "MAGMOM", "KPOINTS", "POSCAR"}
    orca = {"recipe": "quacc.recipes.orca.core.static_job", "charge": 0, "spin_multiplicity": 1}
    (step,) = steps(service, environment, "hpc", **orca)
    assert unsure(step) == ["orcablocks"]
    (step,) = steps(service, environment, "hpc", **orca, nprocs=3)
    assert step.certain


def test_it_is_shown(cli, environment, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    answer = cli("check", "vasp.core.static_job", EXAMPLE, "--cluster", "hpc", "--inputs")
    assert answer.code == 0, answer.out
    lines = [" ".join(line.split()) for line in answer.lines]
    assert lines[1] == "what the machine that the job runs on may still change is marked with ?"
    assert [line for line in lines if line.endswith("?")][1:] == ["NCORE = 1 quacc ?"]


def test_a_job_on_record_tells_the_same(service, environment):
    asked = Submission(recipe=STATIC, atoms=AL, environment=environment, cluster="hpc")
    job = service.submit(asked)
    answer = asyncio.run(METHODS["jobs.inputs"](service, {"job_id": job.job_id}))
    (step,) = Inputs.read(answer["inputs"]).steps
    assert unsure(step) == ["NCORE"]
