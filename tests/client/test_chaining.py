"""Jobs that refer to others: references, chains, and scripts whose calls are submitted."""

from __future__ import annotations

import copy
import os
import pickle
import re
import shutil

import pytest
import typer
from ase.build import bulk
from ase.io import write

from crystalmath.cli.chain import parse_steps
from crystalmath.cli.shared.parameter_options import parse_parameters, parse_value
from crystalmath.client import Reference, follower
from crystalmath.client import request as request_module
from crystalmath.client.chaining import Chain
from crystalmath.errors import CrystalMathError, InvalidJob
from crystalmath.models import Submission
from crystalmath.recipes import codec
from crystalmath.recipes.job_structure import JobStructure, read_job_text
from crystalmath.recipes.summary import final_atoms

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("folders_stay")]

ATOMS = Reference("3f2a")["relax"][-1]["atoms"]


@pytest.mark.parametrize(
    "use",
    [
        bool,
        len,
        list,
        float,
        lambda it: it + 1,
        lambda it: 2 * it,
        lambda it: it < 3,
        lambda it: "a" in it,
        lambda it: it(),
        lambda it: it.get_potential_energy(),
        os.fspath,
        lambda it: it[1.5],
        lambda it: it == 1.5,
        lambda it: it in [1.5, 2.5],
        "{}/WAVECAR".format,
        lambda it: divmod(it, 2),
    ],
)
def test_a_reference_is_no_value(use):
    with pytest.raises((TypeError, AttributeError)) as refused:
        use(ATOMS)
    assert "<Reference to result['relax'][-1]['atoms'] of job 3f2a>" in str(refused.value)


def test_a_reference_is_copied_and_compared():
    for same in (copy.deepcopy(ATOMS), pickle.loads(pickle.dumps(ATOMS)), copy.copy(ATOMS)):
        assert same == ATOMS
        assert hash(same) == hash(ATOMS)
    assert Reference("3f2a")["atoms"] != ATOMS
    assert ATOMS.document() == {"$job": "3f2a", "path": ["relax", -1, "atoms"]}


def test_a_reference_inside_parameters():
    given = {"copy_files": [{"source": ATOMS}], "pair": (1, ATOMS)}
    written = codec.encode_request(given)
    assert written["copy_files"] == [{"source": ATOMS.document()}]
    assert written["pair"]["data"] == [1, ATOMS.document()]


@pytest.mark.parametrize(
    ("text", "job", "path", "frame"),
    [
        ("job:3f2a", "3f2a", None, None),
        ("job:3f2a@0", "3f2a", None, 0),
        ("job:3f2a@-2", "3f2a", None, -2),
        ("job:3f2a:static.0.atoms", "3f2a", ("static", 0, "atoms"), None),
        ("job:3f2a:trajectory.-1", "3f2a", ("trajectory", -1), None),
        ("job:3f2a:", "3f2a", (), None),
        ("job:label step=relax", {"labels": {"step": "relax"}}, None, None),
        (
            "job:label step=relax label 'at=5:30 @x' name Al:atoms",
            {"labels": {"step": "relax", "at": "5:30 @x"}, "name": "Al"},
            ("atoms",),
            None,
        ),
        (
            "job:recipe emt.core state completed@0",
            {"recipe": "emt.core", "state": "completed"},
            None,
            0,
        ),
    ],
)
def test_a_job_as_people_write_it(text, job, path, frame):
    assert read_job_text(text) == JobStructure(job, frame, path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("job:", "names no job's geometry"),
        ("job:3f2a@x", "names no job's geometry"),
        ("job:3f2a:atoms@0", "names no job's geometry"),
        ("job:label step", "write each label once, label KEY=VALUE"),
        ("job:label a=1 label a=2", "write each label once"),
        ("job:name a name b", "has the filter 'name' twice"),
        ("job:labels step=relax", "there is no filter 'labels'; did you mean 'label'"),
        ("job:label step=relax name", "must be filters with their values"),
    ],
)
def test_what_names_no_job(text, words):
    with pytest.raises(InvalidJob, match=words):
        read_job_text(text)


def test_a_job_as_a_parameter():
    given = parse_parameters(["prev_dir=job:3f2a", "a.b=job:3f2a:results.energy", 'c="job:3f2a"'])
    assert given == {
        "prev_dir": {"$job": "3f2a", "path": ["dir_name"]},
        "a": {"b": {"$job": "3f2a", "path": ["results", "energy"]}},
        "c": "job:3f2a",
    }
    assert parse_value("jobs:1") == "jobs:1"
    with pytest.raises(typer.BadParameter, match="job:ID@0 cannot be a parameter"):
        parse_parameters(["prev_dir=job:3f2a@0"])


def test_steps_as_people_write_them():
    steps = parse_steps(
        [
            "relax=emt.core.relax_job",
            'static=lab.f:kpts=[3,3,3],opt_params.fmax=0.1,names=a,b,note="@relax"',
            "nscf=vasp.core.non_scf_job:prev_dir=@static,e=@relax:results.energy,x=job:3f2a",
        ]
    )
    assert steps == {
        "relax": ("emt.core.relax_job", {}),
        "static": (
            "lab.f",
            {"kpts": [3, 3, 3], "opt_params": {"fmax": 0.1}, "names": "a,b", "note": "@relax"},
        ),
        "nscf": (
            "vasp.core.non_scf_job",
            {
                "prev_dir": {"$job": "static", "path": ["dir_name"]},
                "e": {"$job": "relax", "path": ["results", "energy"]},
                "x": {"$job": "3f2a", "path": ["dir_name"]},
            },
        ),
    }


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["relax"], "cannot read 'relax' as a step; write NAME=RECIPE"),
        (["a b=emt.core.relax_job"], "cannot read"),
        (["r=emt.core.relax_job", "r=emt.core.static_job"], "the step 'r' is given twice"),
        (["s=lab.f:x=@relax"], "'x=@relax' refers to a step that does not come before it; there"),
        (["relax=lab.f", "s=lab.f:x=@relaks"], "did you mean 'relax'?"),
        (["relax=lab.f:3"], "cannot read '3'; write KEY=VALUE"),
        (["relax=lab.f:x=[1,2"], "neither JSON nor a Python literal"),
    ],
)
def test_what_is_no_step(texts, words):
    with pytest.raises(typer.BadParameter, match=re.escape(words)):
        parse_steps(texts)


def test_a_step_refers_to_earlier_ones_alone():
    steps = {
        "relax": ("lab.f", {"files": [Reference("static")["dir_name"]]}),
        "static": "lab.f",
    }
    with pytest.raises(InvalidJob, match="'relax' refers to 'static', which does not come before"):
        Chain(steps, ())
    steps["relax"] = ("lab.f", {"files": {Reference("static")["dir_name"]}})
    with pytest.raises(InvalidJob, match="'relax' refers to 'static', which does not come before"):
        Chain(steps, ())
    with pytest.raises(InvalidJob, match="a chain has one step at least"):
        Chain({}, ())


# --- with a server ---------------------------------------------------------------------------

SHIFT, REPORT = "lab_recipes.shift", "lab_recipes.report"
LONG = 300


@pytest.fixture(scope="module")
def client(light_client):
    """Ask a server that the tests of this module share."""
    return light_client


@pytest.fixture
def here(home_server, tmp_path, monkeypatch):
    """Have commands ask that server, from a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def held(client, go):
    """Return a job that ends once a file is there."""
    return client.submit("lab_recipes.wait_for", bulk("Al"), {"path": str(go)}, name="held")


def test_a_future_is_referred_to_before_it_has_ended(client, go):
    first = held(client, go)
    moved = client.submit(SHIFT, bulk("Al"), after=[first])
    way = client.submit(REPORT, moved["trajectory"][1])
    told = client.submit(
        REPORT, bulk("Cu"), {"a": [{"e": moved["results"]["energy"]}], "all": first}
    )
    for one in (moved, way, told):
        info = one.info()
        assert info.state.value == "pending"
        assert {each["awaited"] for each in info.parents} == {"ok"}
    go.touch()
    assert told.result(LONG)["parameters"] == {"a": [{"e": -1.0}], "all": {"saw": str(go)}}
    assert way.result(LONG)["symbols"] == ["Al"]
    assert not any("awaited" in each for each in told.info().parents)


def test_a_future_is_neither_a_list_nor_blocks(client, go):
    first = held(client, go)
    with pytest.raises(TypeError, match="not iterable"):
        list(first)
    with pytest.raises(TypeError):
        assert "atoms" in first
    assert first["atoms"] == Reference(first.job_id, ("atoms",))
    assert not first.done()
    go.touch()
    assert first.result(LONG) == {"saw": str(go)}


def test_what_commands_say_of_a_job_that_waits(client, here, cli, go):
    first = held(client, go).job_id
    asked = cli("submit", REPORT, f"job:{first[:8]}", "--param", f"note=job:{first}", "--json")
    assert asked.code == 0, asked.err
    job_id = asked.json["job_id"]
    shown = " ".join(cli("status", job_id).out.split())
    assert f"waits for {first} (its final geometry)" in shown
    assert f"{first} (its dir_name as note)" in shown
    assert "came of" not in shown
    assert f"waits for {first} (its final geometry, its dir_name as note): held" in " ".join(
        cli("show", job_id).out.split()
    )
    assert f"pending, waits for {first[:8]}" in cli("list", "--limit", 1).out
    assert cli("cancel", job_id).code == 0


def test_who_waits_is_cancelled_too(client, here, cli, go):
    write("Al.extxyz", bulk("Al"))
    first = held(client, go).job_id
    second = cli("submit", REPORT, "Al.extxyz", "--after", first[:8]).out.strip()
    third = cli("submit", REPORT, "Al.extxyz", "--after", f"{first},{second}").out.strip()
    told = cli("cancel", first, "--with-successors", "--json")
    assert (told.code, told.json["job_id"], told.json["cancelled"]) == (0, first, True)
    assert sorted(told.json["successors"]) == sorted([second, third])
    ended = {job.state.value for job in client.wait([first, second, third])}
    assert "completed" not in ended
    assert [client.job(one).state.value for one in (first, second, third)] == ["cancelled"] * 3
    for command in ("status", "show"):
        assert f"waited for {first} (its completion)" in " ".join(cli(command, second).out.split())


def test_what_becomes_of_who_waits_for_a_failure(client, here, cli, tmp_path):
    write("Al.extxyz", bulk("Al"))
    go = tmp_path / "go"
    told = {"path": str(go), "message": "no"}
    failed = client.submit("lab_recipes.wait_and_fail", bulk("Al"), told, labels={"of": "it"})
    given = ("submit", REPORT, "Al.extxyz", "--after")
    fails = cli(*given, failed.job_id, "--on-failure", "fail").out.strip()
    runs = cli(*given, f"{failed.job_id}:any", "--inherit-labels").out.strip()
    go.touch()
    assert client.future(runs).result(LONG)["symbols"] == ["Al"]
    assert client.job(runs).labels == {"of": "it"}
    assert failed.job_id in str(client.future(fails).exception(LONG))
    # What waits for it, and what waits for that, cannot go on by itself, also once a retry failed.
    held = cli(*given, failed.job_id).out.strip()
    beyond = cli(*given, held).out.strip()
    tries = [failed]
    for _ in range(2):
        waited = cli("wait", beyond, runs, "--json")
        assert (waited.code, waited.json["done"]) == (1, False)
        assert client.job(tries[-1].job_id).state.value == "failed"
        why = (
            f"waits for job {failed.job_id}: job {tries[-1].job_id} failed; it starts once a retry"
        )
        again = f"of that completes (crystalmath retry {failed.job_id[:8]})"
        told = f"waits for job {held}, which {why} {again}"
        assert f"{beyond[:8]} Al {told}" in waited.err
        assert client.job(beyond).held_up_by == failed.job_id
        assert told in " ".join(cli("status", beyond).out.split())
        tries += client.retry([tries[-1]])
    client.cancel_many([held, beyond])
    for option, value, words in (
        ("--on-failure", "retry", "'retry' must be wait or fail"),
        ("--after", "", "cannot read '' as a job"),
    ):
        refused = cli("submit", REPORT, "Al.extxyz", option, value)
        assert refused.code == 2
        assert words in " ".join(refused.err.replace("│", " ").split())
    # A flow may have several final geometries, of which one is named.
    flow = client.submit("emt.slabs.bulk_to_slabs_flow", bulk("Cu"), after=[failed])
    for of_flow, count in ((flow, 1), (flow["static"][0]["atoms"], 0)):
        told = client.check("emt.core.static_job", of_flow)
        assert [one.code for one in told].count("structure_of_several") == count
    flow.cancel()


def test_waiting_ends_where_the_files_that_are_needed_were_removed(
    client, here, cli, go, monkeypatch
):
    first, blocked = client.submit(SHIFT, bulk("Al")), held(client, go)
    work = first.info().work_dir
    first.result(LONG)
    needs = client.submit(REPORT, first["atoms"], after=[blocked])
    last = client.submit(REPORT, bulk("Al"), after=[needs])
    goes_on = cli("submit", REPORT, f"job:{last.job_id}@0", "--after", blocked.job_id).out.strip()
    asked, statuses = [], follower.statuses
    monkeypatch.setattr(
        follower, "statuses", lambda *args: asked.append(args[1]) or statuses(*args)
    )
    for job in client.wait([last.job_id, blocked.job_id], LONG):
        if job.held_up_by:
            break
        if job.job_id == last.job_id:
            shutil.rmtree(work.parent)
    # Of the others events tell.
    assert job.job_id == last.job_id
    assert asked[-1] == [last.job_id]
    # What it takes of one that is held up is known already.
    assert [client.job(one).held_up_by for one in (last.job_id, goes_on)] == [first.job_id, None]
    go.touch()
    assert client.future(goes_on).result(LONG)["symbols"] == ["Al"]
    waited = cli("wait", last.job_id, blocked.job_id)
    assert waited.code == 1
    assert "was removed or moved, and not by crystalmath prune" in waited.err
    (again,) = client.retry([client.job(last.job_id).held_up_by])
    assert cli("wait", last.job_id).code == 0
    assert needs.info().parents[0]["taken_from"] == again.job_id


def damage(outcome, how):
    """Damage an outcome as disks, and people, do."""
    content = outcome.read_bytes()
    outcome.unlink()
    head, _, result = content.partition(b"\n")
    if how == "a folder":
        outcome.mkdir()
    elif how != "removed":
        garbled = bytes(byte ^ 0x5A for byte in result[12:])
        outcome.write_bytes(
            {
                "cut short": content[:-20],
                "garbled": head + b"\n" + result[:12] + garbled,
                "overwritten": b"nothing of ours\n",
                "zeros": bytes(len(content)),
                "without a size": b'{"format": 2, "state": "completed"}\n' + result,
            }[how]
        )


HARM = ["removed", "cut short", "garbled", "overwritten", "zeros", "without a size", "a folder"]


@pytest.mark.parametrize("how", HARM)
def test_a_damaged_result_is_waited_for_until_it_is_computed_again(client, here, cli, go, how):
    first, blocked = client.submit(SHIFT, bulk("Al"), {"steps": 1}), held(client, go)
    first.result(LONG)
    waits = client.submit(REPORT, first["atoms"], {"x": first["results"]}, after=[blocked])
    fails = client.submit(REPORT, first["atoms"], after=[blocked], on_failure="fail")
    outcome = first.info().work_dir.with_name("1.outcome")
    damage(outcome, how)
    go.touch()
    error = str(fails.exception(LONG))
    assert f"it needs job {first.job_id}: the result of job {first.job_id}" in error
    assert str(outcome) in error
    waited = cli("wait", waits.job_id)
    assert waited.code == 1
    reason = " ".join(waited.err.split())
    assert str(outcome) in reason
    assert f"completes (crystalmath retry {first.job_id[:8]})" in reason
    assert waits.info().held_up_by == first.job_id
    with pytest.raises(CrystalMathError, match=f"; crystalmath retry {first.job_id[:8]} computes"):
        client.submit(REPORT, first["atoms"])
    (again,) = client.retry([first])
    assert waits.result(LONG)["parameters"]["x"] == {"energy": -1.0}
    assert waits.info().parents[0]["taken_from"] == again.job_id


def test_no_job_takes_the_text_of_an_object_for_it(client, here, cli, go):
    first, blocked = client.submit("lab_recipes.opaque", bulk("Al")), held(client, go)
    shown = first.result(LONG)["deep"][0]
    assert shown.keys() == {"type", "text"}
    waits = [
        client.submit(REPORT, bulk("Al"), {"x": part}, after=[blocked])
        for part in (first, first["deep"], first["deep"][0], first["deep"][0]["text"])
    ]
    go.touch()
    for one in waits:
        assert first.job_id in (error := str(one.exception(LONG)))
        assert "is builtins.object, which has no form in JSON" in error
    refused = cli("submit", REPORT, f"job:{blocked.job_id}@0", "--param", f"x=job:{first.job_id}:")
    assert refused.code == 1
    assert "['deep'][0]" in refused.err
    number = client.submit(REPORT, bulk("Al"), {"x": first["number"]})
    assert number.result(LONG)["parameters"] == {"x": 1}


def test_a_job_is_named_by_filters(client, here, cli):
    first = client.submit(SHIFT, bulk("Al"), labels={"step": "named", "of": "a"})
    second = client.submit(SHIFT, bulk("Cu"), labels={"step": "named", "of": "b"}, name="Cu")
    told = cli("submit", REPORT, "job:label step=named label of=b", "--json")
    assert told.code == 0, told.err
    info = client.job(told.json["job_id"])
    assert (info.name, info.parents[0]["job_id"]) == ("Cu", second.job_id)
    named = Reference({"labels": {"step": "named", "of": "b"}}, ("atoms",))
    assert client.submit(REPORT, named).info().parents[0]["job_id"] == second.job_id
    for text in ("job:label step=named", "job:label step=nobody"):
        refused = cli("submit", REPORT, text, "--json")
        assert refused.code == 1
    value = cli(
        "submit", REPORT, f"job:{first.job_id}", "--param", "x=job:label of=b:results.energy"
    )
    assert client.future(value.out.strip()).result(LONG)["parameters"] == {"x": -1.0}


def test_a_chain_at_a_shell(client, here, cli):
    write("metals.extxyz", [bulk("Al"), bulk("Cu")])
    command = (
        *("chain", "metals.extxyz", "--step", f"shift={SHIFT}:steps=2", "--step", f"next={SHIFT}"),
        *("--step", f"told={REPORT}:energy=@shift:results.energy,word='@next'"),
        *("--label", "project=chain", "--key", "c", "--json"),
    )
    first = cli(*command)
    assert first.code == 0, first.err
    jobs = first.json["jobs"]
    steps = [
        f"{name} {step}" for name in ("metals-0", "metals-1") for step in ("shift", "next", "told")
    ]
    assert [f"{job['structure']} {job['step']}" for job in jobs] == steps
    infos = [client.future(job["job_id"]) for job in jobs]
    results = [one.result(LONG) for one in infos]
    assert [one.name for one in infos] == steps
    assert [one.labels["step"] for one in infos[:3]] == ["shift", "next", "told"]
    assert results[2]["parameters"] == {"energy": -1.0, "word": "@next"}
    # Two steps of 0.1 Å and then three; the last gets the geometry of the second.
    moved = results[1]["atoms"].positions[0, 0] - bulk("Al").positions[0, 0]
    assert moved == pytest.approx(0.5)
    assert [one.info().parents[0]["job_id"] for one in infos[1:3]] == [
        jobs[0]["job_id"],
        jobs[1]["job_id"],
    ]
    again = cli(*command)
    assert [job["job_id"] for job in again.json["jobs"]] == [job["job_id"] for job in jobs]
    assert "0 new, 6 there already, whose names and labels stay as they are" in again.err
    write("metals.extxyz", [bulk("Ni"), bulk("Al"), bulk("Cu")])
    grown = cli(*command).json["jobs"]
    assert [job["known"] for job in grown] == [False] * 3 + [True] * 6
    assert [job["job_id"] for job in grown[3:]] == [job["job_id"] for job in jobs]


def test_a_chain_is_submitted_as_a_whole_or_not_at_all(client, here, cli):
    write("Al.extxyz", [bulk("Al"), bulk("Al")])
    count = len(list(client.list()))
    told = cli(
        *("chain", "Al.extxyz", "--step", f"one={SHIFT}", "--step", f"two={SHIFT}:stepz=1"),
        *("--step", f"three={SHIFT}", "--json"),
    )
    assert told.code == 1
    assert [job["job_id"] for job in told.json["jobs"]] == [None] * 6
    one, two, three, *_ = [job["error"] for job in told.json["jobs"]]
    assert "has no parameter 'stepz'" in two
    assert one == three == "not submitted, as 'Al-0 two' was refused"
    told = cli("chain", "Al.extxyz", "--step", f"one={SHIFT}", "--step", f"two={SHIFT}:stepz=1")
    reason, consequence = told.err.splitlines()
    assert "Al-0 two, Al-1 two" in reason
    assert consequence == f"error: Al-0 one, Al-1 one: {one}"
    (chain,) = client.chain([bulk("Al")], {"one": SHIFT, "two": (SHIFT, {"steps": object()})})
    assert [type(error) for error in chain.values()] == [InvalidJob, InvalidJob]
    assert "the step 'two' of structure 0 was refused" in str(chain["one"])
    assert len(list(client.list())) == count
    for words, arguments in {
        "each job is labelled 'step'": ("--step", f"a={SHIFT}", "--label", "step=x"),
        "is given twice": ("--step", f"a={SHIFT}", "--step", f"a={SHIFT}"),
        "Invalid value for --step": ("--step", f"a={SHIFT}:relax_cell"),
    }.items():
        refused = cli("chain", "Al.extxyz", *arguments)
        assert (refused.code, words in refused.err) == (2, True)


def test_jobs_of_a_request_refer_to_those_before_them(client, here):
    first = Submission(recipe=SHIFT, atoms=bulk("Al"), parameters={"steps": 1}, key="first")
    refused = Submission(recipe=SHIFT, atoms=bulk("Al"), parameters={"stepz": 1})
    told = [
        Submission(recipe=SHIFT, atoms="job:#0", parameters={"steps": 1}, key="second"),
        Submission(recipe=REPORT, atoms="job:#-1", parameters={"x": Reference("#-1")["results"]}),
        Submission(recipe=REPORT, atoms=bulk("Al"), after=["#1"]),
        Submission(recipe=SHIFT, atoms="job:#4"),
        Submission(recipe=SHIFT, atoms="job:#9"),
    ]
    jobs = client.submit_many([first, told[0], *told[1:3], refused, *told[3:]])
    assert "not submitted, as number 4 of the request was refused" in str(jobs[5])
    assert "'#9' is no earlier job of the request" in str(jobs[6])
    ids = [job.job_id for job in jobs[:4]]
    assert [one["job_id"] for one in jobs[2].info().parents] == [ids[1], ids[1]]
    assert jobs[3].info().parents[0]["job_id"] == ids[1]
    assert jobs[2].result(LONG)["parameters"]["x"] == {"energy": -1.0}
    moved = jobs[1].result(LONG)["atoms"].positions[0, 0] - bulk("Al").positions[0, 0]
    assert moved == pytest.approx(0.2)
    again = client.submit_many([first, told[0]])
    assert [job.job_id for job in again] == ids[:2]
    with pytest.raises(InvalidJob, match="'#0' is no earlier job of the request: 0 come"):
        client.submit(SHIFT, "job:#0")


def test_a_key_of_another_job_refuses_all_of_a_chain(client, here):
    (told,) = client.chain([bulk("Al")], {"relax": SHIFT}, key="changed")
    told["relax"].result(LONG)
    steps = {"relax": (SHIFT, {"steps": 5}), "static": REPORT}
    (refused,) = client.chain([bulk("Al")], steps, key="changed", labels={"project": "changed"})
    assert type(refused["relax"]).__name__ == "KeyConflict"
    assert "not submitted, as number 0" in str(refused["static"])
    assert not [*client.list(labels={"step": "static", "project": "changed"})]
    # Each on its own: what refers to one that is not recorded is not recorded either.
    asked = [
        Submission(recipe=SHIFT, atoms=bulk("Al"), parameters={"steps": 1}, key="one"),
        Submission(recipe=SHIFT, atoms=bulk("Al"), parameters={"steps": 1}, key="one"),
        Submission(recipe=SHIFT, atoms=bulk("Al"), parameters={"steps": 2}, key="one"),
        Submission(recipe=REPORT, atoms="job:#1", labels={"of": "one"}),
        Submission(recipe=REPORT, atoms="job:#2"),
    ]
    first, same, other, successor, without = client.submit_many(asked)
    assert first.job_id == same.job_id
    assert type(other).__name__ == "KeyConflict"
    assert "number 2 of the request was refused" in str(without)
    assert successor.info().parents[0]["job_id"] == first.job_id
    assert successor.result(LONG)


def test_of_a_chain_with_a_step_too_large_to_be_sent_nothing_is(client, here, monkeypatch):
    monkeypatch.setattr("crystalmath.client.request.LARGEST", 60_000)
    large = bulk("Al") * (16, 16, 16)
    labels = {"project": "large"}
    first, second = client.chain([bulk("Cu"), large], {"a": SHIFT, "b": REPORT}, labels=labels)
    assert "MiB" in str(second["a"])
    assert "not submitted: the step 'a' of structure 1" in str(first["b"])
    assert not [*client.list(labels=labels)]


def test_a_chain_from_python(client, here):
    steps = {
        "shift": (SHIFT, {"steps": 1}),
        "bare": (
            "lab_recipes.without_structure",
            {"number": Reference("shift")["results"]["energy"]},
        ),
        "told": (REPORT, {"number": Reference("bare")["number"]}),
    }
    chains = client.chain([bulk("Al"), bulk("Cu")], steps, labels={"a": "b"}, key="python")
    assert [list(chain) for chain in chains] == [[*steps], [*steps]]
    assert chains[1]["told"].labels == {"a": "b", "step": "told"}
    again = client.chain([bulk("Al"), bulk("Cu")], steps, labels={"a": "b"}, key="python")
    assert [one.job_id for one in again[0].values()] == [one.job_id for one in chains[0].values()]
    assert chains[1]["told"].result(LONG)["symbols"] == ["Cu"]
    assert chains[1]["told"].result()["parameters"] == {"number": -1.0}


def test_a_chain_goes_on_where_the_server_was_killed(lab, alone, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (alone.home / "config.toml").write_text("[engines.local]\nworkers = 2\n")
    write("many.extxyz", [bulk("Al", a=4 + 0.01 * number) for number in range(50)])
    alone.start()
    steps = ("relax", "static", "md")
    told = cli("chain", "many.extxyz", *(f"--step={step}={SHIFT}:steps=1" for step in steps))
    assert told.code == 0, told.err
    assert len(told.out.split()) == 150
    alone.kill()
    alone.start()
    for _ in range(4):  # a busy machine may take its time
        waited = alone.call("jobs.wait", job_ids=told.out.split(), timeout_s=150)
        if waited["done"]:
            break
    assert waited["done"], alone.log()
    assert {job["status"] for job in waited["jobs"]} == {"completed"}
    for number, job_id in enumerate(told.out.split()):
        atoms = final_atoms(alone.call("jobs.result", job_id=job_id)["result"])
        assert atoms.positions[0, 0] == pytest.approx(0.1 * (number % 3 + 1))


@pytest.mark.filterwarnings("default")  # quacc's own are no concern of ours
def test_calls_within_a_recording_are_submissions(client, here, monkeypatch):
    import lab_recipes
    import quacc

    shift, report = quacc.job(lab_recipes.shift), quacc.job(lab_recipes.report)

    @quacc.flow
    def both(atoms, steps):
        return report(shift(atoms, steps=steps)["atoms"], steps=steps)

    @quacc.job
    def local(atoms):
        raise AssertionError

    swapped = quacc.job(lab_recipes.report, settings_swap={"CREATE_UNIQUE_DIR": False})
    # What a flow alone may have is for those among them.
    options = {"labels": {"a": "b"}, "in_one_job": True}
    with client.recording(label={"project": "recorded"}, **options):
        moved = shift(bulk("Al"), steps=1)
        told = report(atoms=moved["atoms"], energy=moved["results"]["energy"])
        of_flow = both(bulk("Cu"), 2)
        for refused in (local, swapped):
            with pytest.raises(InvalidJob, match="no worker can import"):
                refused(bulk("Al"))
        with (
            pytest.raises(CrystalMathError, match="leave that recording before another"),
            client.recording(),
        ):
            raise AssertionError
    assert moved.labels == {"project": "recorded", "a": "b"}
    assert told.result(LONG)["parameters"] == {"energy": -1.0}
    assert (of_flow.result(LONG)["symbols"], of_flow.result()["parameters"]) == (
        ["Cu"],
        {"steps": 2},
    )
    # Outside it they are called, as quacc has it.
    assert report(bulk("Al"), x=1)["parameters"] == {"x": 1}
    monkeypatch.setattr(quacc.get_settings(), "WORKFLOW_ENGINE", "dask")
    with pytest.raises(CrystalMathError, match="set QUACC_WORKFLOW_ENGINE=None"):
        client.recording().__enter__()


def test_what_stays_together_counts_with_its_whole_size(monkeypatch):
    monkeypatch.setattr(request_module, "MOST_BYTES", 1000)
    asked = [(name, {"x": "y" * size}) for name, size in enumerate((300, 10, 10, 900, 100, 100))]
    batches = request_module.batched(asked, together=2)
    assert [[name for name, _ in batch] for batch in batches] == [[0, 1], [2, 3], [4, 5]]
