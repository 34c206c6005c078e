"""`crystalmath submit`, asking a server."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import ase.io
import pytest
from ase.build import bulk
from ase.db import connect as connect_db
from ase.io import write

from cli.shell import imported, names, submit
from crystalmath.client import connect

pytestmark = pytest.mark.server

EXAMPLES = Path(__file__).parents[2] / "examples"
AL, CU = str(EXAMPLES / "Al.poscar"), str(EXAMPLES / "Cu.poscar")


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


def test_swept_values_are_labels_as_people_type_them(here, cli):
    cli("submit", "lab_recipes.value", AL, "--sweep", "number=[[3,3,3], [5,5,5]]")
    (job,) = names(cli, "--label", "number=[3,3,3]").values()
    assert job["name"] == "Al number=[3,3,3]"


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


def test_recipe_and_structure_in_the_wrong_order(here, cli):
    answer = cli("run", AL, "emt.core.relax_job")
    assert answer.code == 2
    assert "it comes before the structure" in " ".join(answer.err.split())


def test_submitting_a_poscar_imports_no_ase(here, with_quacc):
    # Plugins say for which programs a recipe is asked before it is submitted.
    asked = ("submit", "lab_recipes.value", AL, "--param", "number=3")
    assert imported(asked) == "['pluggy']"


def test_closed_streams_fail_no_submission(here, cli):
    command = f"exec {sys.executable} -m crystalmath submit lab_recipes.value {AL}"
    closed = f"{command} --label set=closed >&- 2>&- <&-"
    assert subprocess.run(["sh", "-c", closed], check=False).returncode == 0
    assert cli("list", "--label", "set=closed").code == 0
    assert len(cli("list", "--label", "set=closed").lines) == 2


def test_nothing_to_submit_starts_no_server(lab, alone, cli, tmp_path):
    (tmp_path / "bad.xyz").write_text("junk")
    assert cli("submit", "lab_recipes.value", tmp_path / "bad.xyz").code == 1
    assert list(alone.home.iterdir()) == []
