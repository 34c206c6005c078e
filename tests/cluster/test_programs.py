"""Programs with ranks on both nodes: Quantum ESPRESSO itself, and the stand-in for VASP."""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ase.build import bulk
from ase.io import write

from conftest import eventually
from vasp import potcars, standin

pytest.importorskip("psij")

COMMAND = (sys.executable, "-m", "crystalmath")
#: Where Debian's `quantum-espresso` has them.
PSEUDO = Path("/usr/share/espresso/pseudo")
#: What quacc is to add nothing to, so that the same can be had by hand.
SI = bulk("Si", a=5.43)
SILICON = {
    "preset": None,
    "pseudopotentials": {"Si": "Si.pz-vbc.UPF"},
    "input_data": {"system": {"ecutwfc": 12.0}},
    "kpts": [2, 2, 2],
    "kspacing": None,
}
#: The ranks of Debian's Open MPI find each other by PMIx, unless somebody made it the default.
CONFIGURATION = """
[clusters.psij]
engine = "psij"
scheduler = "slurm"
launcher = "srun --mpi=pmix --ntasks={ranks}"

[clusters.parsl]
engine = "parsl"
scheduler = "slurm"
walltime = "00:10:00"
nodes = 2
mpi = "srun"
launcher = "$PARSL_MPI_PREFIX --mpi=pmix"

[clusters.shared]
engine = "parsl"
scheduler = "slurm"
walltime = "00:10:00"
nodes = 2
environment = { OMPI_ALLOW_RUN_AS_ROOT = "1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM = "1" }
"""


class Login:
    """Commands on the login node, with programs and their files for the jobs."""

    def __init__(self, slurm, home, folder):
        (home / "config.toml").write_text(CONFIGURATION, encoding="ascii")
        potcars.library(folder / "potcars", "Al", folder="potpaw_PBE.64")
        standin.install(folder / "bin")
        self.environment = {
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "VASP_PP_PATH": str(folder / "potcars"),
            "QUACC_ESPRESSO_PSEUDO": str(PSEUDO),
        }
        self._slurm, self._folder = slurm, folder

    def run(self, *arguments):
        done = self._slurm.run(*COMMAND, *arguments, "--json", env=self.environment, timeout=900)
        return json.loads(done.stdout)

    def two_ranks(self, recipe, atoms, cluster, *, nodes="--nodes=2", **parameters):
        """Run a recipe, with a rank on each node; give its result and its work directory."""
        structure = self._folder / "structure.json"
        write(structure, atoms)
        told = [f"--param={key}={json.dumps(value)}" for key, value in parameters.items()]
        asked = (*nodes.split(), "--ranks=2", f"--cluster={cluster}")
        done = self.run("run", recipe, str(structure), *asked, *told)
        assert done["status"] == "completed", done
        return done["result"], Path(done["result"]["work_dir"])


@pytest.fixture
def login(slurm, home, tmp_path):
    login = Login(slurm, home, tmp_path)
    yield login
    slurm.run(*COMMAND, "stop", "--cancel", env=login.environment, check=False)
    eventually(lambda: not slurm.queue(), message="allocations are left over")


needs_espresso = pytest.mark.skipif(
    shutil.which("pw.x") is None or not (PSEUDO / "Si.pz-vbc.UPF").exists(),
    reason="there is no pw.x, or not Debian's pseudopotentials: apt-get install quantum-espresso",
)


@needs_espresso
@pytest.mark.parametrize("cluster", ["parsl", "psij"])
def test_silicon_over_two_nodes_is_as_pw_has_it(login, cluster, tmp_path):
    result, folder = login.two_ranks("espresso.core.static_job", SI, cluster, **SILICON)
    with gzip.open(folder / "pw.out.gz", "rt") as output:
        text = output.read()
    assert re.search(r"Parallel version \(MPI\), running on +2 processors", text)
    assert re.search(r"MPI processes distributed on +2 nodes", text)
    assert float(energy(text)) == pytest.approx(float(energy(by_hand(folder, tmp_path))), abs=1e-6)
    assert result["energy_ev"]


@needs_espresso
def test_ranks_that_share_a_pilot_job_with_other_jobs_stay_on_one_node(login):
    _, folder = login.two_ranks("espresso.core.static_job", SI, "shared", nodes="", **SILICON)
    with gzip.open(folder / "pw.out.gz", "rt") as output:
        text = output.read()
    assert re.search(r"Parallel version \(MPI\), running on +2 processors", text)
    assert re.search(r"MPI processes distributed on +1 nodes", text)


def by_hand(folder, place):
    """Run ``pw.x`` on the input of a job, in one process; give what it prints."""
    with gzip.open(folder / "pw.in.gz", "rt") as file:
        (place / "pw.in").write_text(file.read())
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }
    command = ["pw.x", "-in", "pw.in"]
    return subprocess.run(
        command, cwd=place, env=environment, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def energy(text):
    """Return the total energy, in Ry."""
    return re.findall(r"^! +total energy += +(\S+) Ry", text, re.MULTILINE)[-1]


@pytest.mark.parametrize("cluster", ["parsl", "psij"])
def test_vasp_gets_exactly_the_ranks_asked_for(login, cluster):
    atoms = bulk("Al", a=4.1, cubic=True)
    _, folder = login.two_ranks("vasp.core.static_job", atoms, cluster)
    with gzip.open(folder / "RANKS.gz", "rt") as ranks:
        assert sorted(ranks) == ["0 of 2\n", "1 of 2\n"]
