"""Jobs as tables: what stands in them is what the single results say."""

import contextlib
import csv
import importlib.util
import json
import os
import sqlite3
import sys
import uuid

import ase.db
import ase.io
import numpy as np
import pytest
from ase.build import bulk
from hypothesis import given
from hypothesis import strategies as st

from commands import ran
from crystalmath.client import JobFailed, Submission, in_process
from crystalmath.client import table_files as files_module
from crystalmath.errors import BadFile, CrystalMathError, InvalidJob
from crystalmath.models.columns import JOB_COLUMNS
from crystalmath.recipes.json_text import json_part

pytestmark = pytest.mark.server

OF = {"of": "tables"}
LONG = 300


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    """Yield a client, and jobs of its home: two of EMT that completed, one that failed."""
    home = tmp_path_factory.mktemp("tables")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRYSTALMATH_HOME", str(home))
        rattled = bulk("Cu", cubic=True)
        rattled.rattle(0.05, seed=1)
        asked = [
            Submission(
                recipe="emt.core.static_job",
                atoms=bulk("Al"),
                name="Al, bulk",
                labels={**OF, "encut": "400", "k-pts": "3", "k_pts": "5"},
            ),
            Submission(
                recipe="emt.core.relax_job",
                atoms=rattled,
                parameters={"opt_params": {"fmax": 0.02, "max_steps": 100}},
                labels=OF,
            ),
            Submission(
                recipe="emt.core.relax_job",
                atoms=rattled * (1, 1, 2),
                parameters={"opt_params": {"max_steps": 1}},
                labels=OF,
            ),
        ]
        with in_process() as client:
            futures = client.submit_many(asked)
            errors = [future.exception(LONG) for future in futures]
            assert [error is None for error in errors] == [True, True, False]
            yield client, futures, home


@pytest.mark.usefixtures("lab")
def test_texts_that_are_no_utf_8_hide_no_other_job(cli, tmp_path):
    with in_process() as client:
        odd, failed, other = client.submit_many(
            Submission(recipe=f"lab_recipes.{name}", atoms=bulk("Al"), parameters=asked)
            for name, asked in (("odd_texts", {}), ("odd_texts", {"fails": True}), ("value", {}))
        )
        assert odd.result(LONG)["dir_name"] == "/x\udcff"
        assert "udcff" in str(failed.exception(LONG))
        assert other.result(LONG) == 1
        assert len(cli("list", "--json").json["jobs"]) == 3
        for job in (odd, failed):
            for command in ("status", "show", "path", "logs"):
                assert cli(command, job.job_id).code == 0, command
        assert client.export(tmp_path / "all.csv", columns=["dir_name"]) == (3, 0)
        assert client.export(tmp_path / "all.jsonl") == (3, 0)
    assert r"/x\udcff" in (tmp_path / "all.csv").read_text()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_a_character_gets_another(computed, encoding):
    terminal = {"PYTHONIOENCODING": encoding, "COLUMNS": "60", "CRYSTALMATH_HOME": computed[2]}
    told = ran(
        *(sys.executable, "-m", "crystalmath", "list"),
        env={**os.environ, **terminal},
        encoding=encoding,
    )
    assert (told.returncode, told.stderr) == (0, "")
    # Of an id that a narrow column cuts, an ellipsis is what such a terminal does not have.
    assert "?" in told.stdout


def rows(client, path):
    assert client.export(path, labels=OF, sort="created_at") == (3, 0)
    return path


def written(client, folder):
    return [json.loads(line) for line in rows(client, folder / "t.jsonl").read_text().splitlines()]


def expected(future):
    """What the job's own result and record say."""
    result = future.result()
    forces = np.linalg.norm(result["results"]["forces"], axis=1).max()
    return {
        "results.energy": result["results"]["energy"],
        "energy_ev": result["results"]["energy"],
        "energy_per_atom_ev": result["results"]["energy"] / len(result["atoms"]),
        "max_force_ev_ang": pytest.approx(forces, abs=1e-12),
        "natoms": len(result["atoms"]),
        "formula": result["atoms"].get_chemical_formula(),
        "numbers": result["atoms"].numbers.tolist(),
        "positions_ang": result["atoms"].positions.tolist(),
        "cell_ang": result["atoms"].cell.tolist(),
        "volume_ang3": pytest.approx(result["atoms"].get_volume()),
    }


def test_json_lines_equal_the_single_results(computed, tmp_path):
    client, futures, _ = computed
    lines = written(client, tmp_path)
    assert [line["job_id"] for line in lines] == [future.job_id for future in futures]
    for line, future in zip(lines[:2], futures, strict=False):
        assert {name: line[name] for name in expected(future)} == expected(future)
    assert lines[0]["labels_encut"] == 400
    assert lines[1]["params.opt_params.fmax"] == 0.02
    assert lines[1]["converged"] is True
    assert (lines[2]["state"], "energy_ev" in lines[2]) == ("failed", False)
    assert lines[2]["formula"] == "Cu8"
    assert lines[2]["error"]


def test_csv_has_the_same_lines(computed, tmp_path):
    client, *_ = computed
    lines = written(client, tmp_path)
    with rows(client, tmp_path / "t.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0])[:3] == ["job_id", "name", "state"]
    for line, row in zip(lines, table, strict=True):
        assert row.keys() >= line.keys()
        for name, cell in row.items():
            value = line.get(name, "")
            assert cell == (value if isinstance(value, str) else json.dumps(value)), name


def test_columns_are_chosen(computed, tmp_path):
    client, *_ = computed
    chosen = ["name", "labels_encut", "results.energy"]
    path = tmp_path / "t.csv"
    client.export(path, columns=chosen, labels=OF, elements="Al")
    header, row = path.read_text().splitlines()
    assert header == "name,labels_encut,results.energy"
    assert row.startswith('"Al, bulk",400,-0.00')


def test_geometries_carry_energy_forces_and_what_describes_them(computed, tmp_path):
    client, futures, _ = computed
    for name in ("t.extxyz", "t.db"):
        assert client.export(tmp_path / name, labels=OF, sort="created_at") == (2, 1)
    frames = ase.io.read(tmp_path / "t.extxyz", ":")
    with ase.db.connect(tmp_path / "t.db") as database:
        (row,) = database.select(labels_encut=400)
        # Letters and digits alone make two labels one.
        assert {row.labels_k_pts, row.labels_k_pts_} == {3, 5}
        # They are called the same in all tables.
        named = {key for key in row.key_value_pairs if key.startswith("labels_")}
        header = rows(client, tmp_path / "t.csv").read_text().partition("\n")[0].split(",")
        assert named == {name for name in header if name.startswith("labels")}
        assert named == {name for name in client.table(labels=OF).columns if "labels" in name}
        assert named == {name for name in row.data if name.startswith("labels")}
        stored = [row.toatoms() for row in database.select()]
        assert (row.data["labels_encut"], row.calculator) == (400, "emt")
        assert database.count(calculator="emt") == 2
    for found in (frames, stored):
        for atoms, future in zip(found, futures[:2], strict=True):
            result = future.result()
            energy = result["results"]["energy"]
            assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-8)
            assert atoms.get_forces() == pytest.approx(result["results"]["forces"], abs=1e-7)
            assert atoms.get_stress() == pytest.approx(result["results"]["stress"], abs=1e-9)
            assert atoms.positions == pytest.approx(result["atoms"].positions, abs=1e-7)
            assert all(atoms.pbc)
    assert frames[0].info["job_id"] == futures[0].job_id
    assert frames[1].info["params.opt_params.fmax"] == 0.02


def test_texts_of_an_extended_xyz_file_keep_their_backslashes(computed, tmp_path):
    client, *_ = computed
    texts = {"place": "C:\\temp\\new", "last": "a b\\", "said": '\\"x\\"', "after": "it"}
    labels = {**texts, "blank": " ", "none": ""}
    future = client.submit("emt.core.static_job", bulk("Ni"), name=r"Ni\bulk", labels=labels)
    future.result(LONG)
    client.export(tmp_path / "t.extxyz", job_ids=[future.job_id])
    info = ase.io.read(tmp_path / "t.extxyz").info
    assert info["name"] == r"Ni\bulk"
    told = {name: value for name, value in info.items() if name.startswith("labels_")}
    assert told == {f"labels_{name}": text for name, text in texts.items()}


@pytest.mark.skipif(importlib.util.find_spec("pandas") is None, reason="there is no pandas")
def test_a_frame_has_the_same_lines(computed, tmp_path):
    client, *_ = computed
    lines = written(client, tmp_path)
    table = client.table(labels=OF, sort="created_at")
    assert set(table.columns) == {*JOB_COLUMNS, *(name for line in lines for name in line)}
    for (_, row), line in zip(table.iterrows(), lines, strict=True):
        assert {name: row[name] for name in line} == line
    assert list(client.table(labels=OF, columns=["name"]).columns) == ["name"]


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="there is no pyarrow")
def test_a_frame_has_the_columns_of_the_record_whatever_they_hold(computed):
    client, *_ = computed
    unnamed = client.submit("emt.core.static_job", bulk("Al"))
    unnamed.result(300)
    for table in (client.table(labels={"of": "nothing"}), client.table(prefix=unnamed.job_id)):
        assert list(table["superseded_by"].dropna()) == []
        assert list(table["flow"].dropna()) == []
        assert list(table.columns[:3]) == ["job_id", "name", "state"]


def test_parquet_has_the_same_lines(computed, tmp_path):
    from pyarrow import parquet

    client, *_ = computed
    lines = written(client, tmp_path)
    table = parquet.read_table(rows(client, tmp_path / "t.parquet"))
    found = [{n: v for n, v in row.items() if v is not None} for row in table.to_pylist()]
    assert found == lines
    assert str(table.schema.field("energy_ev").type) == "double"


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="there is no pyarrow")
def test_whole_numbers_beyond_64_bits_become_text_in_parquet(tmp_path):
    from pyarrow import parquet

    seeds = [2**63 - 1, 2**64 - 59]
    values = [{"params.seed": seed, "params.steps": 3} for seed in seeds]
    lines = [files_module.Line(None, each, None) for each in values]
    files_module.FORMATS["parquet"](tmp_path / "t.parquet", lines, None)
    found = parquet.read_table(tmp_path / "t.parquet").to_pydict()
    assert found == {"params.seed": [str(seed) for seed in seeds], "params.steps": [3, 3]}


def test_the_wire_has_the_same_lines_for_other_front_ends(computed, tmp_path, monkeypatch):
    client, futures, _ = computed
    ids = [future.job_id for future in futures]
    arrays = ("cell_ang", "pbc", "numbers", "positions_ang")
    lines = written(client, tmp_path)
    told = client.call("jobs.table", {"job_ids": ids})
    assert told["more"] == 0
    assert told["rows"] == [{n: v for n, v in line.items() if n not in arrays} for line in lines]
    names = ["labels_encut", "positions_ang", "nothing"]
    told = client.call("jobs.table", {"job_ids": ids, "columns": names})["rows"]
    wanted = [{n: line[n] for n in ("job_id", *names) if n in line} for line in lines]
    assert told == wanted
    monkeypatch.setattr("crystalmath.server.handlers.results._TOGETHER", 1)
    told = client.call("jobs.table", {"job_ids": ids[::-1]})
    assert ([row["job_id"] for row in told["rows"]], told["more"]) == (ids[:1:-1], 2)
    assert client.call("jobs.table", {"job_ids": [str(uuid.uuid4())]})["code"] == "unknown_job"


@contextlib.contextmanager
def unreadable(home, job_id):
    """Put a directory in the place of a job's outcome: nobody can read it, root included."""
    outcome = home / "jobs" / job_id / "1.outcome"
    outcome.rename(aside := outcome.with_name("aside"))
    outcome.mkdir()
    try:
        yield
    finally:
        outcome.rmdir()
        aside.rename(outcome)


def test_a_result_that_cannot_be_read_leaves_the_other_rows_alone(computed):
    client, (first, second, _), home = computed
    ids = [first.job_id, second.job_id]
    whole = client.call("jobs.table", {"job_ids": ids})
    assert whole["unreadable"] == {}
    with unreadable(home, first.job_id):
        told = client.call("jobs.table", {"job_ids": ids})
        with pytest.raises(BadFile, match=r"1\.outcome is a folder"):
            client.result(first.job_id)
    assert told["rows"][1] == whole["rows"][1]
    # Its row has the values of the record.
    assert told["rows"][0]["energy_ev"] == whole["rows"][0]["energy_ev"]
    assert told["unreadable"].keys() == {first.job_id}
    assert "is a folder" in told["unreadable"][first.job_id]


def test_pages_of_results_are_joined(computed, tmp_path, monkeypatch):
    client, *_ = computed
    whole = rows(client, tmp_path / "whole.jsonl").read_text()
    monkeypatch.setattr(files_module, "_PAGE", 2)
    assert rows(client, tmp_path / "pages.jsonl").read_text() == whole


def test_what_cannot_be_written_changes_nothing(computed, tmp_path, monkeypatch):
    client, *_ = computed
    path = tmp_path / "t.csv"
    path.write_text("mine")
    with pytest.raises(InvalidJob, match=r"t\.csv is there already; remove it"):
        client.export(path)
    assert path.read_text() == "mine"
    with pytest.raises(InvalidJob, match=r"none/t\.csv cannot be written: .*none is no folder"):
        client.export(tmp_path / "none" / "t.csv")
    # Nobody writes there, not even root, of whom no permission is asked.
    with pytest.raises(InvalidJob, match=r"^/proc/t\.csv cannot be written: No such file"):
        client.export("/proc/t.csv")
    with pytest.raises(InvalidJob, match=r"'t\.xlsx' ends in no format .* csv, jsonl, extxyz"):
        client.export(tmp_path / "t.xlsx")
    for name in ("new.csv", "new.jsonl"):
        with pytest.raises(InvalidJob, match="'results.enrgy'; did you mean 'results.energy'"):
            client.export(tmp_path / name, columns=["results.enrgy"])
    with pytest.raises(InvalidJob, match="'Qq' is no element"):
        client.export(tmp_path / "new.csv", elements="Qq")
    monkeypatch.setattr(files_module, "find_spec", lambda _: None)
    for ask in (client.table, lambda: client.export(tmp_path / "t.parquet")):
        with pytest.raises(CrystalMathError, match=r"pip install 'crystalmath\[tables\]'"):
            ask()
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


def test_the_command_exports_what_is_asked_for(computed, cli, tmp_path, monkeypatch):
    monkeypatch.setenv("CRYSTALMATH_HOME", str(computed[2]))
    path = tmp_path / "t.db"
    said = cli("export", path, "--label", "of=tables", "--exclude", "state=failed")
    assert (said.code, said.err) == (0, f"2 jobs written to {path}\n")
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM systems").fetchone() == (2,)
    connection.close()
    told = cli("export", tmp_path / "t.extxyz", "--label", "of=tables", "--json").json
    assert (told["jobs"], told["left_out"], told["error"]) == (2, 1, None)
    assert cli("export", path).code == 1
    for which in ((), (computed[1][0].job_id,)):
        none = cli("export", tmp_path / "none.csv", *which, "--state", "cancelled")
        assert (none.code, none.err) == (1, "error: there is no cancelled job\n")
    assert not (tmp_path / "none.csv").exists()


# --- parts of results ----------------------------------------------------------------------------

trees = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=12,
)


@given(trees, st.sampled_from([None, 1]))
def test_a_part_of_a_text_is_what_decoding_gives(tree, indent):
    text = json.dumps({"a.b": {"c": [1, tree, {"d": tree}]}, "e": tree}, indent=indent).encode()
    for field in ("e", "a.b.c.1", "a.b.c.2.d"):
        assert json.loads(json_part(text, field)) == tree
    assert json.loads(json_part(text, "a.b.c"))[0] == 1


def test_a_field_of_a_result(computed, cli, monkeypatch):
    client, futures, home = computed
    monkeypatch.setenv("CRYSTALMATH_HOME", str(home))
    whole = futures[1].result()
    job_id = futures[1].job_id
    assert client.result(job_id, field="results.energy") == whole["results"]["energy"]
    assert np.array_equal(client.result(job_id, field="results.forces"), whole["results"]["forces"])
    assert client.result(job_id, field="atoms") == whole["atoms"]
    with pytest.raises(InvalidJob, match="'results' has no field 'enrgy'; there are .*energy"):
        client.result(job_id, field="results.enrgy")
    with pytest.raises(JobFailed):
        client.result(futures[2].job_id, field="results.energy")
    assert (
        float(cli("result", job_id, "--field", "results.energy").out)
        == (whole["results"]["energy"])
    )
    assert cli("result", job_id, "--field", "name").out == f"{whole['name']}\n"
    told = cli("result", job_id, "--field", "results.energy", "--json").json
    assert told["result"] == whole["results"]["energy"]
    wrong = cli("result", job_id, "--field", "result.energy")
    assert (wrong.code, "the result has no field 'result.energy'" in wrong.err) == (1, True)
    for asked in (("--field", "results.energy"), ("--structure", "none.extxyz")):
        none = cli("result", futures[2].job_id, *asked)
        assert (none.code, none.out) == (1, "")
        assert "failed, and has no result; 'crystalmath result" in none.err
        assert "Traceback" not in none.err


def test_the_final_geometry_goes_to_a_file(computed, cli, monkeypatch, tmp_path):
    _, futures, home = computed
    monkeypatch.setenv("CRYSTALMATH_HOME", str(home))
    whole, job_id = futures[1].result(), futures[1].job_id
    path = tmp_path / "out.extxyz"
    said = cli("result", job_id, "--structure", path)
    assert (said.code, said.out, said.err) == (0, "", f"Cu4 written to {path}\n")
    atoms = ase.io.read(path)
    assert atoms.positions == pytest.approx(whole["atoms"].positions, abs=1e-7)
    assert atoms.get_potential_energy() == pytest.approx(whole["results"]["energy"], abs=1e-8)
    assert atoms.get_stress() == pytest.approx(whole["results"]["stress"], abs=1e-9)
    again = cli("result", job_id, "--structure", path)
    assert (again.code, "is there already; remove it" in again.err) == (1, True)
    odd = cli("result", job_id, "--structure", tmp_path / "out.odd")
    assert odd.code == 1
    assert "ASE knows no format 'odd'; name a file that ASE writes" in odd.err
    unfit = cli("result", job_id, "--structure", tmp_path / "out.pwi")  # wants pseudopotentials
    assert (unfit.code, "out.pwi cannot be written: KeyError: 'Cu'; name" in unfit.err) == (1, True)
    assert cli("result", job_id, "--structure", path, "--json").code == 2
    assert [one.name for one in tmp_path.iterdir()] == ["out.extxyz"]
