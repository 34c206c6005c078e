"""`crystalmath list`, asking a server."""

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len

from cli.shell import names, submit
from commands import finish, limited, start
from conftest import eventually
from crystalmath import config
from crystalmath.cli.shared import job_table
from crystalmath.quacc.store import JobStore
from rundirs import new_job

pytestmark = pytest.mark.server

EXAMPLES = Path(__file__).parents[2] / "examples"
AL, CU = str(EXAMPLES / "Al.poscar"), str(EXAMPLES / "Cu.poscar")


def test_list_reads_well_in_80_columns(here, cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    cli("submit", "emt.core.relax_job", AL, "--sweep", "relax_cell=[true, false]", "--label", "w=1")
    cli("wait", "--label", "w=1")
    header, *rows = cli("list", "--label", "w=1").lines
    assert header.split() == ["NAME", "STATE", "RECIPE", "ENGINE", "ENERGY/eV", "AGE", "ID"]
    assert [row.split("  ")[0] for row in rows] == ["Al relax_cell=false", "Al relax_cell=true"]
    assert all("relax_job" in row and "completed" in row for row in rows)
    assert max(map(len, [header, *rows])) <= 80


def test_a_long_name_pushes_no_column_out_of_the_line(here, cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("long " * 30, "鋁" * 60):
        submit(cli, "value", "--name", name.strip(), "--label", "w=long")
    header, *rows = cli("list", "--label", "w=long").lines
    assert header.split() == ["NAME", "STATE", "ENERGY/eV", "AGE", "ID"]
    assert [row[:2] for row in rows] == ["鋁鋁", "lo"]
    assert all("…" in row for row in rows)
    assert all(cell_len(row) <= 80 for row in (header, *rows))


@pytest.mark.parametrize(("columns", "engine"), [(80, "local"), (66, "an-engine-with-a-long-name")])
def test_ids_and_swept_values_are_whole_in_a_narrow_line(monkeypatch, columns, engine):
    monkeypatch.setenv("COLUMNS", str(columns))
    same = ("completed", "emt.core.relax_job", engine, *[""] * 4, "-1234.5678", "", "12 min")
    rows = [
        ("", "POSCAR opt_params.fmax=0.1", *same, "338c1a2b", ""),
        ("", "POSCAR opt_params.fmax=0.01", *same, "7d0e11aa", ""),
        ("", "slab", "failed", "lab_recipes.value", "local", *[""] * 6, "1 d", "91ae6abe", ""),
    ]
    cells = dict(zip(job_table._COLUMNS, zip(*rows, strict=True), strict=True))
    for optional in job_table._OPTIONAL:  # as where no job has any
        del cells[optional]
    fitted = job_table._fitted(cells, columns)
    assert fitted["ID"] == ["338c1a2b", "7d0e11aa", "91ae6abe"]
    assert [name.rpartition("=")[2] for name in fitted["NAME"]] == ["0.1", "0.01", "slab"]
    widths = [max(map(len, (name, *texts))) for name, texts in fitted.items()]
    assert sum(widths) + 2 * (len(widths) - 1) <= columns


def test_what_all_rows_share_gives_way_to_the_names(here, cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    name = "Al opt_params.fmax=0.1 relax_cell=false"
    for fmax in ("0.1", "0.2"):
        submit(cli, "value", "--name", name.replace("0.1", fmax), "--label", "w=alike")
    header, *rows = cli("list", "--label", "w=alike").lines
    assert "NAME" in header
    assert "RECIPE" not in header
    assert rows[1].startswith(f"{name}  ")


def test_list_says_how_many_more_there_are(here, cli):
    cli("submit", "lab_recipes.value", AL, "--sweep", "number=[1,2,3]", "--label", "set=more")
    cut = cli("list", "--label", "set=more", "--limit", 2)
    assert len(cut.lines) == 3
    assert cut.err.startswith("1 more; --limit 0 shows all")
    for limit in (3, 4, 0):
        assert cli("list", "--label", "set=more", "--limit", limit).err == ""
    assert cli("list", "--label", "set=more", "--limit", 2, "--json").err == ""


def test_list_filters(here, cli):
    bad = submit(cli, "fail", "--param", "message=out of luck", "--label", "set=filter")
    good = submit(cli, "value", "--label", "set=filter")
    cli("wait", bad, good)
    filters = ["--label", "set=filter"]
    assert [job["job_id"] for job in names(cli, *filters, "--state", "failed").values()] == [bad]
    both = cli("list", *filters, "--state", "failed", "--state", "completed", "--json")
    assert len(both.json["jobs"]) == 2
    assert [job["job_id"] for job in names(cli, "--error", "out of LUCK").values()] == [bad]
    assert cli("list", "--state", "asleep").code == 2


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ("--name CU", ["slab, Cu", "bulk Cu"]),
        ("--recipe emt --formula Cu4", ["bulk Cu"]),
        ("--formula Cu --sort energy_ev", ["slab, Cu", "bulk Cu"]),
        ("--sort energy_per_atom_ev", ["bulk Cu", "slab, Cu", "oxide"]),
        ("--sort -energy_ev", ["bulk Cu", "slab, Cu", "oxide"]),
        ("--elements O,cu", ["oxide"]),
        ("--energy-min -2.5", ["bulk Cu"]),
        ("--energy-max -2.5", ["slab, Cu"]),
        ("--since 2h", []),
        ("--until 2h --cluster local", ["oxide", "slab, Cu", "bulk Cu"]),
        ("--since 2023-11-14 --until 2023-11-16T00:00", ["oxide", "slab, Cu", "bulk Cu"]),
        ("--exclude state=failed --exclude label=encut=400", ["slab, Cu"]),
        ("--exclude elements=O", ["slab, Cu", "bulk Cu"]),
    ],
)
def test_list_filters_and_sorts(here, cli, listed, options, found):
    document = cli("list", *listed, *options.split(), "--json").json
    assert [job["name"] for job in document["jobs"]] == found
    assert sum(document["totals"].values()) == len(found)


def test_a_list_shows_how_far_a_flow_is_and_its_steps_where_they_are_asked_for(
    here, cli, flow, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "160")
    asked = ("--label", "of=flow")
    header, row = cli("list", *asked).lines
    assert "STEPS" in header
    assert row.startswith("Cu slabs  pending  ")
    assert "  1/3, 1 failed  " in row
    whole = [line.split("  ")[0] for line in cli("list", *asked, "--steps").lines]
    assert whole == ["NAME", "static_job#2", "static_job#1", "relax_job#0", "Cu slabs"]
    _, *rows = cli("list", "--tree", *asked).lines
    assert [row.rstrip()[-8:] for row in rows] == [job_id[:8] for job_id in flow]
    assert [row[:15].rstrip() for row in rows] == [
        *("Cu slabs", "  relax_job#0", "  static_job#1", "  static_job#2"),
    ]
    (failed,) = cli("list", "--parent", flow[0][:8], "--state", "failed", "--json").json["jobs"]
    assert failed["job_id"] == flow[2]
    columns = ("--columns", "step,flow,steps", "--csv")
    assert cli("list", *columns, *asked).lines == ["step,flow,steps", ',,"1/3, 1 failed"']
    of_flow = cli("list", *columns, "--parent", flow[0]).lines
    assert of_flow[-1] == f"relax_job#0,{flow[0]},"
    assert cli("list", "--tree", "--watch").code == 2
    for command in ("logs", "files"):
        said = f"it is a flow; crystalmath list --parent {flow[0][:8]} lists its steps"
        assert said in cli(command, flow[0]).err
    assert "--steps writes the steps" in cli("export", "flow.extxyz", flow[0]).err
    assert cli("export", "table.csv", flow[0], "--steps", "--columns", "step").code == 0
    table = Path("table.csv").read_text().splitlines()
    assert table == ["step", '""', "relax_job#0", "static_job#1", "static_job#2"]
    sort = ("--steps", "--sort", "recipe", "--columns", "step")
    assert cli("export", "sorted.csv", flow[0], *sort).code == 0
    assert sorted(Path("sorted.csv").read_text().splitlines()) == sorted(table)
    # A flow that has taken over a step of another one shows it, too; so does that other one.
    of_retry = {"recipe": "a.flow", "stage": "steps", "labels": {"of": "retry"}}
    of_retry["specification"] = '{}\n{"parameters": {}, "atoms": null}'
    again = new_job(parents=[{"job_id": "0" * 36, "role": "retry"}], **of_retry)
    parent = {"job_id": again.job_id, "role": "flow", "awaited": None, "step": "sub#0/static#0"}
    own = new_job(parents=[parent], specification=of_retry["specification"])
    with JobStore(config.load().database_url) as store:
        store.insert([again])
        store.take_over(again.job_id, [flow[1]])
        store.insert([own])
    _, *rows = cli("list", "--tree", "--label", "of=retry").lines
    rows = {row.rstrip()[-8:].strip(): row[:15].rstrip() for row in rows}
    steps = {flow[1][:8]: "  relax_job#0", "sub#0": "  sub#0", own.job_id[:8]: "    static#0"}
    assert {name: rows.get(name) for name in steps} == steps
    assert "  1/2  " in cli("list", "--label", "of=retry").lines[1]
    assert cli("export", "again.csv", again.job_id, "--steps", "--columns", "step").code == 0
    table = Path("again.csv").read_text().splitlines()
    assert sorted(table) == ['""', "relax_job#0", "step", "sub#0/static#0"]
    assert len(cli("list", "--tree", *asked).lines) == 5


@pytest.mark.parametrize("command", ["status", "show"])
def test_what_failed_of_a_flow_is_told_with_its_reason(here, cli, flow, command):
    said = " ".join(cli(command, flow[0]).out.split())
    assert "steps 1/3, 1 failed, 1 pending" in said
    assert f"failed static_job#1 ({flow[2][:8]}): boom: the slab name Cu slabs" in said
    assert "led to" not in said
    of_step = " ".join(cli(command, flow[1]).out.split())
    assert f"came of {flow[0]} (its step relax_job#0)" in of_step
    document = cli(command, flow[0], "--json").json
    assert document.get("job", document)["steps"] == {"completed": 1, "failed": 1, "pending": 1}
    if command == "show":
        steps = [(one["job_id"], one["step"]) for one in document["children"]]
        assert steps[1:] == [(flow[2], "static_job#1"), (flow[3], "static_job#2")]


def test_list_has_the_columns_that_were_asked_for(here, cli, listed):
    asked = [*listed, "--columns", "name,labels_encut,energy_ev,created_at", "--sort", "energy_ev"]
    header, *rows = cli("list", *asked).lines
    assert header.split() == ["name", "labels_encut", "energy_ev", "created_at"]
    assert [row.split()[0] for row in rows] == ["slab,", "bulk", "oxide"]
    written = cli("list", *asked, "--csv")
    assert written.out.splitlines() == [
        "name,labels_encut,energy_ev,created_at",
        '"slab, Cu",500,-3.0,2023-11-14T22:13:21+00:00',
        "bulk Cu,400,-2.0,2023-11-14T22:13:20+00:00",
        "oxide,500,,2023-11-14T22:13:22+00:00",
    ]
    dotted = cli("list", *listed, "--columns", "labels.encut")
    assert (dotted.code, "did you mean 'labels_encut'?" in dotted.err) == (2, True), dotted.err
    cut = cli("list", *asked, "--csv", "--limit", 1)
    assert len(cut.out.splitlines()) == 2
    assert cut.err.startswith("2 more; --limit 0 shows all; 3 jobs: 2 completed, 1 failed")
    assert "job_id,name,state" in cli("list", *listed, "--csv").out


def test_a_list_that_goes_to_no_terminal_is_not_cut(here, cli, listed, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    name = "a long name of a job " * 10
    submit(cli, "value", "--name", name, "--label", "set=wide")
    assert name.strip() in cli("list", "--label", "set=wide").out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--columns", "nam"], "there is no column 'nam'; did you mean 'name'?"),
        (["--columns", "took"], "there is no column 'took'; did you mean 'runtime_s'?"),
        (["--sort", "-took"], "not sorted by '-took'; did you mean 'runtime_s'?"),
        (["--sort", "energie_ev"], "not sorted by 'energie_ev'; did you mean 'energy_ev'?"),
        (["--since", "yesterday"], "'yesterday' is not a time; write 2h"),
        (["--exclude", "colour=red"], "'colour=red' is not FILTER=VALUE; the filters are state"),
        (["--exclude", "name=a", "--exclude", "name=b"], "another name is excluded already"),
        (["--exclude", "state=asleep"], "'asleep' is not a state"),
        (["--energy-min", "nan"], "must be a finite number"),
        (["--csv", "--json"], "does not go with --json"),
        (["--name", ""], "must not be empty"),
    ],
)
def test_what_cannot_be_listed(cli, options, told):
    answer = cli("list", *options)
    assert answer.code == 2
    assert told in " ".join(answer.err.split())


def test_list_refuses_what_is_no_formula(here, cli, listed):
    answer = cli("list", "--formula", "cuo")
    assert (answer.code, answer.err) == (
        1, "error: 'cuo' is no formula; write it as NaCl or Fe2(SO4)3\n"
    )  # fmt: skip
    assert "'Qq' is no element" in cli("list", "--elements", "Cu,Qq").err


def test_list_summary_groups_failures_by_their_error(here, cli):
    sums = ["--label", "set=sum"]
    for message in ("one", "two", "two"):
        submit(cli, "fail", "--param", f"message={message}", *sums)
    submit(cli, "value", *sums)
    cli("wait", *sums)
    document = cli("list", "--summary", *sums, "--json").json
    counts = {state: count for state, count in document["states"].items() if count}
    assert counts == {"completed": 1, "failed": 3}
    assert [(group["error"], group["count"]) for group in document["errors"]] == [
        ("RuntimeError: two", 2),
        ("RuntimeError: one", 1),
    ]
    said = cli("list", "--summary", *sums).out
    assert "3 failed" in said
    assert "2 RuntimeError: two" in said


def test_list_watch_shows_changes_until_it_is_left(here, cli, tmp_path):
    job_id = submit(cli, "wait_for", "--param", f"path={tmp_path / 'go'}", "--label", "set=watch")
    process = start("list", "--watch", "--label", "set=watch")
    with limited(process):
        seen = iter(process.stdout.readline, "")
        assert any("running" in line and job_id[:8] in line for line in seen)
        (tmp_path / "go").touch()
        assert any("completed" in line and job_id[:8] in line for line in seen)
        process.send_signal(signal.SIGINT)
        assert finish(process).code == 0


ONE_STEP = """\
      Step     Time          Energy          fmax
BFGS:    0 12:00:00       -0.004900        0.012345
"""


def test_list_watch_on_a_low_terminal_shows_what_runs_and_counts_the_rest(
    here, cli, tmp_path, monkeypatch
):
    monkeypatch.setenv("LINES", "5")
    job_id = submit(cli, "wait_for", "--param", f"path={tmp_path / 'go'}", "--label", "set=live")
    cli("submit", "lab_recipes.value", AL, "--sweep", "number=[1,2,3]", "--label", "set=live")
    work = Path(cli("path", job_id).out.strip())
    assert eventually(work.is_dir)
    (work / "opt.log").write_text(ONE_STEP)
    monkeypatch.setenv("COLUMNS", "120")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "crystalmath", "list", "--watch", "--label", "set=live"],
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.PIPE,
    )
    os.close(theirs)
    with limited(process):
        shown = b""
        counted = b"4 jobs: 3 completed, 1 running"
        # Of the one that runs also how far it has come.
        while not all(each in shown for each in (job_id[:8].encode(), counted, b"0.0123")):
            shown += os.read(ours, 4096)
        (tmp_path / "go").touch()
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[1] == b""
        assert process.returncode == 0
    os.close(ours)
