"""Ranks that would not fit on this machine."""

import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystalmath.preflight.commands import check_ranks, ranks

VASP = "quacc.recipes.vasp.core.static_job"
ESPRESSO = "quacc.recipes.espresso.core.static_job"


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
def test_any_text_is_answered(command):
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
