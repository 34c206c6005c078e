"""The commands, asking a server: what a shell user does all day."""

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import ase.io
import pytest
from ase.build import bulk
from ase.db import connect as connect_db
from ase.io import write
from rich.cells import cell_len

from commands import finish, limited, start
from conftest import eventually
from crystalmath import config, processes
from crystalmath.cli import check
from crystalmath.cli.shared import job_table
from crystalmath.client import connect, remote
from crystalmath.client.home_reader import HomeReader
from crystalmath.errors import ServerError
from crystalmath.jobs.changes import Change
from crystalmath.models import JobState
from crystalmath.quacc.store import JobStore
from rundirs import new_job
from server.home_server import HomeServer

EXAMPLES = Path(__file__).parents[2] / "examples"
AL, CU = str(EXAMPLES / "Al.poscar"), str(EXAMPLES / "Cu.poscar")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Yield a server that the tests of this module share."""
    with HomeServer(tmp_path_factory.mktemp("served")) as server:
        (server.home / "config.toml").write_text("[engines.local]\nworkers = 2\n")
        yield server.start()


@pytest.fixture
def here(served, lab, tmp_path, monkeypatch):
    """Ask that server, from a folder of the test's own."""
    monkeypatch.setenv("CRYSTALMATH_HOME", str(served.home))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def submit(cli, recipe, *arguments):
    """Submit one job and give its id."""
    answer = cli("submit", f"lab_recipes.{recipe}", AL, *arguments)
    assert answer.code == 0, answer.err
    return answer.out.strip()


def names(cli, *filters):
    """Return the jobs that fit, by their names."""
    jobs = cli("list", "--limit", 0, "--json", *filters).json["jobs"]
    return {job["name"]: job for job in jobs}


# --- submit ----------------------------------------------------------------------------------


def test_submit_prints_the_id_and_nothing_else(here, cli):
    answer = cli("submit", "lab_recipes.value", AL, "--param", "number=5")
    assert answer.code == 0
    assert answer.err == ""
    (job_id,) = answer.lines
    assert cli("wait", job_id).code == 0
    assert cli("result", job_id, "--json").json["result"] == 5
    document = cli("status", job_id, "--json").json
    assert (document["name"], document["status"], document["engine"]) == (
        "Al",
        "completed",
        "local",
    )


def test_submit_of_one_answers_as_jobs_submit(here, cli):
    answer = cli("submit", "lab_recipes.value", AL, "--json")
    assert answer.json.items() >= {"status": "pending", "error": None, "name": "Al"}.items()
    refused = cli("submit", "lab_recipes.valu", AL, "--json")
    assert refused.code == 1
    assert refused.json["job_id"] is None
    assert (refused.json["status"], refused.json["code"]) == ("error", "invalid_job")
    assert "did you mean value" in refused.err
    assert cli("submit", "lab_recipes.valu", AL).out == ""


def test_submit_of_many_accepts_or_refuses_each_on_its_own(here, cli):
    ase.io.write("path.extxyz", [bulk("Ag"), bulk("Au")])
    (here / "bad.xyz").write_text("junk")
    answer = cli("submit", "lab_recipes.value", CU, "bad.xyz", "path.extxyz", "--label", "set=many")
    assert answer.code == 1
    assert len(answer.lines) == 3
    assert "error: bad: ASE cannot read" in answer.err
    found = names(cli, "--label", "set=many")
    assert answer.lines == [found[name]["job_id"] for name in ("Cu", "path-0", "path-1")]
    assert [found[name]["formula"] for name in ("Cu", "path-0", "path-1")] == ["Cu", "Ag", "Au"]
    documents = cli("submit", "lab_recipes.value", CU, "bad.xyz", "--json").json["jobs"]
    assert [document["name"] for document in documents] == ["Cu", "bad"]
    assert [document["status"] for document in documents] == ["pending", "error"]


def test_what_is_wrong_with_all_is_said_once(here, cli):
    answer = cli("submit", "lab_recipes.value", AL, CU, "--sweep", "size=[1, 2, 3]")
    assert (answer.code, answer.out) == (1, "")
    (said,) = answer.err.splitlines()
    assert said.startswith("error: Al size=1, Al size=2, Al size=3 and 3 more: ")
    assert "no parameter 'size'" in said


def test_a_sweep_submits_each_combination_labelled_with_it(here, cli):
    swept = ["--sweep", "number=[1, 2]", "--sweep", "text=['a', 'b']", "--label", "set=swept"]
    answer = cli("submit", "lab_recipes.report", AL, *swept)
    assert len(answer.lines) == 4
    found = names(cli, "--label", "set=swept")
    assert list(found) == [f"Al number={n} text={t}" for n in (2, 1) for t in "ba"]
    job = found["Al number=2 text=a"]
    assert job["labels"] == {"set": "swept", "number": "2", "text": "a"}
    assert cli("wait", job["job_id"]).code == 0
    result = cli("result", job["job_id"], "--json").json["result"]
    assert result["parameters"] == {"number": 2, "text": "a"}
    clash = cli("submit", "lab_recipes.report", AL, *swept, "--label", "number=7")
    assert clash.code == 2


def test_the_same_command_again_submits_only_what_is_missing(here, cli):
    for metal in ("Cu", "Ag"):
        (here / metal).mkdir()
        ase.io.write(f"{metal}/POSCAR", bulk(metal), format="vasp")
    command = ["submit", "lab_recipes.value", "*/POSCAR", "--key", "campaign", "--label", "k=1"]
    first = cli(*command)
    assert cli(*command).lines == first.lines
    (here / "Au").mkdir()
    ase.io.write("Au/POSCAR", bulk("Au"), format="vasp")
    again = cli(*command)
    assert [line for line in again.lines if line in first.lines] == first.lines
    found = names(cli, "--label", "k=1")
    assert found.keys() == {"Cu/POSCAR", "Ag/POSCAR", "Au/POSCAR"}
    keys = {job["key"] for job in found.values()}
    assert len(keys) == 3
    assert all(re.fullmatch("campaign/[0-9a-f]{16}", key) for key in keys)
    changed = cli(*command, "--param", "number=2")
    assert (changed.code, changed.out) == (1, "")
    assert "another specification" in changed.err
    assert "this job with another key" in changed.err


def test_a_key_knows_a_job_whatever_else_the_command_is_given(here, cli):
    (here / "k").mkdir()
    for name, metal in (("Al.v1.poscar", "Al"), ("Cu.v1.poscar", "Cu")):
        ase.io.write(f"k/{name}", bulk(metal), format="vasp")
    both = cli("submit", "lab_recipes.value", "k/*.poscar", "--key", "k").lines
    assert len(both) == 2

    def again(*structures, new):
        told = cli("submit", "lab_recipes.value", *structures, "--key", "k", "--json")
        assert told.code == 0, told.err
        jobs = told.json.get("jobs", [told.json])
        assert sum(not job["known"] for job in jobs) == new, told.err
        return [job["job_id"] for job in jobs]

    # A second file with the same beginning, and structure: it is a job of its own.
    shutil.copy("k/Al.v1.poscar", "k/Al.v2.poscar")
    three = again("k/*.poscar", new=1)
    assert {*both} < {*three}
    assert again(str(here / "k/Cu.v1.poscar"), "k/Al.v1.poscar", new=0) == both[::-1]
    # One of many, alone; and the folder elsewhere.
    assert again("k/Cu.v1.poscar@0", new=0) == both[1:]
    (here / "k").rename(here / "moved")
    assert again("moved/*.poscar", new=0) == three


def test_a_key_of_one_job_is_known_among_many(here, cli):
    def submitted(*arguments):
        told = cli("submit", "lab_recipes.value", *arguments, "--key", "grown", "--json")
        assert told.code == 0, told.err
        return [job["job_id"] for job in told.json.get("jobs", [told.json])]

    ase.io.write("grow.extxyz", bulk("Cu"))
    alone = submitted("grow.extxyz")
    with connect() as client:
        assert [job.job_id for job in client.list(key="grown")] == alone
        assert [*client.list(key="grow")] == []
    ase.io.write("grow.extxyz", [bulk("Ag"), bulk("Cu")])
    grown = submitted("grow.extxyz")
    assert (grown[1:], len({*grown})) == (alone, 2)
    ase.io.write("one.extxyz", bulk("Au"))
    more = submitted("one.extxyz", "grow.extxyz")
    assert (more[1:], len({*more})) == (grown, 3)


def test_what_a_key_gave_is_told(here, cli, monkeypatch):
    swept = ["--sweep", 'message=["a","b"]', "--key", "told"]
    first = cli("submit", "lab_recipes.fail", AL, *swept)
    assert first.err == ""
    cli("wait", *first.lines)
    again = cli("submit", "lab_recipes.fail", AL, CU, *swept, "--json")
    assert again.code == 0
    assert again.err == (
        "2 new, 2 there already (2 failed: they stay as they are; another --key runs them again)\n"
    )
    assert [job["known"] for job in again.json["jobs"]] == [True, True, False, False]
    # The server says it, whatever the clocks say.
    with monkeypatch.context() as patch:
        patch.setattr("time.time", lambda: 0.0)
        again = cli("submit", "lab_recipes.fail", AL, CU, *swept, "--json")
    assert [job["known"] for job in again.json["jobs"]] == [True] * 4
    one = submit(cli, "value", "--key", "one")
    cli("wait", one)
    assert cli("submit", "lab_recipes.value", AL, "--key", "one").err == "0 new, 1 there already\n"


def test_the_key_of_one_job_is_the_key(here, cli):
    job_id = submit(cli, "value", "--key", "mine")
    assert submit(cli, "value", "--key", "mine") == job_id
    other = cli("submit", "lab_recipes.value", CU, "--key", "mine", "--json")
    assert (other.code, other.json["code"]) == (1, "key_conflict")


def test_more_jobs_than_go_into_one_request(here, cli, monkeypatch):
    monkeypatch.setattr("crystalmath.client.request.MOST_JOBS", 2)
    answer = cli("submit", "lab_recipes.value", AL, "--sweep", "number=[1,2,3,4,5]")
    assert len(set(answer.lines)) == 5


@pytest.mark.parametrize(
    "arguments", [["*.nothing"], ["nowhere"], [AL, "--sweep", "number=1"], [AL, "--label", "x"], []]
)
def test_wrong_usage_submits_nothing(here, cli, arguments):
    answer = cli("submit", "lab_recipes.value", *arguments, "--label", "set=wrong", "--json")
    assert answer.code == 2
    assert answer.json["code"] == "usage"
    assert names(cli, "--label", "set=wrong") == {}


# --- wait, list, logs ------------------------------------------------------------------------


def test_wait_tells_what_failed(here, cli):
    good = submit(cli, "value", "--label", "set=wait")
    bad = submit(cli, "fail", "--param", "message=bad luck\nand more", "--label", "set=wait")
    assert cli("wait", good).code == 0
    answer = cli("wait", good, bad, "--json")
    assert answer.code == 1
    assert [job["status"] for job in answer.json["jobs"]] == ["completed", "failed"]
    assert "bad luck" in answer.err
    *_, more, counts = answer.err.splitlines()
    assert more == f"all that is known of an error: crystalmath result {bad[:8]}"
    assert counts == "2 jobs: 1 completed, 1 failed"
    assert "and more" not in answer.err
    assert cli("wait", "--label", "set=wait").code == 1
    assert cli("wait", "--label", "set=wait", "--state", "completed").code == 0
    assert cli("wait", "--label", "set=nothing").code == 1
    assert cli("wait", "--label", "set=wait", "--error", "bad luck").code == 1
    chosen = cli("wait", "--label", "set=wait", "--exclude", "state=failed", "--json")
    assert [job["job_id"] for job in chosen.json["jobs"]] == [good]
    assert cli("wait").code == 2
    assert cli("wait", "ffffffff").code == 1


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
        ("POSCAR opt_params.fmax=0.1", *same, "338c1a2b", ""),
        ("POSCAR opt_params.fmax=0.01", *same, "7d0e11aa", ""),
        ("slab", "failed", "lab_recipes.value", "local", *[""] * 6, "1 d", "91ae6abe", ""),
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


def test_swept_values_are_labels_as_people_type_them(here, cli):
    cli("submit", "lab_recipes.value", AL, "--sweep", "number=[[3,3,3], [5,5,5]]")
    (job,) = names(cli, "--label", "number=[3,3,3]").values()
    assert job["name"] == "Al number=[3,3,3]"


def test_status_shows_the_parameters(here, cli):
    more = {"kpts": "(3, 3, 3)", "opt_params": '{"fmax": 0.1}', "name": "x" * 100}
    given = [text for key, value in more.items() for text in ("--param", f"{key}={value}")]
    said = cli("status", submit(cli, "report", *given)).out
    assert 'kpts=[3,3,3], opt_params={"fmax":0.1}, name="xxx' in said
    assert "x" * 60 not in said


@pytest.fixture
def asked(monkeypatch):
    """Return the methods that commands ask a server for, as they do."""
    ask, methods = remote.Connection.ask_both, []

    def noted(connection, requests, *waited):
        # A command that takes long asks in another thread what keeps its server.
        if threading.current_thread() is threading.main_thread():
            methods.extend(method for method, _ in requests)
        return ask(connection, requests, *waited)

    monkeypatch.setattr(remote.Connection, "ask_both", noted)
    return methods


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_status_takes_one_round_trip(here, cli, asked, monkeypatch, more):
    job_id = submit(cli, "value")
    assert cli("wait", job_id).code == 0
    ask, rounds = remote.Connection.ask_both, []

    def noted(connection, requests, *waited):
        rounds.append([method for method, _ in requests])
        return ask(connection, requests, *waited)

    monkeypatch.setattr(remote.Connection, "ask_both", noted)
    asked.clear()
    assert cli("status", job_id[:13], *more).code == 0
    assert asked == ["system.version", "jobs.specification"]
    assert asked in rounds


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


def test_what_frames_say_of_themselves_becomes_labels(here, cli):
    frames = [bulk("Cu"), bulk("Al")]
    frames[0].info = {"config_type": "bulk fcc", "batch": 3, "of": "file", "weights": [1.0, 2.0]}
    frames[1].info = {"good": True}
    write(here / "frames.extxyz", frames)
    asked = ["lab_recipes.value", here / "frames.extxyz", "--label", "of=test"]
    labels = {}
    for options in ([], ["--label-info"]):
        said = cli("submit", *asked, "--name", "x", *options, "--json")
        assert said.code == 0, said.err
        for answer in said.json["jobs"]:
            labels[answer["job_id"]] = cli("status", answer["job_id"], "--json").json["labels"]
    without, also, first, second = labels.values()
    assert without == also == {"of": "test"}
    assert first == {"of": "test", "config_type": "bulk fcc", "batch": "3"}
    assert second == {"of": "test", "good": "true"}


def test_pairs_of_a_database_become_labels_and_no_part_of_the_job(here, cli):
    with connect_db(here / "cells.db") as rows:
        rows.write(bulk("Cu"), pair="Cu-Au", strain=2)
        rows.write(bulk("Al"))
    swept = ["--sweep", "number=[1,2]", "--label-info", "--key", "pairs", "--json"]
    told = cli("submit", "lab_recipes.value", here / "cells.db", *swept)
    ids = [answer["job_id"] for answer in told.json["jobs"]]
    labels = [cli("status", job_id, "--json").json["labels"] for job_id in ids]
    of_row = {"pair": "Cu-Au", "strain": "2"}
    assert labels == [
        of_row | {"number": "1"},
        of_row | {"number": "2"},
        {"number": "1"},
        {"number": "2"},
    ]
    with connect_db(here / "cells.db") as rows:
        rows.update(2, done=True)
    again = cli("submit", "lab_recipes.value", here / "cells.db", *swept)
    assert [answer["job_id"] for answer in again.json["jobs"]] == ids, again.err


@pytest.fixture(scope="module")
def listed(served):
    """Three jobs that are on record alone: two of copper that completed, one of an oxide."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRYSTALMATH_HOME", str(served.home))
        url = config.load().database_url
    with JobStore(url) as store:
        jobs = [
            new_job(
                f"00000000-0000-4000-8000-00000000000{index}",
                recipe="quacc.recipes.emt.core.static_job",
                engine="other",
                created_at=1.7e9 + index,
                name=name,
                formula=formula,
                labels={"of": "listed", "encut": encut},
            )
            for index, (name, formula, encut) in enumerate(
                [("bulk Cu", "Cu4", "400"), ("slab, Cu", "Cu8", "500"), ("oxide", "CuO", "500")]
            )
        ]
        store.insert(jobs)
        done = [{"energy_ev": -2.0, "natoms": 4}, {"energy_ev": -3.0, "natoms": 8}]
        store.apply(
            [
                Change(job_id=job.job_id, state=JobState.COMPLETED, at=1.7e9 + 60, summary=summary)
                for job, summary in zip(jobs, done, strict=False)
            ]
            + [Change(job_id=jobs[2].job_id, state=JobState.FAILED, at=1.7e9 + 9, error="boom")]
        )
    return ["--label", "of=listed"]


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


@pytest.fixture(scope="module")
def flow(served, listed):
    """A flow that is on record alone, with a step that completed, one that failed, one to come."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRYSTALMATH_HOME", str(served.home))
        url = config.load().database_url
    common = {"engine": "other", "labels": {"of": "flow"}}
    body = '{"parameters": {}, "atoms": null}'
    common["specification"] = f"{{}}\n{body}"
    of_flow = {"recipe": "quacc.recipes.emt.slabs.bulk_to_slabs_flow", "stage": "steps"}
    header = '{"engine": "local", "cluster": "here", "flow": {"pass": 1}}'
    job = new_job(name="Cu slabs", **of_flow, **{**common, "specification": f"{header}\n{body}"})
    steps = [
        new_job(
            recipe=f"quacc.recipes.emt.core.{name}_job",
            parents=[{"job_id": job.job_id, "role": "flow", "step": f"{name}_job#{number}"}],
            **common,
        )
        for number, name in enumerate(["relax", "static", "static"])
    ]
    ends = (("completed", None), ("failed", "boom: the slab\nhas split"))
    with JobStore(url) as store:
        store.insert([job, *steps])
        store.apply(
            [
                Change(
                    job_id=step.job_id,
                    state=JobState(state),
                    at=1.7e9,
                    error=error,
                    started_at=1.7e9,
                )
                for step, (state, error) in zip(steps, ends, strict=False)
            ]
        )
    yield [job.job_id, *(step.job_id for step in steps)]
    # The server would wait for these at its end.
    with JobStore(url) as store:
        store.apply(
            [
                Change(job_id=left.job_id, state=JobState.CANCELLED, at=1.7e9)
                for left in (steps[-1], job)
            ]
        )


def test_show_says_where_the_body_of_a_flow_runs(here, cli, flow):
    shown = " ".join(cli("show", flow[0]).out.split())
    assert "engine other, cluster local " in shown
    assert "body local, cluster here " in shown
    assert cli("show", flow[0], "--json").json["body"] == {"engine": "local", "cluster": "here"}
    assert cli("show", flow[1], "--json").json["body"] is None
    assert "body" not in cli("show", flow[1]).out


def test_the_result_of_a_flow_in_one_job_is_said_to_be_its_last(here, cli, served):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRYSTALMATH_HOME", str(served.home))
        url = config.load().database_url
    asked = '{"in_one_job": true}\n{"parameters": {}, "atoms": null}'
    job = new_job(recipe="quacc.recipes.emt.slabs.bulk_to_slabs_flow", specification=asked)
    summary = {"energy_ev": -1.5, "steps": 4}
    with JobStore(url) as store:
        store.insert([job])
        ended = {"state": JobState.COMPLETED, "at": 1.7e9, "summary": summary}
        store.apply([Change(job_id=job.job_id, **ended)])
    shown = " ".join(cli("status", job.job_id).out.split())
    assert "energy -1.5000000000 eV" in shown
    assert "steps 4 in one job; energy, force, formula and work dir are those of the last" in shown


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


def test_the_progress_of_a_flow_is_a_bar_over_its_steps(here, cli, flow):
    header, row = cli("progress", flow[0]).lines
    assert "STEPS" in header
    assert "━━━─────── 1/3, 1 failed" in row
    (told,) = cli("progress", flow[0], "--json").json["jobs"]
    assert told["steps"] == {"completed": 1, "failed": 1, "pending": 1}
    with connect(start=False) as client:
        assert client.job(flow[0]).steps == told["steps"]
        assert [step.job_id for step in client.future(flow[0]).steps()] == flow[1:]
        assert client.future(flow[1]).steps() == []


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


def test_a_failed_flow_whose_step_completed_when_run_again_says_what_to_do(here, cli):
    asked = {"specification": '{}\n{"parameters": {}, "atoms": null}'}
    job = new_job(recipe="a.flow", stage="steps", **asked)
    parent = {"job_id": job.job_id, "role": "flow", "step": "relax_job#0"}
    tries = [new_job(parents=[parent], **asked) for _ in range(2)]
    ends = [("failed", "boom"), ("completed", None), ("failed", "StepFailed: relax_job#0 failed")]
    with JobStore(config.load().database_url) as store:
        store.insert([job, *tries])
        store.apply(
            [
                Change(job_id=one.job_id, state=JobState(state), at=1.7e9, error=error)
                for one, (state, error) in zip([*tries, job], ends, strict=True)
            ]
        )
    told = f"go on crystalmath retry {job.job_id[:8]}: all its steps have completed since"
    assert told in " ".join(cli("status", job.job_id).out.split())


@pytest.mark.parametrize("count", [999, 1000, 1001])
def test_show_says_where_it_tells_the_first_events_only(here, cli, count):
    text = '{"engine": "local", "cluster": "local"}\n{"parameters": {}, "atoms": null}'
    # It is this process's own: the server leaves it alone.
    job = new_job(specification=text, owner=vars(processes.own_identity()))
    change = {"job_id": job.job_id, "at": 1.7e9}
    with JobStore(config.load().database_url) as store:
        store.insert([job])
        noted = {**change, "state": JobState.PENDING}
        store.apply([Change(**noted, reason=f"for {number}") for number in range(1, count)])
        told = cli("show", job.job_id).out
        store.apply([Change(**change, state=JobState.CANCELLED)])
    assert f"for {min(count, 1000) - 1}\n" in told
    assert ("(the first 1000; more may follow" in told) == (count >= 1000)


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
        (["--since", "yesterday"], "'yesterday' is no time; write 2h"),
        (["--exclude", "colour=red"], "'colour=red' is no FILTER=VALUE; the filters are state"),
        (["--exclude", "name=a", "--exclude", "name=b"], "another name is excluded already"),
        (["--exclude", "state=asleep"], "'asleep' is no state"),
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


def test_logs_follow_a_job_to_its_end(here, cli, tmp_path):
    job_id = submit(cli, "talk", "--param", f"path={tmp_path / 'go'}")
    process = start("logs", job_id[:8], "--follow")
    with limited(process):
        said = [process.stdout.readline() for _ in range(3)]
        assert said == ["line 0\n", "line 1\n", "line 2\n"]
        (tmp_path / "go").touch()
        answer = finish(process)
    assert (answer.code, answer.out) == (0, "the last line\n")
    assert cli("logs", job_id, "--tail", 2).out == "line 2\nthe last line\n"
    document = cli("logs", job_id, "--json").json
    assert document["text"].splitlines()[-1] == "the last line"
    assert document["finished"]
    assert cli("logs", job_id, "--follow").out == document["text"]
    assert cli("logs", job_id, "--follow", "--json").code == 2


def test_a_beginning_of_an_id_is_enough(here, cli):
    job_id = submit(cli, "value")
    cli("wait", job_id[:13])
    for command in ("status", "result", "path", "logs", "cancel"):
        assert cli(command, job_id[:13], "--json").json["job_id"] == job_id
    firsts = [job_id[0]]
    while len(set(firsts)) == len(firsts):  # of 17 ids at most two begin alike
        firsts.append(submit(cli, "value")[0])
    assert "several job ids" in cli("status", firsts[-1]).err


@pytest.mark.parametrize(
    "command",
    [["status"], ["result"], ["cancel"], ["wait"], ["retry"], ["prune", "--dry-run"]],
    ids=" ".join,
)
def test_an_empty_id_is_no_beginning_of_one(here, cli, command):
    submit(cli, "value")
    answer = cli(*command, "")
    assert answer.code != 0
    assert "the id of a job is empty" in " ".join(answer.err.split())


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--walltime", "-5"),
        ("--memory", "-4GB"),
        ("--label", "project"),
        ("--param", "relax_cell"),
        ("--params", "/dev/null"),
        ("--sweep", "relax_cell"),
        ("--sweep", "relax_cell=1"),
    ],
)
def test_a_value_that_cannot_be_read_is_refused_with_its_option(here, cli, option, value):
    answer = cli("submit", "emt.core.relax_job", AL, option, value)
    assert answer.code == 2
    assert f"Invalid value for {option}: " in " ".join(answer.err.split())


# --- run -------------------------------------------------------------------------------------


def test_recipe_and_structure_in_the_wrong_order(here, cli):
    answer = cli("run", AL, "emt.core.relax_job")
    assert answer.code == 2
    assert "it comes before the structure" in " ".join(answer.err.split())


def test_run_uses_the_server(here, cli, served):
    answer = cli("run", "lab_recipes.value", AL, "--json")
    assert answer.code == 0
    owner = served.process.pid
    assert cli("status", answer.json["job_id"], "--json").json["status"] == "completed"
    spec = (served.home / "jobs" / answer.json["job_id"] / "spec").read_text().splitlines()[0]
    assert json.loads(spec)["owner"]["pid"] == owner
    failed = cli("run", "lab_recipes.fail", AL, "--param", "message=bad")
    assert failed.code == 1
    assert "error: RuntimeError: bad" in failed.err


def test_a_warning_of_the_server_is_one_line(here, cli, monkeypatch):
    monkeypatch.setenv("CRYSTALMATH_RECIPES", "lab_recipes,elsewhere")
    answer = finish(start("list", "--limit", 1))
    assert answer.code == 0
    warning, more = answer.err.splitlines()
    assert " more; --limit 0 shows all" in more
    assert warning.startswith("warning: the server does not admit the recipes of elsewhere")


# --- a cold start ----------------------------------------------------------------------------


def imported(*commands):
    """Return what is heavy and was imported by these commands, in one process."""
    code = (
        "import sys\nfrom crystalmath.cli import main\n"
        f"for command in {commands!r}:\n"
        "    try: main(list(command))\n    except SystemExit as left: assert left.code in (0, 1)\n"
        "heavy = {'sqlalchemy', 'alembic', 'ase', 'numpy', 'asyncio', 'rich', 'pluggy', 'quacc'}\n"
        "print(sorted(heavy & {name.split('.')[0] for name in sys.modules}))"
    )
    return subprocess.check_output([sys.executable, "-c", code], text=True).splitlines()[-1]


def test_asking_the_server_imports_nothing_heavy(here, with_quacc, cli):
    job_id = submit(cli, "value")
    cli("wait", job_id)
    questions = [(command, job_id) for command in ("status", "wait", "path", "cancel", "logs")]
    assert imported(*questions, ("result", job_id, "--json"), ("list", "--json")) == "[]"


def test_submitting_a_poscar_imports_no_ase(here, with_quacc):
    # Plugins say for which programs a recipe is asked before it is submitted.
    asked = ("submit", "lab_recipes.value", AL, "--param", "number=3")
    assert imported(asked) == "['pluggy']"


# --- completion ------------------------------------------------------------------------------


@pytest.fixture
def complete(cli, monkeypatch):
    """Return what bash is offered for the last word."""

    # How soon somebody wants an answer who types is not what is tested.
    monkeypatch.setattr("crystalmath.cli.shared.completion._ANSWER_S", 60.0)

    def complete(*words):
        monkeypatch.setenv("_CRYSTALMATH_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", " ".join(("crystalmath", *words)))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        answer = cli()
        monkeypatch.delenv("_CRYSTALMATH_COMPLETE")
        assert (answer.code, answer.err) == (0, "")
        return answer.out.split()

    return complete


def test_ids_are_completed(here, cli, complete, monkeypatch):
    asked, answer = [], HomeReader.jobs
    monkeypatch.setattr(HomeReader, "jobs", lambda *a, **k: asked.append(k) or answer(*a, **k))
    job_id = submit(cli, "value")
    assert complete("status", job_id[:20]) == [job_id]
    assert complete("wait", job_id, job_id[:20]) == [job_id]
    assert complete("status", "x") == []
    cli("wait", job_id)
    assert complete("status", job_id[:20]) == [job_id]
    assert complete("cancel", job_id[:20]) == []
    submit(cli, "value", "--label", "completed=yes")
    assert complete("list", "--label", "comp") == ["completed=yes"]
    # What others tell of them would be looked up for nothing.
    assert all({"steps", "held_up_by"}.isdisjoint(one["fields"]) for one in asked)


def test_a_shell_is_told_how_to_complete(cli, monkeypatch):
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    done = finish(start("--show-completion", "bash"))
    assert done.code == 0
    assert "complete -o default -F _crystalmath_completion crystalmath" in done.out


def test_of_named_jobs_filters_leave_those_that_fit(here, cli, tmp_path):
    one, other = (submit(cli, "value", "--label", f"of={name}") for name in "ab")
    assert cli("wait", one, other).code == 0
    table, archive = tmp_path / "jobs.jsonl", tmp_path / "jobs.zip"
    told = {
        command: cli(*command.split(), one[:12], other, "--label", "of=a", "--json")
        for command in (
            "wait",
            "progress",
            "cancel",
            "retry --dry-run",
            "prune --dry-run",
            "plot --x of --y energy",
            f"export --archive {archive}",
            f"export {table}",
        )
    }
    assert [job["job_id"] for job in told["wait"].json["jobs"]] == [one]
    assert [job["job_id"] for job in told["progress"].json["jobs"]] == [one]
    assert [job["job_id"] for job in told["cancel"].json["jobs"]] == [one]
    assert [job["retry_of"] for job in told["retry --dry-run"].json["jobs"]] == [one]
    assert [job["job_id"] for job in told["prune --dry-run"].json["jobs"]] == [one]
    assert f"job {one[:8]}: " in told["plot --x of --y energy"].json["error"]
    assert told[f"export --archive {archive}"].json["jobs"] == 1
    assert [json.loads(line)["job_id"] for line in table.read_text().splitlines()] == [one]
    for command in ("wait", "progress", "cancel", "retry", "plot", f"export {tmp_path}/no.csv"):
        none = cli(*command.split(), one, "--label", "of=b")
        assert (none.code, none.err) == (1, "error: there is no job labelled of=b\n"), command


# --- cancelling: last, because the workers are replaced by new ones ------------------------


def test_cancel_of_several(here, cli):
    chosen = ["--label", "set=cancel"]
    ids = [submit(cli, "long_sleep", *chosen) for _ in range(4)]
    one = cli("cancel", ids[0][:12], "--json")
    assert one.json == {"job_id": ids[0], "cancelled": True, "error": None}
    cli("wait", ids[0])
    two = cli("cancel", ids[0], ids[1], "ffffffff", "--json")
    assert two.code == 1
    assert [job["cancelled"] for job in two.json["jobs"]] == [False, True, False]
    ended = "the job was cancelled before"
    told = {"cancelled": False, "status": "error", "code": "ended", "error": ended}
    assert two.json["jobs"][0] == {"job_id": ids[0], **told}
    assert two.json["jobs"][2]["code"] == "unknown_job"
    assert cli("cancel", ids[0], "--json").json == {"job_id": ids[0], **told}
    rest = cli("cancel", *chosen, "--state", "pending", "--state", "running")
    assert rest.code == 0
    assert {*ids[2:]} <= {line.split()[2] for line in rest.lines} <= {*ids[1:]}
    assert cli("wait", *chosen).code == 1
    assert {job["status"] for job in cli("wait", *chosen, "--json").json["jobs"]} == {"cancelled"}
    assert "no pending or running job labelled set=cancel" in cli("cancel", *chosen).err
    assert cli("cancel").code == 2


def test_ctrl_c_during_run_cancels_the_servers_job(here, cli):
    process = start("run", "lab_recipes.long_sleep", AL, "--label", "set=ctrl-c")
    eventually(lambda: names(cli, "--label", "set=ctrl-c", "--state", "running"))
    process.send_signal(signal.SIGINT)
    answer = finish(process)
    assert answer.code == 130
    assert answer.err.splitlines()[-1].endswith("cancelled")
    assert names(cli, "--label", "set=ctrl-c")["Al"]["status"] == "cancelled"


# --- no server -------------------------------------------------------------------------------


@pytest.fixture
def alone(home, lab):
    """Yield a home without a server, and end the one that a command starts."""
    with HomeServer(home) as server:
        yield server


def test_completion_starts_and_writes_nothing(alone, complete):
    (alone.home / "config.toml").write_text("[engines.local]\nworkers = 2\n")
    assert {"submit", "wait", "list"} <= set(complete(""))
    assert "local" in complete("run", "x", "y", "--engine", "")
    assert "emt.core.relax_job" in complete("submit", "emt.core.r")
    assert complete("recipes", "quacc.recipes.emt.core.s") == ["quacc.recipes.emt.core.static_job"]
    assert "lab_recipes.value" in complete("check", "lab_recipes.v")
    assert complete("run", "x", "y", "--engine", "local", "--cluster", "") == ["local"]
    assert complete("list", "--state", "f") == ["failed"]
    assert complete("status", "") == []
    assert [path.name for path in alone.home.iterdir()] == ["config.toml"]
    told = {"specification": '{"owner": {}}\n{"atoms": null, "parameters": {}}'}
    waiting, ended = new_job(labels={"set": "one"}, **told), new_job(**told)
    with JobStore(f"sqlite:///{alone.home}/jobs.sqlite") as store:
        store.insert([waiting])
        end = Change(job_id=ended.job_id, state=JobState.CANCELLED, at=1.0)
        store.insert_ended([(ended, end)])
    before = {path.name for path in alone.home.iterdir()}
    assert set(complete("status", "")) == {waiting.job_id, ended.job_id}
    assert complete("cancel", "") == [waiting.job_id]
    assert complete("list", "--label", "s") == ["set=one"]
    assert {path.name for path in alone.home.iterdir()} == before


def test_a_broken_configuration_does_not_break_the_line(alone, complete):
    (alone.home / "config.toml").write_text("engin = 1")
    for words in (["run", "emt"], ["run", "x", "y", "--cluster", ""], ["status", ""]):
        assert complete(*words) == []


def test_closing_the_terminal_changes_nothing(alone, cli, tmp_path):
    command = f"{sys.executable} -m crystalmath submit lab_recipes.wait_for {AL}"
    shell = subprocess.Popen(
        ["sh", "-c", f"{command} --param path={tmp_path}/go; exec sleep 600"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    job_id = shell.stdout.readline().strip()
    server = alone.call("system.version")["pid"]
    os.killpg(shell.pid, signal.SIGHUP)
    shell.communicate(timeout=60)
    assert cli("status", job_id, "--json").json["status"] in {"pending", "running"}
    assert alone.call("system.version")["pid"] == server


def test_who_looks_at_a_job_survives_its_server(alone, cli, tmp_path):
    alone.start()
    path = f"path={tmp_path / 'go'}"
    job_id = cli("submit", "lab_recipes.talk", AL, "--param", path).out.strip()
    running = start("run", "lab_recipes.wait_for", AL, "--param", path)
    logs = start("logs", job_id, "--follow")
    watch = start("list", "--watch")
    with limited(running, logs, watch, seconds=180):
        assert any("running" in line for line in iter(running.stderr.readline, ""))
        said = [logs.stdout.readline() for _ in range(3)]
        assert said == ["line 0\n", "line 1\n", "line 2\n"]
        lines = iter(watch.stdout.readline, "")
        assert any("running" in line and job_id[:8] in line for line in lines)
        alone.kill()
        (tmp_path / "go").touch()
        assert finish(running).code == 0
        answer = finish(logs)
        assert (answer.code, answer.out) == (0, "the last line\n")
        assert any("completed" in line and job_id[:8] in line for line in lines)
        watch.send_signal(signal.SIGINT)
        assert finish(watch).code == 0


def test_closed_streams_fail_no_submission(here, cli):
    command = f"exec {sys.executable} -m crystalmath submit lab_recipes.value {AL}"
    closed = f"{command} --label set=closed >&- 2>&- <&-"
    assert subprocess.run(["sh", "-c", closed], check=False).returncode == 0
    assert cli("list", "--label", "set=closed").code == 0
    assert len(cli("list", "--label", "set=closed").lines) == 2


def test_serve_writes_one_document(alone, cli, monkeypatch):
    def fail(*_, ready, **__):
        ready()
        raise ServerError("the server failed")

    monkeypatch.setattr("crystalmath.server.daemon.serve", fail)
    answer = cli("serve", "--json")
    assert (answer.code, answer.json["error"]) == (1, None)
    assert answer.err == "error: the server failed\n"
    assert cli("serve", "--stdio", "--json").code == 2


def test_nothing_to_submit_starts_no_server(alone, cli, tmp_path):
    (tmp_path / "bad.xyz").write_text("junk")
    assert cli("submit", "lab_recipes.value", tmp_path / "bad.xyz").code == 1
    assert list(alone.home.iterdir()) == []


# --- progress --------------------------------------------------------------------------------

OSZICAR = """\
DAV:   3    -0.372214035530E+01   -0.21119E+00   -0.21012E+00  3216   0.112E+01
   4 F= -.37221404E+01 E0= -.37210001E+01  d E =-.228072E-02
DAV:   1    -0.372241135530E+01   -0.21119E-03   -0.21012E-03  3216   0.112E-01
"""


def test_progress_tells_how_far_a_calculation_has_come(here, cli, asked):
    go = here / "go"
    given = ["--param", f"files={json.dumps({'tmp-1/OSZICAR': OSZICAR})}", "--param", f"path={go}"]
    job = submit(cli, "write_and_wait", *given, "--label", "set=progress")
    try:
        # The file is there before it is whole.
        eventually(lambda: (read_progress(cli, job) or {}).get("ionic_step") == 5)
        # And that may be before the record says that the job runs.
        eventually(lambda: names(cli, "--label", "set=progress", "--state", "running"))
        told = read_progress(cli, job)
        assert (told["program"], told["calculation"], told["file"]) == (
            "VASP",
            1,
            "tmp-1/OSZICAR",
        )
        assert (told["ionic_step"], told["electronic_step"]) == (5, 1)
        assert (told["energy_ev"], told["max_force_ev_ang"]) == (-3.7210001, None)
        header, row = cli("progress", "--label", "set=progress").lines
        assert header.split()[:6] == ["ID", "NAME", "PROGRAM", "CALC", "IONIC", "SCF"]
        assert row.split()[:7] == [job[:8], "Al", "VASP", "1", "5", "1", "-3.7210"]
        asked.clear()
        status = cli("status", job).out
        assert asked == ["system.version", "jobs.specification"]
        assert "VASP, calculation 1, ionic step 5, electronic step 1, -3.721000 eV" in status
    finally:
        go.touch()
    assert cli("wait", job).code == 0
    assert read_progress(cli, job)["ionic_step"] == 5
    assert "completed" in cli("progress", job).lines[1].split()
    answer = cli("progress", "--label", "set=progress")
    assert (answer.code, answer.out, answer.err) == (0, "", "no running jobs\n")
    nobody = cli("progress", "0" * 36, "--json")
    assert (nobody.code, nobody.json["code"], nobody.json["jobs"]) == (1, "unknown_job", [])


def test_status_of_a_failed_relaxation_tells_what_it_reached(here, cli):
    unreachable = ["--param", "opt_params.fmax=1e-9", "--param", "opt_params.max_steps=3"]
    job = cli("submit", "emt.core.relax_job", AL, *unreachable).out.strip()
    assert cli("wait", job).code == 1
    told = cli("status", job).out
    assert "ASE, calculation 1, ionic step 3, -0.0" in told
    assert f"crystalmath retry {job[:8]} --continue" in told
    broken = submit(cli, "fail", "--param", "message=bad")
    assert cli("wait", broken).code == 1
    assert "retry" not in cli("status", broken).out


def read_progress(cli, job):
    (told,) = cli("progress", job, "--json").json["jobs"]
    return told["progress"]


@pytest.mark.parametrize("command", [["prune", "--older"], ["list", "--since"]], ids=" ".join)
def test_a_month_is_no_span_of_time(here, cli, command):
    told = cli(*command, "2M")
    assert (told.code, told.out) == (2, "")
    assert "'2M'" in told.err
    assert "60d" in told.err


def test_a_check_goes_on_without_a_server_that_dies_meanwhile(lab, tmp_path, monkeypatch, cli):
    monkeypatch.setenv("CRYSTALMATH_HOME", str(tmp_path))
    asked = check.checked
    with HomeServer(tmp_path) as alone:

        def after_its_death(client, *arguments, **options):
            monkeypatch.setattr(check, "checked", asked)
            alone.kill()
            return asked(client, *arguments, **options)

        monkeypatch.setattr(check, "checked", after_its_death)
        alone.start()
        told = cli("check", "lab_recipes.value", AL)
    assert (told.code, told.lines[-1]) == (0, "this job would be accepted"), told.err
