"""Jobs that are run again: command line, client and wire."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import ase.io
import pytest
from ase.build import bulk

from conftest import NOBODY, eventually
from crystalmath.client import JobFailed
from crystalmath.errors import InvalidJob, UnknownJob
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.models import JobState, Resources
from crystalmath.submitting.retrying import LabelValues, updated_names

# Commands ask that server, too.
pytestmark = [pytest.mark.server, pytest.mark.usefixtures("home_server", "folders_stay")]

LONG = 300
AL = bulk("Al")


@pytest.fixture(scope="module")
def one_home(one_home):
    """Have that home know a cluster whose engine is not installed."""
    config = one_home.home / "config.toml"
    config.write_text(f'{config.read_text()}\n[clusters.there]\nengine = "none-such"\n')
    return one_home


@pytest.fixture(scope="module")
def client(light_client):
    """Ask a server that the tests of this module share."""
    return light_client


def failing(client, *messages, **terms):
    """Return jobs that have failed, each with its message."""
    recipe = "lab_recipes.fail"
    jobs = [client.submit(recipe, AL, {"message": message}, **terms) for message in messages]
    for job in jobs:
        with pytest.raises(JobFailed):
            job.result(LONG)
    return jobs


def header(client, job_id):
    """Read what its run directory says of a job, its environment among it."""
    directory = RunDirectory(client.job(job_id).work_dir.parent)
    eventually(lambda: directory.has("spec"))
    return directory.read_header()


def test_all_stays_the_same_but_for_what_is_changed(client, cli):
    terms = {"name": "a", "labels": {"set": "same", "x": "1"}, "walltime_s": 600, "priority": 3}
    asked = {"number": {"a": [1, 2], "b": {"c": 1, "d": "PBE"}}}
    environment = {"QUACC_OF_THE_TEST": "then"}
    old = client.submit(
        "lab_recipes.value",
        f"job:{client.submit('lab_recipes.shift', AL).job_id}@0",
        asked,
        key="once",
        environment=environment,
        resources={"cores_per_rank": 1},
        **terms,
    )
    old.result(LONG)
    answer = cli("retry", old.job_id[:8], "--param", "number.b.c=2", "--priority", 5, "--json")
    (told,) = answer.json["jobs"]
    assert (answer.code, told["status"], told["retry_of"]) == (0, "pending", old.job_id)
    new = client.future(told["job_id"])
    assert new.result(LONG) == {"a": [1, 2], "b": {"c": 2, "d": "PBE"}}
    before, after = old.info(), new.info()
    for name in ("name", "labels", "walltime_s", "resources", "recipe", "engine", "cluster"):
        assert getattr(after, name) == getattr(before, name), name
    assert after.key.endswith(f"/{old.job_id}")  # the request's own
    assert after.priority == 5
    assert after.parents == [*before.parents, {"job_id": old.job_id, "role": "retry"}]
    given = client.specification(old.job_id), client.specification(new.job_id)
    assert given[0]["structure"] == given[1]["structure"]
    assert given[1]["parents"] == after.parents
    # Of two parents each is named once.
    assert cli("show", new.job_id).out.count(f"{old.job_id} (a retry of it)") == 1
    told = [header(client, job.job_id)["environment"] for job in (old, new)]
    assert told[0] == told[1]
    assert told[1].items() >= {**environment, "OMP_NUM_THREADS": "1"}.items()
    shown = " ".join(cli("status", new.job_id).out.split())
    assert f"{old.job_id} (a retry of it)" in shown


def test_other_resources_are_told_to_the_programs_anew(client):
    environment = {"QUACC_VASP_PARALLEL_CMD": "mpirun -np {ranks}"}
    resources = {"ranks": 1, "cores_per_rank": 2}
    old = client.submit("lab_recipes.value", AL, environment=environment, resources=resources)
    old.result(LONG)
    before = header(client, old.job_id)["environment"]
    assert (before["QUACC_VASP_PARALLEL_CMD"], before["OMP_NUM_THREADS"]) == ("mpirun -np 1", "2")
    (new,) = client.retry(old, resources={"ranks": 2, "cores_per_rank": 1}, walltime_s=60)
    after = header(client, new.job_id)["environment"]
    assert (after["QUACC_VASP_PARALLEL_CMD"], after["OMP_NUM_THREADS"]) == ("mpirun -np 2", "1")
    assert new.info().resources.given() == {"ranks": 2, "cores_per_rank": 1}
    assert new.info().walltime_s == 60
    (refused,) = client.retry(old, resources={"ranks": 100_000})
    assert isinstance(refused, InvalidJob)
    assert "cannot honour 100000 ranks" in str(refused)


def test_labels_and_name_of_a_sweep_tell_what_is_changed(client, cli):
    structure = f"job:{client.submit('lab_recipes.value', AL).job_id}@0"
    options = ("--name", "conv ranks=1", "--label", "number.b=mine", "--param", "number.b=1")
    swept = ("ranks=1", "number.a=[0.2, 0.25]", 'number.c=["x", "y z"]')
    sweeps = [word for text in swept for word in ("--sweep", text)]
    ids = cli("submit", "lab_recipes.value", structure, *options, *sweeps).lines
    last = client.future(ids[-1])
    labels = {"ranks": "1", "number.a": "0.25", "number.c": "y z", "number.b": "mine"}
    assert (last.labels, last.name) == (labels, "conv ranks=1 ranks=1 number.a=0.25 number.c=y z")
    for job_id in ids:
        client.future(job_id).result(LONG)
    changed = ("--param", "number.a=0.125", "--param", "number.b=2", "--ranks", 2)
    new = client.future(cli("retry", last.job_id, *changed).lines[0])
    assert new.result(LONG) == {"a": 0.125, "b": 2, "c": "y z"}
    assert new.labels == {**labels, "ranks": "2", "number.a": "0.125"}
    assert new.name == "conv ranks=2 ranks=2 number.a=0.125 number.c=y z"
    (series,) = client.sweep([ids[0], last.job_id, new.job_id], "number.a", "a").series
    assert list(series.x) == list(series.y) == [0.125, 0.2, 0.25]
    # What is no value any more, and what can be no label, are told by nothing.
    (third,) = client.retry(new, {"number": {"a": {"of": 1}, "c": "y\n"}})
    assert third.labels == {"ranks": "2", "number.a": '{"of":1}', "number.b": "mine"}
    assert third.name == 'conv ranks=2 ranks=2 number.a={"of":1}'
    third.result(LONG)
    (fourth,) = client.retry(third, {"number": 5})
    assert (fourth.labels, fourth.name) == (
        {"ranks": "2", "number.b": "mine"},
        "conv ranks=2 ranks=2",
    )
    assert fourth.result(LONG) == 5


def test_the_command_line_and_python_make_the_same_keys(client, cli, tmp_path):
    file = tmp_path / "all.extxyz"
    ase.io.write(file, [bulk("Al", a=4.0), bulk("Al", a=4.1), bulk("Cu")])
    structures = ase.io.read(file, ":")
    assert client.map("lab_recipes.value", structures, {"number": 4}, key="same") == [4, 4, 4]
    answer = cli("submit", "lab_recipes.value", file, "--param", "number=4", "--key", "same")
    made = {job.job_id for job in client.list() if (job.key or "").startswith("same/")}
    assert set(answer.lines) == made, answer.err
    assert len(made) == 3
    (told,) = client.chain([structures[2]], {"value": "lab_recipes.value"}, key="chained")
    step = ("--step", "value=lab_recipes.value")
    answer = cli("chain", f"{file}@2", *step, "--key", "chained")
    assert answer.lines == [told["value"].job_id], answer.err


def test_a_label_of_memory_is_read_as_it_was_written():
    before, now = (
        LabelValues({}, Resources(memory_mb=mb, cores_per_rank=2)) for mb in (4096, 6144)
    )
    for label, told in {"4GB": "6GB", "4096 mb": "6GB", "4096": "6GB", "5GB": "5GB"}.items():
        labels = {"memory": label, "cores": "2"}
        name, labels = updated_names(f"memory={label} cores=2", labels, before, now)
        assert (name, labels) == (f"memory={told} cores=2", {"memory": told, "cores": "2"})


def test_the_failed_ones_by_their_error(client, cli):
    labels = {"set": "alloys"}
    mended = failing(client, "did not converge", "it did NOT converge at all", labels=labels)
    other = failing(client, "no POTCAR", labels=labels)
    good = client.submit("lab_recipes.value", AL, labels=labels)
    good.result(LONG)
    filters = ("--label", "set=alloys", "--error", "not converge")
    rehearsed = cli("retry", *filters, "--dry-run")
    assert (rehearsed.code, rehearsed.out) == (0, "")
    assert "2 would be run again" in rehearsed.err
    assert "error" not in rehearsed.err
    wanted = {"labels": labels, "error": "not converge"}
    assert client.retry(filters=wanted, dry_run=True) == [None, None]
    (refused,) = client.retry(mended[0], {"none_such": 1}, dry_run=True)
    assert isinstance(refused, InvalidJob)
    assert sum(client.totals(labels=labels).values()) == 4
    answer = cli("retry", *filters, "--param", "message=still")
    assert answer.code == 0, answer.err
    assert "2 are run again" in answer.err
    new = [client.future(job_id) for job_id in answer.lines]
    assert [job.info().parents[0]["job_id"] for job in new] == [job.job_id for job in mended]
    assert all("still" in str(job.exception(LONG)) for job in new)
    # What was run again is passed over from then on, and what came of it is not.
    again = cli("retry", "--label", "set=alloys", "--state", "failed", "--dry-run", "--json")
    told = {job["retry_of"]: job for job in again.json["jobs"]}
    assert again.code == 0
    assert {job_id for job_id, job in told.items() if job["status"] == "ok"} == {
        *(job.job_id for job in new), *(job.job_id for job in other)
    }  # fmt: skip
    for old, by in zip(mended, new, strict=True):
        assert told[old.job_id]["code"] == "retried"
        assert f"as job {by.job_id} (failed)" in told[old.job_id]["error"]
    assert cli("retry", "--label", "set=alloys", "--dry-run").err.endswith(
        "3 would be run again, 2 were run again before, and are passed over\n"
    )
    # Whoever names one means it.
    assert cli("retry", mended[0].job_id, "--dry-run").code == 0


def shown(client, labels, **filters):
    """Tell which jobs lists, counts, groups, facets and curves show, each by its own request."""
    listed = list(client.list(labels=labels, **filters))
    ids = {job.job_id for job in listed}
    states = Counter(job.state.value for job in listed)
    assert client.totals(labels=labels, **filters) == states
    counted = client.ask("jobs.summary", labels=labels, **filters)
    assert {name: count for name, count in counted["states"].items() if count} == states
    failed = {job.job_id for job in listed if job.state is JobState.FAILED}
    assert {each for group in counted["errors"] for each in group["job_ids"]} == failed
    facets = client.ask("jobs.facets", labels=labels, **filters)["facets"]
    assert {one["value"]: one["count"] for one in facets[0]["values"]} == states
    over_time = client.ask("jobs.counts", labels=labels, **filters)["states"]
    assert sum(over_time.values()) == len(ids)
    assert set(client.table(labels=labels, **filters)["job_id"]) == ids
    return ids


def test_the_latest_try_stands_for_all(client, cli, tmp_path):
    labels, option = {"set": "superseded"}, ("--label", "set=superseded")
    mended, broken = failing(client, "mended", "broken", labels=labels, key=None)
    assert shown(client, labels) == {mended.job_id, broken.job_id}
    missing = tmp_path / "file"
    command = {"command": ["cat", str(missing)]}
    cat = client.submit("lab_recipes.run_command", AL, command, labels=labels, key="cat")
    assert cat.exception(LONG) is not None
    assert shown(client, labels) == {mended.job_id, broken.job_id, cat.job_id}
    (second,) = client.retry(cat)
    assert second.exception(LONG) is not None  # and yet it is the one that counts
    assert shown(client, labels) == {mended.job_id, broken.job_id, second.job_id}
    missing.touch()
    (third,) = client.retry(second)
    third.result(LONG)
    left = {mended.job_id, broken.job_id, third.job_id}
    every = left | {cat.job_id, second.job_id}
    assert shown(client, labels) == left
    assert shown(client, labels, all_tries=True) == every
    assert shown(client, labels, state="failed") == {mended.job_id, broken.job_id}
    # Each names its direct successor, and stays what it was.
    assert [job.info().superseded_by for job in (cat, second, third)] == [
        second.job_id, third.job_id, None
    ]  # fmt: skip
    assert client.ask("jobs.status", job_id=cat.job_id)["status"] == "failed"
    assert client.ask("jobs.status", job_id=cat.job_id)["superseded_by"] == second.job_id
    # An id, and a key, mean their job.
    (by_key,), (by_id,) = client.list(key="cat"), client.list(prefix=cat.job_id[:9])
    assert by_key.job_id == by_id.job_id == cat.job_id
    failures = client.ask("system.status")["failures"]
    assert not {cat.job_id, second.job_id} & {one["job_id"] for one in failures}

    listed = cli("list", *option, "--columns", "job_id,superseded_by", "--all-tries", "--csv").lines
    assert f"{cat.job_id},{second.job_id}" in listed
    assert len(listed) == 1 + len(every)
    assert len(cli("list", *option, "--columns", "job_id", "--csv").lines) == 1 + len(left)
    assert "SUPERSEDED BY" not in cli("list", *option).out
    assert f"{cat.job_id[:8]}  {second.job_id[:8]}" in cli("list", *option, "--all-tries").out
    assert cli("list", *option, "--summary").out.startswith("       1 completed\n       2 failed\n")
    assert f"superseded by  {second.job_id}" in cli("status", cat.job_id).out
    named = cli("export", tmp_path / "named.csv", cat.job_id, *option)
    assert "1 job written" in named.err
    assert "3 jobs written" in cli("export", tmp_path / "left.csv", *option).err
    assert "5 jobs written" in cli("export", tmp_path / "all.csv", *option, "--all-tries").err
    # It only widens a choice.
    assert cli("cancel", "--all-tries").code == 2


def test_wait_tells_those_that_failed_alike_in_one_line(client, cli):
    labels, wait = {"set": "waited alike"}, ("wait", "--label", "set=waited alike")
    same = failing(client, *["did not converge"] * 6, labels=labels)
    (other,) = failing(client, "no POTCAR", labels=labels)
    lines = cli(*wait).err.splitlines()
    assert len(lines) == 4
    assert any(line.startswith("6 failed (") and "and 3 more): " in line for line in lines)
    assert any(line.startswith(f"{other.job_id[:8]} failed: ") for line in lines)
    assert sum(job.job_id[:8] in lines[0] + lines[1] for job in same) == 3
    # While it waits it says at once what is new, and at the end how often it was.
    command = {"command": ["sh", "-c", 'sleep "$QUACC_SLEEP"; exit 3']}
    slow = [
        client.submit(
            "lab_recipes.run_command", AL, command, labels=labels, environment={"QUACC_SLEEP": text}
        )
        for text in ("1", "1", "2")
    ]
    told = cli(*wait).err
    assert "3 failed (" in told
    assert told.count("exit 3") <= 2
    for job in slow:
        assert job.exception(LONG) is not None


def test_wait_counts_a_retry_in_place_of_its_job(client, cli, tmp_path):
    labels, wait = {"set": "waited"}, ("wait", "--label", "set=waited")
    missing = tmp_path / "file"
    old = client.submit(
        "lab_recipes.run_command", AL, {"command": ["cat", str(missing)]}, labels=labels
    )
    assert cli(*wait).code == 1
    (failed,) = client.retry(old)
    answer = cli(*wait)
    assert (answer.code, f"result {failed.job_id[:8]}" in answer.err) == (1, True)
    missing.touch()
    (good,) = client.retry(failed)
    answer = cli(*wait, "--json")
    assert answer.code == 0, answer.err
    assert "failed: " not in answer.err
    assert [job["job_id"] for job in answer.json["jobs"]] == [good.job_id]
    assert client.ask("jobs.wait", labels=labels)["jobs"] == [good.info().document()]
    assert cli(*wait, "--all-tries").code == 1
    # Whoever names a job means it.
    assert cli("wait", old.job_id, good.job_id).code == 1
    client.submit("lab_recipes.fail", AL, {"message": "alone"}, labels=labels)
    assert cli(*wait).code == 1


def retries_of(client, labels):
    """Tell what the jobs with these labels are retries of, each as often as it was run again."""
    jobs = client.list(labels=labels)
    return sorted(each["job_id"] for job in jobs for each in job.parents if each["role"] == "retry")


def test_those_who_retry_at_once_make_one_job_of_each(client):
    labels = {"set": "raced"}
    olds = failing(client, "a", "b", labels=labels)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(client.retry, filters={"labels": labels}) for _ in range(4)]
        made = [job.job_id for one in asked for job in one.result()]
    ids = sorted(job.job_id for job in olds)
    # What came of them may have failed meanwhile, and fit the filters of the last to ask.
    assert [one for one in retries_of(client, labels) if one in ids] == ids
    assert len(retries_of(client, labels)) == len(set(made)) == len(made)


def test_the_same_key_again_gives_the_same_new_jobs(client, cli):
    labels = {"set": "keyed"}
    olds = [job.job_id for job in failing(client, "a", "b", labels=labels)]
    asked = {"key": "once more", "filters": {"labels": labels}}
    first = client.call("jobs.retry", asked)["jobs"]
    for job in first:  # they fit the filters, too
        assert client.future(job["job_id"]).exception(LONG) is not None
    for again in (
        asked,
        {"key": "once more", "job_ids": olds},  # whose answer was lost, and who names them now
    ):
        told = client.call("jobs.retry", again)["jobs"]
        assert [job["job_id"] for job in told] == [job["job_id"] for job in first]
        assert [job["known"] for job in told] == [True, True]
    assert [job["known"] for job in first] == [False, False]
    other = client.call("jobs.retry", {**asked, "params": {"message": "other"}})["jobs"]
    assert [job["code"] for job in other] == ["key_conflict"] * 2
    assert retries_of(client, labels) == sorted(olds)
    one = cli("retry", olds[0], "--key", "mine").lines
    assert cli("retry", olds[0], "--key", "mine").lines == one != []
    assert retries_of(client, labels) == sorted([*olds, olds[0]])
    passed = client.call("jobs.retry", {**asked, "key": "another"})["jobs"]
    assert [job["code"] for job in passed if job["retry_of"] in olds] == ["retried"] * 2


def test_each_that_cannot_is_told_with_the_reason(client, cli, go):
    good = client.submit("lab_recipes.value", AL, name="good")
    good.result(LONG)
    waiting = client.submit("lab_recipes.wait_for", AL, {"path": str(go)}, name="waits")
    before = sum(client.totals().values())
    answer = cli("retry", waiting.job_id, good.job_id, NOBODY, "zz", "--param", "numbr=2")
    assert (answer.code, answer.out) == (1, "")
    assert "error: waits: the job is" in answer.err
    assert "can run again once it has ended" in answer.err
    assert "error: good: " in answer.err
    assert "numbr" in answer.err
    assert f"no job has the id '{NOBODY}'" in answer.err
    assert "no job has the id 'zz'" in answer.err
    assert "0 are run again, 4 cannot be" in answer.err
    assert sum(client.totals().values()) == before
    go.touch()
    waiting.result(LONG)
    accepted, unknown = client.retry([good, NOBODY], {"number": 5})
    assert accepted.result(LONG) == 5
    assert isinstance(unknown, UnknownJob)


def test_many_refusals_that_are_alike_are_told_once(client, cli):
    failing(client, *"abcde", labels={"set": "alike"})
    answer = cli("retry", "--label", "set=alike", "--param", "mesage=x")
    assert answer.code == 1
    assert answer.err.count("mesage") <= 2
    assert "and 2 more: " in answer.err
    assert "0 are run again, 5 cannot be" in answer.err


def test_a_cluster_of_the_configuration_file_has_its_engine(client):
    job = client.submit("lab_recipes.value", AL)
    job.result(LONG)
    for changes, words in {
        ("cluster", "there"): "none-such",
        ("cluster", "nowhere"): "has no cluster 'nowhere'",
        ("engine", "nextflow"): "nextflow",
    }.items():
        (refused,) = client.retry(job, **dict([changes]))
        assert words in str(refused)
    (new,) = client.retry(job, engine="local", cluster="local")
    assert new.result(LONG) == 1


def test_a_job_that_a_filter_finds_in_python(client):
    (old,) = failing(client, "once", labels={"set": "python"})
    (new,) = client.retry(filters={"labels": {"set": "python"}}, parameters={"message": "twice"})
    assert "twice" in str(new.exception(LONG))
    assert new.labels == {"set": "python"}
    assert new.info().parents == [{"job_id": old.job_id, "role": "retry"}]
    assert client.retry(filters={"labels": {"set": "none such"}}) == []
    cancelled = client.submit("lab_recipes.long_sleep", AL, labels={"set": "stopped"})
    assert cancelled.cancel()
    (third,) = client.retry(filters={"labels": {"set": "stopped"}}, parameters={"seconds": 0})
    third.result(LONG)
    assert third.info().state is JobState.COMPLETED


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "name jobs, or choose them"),
        (("--state", "done"), "'done' is not a state"),
        (("a", "--param", "x"), "write KEY=VALUE"),
    ],
)
def test_wrong_usage(cli, arguments, words):
    answer = cli("retry", *arguments, "--json")
    assert answer.code == 2
    assert words in answer.json["error"]


def test_filters_that_nothing_fits(client, cli):
    answer = cli("retry", "--label", "set=none", "--error", "x")
    assert (answer.code, answer.out) == (1, "")
    told = "error: there is no failed or cancelled job labelled set=none that fits --error\n"
    assert answer.err == told
    written = cli("retry", "--label", "set=none", "--error", "x", "--json")
    assert (written.code, written.err) == (1, told)
    error = told.removeprefix("error: ").rstrip()
    assert written.json == {
        "jobs": [],
        "job_id": None,
        "status": "error",
        "code": "none_fits",
        "error": error,
    }
    for command in ("wait", "cancel"):
        assert cli(command, "--label", "set=none", "--json").json["code"] == "none_fits"


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({}, "either 'job_ids' or 'filters'"),
        ({"job_ids": [], "filters": {}}, "either 'job_ids' or 'filters'"),
        ({"filters": {"labels": {}}}, "nothing says which jobs are to run again"),
        ({"job_ids": [NOBODY], "recipe": "x"}, "'recipe' is not a known parameter"),
        ({"filters": {"lable": "x"}}, "did you mean"),
        ({"job_ids": [NOBODY], "params": {"x": {"@module": "os", "@class": "x"}}}, "os"),
    ],
)
def test_what_the_wire_does_not_take(client, params, words):
    answer = client.call("jobs.retry", params)
    assert answer["jobs"] == []
    assert words in answer["error"]


def test_a_parameter_that_json_has_no_form_for(client):
    job = client.submit("lab_recipes.report", AL, {"kpts": (1, 2, 3)})
    job.result(LONG)
    (new,) = client.retry(job, {"more": (4, 5)})
    asked = json.loads(json.dumps(client.specification(new.job_id)["params"]))
    assert asked["kpts"]["@class"] == asked["more"]["@class"] == "tuple"


def test_the_whole_story(client, cli):
    (old,) = failing(client, "in vain", name="first", labels={"set": "story"})
    (new,) = client.retry(old, {"message": "again in vain"})
    assert new.exception(LONG) is not None
    told = client.ask("jobs.show", job_id=old.job_id)
    assert told["job"] == old.info().document()
    assert (told["params"], told["potcars"], told["parents"]) == ({"message": "in vain"}, [], [])
    relative = {"name": "first", "recipe": "lab_recipes.fail", "status": "failed", "role": "retry"}
    assert told["children"] == [{"job_id": new.job_id, **relative}]
    (attempt,) = told["attempts"]
    assert (attempt["attempt"], attempt["outcome"]) == (1, "failed")
    assert attempt["host"]
    assert "in vain" in attempt["error"]
    assert attempt["work_dir"] == str(old.info().work_dir)
    steps = [(event["from"], event["to"], event["reason"]) for event in told["events"]]
    assert steps[0] == (None, "pending", "submitted")
    assert steps[-2][:2] == ("running", "failed")
    assert steps[-1] == ("failed", "failed", f"superseded by job {new.job_id}")
    assert client.ask("jobs.show", job_id=new.job_id)["parents"] == [
        {"job_id": old.job_id, **relative}
    ]
    shown = " ".join(cli("show", old.job_id[:8]).out.split())
    assert f"led to {new.job_id} (a retry of it): first, lab_recipes.fail, failed" in shown
    assert f"attempts 1 on {attempt['host']}, process {attempt['pid']}, failed: " in shown
    assert " pending: submitted " in shown
    assert cli("show", new.job_id, "--json").json["parents"][0]["job_id"] == old.job_id
    unknown = cli("show", NOBODY, "--json")
    assert (unknown.code, unknown.json["job"], unknown.json["code"]) == (1, None, "unknown_job")


def test_the_story_of_a_job_whose_claim_cannot_be_read(client):
    (job,) = failing(client, "in vain")
    claim = job.info().work_dir.parent / "1.claim"
    claim.rename(claim.with_name("aside"))
    claim.mkdir()  # what can be opened, and not read, also by root
    (attempt,) = client.ask("jobs.show", job_id=job.job_id)["attempts"]
    assert "Is a directory" in attempt["error"]
