"""Curves of jobs: ionic steps, sweeps, equations of state; in a terminal and in files."""

import json
import math
import sys
import time
import uuid
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.eos import EquationOfState
from ase.units import GPa
from hypothesis import example, given
from hypothesis import strategies as st

from crystalmath import config
from crystalmath.cli import plot
from crystalmath.cli.shared.figure import Curve, Panel, draw, linear_marks, log_marks
from crystalmath.client import in_process
from crystalmath.errors import InvalidJob, UnknownJob
from crystalmath.jobs.changes import Change
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.models import JobSpec, JobState
from crystalmath.quacc.store import JobStore, NewJob
from crystalmath.recipes import codec
from crystalmath.recipes.summary import summarize

pytestmark = pytest.mark.server

ENCUTS = (500, 200, 300)
KPTS = ([11, 11, 11], [3, 3, 3])
STEPS = [-1.0, -1.5, -1.75]
STRAINS = np.linspace(0.94, 1.06, 7)


def cell(strain, **more):
    atoms = bulk("Cu", **more)
    atoms.set_cell(atoms.cell * strain, scale_atoms=True)
    return atoms


def emt_energy(atoms):
    atoms = atoms.copy()
    atoms.calc = EMT()
    return atoms.get_potential_energy()


def energy(encut, kpts):
    return 2 * (-3.7 + math.exp(-encut / 100)) + 0.1 / kpts[0]


class Home:
    """A home of jobs that have ended, as their workers would have left them."""

    def __init__(self, home):
        self.jobs = home / "jobs"
        self.jobs.mkdir()
        self.store = JobStore(config.load({"CRYSTALMATH_HOME": str(home)}).database_url)
        self.ids = {}

    def make(self, name, atoms, results=None, parameters=None, labels=None, log=""):
        """Write a job; it failed if it has no results."""
        spec = JobSpec(
            job_id=str(uuid.uuid4()),
            recipe="lab_recipes.report",
            atoms=atoms,
            parameters=parameters or {},
            engine="local",
            name=name,
            labels=labels,
        )
        self.ids[name] = spec.job_id
        text = codec.encode_spec(spec)
        record = NewJob(
            job_id=spec.job_id,
            recipe=spec.recipe,
            engine="local",
            name=name,
            labels=labels,
            created_at=time.time(),
            spec_hash="0",
            formula=str(atoms.get_chemical_formula()),
            specification=f"{json.dumps(spec.header())}\n{text}",
        )
        self.store.insert([record])
        directory = RunDirectory(self.jobs / spec.job_id)
        directory.write_spec({"job_id": spec.job_id, "attempt": 1}, text)
        work = self.jobs / spec.job_id / "1.work"
        work.mkdir()
        if log:
            (work / "opt.log").write_text(log)
        state, summary = JobState.FAILED, None
        if results is not None:
            result = {"atoms": atoms, "results": results}
            state, summary = JobState.COMPLETED, summarize(result)
            directory.publish(1, {"state": state.value}, codec.encode_result(result))
        change = Change(job_id=spec.job_id, state=state, at=time.time(), summary=summary)
        self.store.apply([change])


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Yield a home with the jobs that the tests of this module draw, and their ids."""
    root = tmp_path_factory.mktemp("drawn")
    home = Home(root)
    with home.store:
        for encut, name, atoms in (
            (200, "copper-200", bulk("Cu")),
            (300, "copper-300", bulk("Cu")),
            (500, "cell-500", bulk("Cu", cubic=True)),
        ):
            parameters = {"encut": encut, "kpts": [3, 3, 3]}
            home.make(name, atoms, {"energy": 1.0 - encut / 100}, parameters, {"set": "metals"})
        two = bulk("Al", cubic=True)[:2]
        for encut in ENCUTS:
            for kpts in KPTS:
                results = {
                    "energy": energy(encut, kpts),
                    "forces": np.array([[0, 0, 10 / encut]] * 2),
                    "gap": {"direct": encut / 1000},
                }
                labels = {"set": "sweep", "kpts": json.dumps(kpts, separators=(",", ":"))}
                parameters = {"encut": encut, "kpts": kpts, "opt_params": {"fmax": 0.1}}
                home.make(f"sweep-{encut}-{kpts[0]}", two, results, parameters, labels)
        home.make("deaf", two, {"energy": -1.0})
        home.make("failed", two, parameters={"message": "no"})
        for name, energies in (("steps", STEPS), ("others", STEPS[:2])):
            log = [f"BFGS:  {n} 15:09:38  {e:.6f}  {0.5**n:.6f}\n" for n, e in enumerate(energies)]
            home.make(name, two, {"energy": -1.0}, labels={"set": "steps"}, log="".join(log))
        for number, strain in enumerate(STRAINS):
            atoms = cell(strain)
            results = {"energy": emt_energy(atoms)}
            home.make(f"eos-{number}", atoms, results, labels={"set": "eos"})
        for number, strain in enumerate((0.92, 0.95)):
            atoms = cell(strain)
            home.make(f"beyond-{number}", atoms, {"energy": emt_energy(atoms)})
        for number, strain in enumerate(STRAINS):
            atoms = bulk("Ag", cubic=True)
            atoms.set_cell(atoms.cell * strain, scale_atoms=True)
            home.make(
                f"silver-{number}", atoms, {"energy": emt_energy(atoms)}, labels={"set": "silver"}
            )
        for text in ("NaN", "1e999", "2"):
            home.make(f"odd-{text}", two, {"energy": -1.0}, labels={"set": "odd", "odd": text})
        home.make("lonely-0", bulk("Au"), {"energy": 0.0}, labels={"set": "lonely"})
        home.make("cubic", cell(1.0, cubic=True), {"energy": 0.0})
        home.make("bcc", bulk("Cu", "bcc", a=2.87), {"energy": 0.0})
        atoms = cell(1.01)
        settings = {"calculator": {"asap_cutoff": True}}
        home.make("other settings", atoms, {"energy": emt_energy(atoms)}, settings)
        yield root, home.ids


@pytest.fixture
def ids(drawn, tmp_path, monkeypatch):
    """Ask about that home, from a folder of the test's own, in a terminal of 80 columns."""
    home, ids = drawn
    monkeypatch.setenv("CRYSTALMATH_HOME", str(home))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    return ids


@pytest.fixture
def client(ids):
    with in_process() as client:
        yield client


def chosen(ids, prefix):
    return [job_id for name, job_id in ids.items() if name.startswith(prefix)]


# --- steps -----------------------------------------------------------------------------------


def test_steps_of_a_job(ids, cli, client):
    answer = cli("plot", ids["steps"], "--json")
    (told,) = answer.json["jobs"]
    assert (told["job_id"], told["name"], told["status"]) == (ids["steps"], "steps", "completed")
    expected = [
        {"calculation": 1, "ionic_step": n, "energy_ev": energy, "max_force_ev_ang": 0.5**n}
        for n, energy in enumerate(STEPS)
    ]
    assert told["history"] == expected
    read = client.progress([ids["steps"]], history=True)[ids["steps"]]
    assert [step.energy_ev for step in read.history] == STEPS
    assert client.progress([ids["steps"]])[ids["steps"]].history is None
    shown = cli("plot", ids["steps"])
    assert shown.code == 0
    assert [line for line in shown.lines if " / " in line] == [
        "energy / eV",
        "largest force / (eV/Å)",
    ]
    assert shown.out.count("●") == 2 * len(STEPS)
    assert max(map(len, shown.lines)) <= 80


def test_steps_of_several_jobs_are_drawn_in_one_frame(ids, cli):
    answer = cli("plot", "--label", "set=steps", ids["steps"], ids["others"])
    assert "● steps   ▲ others" in answer.out
    answer = cli("plot", ids["steps"], ids["deaf"])
    assert answer.code == 0
    assert f"not drawn: job {ids['deaf'][:8]} (deaf): it has written no ionic step" in answer.err


def test_what_has_no_steps_cannot_be_drawn(ids, cli):
    answer = cli("plot", ids["failed"], "--json")
    assert (answer.code, answer.json["status"]) == (1, "error")
    assert "nothing to plot: the job has written no ionic step" in answer.err
    answer = cli("plot", *ids.values())
    assert answer.code == 1
    assert f"the steps of {len(ids)} jobs would be drawn over each other" in answer.err
    assert "8 at most, or draw a sweep with --x" in answer.err


def test_histories_are_asked_for_in_portions(client, ids):
    many = [ids["steps"]] * 21
    refused = client.call("jobs.progress", {"job_ids": many, "history": True})
    assert refused["jobs"] == []
    assert "the histories of 20 jobs at most" in refused["error"]
    assert client.progress(many, history=True).keys() == {ids["steps"]}


def test_steps_of_dynamics_are_told_where_not_each_is_logged(client):
    md = {"steps": 6, "md_params": {"dynamics_kwargs": {"loginterval": 3}}}
    future = client.submit("emt.md.md_job", bulk("Cu"), md)
    future.result(600)
    read = client.progress([future.job_id], history=True)[future.job_id]
    assert (read.ionic_step, [one.ionic_step for one in read.history]) == (6, [0, 3, 6])


# --- sweeps ----------------------------------------------------------------------------------


def test_a_sweep_is_sorted_and_has_a_series_for_each_value(ids, cli, client):
    sweep = ("--x", "encut", "--y", "energy", "--by", "kpts")
    told = cli("plot", "--label", "set=sweep", *sweep, "--json").json
    assert (told["x"], told["y"], told["by"], told["left_out"]) == ("encut", "energy", "kpts", {})
    assert told["categories"] == []
    for series, kpts in zip(told["series"], sorted(KPTS), strict=True):
        assert series["name"] == f"kpts=[{kpts[0]},{kpts[0]},{kpts[0]}]"
        assert series["x"] == sorted(ENCUTS)
        assert series["y"] == pytest.approx([energy(encut, kpts) for encut in sorted(ENCUTS)])
        assert series["job_ids"] == [ids[f"sweep-{encut}-{kpts[0]}"] for encut in sorted(ENCUTS)]
    made = client.sweep(chosen(ids, "sweep"), "encut", "energy", by="kpts")
    assert [list(series.y) for series in made.series] == [one["y"] for one in told["series"]]
    shown = cli("plot", "--label", "set=sweep", *sweep)
    assert "● kpts=[3,3,3]   ▲ kpts=[11,11,11]" in shown.out
    assert shown.lines[0] == "energy / eV"


def test_materials_that_share_a_sweep_have_a_curve_each(ids, cli, client):
    jobs = [*chosen(ids, "sweep"), *chosen(ids, "copper"), *chosen(ids, "cell")]
    sweep = client.sweep(jobs, "encut", "energy", by="kpts")
    assert [series.name for series in sweep.series] == [
        "Al, kpts=[3,3,3]",
        "Al, kpts=[11,11,11]",
        "Cu, kpts=[3,3,3]",
    ]
    copper = sweep.series[2]
    # Cu and Cu4 are one material.
    assert (copper.x, list(copper.y)) == ([200, 300, 500], [-1.0, -2.0, -4.0])
    # One curve goes through materials that differ in x.
    (series,) = client.sweep([ids["sweep-200-3"], ids["copper-300"]], "encut", "energy").series
    assert (series.name, series.x) == (None, [200, 300])


def test_lists_stand_beside_each_other_in_their_order(ids, cli):
    jobs = chosen(ids, "sweep-200")
    told = cli("plot", *jobs, "--x", "kpts", "--json").json
    assert told["categories"] == ["[3,3,3]", "[11,11,11]"]
    (series,) = told["series"]
    assert (series["name"], series["x"]) == (None, told["categories"])
    assert series["y"] == pytest.approx([energy(200, kpts) / 2 for kpts in sorted(KPTS)])
    shown = cli("plot", *jobs, "--x", "kpts")
    assert "[3,3,3]" in shown.out
    assert shown.lines[0] == "energy_per_atom / (eV/atom)"


def test_labels_that_are_no_finite_numbers_are_texts(ids, cli):
    jobs = chosen(ids, "odd")
    assert cli("plot", *jobs, "--x", "odd", "--json").json["categories"] == ["2", "1e999", "NaN"]
    shown = cli("plot", ids["odd-NaN"], "--x", "odd")
    assert (shown.code, "NaN" in shown.out) == (0, True)


@pytest.mark.parametrize(
    ("y", "value"),
    [("max_force", 0.05), ("max_force_ev_ang", 0.05), ("results.gap.direct", 0.2),
     ("results.forces.1.2", 0.05), ("energy_per_atom_ev", energy(200, [3]) / 2)],
)  # fmt: skip
def test_what_can_be_drawn(ids, client, y, value):
    (series,) = client.sweep([ids["sweep-200-3"]], "encut", y).series
    assert (series.x, list(series.y)) == ([200], pytest.approx([value]))


def test_points_of_one_name_are_no_curve():
    def is_line(x, names):
        series = SimpleNamespace(name="", x=x, y=[0.0] * len(x))
        (panel,) = plot._of_sweep(SimpleNamespace(x="x", y="y", categories=names, series=[series]))
        return panel.curves[0].line

    assert is_line(["a", "b"], ["a", "b"])
    assert not is_line(["a", "b", "a"], ["a", "b"])
    assert is_line([1, 1], [])


def test_what_gives_no_point_is_told(ids, cli):
    jobs = [*chosen(ids, "sweep"), ids["failed"], ids["deaf"]]
    answer = cli("plot", *jobs, "--x", "encut")
    assert answer.code == 0
    assert f"not drawn: job {ids['failed'][:8]} (failed): has failed" in answer.err
    assert "(deaf): has neither a label nor a parameter 'encut'" in answer.err
    assert cli("plot", *jobs, "--x", "encut", "--json").json["left_out"].keys() == {
        ids["failed"],
        ids["deaf"],
    }


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--x", "encutt"), "label or a parameter 'encutt'; did you mean encut? there are encut"),
        (("--x", "encut", "--by", "kpoints"), "label or a parameter 'kpoints'; did you mean kpts?"),
        (("--x", "encut", "--y", "energi"), "no field 'energi'; did you mean energy? there are"),
        (("--x", "encut", "--y", "results.gap.drect"), "field 'drect'; did you mean direct?"),
        (("--x", "encut", "--y", "result.energy"), "its result has no field 'result'; did you"),
        (("--x", "encut", "--y", "results.forces"), "is no number, but [["),
        (("--x", "encut", "--y", "results.forces.9"), "has 2 items, and none numbered 9"),
        (("--x", "encut", "--y", "results.energy.a"), "results.energy of its result has no fields"),
    ],
)
def test_names_that_nothing_has(ids, cli, asked, said):
    answer = cli("plot", "--label", "set=sweep", *asked, "--json")
    assert answer.code == 1
    assert said in answer.err
    assert said in answer.json["error"]
    assert "@" not in answer.err


def test_a_sweep_of_what_failed_says_why(ids, client):
    with pytest.raises(InvalidJob, match=r"none of the jobs has a point; job \S+: has failed"):
        client.sweep([ids["failed"]], "message")
    for call in (client.equation_of_state, lambda jobs: client.sweep(jobs, "encut")):
        with pytest.raises(InvalidJob, match="no jobs were given"):
            call([])
    with pytest.raises(UnknownJob):
        client.sweep(["0" * 8 + ids["failed"][8:]], "message")


# --- equations of state ----------------------------------------------------------------------


def test_an_equation_of_state_is_what_ase_fits(ids, cli, client):
    volumes, energies = [], []
    for strain in STRAINS:
        volumes.append(cell(strain).get_volume())
        energies.append(emt_energy(cell(strain)))
    v0, e0, b = EquationOfState(volumes, energies, eos="birchmurnaghan").fit()
    state = client.equation_of_state(chosen(ids, "eos"))
    assert state.formula == "Cu"
    assert state.volumes_ang3 == pytest.approx(volumes)
    assert state.energies_ev == pytest.approx(energies)
    assert (state.v0_ang3, state.e0_ev) == (pytest.approx(v0), pytest.approx(e0))
    assert state.b_gpa == pytest.approx(b / GPa)
    assert state.is_bracketed
    told = cli("plot", "--label", "set=eos", "--eos", "--json").json
    assert (told["v0_ang3"], told["b_gpa"]) == (state.v0_ang3, state.b_gpa)
    shown = cli("plot", "--label", "set=eos", "--eos")
    assert [line.split() for line in shown.lines[-4:-1]] == [
        ["V0", f"{v0:.4f}", "Å³"],
        ["E0", f"{e0:.6f}", "eV"],
        ["B", f"{b / GPa:.2f}", "GPa"],
    ]
    assert "volume / Å³" in shown.out


def test_equations_of_state_of_several_materials(ids, cli, client):
    jobs = [*chosen(ids, "eos"), *chosen(ids, "silver"), *chosen(ids, "lonely")]
    told = client.equations_of_state(jobs, by="formula")
    assert [(one.name, one.formula) for one in told.states] == [
        ("formula=Ag", "Ag4"),
        ("formula=Cu", "Cu"),
    ]
    silver, copper = told.states
    assert copper.b_gpa == client.equation_of_state(chosen(ids, "eos")).b_gpa
    assert silver.b_gpa == client.equation_of_state(chosen(ids, "silver")).b_gpa != copper.b_gpa
    assert set(told.left_out) == {*chosen(ids, "lonely")}
    # A result that cannot be read is left out, with its reason.
    damaged = RunDirectory(str(Path(client.job(jobs[0]).work_dir).parent)).file("1.outcome")
    Path(damaged).rename(aside := f"{damaged}.aside")
    Path(damaged).mkdir()
    without = client.equations_of_state(jobs, by="formula")
    Path(damaged).rmdir()
    Path(aside).rename(damaged)
    assert [len(one.job_ids) for one in without.states] == [
        len(silver.job_ids),
        len(copper.job_ids) - 1,
    ]
    assert "is a folder" in without.left_out[jobs[0]]
    answer = cli("plot", *jobs, "--eos", "--by", "set", "--json").json
    assert [one["name"] for one in answer["states"]] == ["set=eos", "set=silver"]
    assert "at 5 volumes or more" in answer["left_out"][chosen(ids, "lonely")[0]]
    shown = cli("plot", *jobs, "--eos", "--by", "set")
    assert {"set=eos", "set=silver"} <= set(shown.lines)
    # The volume and energy below are those of a cell, of which the figure has an atom's.
    assert [line.split() for line in shown.lines if line.startswith("cell")] == [["cell", "Ag4"]]
    assert "energy above the minimum / (eV/atom)" in shown.out
    answer = cli("plot", *jobs, "--eos", "--by", "nothing")
    assert "none of these jobs has a label or a parameter 'nothing'" in answer.err
    with pytest.raises(InvalidJob, match="no jobs were given"):
        client.equations_of_state([], by="formula")
    answer = cli("plot", *jobs, "--eos", "--by", "set", "--output", "eos.png")
    assert (answer.code, Path("eos.png").read_bytes()[:4]) == (0, b"\x89PNG")


def test_jobs_that_make_no_equation_of_state(ids, cli):
    answer = cli("plot", *chosen(ids, "eos"), ids["cubic"], "--eos")
    assert answer.code == 1
    assert "of one cell, and these jobs are of several: Cu (7 jobs" in answer.err
    assert "Cu4 (1 jobs" in answer.err
    answer = cli("plot", *chosen(ids, "eos")[:4], "--eos")
    assert "at 5 volumes or more, and these are at 4" in answer.err
    answer = cli("plot", *chosen(ids, "sweep"), "--eos")
    assert "and these are at 1" in answer.err


def test_cells_of_several_shapes_make_no_equation_of_state(ids, cli):
    answer = cli("plot", *chosen(ids, "eos"), ids["bcc"], "--eos")
    assert answer.code == 1
    assert "the cells of these jobs differ in shape" in answer.err
    assert f"{ids['bcc'][:8]} (" in answer.err


def test_jobs_of_several_settings_are_warned_of(ids, cli, client):
    answer = cli("plot", *chosen(ids, "eos"), ids["other settings"], "--eos")
    assert answer.code == 0
    assert "warning: these jobs differ in calculator.asap_cutoff;" in answer.err
    state = client.equation_of_state([*chosen(ids, "eos"), ids["other settings"]])
    assert state.differing == ["calculator.asap_cutoff"]


def test_a_minimum_outside_of_the_volumes_is_warned_of(ids, cli):
    answer = cli("plot", *chosen(ids, "eos"), "--eos")
    assert answer.err == ""
    answer = cli("plot", *chosen(ids, "eos")[:3], *chosen(ids, "beyond"), "--eos")
    assert answer.code == 0
    assert "warning: the smallest energy lies outside of the volumes" in answer.err


# --- files, usage ----------------------------------------------------------------------------


def test_a_png(ids, cli):
    answer = cli(
        "plot", "--label", "set=sweep", "--x", "encut", "--by", "kpts", "--output", "a.png"
    )
    assert (answer.code, answer.out, answer.err) == (0, "", "written to a.png\n")
    assert Path("a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "what", [["--x", "kpts"], ["--x", "encut", "--by", "kpts"], ["--eos"], []], ids=str
)
def test_an_svg(ids, cli, what):
    jobs = chosen(ids, "eos" if what == ["--eos"] else "sweep" if what else "steps")
    assert cli("plot", *jobs, *what, "--output", "a.svg").code == 0
    assert ET.parse("a.svg").getroot().tag.endswith("svg")


def test_a_file_that_cannot_be_written(ids, cli, monkeypatch):
    asked = ("plot", ids["steps"], "--output")
    answer = cli(*asked, "a.pdf")
    assert (answer.code, "must end in .png or .svg" in answer.err) == (2, True)
    answer = cli(*asked, "nowhere/a.png")
    told = "error: nowhere/a.png cannot be written: No such file or directory"
    assert (answer.code, told in answer.err) == (1, True)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    answer = cli(*asked, "a.png")
    assert answer.code == 1
    assert "pip install 'crystalmath[plot]'; without --output" in answer.err
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ((), "name jobs, or choose them with --label"),
        (("--label", "a=b", "--y", "energy"), "name a label or a parameter"),
        (("--label", "a=b", "--by", "kpts"), "name a label or a parameter"),
        (("--label", "a=b", "--eos", "--x", "encut"), "does not go with --eos"),
        (("--label", "a=b", "--x", ""), "must not be empty"),
    ],
)
def test_wrong_usage(ids, cli, asked, said):
    answer = cli("plot", *asked)
    assert (answer.code, said in answer.err) == (2, True), answer.err


# --- drawing ---------------------------------------------------------------------------------

finite = st.floats(-1e9, 1e9).map(lambda number: round(number, 6))


@given(st.lists(finite, min_size=1, max_size=9), st.integers(2, 8))
@example([421052632.0], 2)  # no multiple of the step that is wide enough is inside
def test_marks_are_distinct_and_inside(values, most):
    marks = linear_marks(values, most)
    assert marks.low < min(values)
    assert max(values) < marks.high
    assert 1 <= len(marks.places) <= most + 1
    assert len(set(marks.texts)) == len(marks.texts)
    assert all(marks.low <= place <= marks.high for place in marks.places)
    for place, text in zip(marks.places, marks.texts, strict=True):
        assert float(text) == pytest.approx(place, rel=1e-6, abs=1e-12)


@given(st.lists(st.floats(-12, 6), min_size=1, max_size=9))
def test_marks_of_powers_are_inside(exponents):
    marks = log_marks(exponents)
    assert marks.low < min(exponents)
    assert all(marks.low <= place <= marks.high for place in marks.places)
    assert len(set(marks.texts)) == len(marks.texts)


points = st.lists(st.tuples(finite, finite), min_size=1, max_size=6)


@given(st.lists(points, min_size=1, max_size=10), st.integers(20, 120), st.integers(4, 20))
def test_every_drawing_fits(curves, width, height):
    panel = Panel("x", "y", [Curve(f"c{n}", *zip(*c, strict=True)) for n, c in enumerate(curves)])
    lines = draw(panel, width, height)
    assert max(line.cell_len for line in lines) <= max(width, 40)
    assert len(lines) >= height + 4


def test_a_drawing_is_as_it_should_be():
    panel = Panel("x", "y", [Curve("", [0, 1, 2], [0.0, 2.0, 1.0])])
    assert [line.plain for line in draw(panel, 30, 6)] == DRAWING.splitlines()


DRAWING = """\
y
 2┤            ⡠●⠤⣀
  │         ⢀⠔⠉    ⠉⠒⠤⣀
  │       ⢀⠔⠁          ⠉⠒⠤⣀
  │     ⡠⠊⠁                ●
  │  ⢀⠤⠊
 0┤ ●⠁
  └─┬──────────────────────┬─
    0                      2
                            x
"""


def test_documents_of_many_jobs_are_asked_for_together(ids, client, monkeypatch):
    asked, ask = [], client._transport.call_raw

    def counted(method, *rest):
        asked.append(method)
        return ask(method, *rest)

    monkeypatch.setattr(client._transport, "call_raw", counted)  # `call` goes through it
    sweep = client.sweep(chosen(ids, "sweep"), "encut", "results.gap.direct", by="opt_params.fmax")
    assert sum(len(series.x) for series in sweep.series) == len(ENCUTS) * len(KPTS)
    assert asked == ["jobs.status_many", "jobs.parameters", "jobs.results"]
    asked.clear()
    client.equation_of_state(chosen(ids, "eos"))
    assert asked == ["jobs.status_many", "jobs.results", "jobs.parameters"]
    asked.clear()
    with pytest.raises(InvalidJob, match="there are"):
        client.sweep([*chosen(ids, "sweep"), ids["failed"]], "no_such")
    assert asked == ["jobs.status_many", "jobs.parameters"]


def test_results_that_are_too_large_to_come_together_are_asked_for_alone(ids, client, monkeypatch):
    monkeypatch.setattr("crystalmath.server.handlers.results._TOGETHER", 10)
    sweep = client.sweep(chosen(ids, "sweep"), "encut", "results.gap.direct")
    assert sum(len(series.x) for series in sweep.series) == len(ENCUTS) * len(KPTS)
