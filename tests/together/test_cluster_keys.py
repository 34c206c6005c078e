"""Every key of a cluster and every resource of a job is seen where it counts, or refused."""

import json
import os
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from ase.build import bulk
from attrs import evolve

from crystalmath import config
from crystalmath.errors import ConfigError, InvalidJob
from crystalmath.models import Attempt, Resources, Submission
from crystalmath.models.cluster import _KNOWN, read_cluster
from crystalmath.models.cluster_examples import EXAMPLES
from crystalmath.models.fields import declared
from crystalmath.quacc.engines import runner_for
from crystalmath.service import JobService
from crystalmath.service.cluster_probe import describe_clusters

# Parsl's executor opens a pipe as it is made, and closes it where it is started.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

pytest.importorskip("parsl")
pytest.importorskip("psij")

AL = bulk("Al", a=4.0, cubic=True)
RESOURCES = {one.name for one in declared(Resources)}
ASKED = {
    "nodes": 2,
    "ranks": 2,
    "ranks_per_node": 2,
    "cores_per_rank": 2,
    "gpus_per_rank": 1,
    "memory_mb": 4096,
    "queue": "long",
    "account": "ab12",
    "reservation": "monday",
    "options": {"constraint": "skylake"},
}
REFUSED = object()
#: Of these core takes care: what a job sees, and what its record says.
OF_CORE = {
    "environment": {"VASP_PP_PATH": "/there"},
    "scratch": "$TMPDIR/there",
    "launcher": "srun -n {ranks} --there",
    "continue_lost": True,
}
#: Each other key of a cluster: its value, and the line of Slurm's script that says it.
PARSL = {
    "walltime": ("00:20:00", "#SBATCH --time=20"),
    "worker_init": ("module load vasp", "module load vasp"),
    "nodes": (2, "#SBATCH --nodes=2"),
    "ranks": (2, REFUSED),
    "ranks_per_node": (2, REFUSED),
    "cores_per_rank": (2, REFUSED),
    "gpus_per_rank": (1, REFUSED),
    "memory_mb": (4096, "#SBATCH --mem=4096M"),
    "queue": ("long", "#SBATCH --partition=long"),
    "account": ("ab12", "#SBATCH --account=ab12"),
    "reservation": ("monday", "#SBATCH --reservation=monday"),
    "options": ({"comment": "my job"}, "#SBATCH --comment='my job'"),
    "cores_per_node": (3, "#SBATCH --cpus-per-task=3"),
}
#: Those of Parsl's own that no script has: where they are seen.
OF_PARSL = {
    "workers_per_node": (3, lambda made: made.max_workers_per_node == 3),
    "max_blocks": (3, lambda made: made.provider.max_blocks == 3),
    "address": ("10.0.0.1", lambda made: made.address == "10.0.0.1"),
    "mpi": (
        "srun",
        lambda made: getattr(made, "mpi_launcher", None) == "srun",
    ),
    "jobs_per_block": (3, lambda made: made.max_workers_per_block == 3),
}
PSIJ: dict[str, tuple[object, str]] = {
    "walltime": ("00:20:00", "#SBATCH --time=0:20:0"),
    "nodes": (2, "#SBATCH --nodes=2"),
    "ranks": (2, "#SBATCH --ntasks=2"),
    "ranks_per_node": (2, "#SBATCH --ntasks-per-node=2"),
    "cores_per_rank": (2, "#SBATCH --cpus-per-task=2"),
    "gpus_per_rank": (1, "#SBATCH --gpus-per-task=1"),
    "memory_mb": (4096, "#SBATCH --mem=4194304K"),
    "queue": ("long", '#SBATCH --partition="long"'),
    "account": ("ab12", '#SBATCH --account="ab12"'),
    "reservation": ("monday", '#SBATCH --reservation="monday"'),
    "options": ({"constraint": "skylake"}, "#SBATCH --constraint=skylake"),
}
FLUX: dict[str, tuple[object, str]] = {
    "walltime": ("00:20:00", "#FLUX: --time-limit=1200s"),
    "nodes": (2, "#FLUX: --nodes=2"),
    "ranks": (2, "#FLUX: --nslots=2"),
    "ranks_per_node": (2, "#FLUX: --nslots=2"),
    "cores_per_rank": (2, "#FLUX: --cores-per-slot=2"),
    "gpus_per_rank": (1, "#FLUX: --gpus-per-slot=1"),
    "memory_mb": (4096, REFUSED),
    "queue": ("long", "#FLUX: --queue=long"),
    "account": ("ab12", "#FLUX: --bank=ab12"),
    "reservation": ("monday", REFUSED),
    "options": ({"exclusive": "", "requires": "skylake"}, "#FLUX: --requires=skylake"),
}
ALLOCATIONS = {
    (scheduler, key): said
    for scheduler, keys in {"slurm": PSIJ, "flux": FLUX}.items()
    for key, said in keys.items()
}


@pytest.fixture
def sbatch(tmp_path, monkeypatch):
    """Have commands keep each script that Slurm, or Flux, is given."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for name, answer in {"sbatch": "Submitted batch job 17", "flux": "ƒ17"}.items():
        (bin_ / name).write_text(
            f"#!/bin/sh\nfor file; do :; done\ncp $file {tmp_path}/script\necho '{answer}'\n"
        )
        (bin_ / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_}{os.pathsep}{os.environ['PATH']}")
    return tmp_path / "script"


def cluster(engine, **keys):
    return read_cluster("there", {"engine": engine, "scheduler": "slurm", **keys})


def runner(home, engine, scheduler="slurm", **keys):
    text = "".join(f"{key} = {_toml(value)}\n" for key, value in keys.items())
    table = f'[clusters.there]\nengine = "{engine}"\nscheduler = "{scheduler}"\n{text}'
    (home / "config.toml").write_text(table)
    return runner_for(engine)


def _toml(value):
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {json.dumps(each)}" for key, each in value.items()) + "}"
    return json.dumps(value)


def test_every_key_of_a_cluster_is_gone_through():
    from crystalmath_engine_parsl.config import CLUSTER_OPTIONS

    core = {"engine", "scheduler", *OF_CORE}
    # max_idletime is seen where a pilot job ends: tests/cluster/test_parsl_blocks.
    assert {*_KNOWN, *CLUSTER_OPTIONS} == core | {*PARSL, *OF_PARSL, "max_idletime"}
    assert set(_KNOWN) == core | {*PSIJ, "worker_init"} == core | {*FLUX, "worker_init"}
    assert ASKED.keys() == RESOURCES


# --- Parsl ---------------------------------------------------------------------------------------


def blocks(tmp_path, **keys):
    from crystalmath_engine_parsl.batch_executor import batch_executor

    made = batch_executor(cluster("parsl", **keys), str(tmp_path), "MARK=1")
    made.provider.script_dir = str(tmp_path)
    return made


@pytest.mark.parametrize("key", [key for key in PARSL if PARSL[key][1] is not REFUSED])
def test_a_key_is_in_the_script_of_a_pilot_job(tmp_path, sbatch, key):
    value, line = PARSL[key]

    def script(**keys):
        job = blocks(tmp_path, **keys).provider.submit("COMMAND", 1, "block")
        assert job.startswith("17 block.")
        return [each.strip() for each in Path(sbatch).read_text().splitlines()]

    assert line in script(**{key: value})
    assert line not in script()


@pytest.mark.parametrize("key", OF_PARSL)
def test_a_key_of_parsls_is_parsls_option(tmp_path, key):
    value, is_seen = OF_PARSL[key]
    needed = {"mpi": "srun"} if key == "jobs_per_block" else {}
    assert is_seen(blocks(tmp_path, **needed, **{key: value}))
    assert not is_seen(blocks(tmp_path, **needed))


@pytest.mark.parametrize("keys", [{}, {"mpi": "srun"}], ids=["one node", "several"])
def test_an_executor_of_parsls_needs_no_working_directory(tmp_path, monkeypatch, keys):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert blocks(tmp_path, **keys).run_dir != str(gone)


@pytest.mark.parametrize("key", [key for key in PARSL if PARSL[key][1] is REFUSED])
def test_a_key_that_pilot_jobs_cannot_have_is_refused(home, key):
    with pytest.raises(ConfigError, match=rf"\[clusters.there\] {key} cannot be used"):
        runner(home, "parsl", **{key: PARSL[key][0]})


# --- PSI/J ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheduler", "key"), [key for key, said in ALLOCATIONS.items() if said[1] is not REFUSED]
)
def test_a_key_is_in_the_script_of_an_allocation(tmp_path, sbatch, scheduler, key):
    import logging

    from crystalmath_engine_psij.batch_jobs import BatchJobs

    value, line = ALLOCATIONS[scheduler, key]
    jobs = BatchJobs(scheduler, tmp_path / "engine", logging.getLogger("test"))
    attempt = Attempt(id="a.1", job_id="a", directory=tmp_path / "run", cluster="there")
    attempt.directory.mkdir()

    def script(asked, **keys):
        made = cluster("psij", scheduler=scheduler, **keys)
        jobs.launch([evolve(attempt, resources=asked)], made)
        return [each.strip() for each in Path(sbatch).read_text().splitlines()]

    assert line in script(Resources(), **{key: value})
    assert line not in script(Resources())
    if key in RESOURCES:  # and as a job asks for it
        assert line in script(Resources(**{key: value}))


@pytest.mark.parametrize(("scheduler", "key"), ALLOCATIONS)
def test_what_an_allocation_cannot_be_asked_for_is_refused(home, submitted, scheduler, key):
    value, line = ALLOCATIONS[scheduler, key]
    if line is REFUSED:
        with pytest.raises(ConfigError, match=rf"\[clusters.there\] {key} cannot be used"):
            runner(home, "psij", scheduler, **{key: value})
        with pytest.raises(InvalidJob, match=f"cannot honour '{key}'"):
            submitted("psij", {key: value}, scheduler=scheduler)
    elif key in RESOURCES:
        told = submitted("psij", {key: value}, scheduler=scheduler)
        assert told["resources"] == {key: value}


def test_ranks_are_started_with_what_flux_has_for_them(submitted):
    asked = {"nodes": 2, "ranks": 4, "cores_per_rank": 3, "gpus_per_rank": 1}
    told = submitted("psij", asked, scheduler="flux")["environment"]
    assert told["QUACC_VASP_PARALLEL_CMD"] == "flux run -N 2 -n 4 -c 3 -g 1"


# --- what core does with them --------------------------------------------------------------------


@pytest.fixture
def submitted(home, lab, monkeypatch):
    """Submit to a cluster whose engine starts nothing; give what the job's worker is told."""
    services = []

    def submit(engine, resources, **keys):
        made = type(runner(home, engine, **keys))
        monkeypatch.setattr(
            made, "launch", lambda _, attempts: {each.id: each.id for each in attempts}
        )
        monkeypatch.setattr(made, "probe", lambda *_: {})
        monkeypatch.setattr(made, "release", lambda *_: None)
        services.append(JobService(config.load()))
        job = services[-1].submit(
            Submission(
                recipe="quacc.recipes.emt.core.relax_job",
                atoms=AL,
                cluster="there",
                resources=resources,
            )
        )
        return json.loads(services[-1].specification(job.job_id).partition("\n")[0])

    yield submit
    for service in services:
        service.close()


@pytest.mark.parametrize("engine", ["parsl", "psij"])
def test_a_key_of_cores_reaches_the_job(submitted, engine):
    told = submitted(engine, {"ranks": 2}, **OF_CORE)
    assert told["environment"]["VASP_PP_PATH"] == "/there"
    assert told["environment"]["QUACC_VASP_PARALLEL_CMD"] == "srun -n 2 --there"
    assert told["environment"]["QUACC_SCRATCH_DIR"] == "$TMPDIR/there"
    assert told["continue_lost"] is True


@pytest.mark.parametrize("name", sorted(RESOURCES))
@pytest.mark.parametrize("mpi", [False, True], ids=["plain", "mpi"])
def test_what_a_job_asks_of_a_pilot_job_reaches_it_or_is_refused(submitted, name, mpi):
    keys = {"mpi": "srun", "nodes": 4} if mpi else {}
    honoured = {"ranks", "ranks_per_node", "cores_per_rank"} | ({"nodes"} if mpi else set())
    if name not in honoured:
        with pytest.raises(InvalidJob, match=f"cannot honour '{name}'"):
            submitted("parsl", {name: ASKED[name]}, **keys)
        return
    told = submitted("parsl", {name: ASKED[name]}, **keys)
    assert told["resources"] == {name: ASKED[name]}
    seen = told["environment"]
    if name == "cores_per_rank":
        assert seen["OMP_NUM_THREADS"] == "2"
    else:
        assert seen["QUACC_VASP_PARALLEL_CMD"] == ("$PARSL_MPI_PREFIX" if mpi else "mpirun -np 2")


@pytest.mark.parametrize("engine", ["parsl", "psij"])
def test_what_became_of_jobs_whose_cluster_was_removed_is_not_known(home, engine):
    made = runner(home, engine)
    attempt = Attempt(
        id="a.1", job_id="a", directory=home / "run", cluster="elsewhere", handle="17"
    )
    seen = made.probe([attempt])[attempt.id]
    why = "[clusters.elsewhere] is not in the configuration file any more"
    assert (seen.state, seen.reason) == ("unknown", why)
    made.release([attempt])
    refusal = made.launch([attempt])[attempt.id]
    assert (type(refusal), str(refusal)) == (ConfigError, why)


def test_an_idle_engine_is_made_anew_only_where_its_configuration_has_changed(home):
    # `parcel` is core's own; of a cluster with `mpi` Parsl's runner has another picture.
    options = "[engines.parsl]\nparcel = 3\n"
    cluster = '[clusters.there]\nengine = "parsl"\nscheduler = "slurm"\nmpi = "srun"\nnodes = 2\n'
    (home / "config.toml").write_text(options + cluster)
    with JobService(config.Source()) as service:

        def made():
            asked = Submission(recipe="quacc.recipes.emt.core.relax_job", atoms=AL, cluster="there")
            found = service.check(asked).findings
            assert "cluster_outdated" not in [finding.code for finding in found]
            return service._runners.get("parsl")

        first = made()
        assert made() is first
        for changed in (options.replace("3", "4") + cluster, options + cluster.replace("2", "3")):
            before = made()
            (home / "config.toml").write_text(changed)
            assert made() is not before
        assert first.closed


@pytest.mark.skipif(find_spec("psi4") is not None, reason="psi4 is installed")
@pytest.mark.parametrize("engine", ["parsl", "psij"])
def test_what_a_job_needs_is_looked_for_here_where_its_cluster_is_this_host(home, engine):
    made = runner(home, engine)
    assert [made.runs_here(name) for name in ("local", "there", "gone")] == [True, False, False]
    asked = {"recipe": "quacc.recipes.psi4.core.static_job", "atoms": AL, "engine": engine}
    with JobService(config.load()) as service:
        for cluster, severity in (("local", "error"), ("there", "warning")):
            findings = service.check(Submission(**asked, cluster=cluster)).findings
            found = {finding.code: finding.severity for finding in findings}
            assert found["package_missing"] == severity, findings


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_line_of_an_example_is_understood(tmp_path, monkeypatch, name):
    text = EXAMPLES[name]
    monkeypatch.setenv("CRYSTALMATH_HOME", str(tmp_path))
    # Parsl's pilot jobs have workers on each node, or jobs with ranks of their own: not both.
    commented = [r"mpi\b", r"\w+_per_node\b", r"\w+ = "]
    for left in commented:
        written = re.sub(rf"^# (?!{left})(?=\w+ = )", "", text, flags=re.MULTILINE)
        (tmp_path / "config.toml").write_text(written)
        (listed,) = describe_clusters(config.load())
        assert (listed["name"], listed["error"]) == (name, None)
