"""How far a calculation has come, read from what its program writes."""

from __future__ import annotations

import gzip
import math
import os
import sys
import time

import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.md.logger import MDLogger
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS, FIRE, BFGSLineSearch
from ase.units import create_units, fs
from hypothesis import given
from hypothesis import strategies as st

from crystalmath.engines.registry import plugins
from crystalmath.jobs.worktree import at_once
from crystalmath.plugins.progress_reader import LastLines, ProgressReader, StepCollector
from crystalmath.progress.search import END, read_progress

# As VASP 6 writes them; of a relaxation in its second step.
FIRST_STEP = """\
       N       E                     dE             d eps       ncg     rms          rms(c)
DAV:   1     0.146011203581E+02    0.14601E+02   -0.18325E+03  3216   0.367E+02
DAV:   2    -0.351094712361E+01   -0.18112E+02   -0.17432E+02  4048   0.718E+01
RMM:   3    -0.372214035530E+01   -0.21119E+00   -0.21012E+00  3216   0.112E+01    0.4E+00
"""
OSZICAR = f"""\
{FIRST_STEP}   1 F= -.37221404E+01 E0= -.37210001E+01  d E =-.228072E-02
       N       E                     dE             d eps       ncg     rms          rms(c)
DAV:   1    -0.372241135530E+01   -0.21119E-03   -0.21012E-03  3216   0.112E-01    0.4E-02
"""
DYNAMICS = (
    "    7 T=   301. E= -.37151E+01 F= -.37251234E+01 E0= -.37241111E+01  EK= 0.1E-01"
    " SP= 0.00E+00 SK= 0.00E+00\n"
)
OUTCAR = """\
 POSITION                                       TOTAL-FORCE (eV/Angst)
 -----------------------------------------------------------------------------------
      0.00000      0.00000      0.00000         0.000000      0.030000      0.040000
      1.82000      1.82000      0.00000         0.000000     -0.010000     -0.040000
 -----------------------------------------------------------------------------------
    total drift:                                0.000000     -0.000000     -0.000000
"""
#: With which ASE reads the output of pw.x, and so what a result has.
Ry, Bohr = map(create_units("2006").get, ("Ry", "Bohr"))
# As pw.x 6.7 writes them: silicon that relaxes, in its second step.
PW_FIRST = """\
     iteration #  5     ecut=    12.00 Ry     beta= 0.70
     Davidson diagonalization with overlap

     total cpu time spent up to now is        0.2 secs

     total energy              =     -15.61606902 Ry
     estimated scf accuracy    <       0.00000120 Ry
"""
PW = f"""\
{PW_FIRST}
     iteration #  6     ecut=    12.00 Ry     beta= 0.70
!    total energy              =     -15.61606979 Ry

     convergence has been achieved in   6 iterations

     Forces acting on atoms (cartesian axes, Ry/au):

     atom    1 type  1   force =     0.03000000    0.00000000    0.04000000
     atom    2 type  1   force =    -0.01529149    0.01861275   -0.00264724
     The non-local contrib.  to forces
     atom    1 type  1   force =     9.03000000    0.00000000    9.04000000

     Total force =     0.034272     Total SCF correction =     0.000007

     BFGS Geometry Optimization

     number of scf cycles    =   1
     number of bfgs steps    =   0
"""
PW_SECOND = """\
     iteration #  1     ecut=    12.00 Ry     beta= 0.70
"""


def read(work):
    return at_once(read_progress(work, plugins().progress_readers()))


def steps(work):
    """Return all steps: calculation, number, energy and force of each."""
    found = at_once(read_progress(work, plugins().progress_readers(), history=True))
    return [
        (step.calculation, step.ionic_step, step.energy_ev, step.max_force_ev_ang)
        for step in found.history
    ]


def seen(work):
    found = read(work)
    return (
        found.program,
        found.ionic_step,
        found.electronic_step,
        found.energy_ev,
        found.max_force_ev_ang,
    )


@pytest.mark.parametrize("stress", [False, True])
@pytest.mark.parametrize("timestep_fs", [0.37, 1.0, 5.0])
def test_the_steps_of_dynamics_are_those_of_ase(timestep_fs, stress, tmp_path):
    atoms = bulk("Cu", cubic=True)
    atoms.calc = EMT()
    atoms.rattle(0.05, seed=1)
    energies = []
    with VelocityVerlet(atoms, timestep_fs * fs) as dynamics:
        log = MDLogger(dynamics, atoms, str(tmp_path / "md.log"), stress=stress)
        dynamics.attach(log)
        dynamics.attach(lambda: energies.append(atoms.get_potential_energy()))
        dynamics.run(40)
        log.close()
    found = read(tmp_path)
    assert (found.program, found.file, found.ionic_step) == ("ASE", "md.log", 40)
    assert found.energy_ev == pytest.approx(energies[-1], abs=1e-4)
    _, numbers, told, _ = zip(*steps(tmp_path), strict=True)
    assert numbers == tuple(range(41))
    assert told == pytest.approx(energies, abs=1e-4)


def test_nothing_is_known_before_a_program_has_written(tmp_path):
    assert read(tmp_path) is None
    assert read(tmp_path / "not there yet") is None
    (tmp_path / "notes.txt").write_text("BFGS:    3 15:09:38       -0.005682        0.0123\n")
    assert read(tmp_path) is None


@pytest.mark.parametrize("optimizer", [BFGS, FIRE, BFGSLineSearch])
def test_the_steps_of_ase_are_those_of_its_optimizer(optimizer, tmp_path):
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    atoms.rattle(0.1, seed=1)
    atoms.calc = EMT()
    with optimizer(atoms, logfile=str(tmp_path / "opt.log")) as dynamics:
        dynamics.run(fmax=0.01, steps=3)
    found = read(tmp_path)
    assert (found.program, found.calculation, found.file) == ("ASE", 1, "opt.log")
    assert found.ionic_step == dynamics.nsteps
    assert found.energy_ev == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
    largest = max(map(sum, atoms.get_forces() ** 2)) ** 0.5
    assert found.max_force_ev_ang == pytest.approx(largest, abs=1e-4)
    assert time.time() - found.updated_at < 600


@pytest.mark.parametrize(
    ("oszicar", "outcar", "expected"),
    [
        (FIRST_STEP, "", (1, 3, -3.72214035530, None)),
        (OSZICAR, OUTCAR, (2, 1, -3.7210001, 0.05)),
        # Between the line in OSZICAR and the forces in OUTCAR.
        (OSZICAR, OUTCAR.rpartition("1.82")[0], (2, 1, -3.7210001, None)),
        (OSZICAR, OUTCAR + OUTCAR.rpartition("1.82")[0], (2, 1, -3.7210001, 0.05)),
        (DYNAMICS, OUTCAR, (7, None, -3.7241111, 0.05)),
    ],
)
def test_vasp_tells_ionic_and_electronic_steps(oszicar, outcar, expected, tmp_path):
    (tmp_path / "OSZICAR").write_text(oszicar)
    (tmp_path / "OUTCAR").write_text(outcar)
    assert seen(tmp_path) == ("VASP", *expected)


def test_the_largest_force_in_vasp_is_one_that_may_move_something(tmp_path):
    """OUTCAR has the forces on all ions, also on those that stay where they are."""
    (tmp_path / "OSZICAR").write_text(OSZICAR)
    (tmp_path / "OUTCAR").write_text(OUTCAR)
    head = "slab\n1.0\n3 0 0\n0 3 0\n0 0 9\nCu\n2\nSelective dynamics\nDirect\n"
    for flags, force in (("FF", None), ("TF", 0.05), ("FT", math.hypot(0.01, 0.04))):
        ions = [f"  0.0  0.0  0.{n}   {flag}   {flag}   {flag}\n" for n, flag in enumerate(flags)]
        (tmp_path / "POSCAR").write_text(head + "".join(ions))
        told = None if force is None else pytest.approx(force)
        assert seen(tmp_path) == ("VASP", 2, 1, -3.7210001, told)
        assert steps(tmp_path) == [(1, 1, -3.7210001, told)]


def test_the_largest_force_in_pw_is_one_that_may_move_something(tmp_path):
    """The output has the forces on all atoms; which of them move is told by the input alone."""
    (tmp_path / "pw.out").write_text(PW)
    other = math.hypot(-0.01529149, 0.01861275, -0.00264724)
    for flags, force in (("", 0.05), ("1 1 1", 0.05), ("1 1 0", 0.03), ("0 0 0", 0.0)):
        atoms = f"ATOMIC_POSITIONS angstrom\nSi 0.0 0.0 0.0 {flags}\nSi 1.4 1.4 1.4\n\n"
        (tmp_path / "pw.in").write_text(f"&SYSTEM\n/\n{atoms}K_POINTS gamma\n")
        told = pytest.approx(max(force, other) * Ry / Bohr)
        energy = -15.61606979 * Ry
        assert seen(tmp_path) == ("Quantum ESPRESSO", 1, None, energy, told)
        assert steps(tmp_path) == [(1, 1, energy, told)]


def test_the_forces_of_a_step_in_pw_are_compared_at_once():
    """There may be millions, and a server answers nobody meanwhile."""
    collector, calls = plugins().progress_readers()["pw.out"].collector(), []
    rows = [f"     atom {n} type  1   force =  0.3  0.0  0.{n:04d}" for n in range(1000)]
    energy = "!    total energy              =     -15.7 Ry"
    collector.take("pw.out", ["     Forces acting on atoms", "", *rows, "", energy])
    sys.setprofile(lambda *_: calls.append(1))
    try:
        (step,) = collector.steps()
    finally:
        sys.setprofile(None)
    assert step.max_force_ev_ang == pytest.approx(math.hypot(0.3, 0.0999) * Ry / Bohr)
    assert len(calls) < len(rows)


def test_quantum_espresso_tells_them_too(tmp_path):
    out = tmp_path / "pw.out"
    out.write_text(PW_FIRST)
    energy = pytest.approx(-15.61606902 * Ry)
    assert seen(tmp_path) == ("Quantum ESPRESSO", 1, 5, energy, None)
    energy = pytest.approx(-15.61606979 * Ry)
    force = pytest.approx(0.05 * Ry / Bohr)
    out.write_text(PW)
    assert seen(tmp_path) == ("Quantum ESPRESSO", 1, None, energy, force)
    out.write_text(PW + PW_SECOND)
    assert seen(tmp_path) == ("Quantum ESPRESSO", 2, 1, energy, force)
    out.write_text(f"{PW}\n     bfgs converged in   3 scf cycles and   2 bfgs steps\n")
    assert seen(tmp_path) == ("Quantum ESPRESSO", 3, None, energy, force)


def test_the_newest_of_several_calculations_counts(tmp_path):
    ended, running = tmp_path / "quacc-1", tmp_path / "tmp-quacc-2"
    for folder in (ended, running):
        folder.mkdir()
    with gzip.open(ended / "OSZICAR.gz", "wt") as file:
        file.write(OSZICAR)
    (running / "OSZICAR").write_text(FIRST_STEP)
    os.utime(ended / "OSZICAR.gz", (1, 1))
    found = read(tmp_path)
    assert (found.calculation, found.ionic_step) == (2, 1)
    os.utime(running / "OSZICAR", (0, 0))
    found = read(tmp_path)
    assert (found.file, found.calculation, found.ionic_step) == ("quacc-1/OSZICAR.gz", 2, 2)


def test_a_calculation_in_quaccs_scratch_directory_is_found(tmp_path):
    work, scratch = tmp_path / "work", tmp_path / "scratch" / "tmp-quacc-1"
    work.mkdir()
    scratch.mkdir(parents=True)
    (scratch / "OSZICAR").write_text(OSZICAR)
    (work / "symlink-tmp-quacc-1").symlink_to(scratch, target_is_directory=True)
    found = read(work)
    assert (found.file, found.ionic_step) == (str(scratch / "OSZICAR"), 2)
    # Nobody else's links are followed.
    (work / "symlink-tmp-quacc-1").unlink()
    (work / "link").symlink_to(tmp_path / "scratch", target_is_directory=True)
    assert read(work) is None


class Broken(ProgressReader, StepCollector):
    program, file = "Broken", "broken.log"

    def read(self, lines):
        return float(lines(self.file)[0])

    def collector(self):
        return self

    def take(self, file, lines):
        float(lines[0])

    def steps(self):
        return ()


def test_a_reader_that_raises_is_named_and_the_job_is_told_of(tmp_path, caplog):
    (tmp_path / "OSZICAR").write_text(OSZICAR)
    (tmp_path / "broken.log").write_text("words\n")
    os.utime(tmp_path / "OSZICAR", (1, 1))
    readers = {**plugins().progress_readers(), "broken.log": Broken()}
    found = at_once(read_progress(tmp_path, readers, history=True))
    assert (found.program, found.energy_ev) == ("Broken", None)
    assert [step.energy_ev for step in found.history] == [-3.7210001]
    assert f"{Broken.__module__}.Broken cannot read {tmp_path}/broken.log" in caplog.text
    assert "could not convert string to float: 'words'" in caplog.text


@pytest.mark.parametrize("cut", ["-", "-0.", "-0.0152"])
def test_a_line_that_is_being_written_is_not_read(tmp_path, cut):
    before, _, _ = PW.rpartition("-0.01529149")
    (tmp_path / "pw.out").write_text(before + cut)
    found = read(tmp_path)
    assert found.energy_ev == -15.61606979 * Ry
    assert found.max_force_ev_ang is None  # of a table that is not whole


@given(st.data())
def test_a_file_that_is_cut_anywhere_is_read_as_far_as_it_goes(tmp_path_factory, data):
    work = tmp_path_factory.mktemp("work")
    name, text = data.draw(
        st.sampled_from([("OSZICAR", OSZICAR), ("pw.out", PW + PW_SECOND), ("OUTCAR", OUTCAR)])
    )
    end = data.draw(st.integers(0, len(text)))
    (work / "OSZICAR").write_text(OSZICAR)
    (work / name).write_text(text[:end])
    found = read(work)
    energies = {None, -3.7210001, 14.6011203581, -3.51094712361, -3.72214035530}
    energies |= {-15.61606902 * Ry, -15.61606979 * Ry}
    assert found.energy_ev in energies
    assert found.ionic_step in {None, 1, 2}


@pytest.mark.parametrize("name", ["OSZICAR", "OUTCAR", "pw.out", "opt.log", "md.log"])
def test_whatever_lies_there_harms_nobody(name, tmp_path):
    (tmp_path / "OSZICAR").write_text(OSZICAR)
    path = tmp_path / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    read(tmp_path)
    path.unlink()
    path.symlink_to("/etc/passwd")
    read(tmp_path)
    path.unlink()
    path.write_bytes(os.urandom(2 * END))
    read(tmp_path)
    path.unlink()
    path.with_name(f"{name}.gz").write_bytes(b"no gzip")
    read(tmp_path)


def test_a_broken_plugin_keeps_nobody_from_his_progress(install, tmp_path):
    install(
        "broken-progress",
        "broken_progress",
        "from crystalmath.hookspecs import hookimpl\n"
        "@hookimpl\n"
        "def crystalmath_progress_readers():\n"
        "    raise RuntimeError('not today')\n",
        group="crystalmath.plugins",
    )
    (tmp_path / "OSZICAR").write_text(OSZICAR)
    assert seen(tmp_path)[0] == "VASP"
    assert "not today" in str(plugins().broken["broken_progress"])


# --- the history of steps --------------------------------------------------------------------


def test_no_steps_are_told_that_nobody_asked_for(tmp_path):
    (tmp_path / "OSZICAR").write_text(OSZICAR)
    assert read(tmp_path).history is None


def test_all_steps_of_ase_are_told(tmp_path):
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=1)
    atoms.calc = EMT()
    told = []
    with BFGS(atoms, logfile=str(tmp_path / "opt.log")) as dynamics:
        for _ in dynamics.irun(fmax=0.01, steps=4):
            force = (atoms.get_forces() ** 2).sum(axis=1).max() ** 0.5
            told.append((1, dynamics.nsteps, atoms.get_potential_energy(), force))
    found = steps(tmp_path)
    assert [step[:2] for step in found] == [step[:2] for step in told] == [(1, n) for n in range(5)]
    for values, wanted in zip(found, told, strict=True):
        assert values[2:] == (
            pytest.approx(wanted[2], abs=1e-5),
            pytest.approx(wanted[3], abs=1e-4),
        )


def test_all_steps_of_vasp_are_told_with_their_forces(tmp_path):
    second = "   2 F= -.37521404E+01 E0= -.37510001E+01  d E =-.228072E-02\n"
    (tmp_path / "OSZICAR").write_text(OSZICAR + second)
    table = OUTCAR.replace("0.030000", "0.300000").replace("0.040000", "0.400000")
    (tmp_path / "OUTCAR").write_text(OUTCAR + table)
    force = pytest.approx(0.05)
    assert steps(tmp_path) == [(1, 1, -3.7210001, force), (1, 2, -3.7510001, pytest.approx(0.5))]
    (tmp_path / "OUTCAR").write_text(OUTCAR + table[:300])  # not whole yet
    assert steps(tmp_path) == [(1, 1, -3.7210001, force), (1, 2, -3.7510001, None)]
    (tmp_path / "OSZICAR").write_text(OSZICAR + second[:20])
    assert steps(tmp_path) == [(1, 1, -3.7210001, force)]


def test_all_steps_of_quantum_espresso_are_told(tmp_path):
    first = (1, 1, pytest.approx(-15.61606979 * Ry), pytest.approx(0.05 * Ry / Bohr))
    (tmp_path / "pw.out").write_text(PW)
    assert steps(tmp_path) == [first]
    (tmp_path / "pw.out").write_text(PW + PW_SECOND)
    assert steps(tmp_path) == [first]
    last = "!    total energy              =     -15.7 Ry\n"
    (tmp_path / "pw.out").write_text(PW + PW_SECOND + last)
    assert steps(tmp_path) == [first, (1, 2, pytest.approx(-15.7 * Ry), None)]
    exact = "!!   total energy              =     -15.8 Ry\n"  # of a hybrid functional
    (tmp_path / "pw.out").write_text(PW + PW_SECOND + last + exact)
    assert steps(tmp_path) == [first, (1, 2, pytest.approx(-15.8 * Ry), None)]
    assert read(tmp_path).energy_ev == -15.8 * Ry


def test_the_steps_of_all_calculations_are_told_in_their_order(tmp_path):
    for number, name in enumerate(("quacc-b", "quacc-a"), 1):
        (tmp_path / name).mkdir()
        with gzip.open(tmp_path / name / "OSZICAR.gz", "wt") as file:
            file.write(OSZICAR)
        os.utime(tmp_path / name / "OSZICAR.gz", (number, number))
    with gzip.open(tmp_path / "quacc-a" / "OUTCAR.gz", "wt") as file:
        file.write(OUTCAR)
    energy, force = -3.7210001, pytest.approx(0.05)
    assert steps(tmp_path) == [(1, 1, energy, None), (2, 1, energy, force)]


def test_where_ase_moves_the_atoms_of_a_program_its_steps_count(tmp_path):
    (tmp_path / "OSZICAR").write_text(OSZICAR)
    (tmp_path / "opt.log").write_text(
        "BFGS:    0 15:09:38       -3.720000        0.5000\n"
        "BFGS:    1 15:09:39       -3.730000        0.2500\n"
    )
    assert steps(tmp_path) == [(1, 0, -3.72, 0.5), (1, 1, -3.73, 0.25)]


def test_only_the_last_of_very_many_steps_are_told(tmp_path):
    lines = (f"BFGS:    {n} 15:09:38       -3.720000        0.5000\n" for n in range(2100))
    (tmp_path / "opt.log").write_text("".join(lines))
    assert [step[1] for step in steps(tmp_path)] == list(range(100, 2100))


@pytest.mark.parametrize("name", ["OSZICAR", "OUTCAR", "pw.out", "opt.log", "md.log"])
def test_the_history_of_whatever_lies_there_harms_nobody(name, tmp_path):
    (tmp_path / "OSZICAR").write_text(OSZICAR)
    path = tmp_path / name
    for make in (
        lambda: os.mkfifo(path),
        lambda: path.symlink_to("/etc/passwd"),
        lambda: path.write_bytes(os.urandom(2 * END)),
        lambda: path.write_bytes(b"\0" * 2 * END),
    ):
        path.unlink(missing_ok=True)
        make()
        steps(tmp_path)
    path.unlink()
    path.with_name(f"{name}.gz").write_bytes(gzip.compress(OUTCAR.encode())[:99])
    (tmp_path / "running").mkdir()
    (tmp_path / "running/OSZICAR").write_text(OSZICAR)
    assert (1, -3.7210001) in {step[1:3] for step in steps(tmp_path)}


@given(st.lists(st.text(st.sampled_from("aé∑ \t\x0c"), max_size=9), max_size=30), st.integers(0, 3))
def test_lines_are_the_same_from_either_end(some, times):
    """Also where they are cut into blocks, at which a character may not be."""
    lines = [*some, "Å" * 40_000, *some] * times
    text = "".join(f"{line}\n" for line in lines)
    wanted = text.splitlines()
    last = LastLines(text.encode())
    assert list(reversed(last)) == wanted[::-1]
    assert (list(last), len(last), last[-3:]) == (wanted, len(wanted), wanted[-3:])


@given(st.lists(st.sampled_from(["", "a", "é", "= head =", "head", "x" * 5_000]), max_size=30))
def test_a_section_begins_with_its_heading_and_ends_at_the_next(lines):
    wanted: list[list[str]] = []
    for line in lines:
        if "head" in line:
            wanted.append([])
        if wanted:
            wanted[-1].append(line)
    last = LastLines("".join(f"{line}\n" for line in lines).encode())
    assert [list(section) for section in last.sections("head")] == wanted[::-1]
    assert list(last.sections("tail")) == []
