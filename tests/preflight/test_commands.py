"""Programs that are not where the job would look for them."""

import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystalmath.preflight.commands import check_commands, check_ranks, ranks

VASP = "quacc.recipes.vasp.core.static_job"
ESPRESSO = "quacc.recipes.espresso.core.static_job"
PROGRAMS = ("mpirun", "srun", "apptainer", "env", "run_it")


@pytest.fixture
def bin_of(home, tmp_path, monkeypatch):
    """Make a folder of programs; a job sees nothing else."""
    monkeypatch.setenv("HOME", str(home))
    folder = tmp_path / "bin"
    folder.mkdir()

    def make(*names):
        for name in names:
            (folder / name).write_text("#!/bin/sh\n")
            (folder / name).chmod(0o755)
        return {"PATH": str(folder)}

    return make


def test_vasp_that_is_not_on_the_path(bin_of):
    environment = bin_of()
    finding = check_commands(VASP, environment)
    assert (finding.severity, finding.code) == ("error", "command_missing")
    assert finding.message == (
        "VASP would not start: neither vasp_std (the default of QUACC_VASP_CMD) nor vasp_gam "
        "(the default of QUACC_VASP_GAMMA_CMD) is on the PATH that the job sees"
    )
    assert all(
        said in finding.remedy
        for said in ("PATH", "QUACC_VASP_CMD", 'QUACC_VASP_PARALLEL_CMD="mpirun -np 16"')
    )
    assert check_commands("quacc.recipes.emt.core.static_job", environment) is None
    assert check_commands(VASP, {}) is None  # the worker's own PATH holds
    assert check_commands(VASP, bin_of("vasp_gam")) is None


@pytest.mark.parametrize(
    ("family", "default", "variable"),
    [
        ("aims", "aims.x", "QUACC_AIMS_BIN"),
        ("dftb", "dftb+", "DFTB_COMMAND"),
        ("gaussian", "g16", "QUACC_GAUSSIAN_CMD"),
        ("gulp", "gulp", "QUACC_GULP_CMD"),
        ("mrcc", "dmrcc", "QUACC_MRCC_CMD"),
        ("onetep", "onetep.arch", "QUACC_ONETEP_CMD"),
        ("orca", "orca", "QUACC_ORCA_CMD"),
        ("qchem", "qchem", "QUACC_QCHEM_CMD"),
    ],
)
def test_programs_whose_files_nobody_checks(bin_of, family, default, variable):
    recipe = f"quacc.recipes.{family}.core.static_job"
    environment = bin_of()
    finding = check_commands(recipe, environment)
    assert (finding.severity, finding.code) == ("error", "command_missing")
    assert f"would not start: {default} (" in finding.message
    assert f"{variable}=/path/to/{default}" in finding.remedy
    assert check_commands(recipe, {**environment, variable: "module load it; run"}) is None
    assert check_commands(recipe, bin_of(default)) is None
    own = {**environment, variable: "/no/such"}
    assert f"/no/such ({variable}) is no executable file" in check_commands(recipe, own).message


def test_dftb_whose_command_ases_own_configuration_may_name(bin_of, home):
    environment = {**bin_of(), "ASE_CONFIG_PATH": str(home / "ase.ini")}
    recipe = "quacc.recipes.dftb.core.static_job"
    assert check_commands(recipe, environment) is not None
    (home / "ase.ini").write_text("[dftb]\ncommand = /opt/dftb+\n")
    assert check_commands(recipe, environment) is None


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("mpirun -np 4", "vasp_std"),
        ("srun -n 4", "vasp_std"),
        ("env A=b mpirun -np 4", "vasp_std"),
        (
            "mpiexec -n 4",
            "the parallel command would not start.*: mpiexec .QUACC_VASP_PARALLEL_CMD",
        ),
        ("/no/mpirun -n 4", "/no/mpirun .QUACC_VASP_PARALLEL_CMD. is no executable file"),
        # Where the program need not be on this PATH, or cannot be told.
        ("mpirun -np 4 apptainer", None),
        ("mpirun -np 4 --hostfile nodes", None),
        ("srun --container-image=vasp", None),
        ("mpirun --path /opt", None),
        ("run_it", None),
        ("$(which mpirun) -np 4", None),
        ("source /opt/vasp.sh && mpirun -np 4", None),
        ("module load vasp; mpirun", None),
        ("A=b mpirun", None),
        ("bin/mpirun", None),
        ("exec mpirun", None),
        ("env A=b", None),
        ('mpirun "', None),
    ],
)
def test_parallel_commands(bin_of, command, said):
    finding = check_commands(VASP, {**bin_of(*PROGRAMS), "QUACC_VASP_PARALLEL_CMD": command})
    assert finding is None if said is None else re.search(said, finding.message)


def test_it_refuses_only_what_is_certain(bin_of):
    environment = bin_of("mpirun")

    def severity(**settings):
        return check_commands(VASP, {**environment, **settings}).severity

    assert severity() == "error"
    assert severity(QUACC_VASP_PARALLEL_CMD="mpiexec -n 4") == "error"
    # mpirun may be configured to look elsewhere.
    assert severity(QUACC_VASP_PARALLEL_CMD="mpirun -np 4") == "warning"
    # Another folder, where the job runs.
    assert severity(PATH=f"{environment['PATH']}:.") == "warning"
    assert severity(PATH="") == "warning"
    assert check_commands(VASP, {**environment, "QUACC_VASP_CMD": "ml vasp"}) is None


def test_a_vasp_of_ones_own(bin_of):
    environment = bin_of("run_it")
    for command in ("run_it", "run_it --fast", "$HOME/vasp", "~/vasp", "./vasp", "source x"):
        assert check_commands(VASP, {**environment, "QUACC_VASP_CMD": command}) is None
    finding = check_commands(VASP, {**environment, "QUACC_VASP_CMD": "/no/vasp_std"})
    assert "neither /no/vasp_std (QUACC_VASP_CMD) nor vasp_gam" in finding.message


def test_settings_in_quaccs_file(bin_of, home):
    environment = bin_of("mpirun")
    (home / ".quacc.yaml").write_text("VASP_CMD: vasp6\nVASP_PARALLEL_CMD: mpirun -np 2\n")
    finding = check_commands(VASP, environment)
    assert "vasp6 (VASP_CMD in" in finding.message
    assert "mpirun" not in finding.remedy
    (home / ".quacc.yaml").write_text("a: [")
    assert check_commands(VASP, environment) is None


def test_pw(bin_of, home, tmp_path):
    environment = bin_of("mpirun")
    finding = check_commands(ESPRESSO, environment)
    assert "pw.x (the default of QUACC_ESPRESSO_BIN_DIR) is not on the PATH" in finding.message
    assert "QUACC_ESPRESSO_BIN_DIR" in finding.remedy
    folder = {**environment, "QUACC_ESPRESSO_BIN_DIR": str(tmp_path)}
    assert f"{tmp_path}/pw.x (QUACC_ESPRESSO_BIN_DIR) is no executable file" in (
        check_commands(ESPRESSO, folder).message
    )
    nested = {**environment, "quacc_espresso_binaries__pw": "other.x"}
    assert check_commands(ESPRESSO, nested) is None
    two = {**environment, "QUACC_ESPRESSO_PARALLEL_CMD": '["mpiexec -n 4", "-nk 2"]'}
    assert "mpiexec" in check_commands(ESPRESSO, two).message
    named = {**environment, "QUACC_ESPRESSO_BINARIES": '{"pw": "mypw.x"}'}
    assert "mypw.x" in check_commands(ESPRESSO, named).message
    assert check_commands("quacc.recipes.espresso.phonons.phonon_job", environment) is None
    assert check_commands(ESPRESSO, bin_of("pw.x")) is None


@given(st.text(), st.sampled_from(["VASP_CMD", "VASP_PARALLEL_CMD", "ESPRESSO_BINARIES"]))
def test_any_text_is_answered(text, name):
    environment = {"PATH": "/no", f"QUACC_{name}": text}
    for recipe in (VASP, ESPRESSO):
        check_commands(recipe, environment)


@pytest.mark.parametrize(
    ("command", "count"),
    [
        ("mpirun -np 4", 4),
        ("mpirun -n 4 --bind-to none", 4),
        ("/opt/mpi/bin/mpiexec --np 16", 16),
        ("mpiexec.hydra -n=2", 2),
        ("orterun --n 3", 3),
        ("nice -n 19 mpirun -np 8", 8),
        ("env OMP_NUM_THREADS=1 mpirun --oversubscribe -np 2", 2),
        ("mpirun -nk 2", None),
        ("mpirun", None),
        ("mpirun -np", None),
        ("mpirun -np $N", None),
        ("mpirun -np 99999999999999999999", None),
        ("srun -n 8", 8),
        ("srun -n8", 8),
        ("srun --ntasks=12 -N 1", 12),
        ("srun --ntasks=12 -N 3", None),
        ("mpirun -np 64 --hostfile nodes", None),
        ("mpirun -np 64 -machinefile=nodes", None),
        ("srun -n 64 -w node[1-4]", None),
        ("srun --ntasks 12", 12),
        ("srun -N 2 --ntasks-per-node 48", None),
        ("srun --nodes=1 --ntasks-per-node=4", 4),
        ("srun --ntasks-per-node=4", 4),
        ("srun -N 2", None),
        ("srun", None),
        ("", None),
        ("vasp_std -n 4", None),
        ('mpirun "', None),
        (None, None),
        (["mpirun", "-np", "4"], None),
        (7, None),
    ],
)
def test_commands(command, count):
    assert ranks(command) == count


@given(st.text() | st.lists(st.sampled_from(["mpirun", "srun", "-n", "4", "-N", "=", "'"])))
def test_ranks_of_any_text_are_answered(command):
    text = command if isinstance(command, str) else " ".join(command)
    assert ranks(text) is None or ranks(text) >= 0
    check_ranks(ESPRESSO, {"QUACC_ESPRESSO_PARALLEL_CMD": text}, 2)


def test_ranks_times_workers_are_compared_with_the_cores(home, monkeypatch):
    monkeypatch.setenv("HOME", str(home))
    cores = len(os.sched_getaffinity(0))
    environment = {"QUACC_VASP_PARALLEL_CMD": f"mpirun -np {cores}"}
    assert check_ranks(VASP, environment, 1) is None
    assert check_ranks("quacc.recipes.emt.core.static_job", environment, 2) is None
    assert check_ranks(ESPRESSO, environment, 2) is None
    finding = check_ranks(VASP, environment, 2)
    assert (finding.severity, finding.code) == ("warning", "too_many_ranks")
    for said in (
        f"2 jobs.*{cores} ranks.*QUACC_VASP_PARALLEL_CMD",
        f"{2 * cores} in all",
        "cores?",
    ):
        assert re.search(said, finding.message), finding
    assert "workers" in finding.remedy


@pytest.mark.parametrize("form", ["mpirun -np 99", '["mpirun -np 99", "-nk 2"]'])
def test_espressos_may_be_two_texts(home, monkeypatch, form):
    monkeypatch.setenv("HOME", str(home))
    finding = check_ranks(ESPRESSO, {"QUACC_ESPRESSO_PARALLEL_CMD": form}, 1)
    assert "mpirun -np 99" in finding.message
    (home / ".quacc.yaml").write_text(f"ESPRESSO_PARALLEL_CMD: {form}\n")
    finding = check_ranks(ESPRESSO, {}, 1)
    assert "mpirun -np 99" in finding.message
    assert ".quacc.yaml" in finding.source
    (home / ".quacc.yaml").write_text("a: [")
    assert check_ranks(ESPRESSO, {}, 1) is None
