"""Jobs that leave their home: as a script, as a folder, and as an archive for another home."""

import ast
import contextlib
import errno
import gzip
import json
import os
import socket
import stat
import sys
import tempfile
import zipfile
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk
from ase.constraints import FixAtoms
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from commands import ran
from conftest import LAB
from crystalmath.archive.script import python_script
from crystalmath.client import JobFailed, in_process
from crystalmath.client.request import ask_again
from crystalmath.errors import FilesRemoved, InvalidJob, StoreError
from crystalmath.jobs.changes import Change
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.models import JobState
from crystalmath.quacc.store import JobStore
from rundirs import new_job

pytestmark = pytest.mark.server

AL = bulk("Al", a=4.1, cubic=True)
AL.rattle(0.05, seed=1)
AL.set_tags([1, 2, 3, 4])
AL.set_constraint(FixAtoms([0]))
LABELS = {"project": "travel"}
RECIPE = "quacc.recipes.emt.core.relax_job"


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """Yield a client of a home whose jobs run in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRYSTALMATH_HOME", str(tmp_path_factory.mktemp("first")))
        patch.setenv("CRYSTALMATH_RECIPES", "lab_recipes")
        patch.syspath_prepend(LAB)
        with in_process() as client:
            yield client


@pytest.fixture(scope="module")
def relaxed(client):
    """Return a job that has completed."""
    asked = {"opt_params": {"fmax": 0.02, "optimizer": "FIRE"}, "asap_cutoff": True}
    job = client.submit(
        "emt.core.relax_job",
        AL,
        asked,
        name="Al",
        labels=LABELS,
        key="once",
        environment={**os.environ, "QUACC_OF_THE_TEST": "secret"},
    )
    job.result(300)
    return job


@pytest.fixture
def here(client, monkeypatch):
    """Have commands ask about that home."""
    monkeypatch.setenv("CRYSTALMATH_HOME", client.ask("system.version")["home"])


@pytest.fixture
def archive(client, relaxed, tmp_path):
    file = tmp_path / "jobs.zip"
    assert client.archive(file, labels=LABELS) == 1
    return file


def test_a_script_computes_the_same_with_quacc_alone(client, relaxed, here, cli, tmp_path):
    answer = cli("export", relaxed.job_id[:8], "--script")
    assert answer.code == 0, answer.err
    assert answer.out == client.script(relaxed.job_id)
    assert "crystalmath" not in answer.out
    folder = tmp_path / "out"
    assert cli("export", relaxed.job_id, "--inputs", folder).code == 0
    # A machine that is slow tells no parameters of the calculator, which no program would read.
    assert {path.name for path in folder.iterdir()} - {"parameters.json"} == {"run.py"}
    assert (folder / "run.py").read_text() == answer.out
    # Nothing of ours is there to be imported.
    plain = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = ran(sys.executable, "-I", "run.py", cwd=folder, env=plain)
    assert done.returncode == 0, done.stderr
    energy = client.job(relaxed.job_id).summary["energy_ev"]
    assert float(done.stdout.split()[-2]) == pytest.approx(energy, abs=1e-9)
    assert cli("export", relaxed.job_id, "--inputs", folder).code == 1


HOSTILE_NAMES = st.one_of(
    st.text(),
    st.sampled_from(
        [
            "os.system",
            f"os import system as s; s('touch x'); from {RECIPE}",
            f'{RECIPE}\n"""\nimport os',
            f"{RECIPE}\u2028import os",
            "quacc.recipes.../../x",
            "quacc.recipes.emt.core.__class__",
            "quacc.recipes.emt.core.Path",  # which that module may import
        ]
    ),
)
HOSTILE_TEXTS = st.text(alphabet="'\"\\;\n\r#{}\u2028\u2029\x85ax", max_size=12)


@given(name=HOSTILE_NAMES)
def test_a_script_names_only_recipes_that_exist(relaxed, client, name):
    """A name may have come by ways that no submission goes, as `doctor --rebuild`."""
    job = evolve(client.job(relaxed.job_id), recipe=name)
    with pytest.raises(InvalidJob):
        python_script(job, '{}\n{"atoms": null, "parameters": {}}')


@given(values=st.dictionaries(HOSTILE_TEXTS, HOSTILE_TEXTS | st.lists(HOSTILE_TEXTS), max_size=3))
def test_values_in_a_script_are_nothing_but_data(relaxed, client, values):
    header = json.dumps({"environment": {f"QUACC_{name}": str(values[name]) for name in values}})
    body = json.dumps({"atoms": None, "parameters": values})
    script = python_script(client.job(relaxed.job_id), f"{header}\n{body}")
    told = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(script).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    assert told["parameters"] == values
    assert told["SETTINGS"] == json.loads(header)["environment"]
    bare = python_script(client.job(relaxed.job_id), '{}\n{"atoms": null, "parameters": {}}')
    assert shape(script) == shape(bare)


def test_a_script_of_a_flow_has_what_is_other_for_its_steps(relaxed, client):
    def script(by_step, parameters):
        header, body = {"by_step": by_step}, {"atoms": None, "parameters": parameters}
        return python_script(flow, f"{json.dumps(header)}\n{json.dumps(body)}")

    flow = evolve(client.job(relaxed.job_id), recipe="quacc.recipes.emt.slabs.bulk_to_slabs_flow")
    before = {"job_params": {"relax_job": {"opt_params": {"max_steps": 6, "fmax": 0.1}}}}
    changed = {"params": {"opt_params": {"max_steps": 100}}}
    text = script({"relax_job": changed, "static_job": {"walltime_s": 60.0}}, before)
    (told,) = (
        ast.literal_eval(node.value)
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "parameters"
    )
    assert told == {"job_params": {"relax_job": {"opt_params": {"max_steps": 100, "fmax": 0.1}}}}
    with pytest.raises(InvalidJob, match=r"the changed terms of some steps \(relax_\*\)"):
        script({"relax_*": changed}, before)


def shape(script):
    return [type(node) for node in ast.parse(script).body]


def test_another_home_takes_jobs_in(client, relaxed, here, cli, tmp_path, monkeypatch):
    file = tmp_path / "jobs.zip"
    assert cli("export", "--archive", file, "--label", "project=travel").code == 0
    assert b"secret" not in b"".join(
        zipfile.ZipFile(file).read(name) for name in zipfile.ZipFile(file).namelist()
    )
    again = cli("export", "--archive", file, relaxed.job_id)
    assert (again.code, "is there already" in again.err) == (1, True)
    first = client.job(relaxed.job_id)
    monkeypatch.setenv("CRYSTALMATH_HOME", str(tmp_path / "second"))
    answer = cli("import", file, "--json")
    told = {"job_ids": [relaxed.job_id], "known": [], "without_key": [], "error": None}
    assert answer.json == told, answer.err
    with in_process() as other:
        taken = other.job(relaxed.job_id)
        for name in ("state", "name", "labels", "recipe", "created_at", "finished_at", "formula"):
            assert getattr(taken, name) == getattr(first, name), name
        assert taken.key == first.key == "once"
        # Who submits it with the key has it, and computes nothing.
        same = client.specification(relaxed.job_id)
        asked = {name: same[name] for name in ("recipe", "structure", "params", "labels", "name")}
        known = other.ask("jobs.submit", **asked, key="once", engine=first.engine)
        assert (known["job_id"], known["status"]) == (relaxed.job_id, "completed"), known
        assert taken.summary["energy_ev"] == first.summary["energy_ev"]
        assert other.result(relaxed.job_id)["atoms"] == relaxed.result()["atoms"]
        assert str(taken.work_dir).startswith(str(tmp_path / "second"))
        assert "opt.log.gz" in str(other.files(relaxed.job_id)["files"])
        assert [job.job_id for job in other.list(elements=["Al"])] == [relaxed.job_id]
        spec = other.specification(relaxed.job_id)
        assert spec["params"] == client.specification(relaxed.job_id)["params"]
        # It is as good as one of its own: what was archived can run again.
        assert [
            one["status"] for one in ask_again(other.ask, {}, job_ids=[first.job_id], dry_run=True)
        ] == ["ok"]
        # And travels on.
        other.archive(tmp_path / "third.zip", [relaxed.job_id])
    assert cli("import", tmp_path / "third.zip", "--json").json["known"] == [relaxed.job_id]
    said = cli("import", tmp_path / "third.zip").out
    assert said == "0 jobs taken in; 1 were here already\n"


def test_a_key_that_another_job_has_stays_with_that(client, relaxed, cli, tmp_path, monkeypatch):
    client.archive(tmp_path / "jobs.zip", [relaxed.job_id])
    monkeypatch.setenv("CRYSTALMATH_HOME", str(tmp_path / "second"))
    with in_process() as other:
        own = other.submit("emt.core.static_job", AL, key="once")
        own.result(300)
        taken = other.import_archive(tmp_path / "jobs.zip")
        assert taken["job_ids"] == taken["without_key"] == [relaxed.job_id]
        assert other.job(relaxed.job_id).key is None
        assert other.job(own.job_id).key == "once"
    # Rows are made again from what is in the run directories.
    for file in (tmp_path / "second").glob("jobs.sqlite*"):
        file.unlink()
    assert cli("doctor", "--rebuild", "--json").checks["rebuild"]["state"] == "ok"
    with in_process() as other:
        assert other.job(relaxed.job_id).key is None
        assert other.job(own.job_id).key == "once"


def test_a_superseded_job_is_one_where_its_successor_is(client, cli, tmp_path, monkeypatch):
    old = client.submit("emt.core.relax_job", AL, {"opt_params": {"max_steps": 0}})
    assert old.exception(300) is not None
    (new,) = client.retry(old)
    assert new.exception(300) is not None
    for name, jobs in (("first", [old]), ("second", [new])):
        client.archive(tmp_path / f"{name}.zip", [job.job_id for job in jobs])
    monkeypatch.setenv("CRYSTALMATH_HOME", str(tmp_path / "second"))
    for names in (["first", "second"], ["second", "first"]):
        monkeypatch.setenv("CRYSTALMATH_HOME", str(tmp_path / names[0]))
        with in_process() as other:
            other.import_archive(tmp_path / f"{names[0]}.zip")
            (alone,) = other.list()
            assert alone.superseded_by is None  # nothing stands in for it here
            other.import_archive(tmp_path / f"{names[1]}.zip")
            assert [job.job_id for job in other.list()] == [new.job_id]
            assert other.job(old.job_id).superseded_by == new.job_id
        for file in (tmp_path / names[0]).glob("jobs.sqlite*"):
            file.unlink()
        assert cli("doctor", "--rebuild", "--json").checks["rebuild"]["state"] == "ok"
        with in_process() as other:
            assert [job.job_id for job in other.list()] == [new.job_id]
            assert other.job(old.job_id).superseded_by == new.job_id


def test_a_job_that_waited_for_another_travels_with_it(client, tmp_path, monkeypatch):
    first = client.submit("emt.core.static_job", AL, labels={"of": "chain"})
    second = client.submit("emt.core.static_job", first["atoms"], labels={"of": "chain"})
    assert second.exception(300) is None
    assert client.archive(tmp_path / "chain.zip", labels={"of": "chain"}) == 2
    monkeypatch.setenv("CRYSTALMATH_HOME", str(tmp_path / "second"))
    with in_process() as other:
        taken = other.import_archive(tmp_path / "chain.zip")["job_ids"]
        # As in the home that they come from, the newest is listed first.
        assert [job.job_id for job in other.list()] == [second.job_id, first.job_id]
    assert sorted(taken) == sorted([first.job_id, second.job_id])


def test_a_flow_takes_its_steps_along(client, relaxed, tmp_path, monkeypatch):
    home = client.ask("system.version")["home"]
    with JobStore(f"sqlite:///{home}/jobs.sqlite") as store:
        asked = store.specification(relaxed.job_id).partition("\n")
        flow, step, again = new_job(stage="pass"), new_job(), new_job(stage="pass")
        parents = [{"job_id": flow.job_id, "role": "flow", "step": "relax_job#0"}]
        of_pass = {"flow": {"pass": 2, "asked": {}}}
        taken = {"job_id": step.job_id, "taken_over": True, "counted": True}
        of_again = {"flow": {"pass": 2, "asked": {}, "steps": [taken]}}
        headers: dict[str, Any] = {
            flow.job_id: of_pass,
            step.job_id: {"parents": parents},
            again.job_id: of_again,
        }
        rows = [
            evolve(
                one,
                recipe=RECIPE,
                labels={"of": "flow"},
                parents=headers[one.job_id].get("parents", ()),
                removed="all",
                removed_at=2.0,
                specification="\n".join(
                    [
                        json.dumps(
                            json.loads(asked[0])
                            | {"job_id": one.job_id, "labels": {"of": "flow"}, "key": None}
                            | headers[one.job_id]
                        ),
                        asked[2],
                    ]
                ),
            )
            for one in (flow, step, again)
        ]
        ends = [Change(job_id=one.job_id, state=JobState.COMPLETED, at=2.0) for one in rows]
        store.insert_ended(list(zip(rows, ends, strict=True)))
        store.take_over(again.job_id, [step.job_id, step.job_id])
        store.take_over(again.job_id, [step.job_id, "unknown"])
    # What a flow has taken over from another one goes with it, too.
    assert client.archive(tmp_path / "again.zip", job_ids=[again.job_id]) == 2
    assert client.archive(tmp_path / "jobs.zip", labels={"of": "flow"}) == 3
    # A step that is run again once its flow has ended is no reason to wait with that.
    retry = {"job_id": step.job_id, "role": "retry"}
    unfinished = new_job(recipe=RECIPE, parents=[*parents, retry])
    with JobStore(f"sqlite:///{home}/jobs.sqlite") as store:
        store.insert([unfinished])
        assert client.archive(tmp_path / "meanwhile.zip", labels={"of": "flow"}) == 3
        store.apply([Change(job_id=unfinished.job_id, state=JobState.CANCELLED, at=3.0)])
    monkeypatch.setenv("CRYSTALMATH_HOME", str(tmp_path / "second"))
    with in_process() as other:
        other.import_archive(tmp_path / "jobs.zip")
        for one in (flow, again):
            assert other.job(one.job_id).steps == {"completed": 1}
            assert [job.job_id for job in other.list(parent=one.job_id)] == [step.job_id]
        assert other.export(tmp_path / "steps.jsonl", steps=True) == (3, 0)
    table = (tmp_path / "steps.jsonl").read_text().splitlines()
    assert sorted(str(json.loads(line).get("step")) for line in table) == [
        *("None", "None", "relax_job#0")
    ]


def test_whoever_dies_while_jobs_are_taken_in_leaves_none_to_be_run(
    archive, relaxed, other_home, monkeypatch
):
    with monkeypatch.context() as killed:
        # Whatever is written in a transaction of its own.
        for later in ("apply", "note_removed"):
            killed.setattr(JobStore, later, fail)
        with contextlib.suppress(StoreError):
            other_home.import_archive(archive)
    with JobStore(f"sqlite:///{other_home.ask('system.version')['home']}/jobs.sqlite") as store:
        assert store.unfinished() == []
        assert store.get(relaxed.job_id).state is JobState.COMPLETED


def test_a_failed_job_travels_with_what_is_known_of_it(client, here, cli, tmp_path, monkeypatch):
    job = client.submit("lab_recipes.fail", AL, {"message": "on purpose"}, labels={"of": "failure"})
    error = job.exception(300)
    assert "in fail" in error.traceback
    told = cli("inputs", job.job_id)
    assert told.out == "its steps are not known: RuntimeError: on purpose\n"
    assert client.archive(tmp_path / "failed.zip", labels={"of": "failure"}) == 1
    monkeypatch.setenv("CRYSTALMATH_HOME", str(tmp_path / "second"))
    monkeypatch.setenv("CRYSTALMATH_RECIPES", "lab_recipes")
    with in_process() as other:
        other.import_archive(tmp_path / "failed.zip")
        with pytest.raises(JobFailed) as raised:
            other.result(job.job_id)
        assert raised.value.traceback == error.traceback
        # No process of this machine was it, and its folder was empty.
        assert "1 on a host that is not known, failed" in cli("show", job.job_id).out
        assert Path(cli("path", job.job_id).out.strip()).is_dir()


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_a_job_without_outcome_is_not_run_when_its_row_is_made_again(
    archive, relaxed, cli, tmp_path, monkeypatch, status
):
    ended = in_record(of_job(status=status, error=status))
    file = rewritten(archive, tmp_path, {"1.outcome": lambda _: None, "record.json": ended})
    home = tmp_path / "second"
    monkeypatch.setenv("CRYSTALMATH_HOME", str(home))
    with in_process() as other:
        assert other.import_archive(file)["job_ids"] == [relaxed.job_id]
        assert other.job(relaxed.job_id).state.value == status
        assert "opt.log.gz" in str(other.files(relaxed.job_id)["files"])
        with pytest.raises((JobFailed, CancelledError)):
            other.result(relaxed.job_id)
    for part in home.glob("jobs.sqlite*"):
        part.unlink()
    answer = cli("doctor", "--rebuild", "--json")
    with JobStore(f"sqlite:///{home}/jobs.sqlite") as store:
        assert store.unfinished() == []
        states = [job.state.value for job in store.list()]
        assert states == [status], answer.out


def test_what_was_imported_runs_again_in_this_homes_environment(
    archive, relaxed, other_home, monkeypatch, tmp_path
):
    monkeypatch.setenv("VASP_PP_PATH", str(tmp_path))
    other_home.import_archive(archive)
    (again,) = other_home.retry(relaxed.job_id)
    again.cancel()
    with JobStore(f"sqlite:///{other_home.ask('system.version')['home']}/jobs.sqlite") as store:
        header = json.loads(store.specification(again.job_id).partition("\n")[0])
    assert header["environment"]["VASP_PP_PATH"] == str(tmp_path)
    assert "QUACC_OF_THE_TEST" not in header["environment"]


def test_files_that_cannot_travel_are_named_and_hold_up_nothing(
    client, relaxed, other_home, here, cli, tmp_path, monkeypatch
):
    work = client.job(relaxed.job_id).work_dir
    monkeypatch.chdir(work)  # a socket's path is short
    with contextlib.ExitStack() as later, socket.socket(socket.AF_UNIX) as listening:
        for name in ("pipe", "socket", "back\\slash", "old"):
            later.callback(Path(work, name).unlink)
            if name == "pipe":
                os.mkfifo(name)
            elif name == "socket":
                listening.bind(name)
            else:
                Path(name).write_text(name)
        os.utime("old", (0, 0))
        answer = cli("export", "--archive", tmp_path / "odd.zip", relaxed.job_id, "--json")
        assert answer.code == 0, answer.err
        place = f"{relaxed.job_id}/1.work"
        assert sorted(answer.json["left_out"]) == [
            f"{place}/back\\slash: its name has a backslash",
            f"{place}/pipe: it is no regular file",
            f"{place}/socket: it is no regular file",
        ]
        told = cli("export", "--archive", tmp_path / "again.zip", relaxed.job_id).err
        assert f"left out {place}/pipe" in told
    other_home.import_archive(tmp_path / "odd.zip")
    taken = other_home.job(relaxed.job_id).work_dir
    assert (taken / "old").read_text() == "old"
    assert not {"pipe", "socket"} & {each.name for each in taken.iterdir()}


@pytest.mark.parametrize("meanwhile", [False, True], ids=["", "somebody else was first"])
def test_an_archive_is_written_where_there_are_no_hard_links(
    client, relaxed, tmp_path, monkeypatch, meanwhile
):
    file = tmp_path / "usb.zip"

    def link(_, name, **__):
        if meanwhile:
            Path(name).write_text("mine")
        raise PermissionError(errno.EPERM, "Operation not permitted")

    with monkeypatch.context() as stick:
        stick.setattr(os, "link", link)
        if meanwhile:
            with pytest.raises(InvalidJob, match="is not overwritten"):
                client.archive(file, [relaxed.job_id])
            assert file.read_text() == "mine"
        else:
            assert client.archive(file, [relaxed.job_id]) == 1
            assert zipfile.ZipFile(file).testzip() is None
    assert list(tmp_path.iterdir()) == [file]


def fail(*_):
    raise StoreError("the disk is full")


def test_a_folder_that_cannot_be_read_is_named(client, relaxed, tmp_path, monkeypatch):
    locked = client.job(relaxed.job_id).work_dir / "locked"
    locked.mkdir()
    scandir = os.scandir

    def refusing(place):
        if os.fspath(place).rstrip("/") == str(locked):
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refusing)
    written = client.write_archive(tmp_path / "jobs.zip", [relaxed.job_id])
    assert written["left_out"] == [f"{relaxed.job_id}/1.work/locked/: Permission denied"]
    locked.rmdir()


def test_an_import_that_fails_leaves_nothing_behind(archive, relaxed, other_home, monkeypatch):
    with monkeypatch.context() as full:
        full.setattr(JobStore, "insert_ended", fail)
        refused(other_home, archive, "the disk is full", StoreError)
    assert run_directories(other_home) == []
    assert other_home.import_archive(archive)["job_ids"] == [relaxed.job_id]


def test_the_next_import_takes_what_a_killed_one_has_left(
    archive, relaxed, other_home, monkeypatch
):
    with monkeypatch.context() as killed:
        killed.setattr(JobStore, "insert_ended", fail)
        killed.setattr("crystalmath.archive.importing._take_back", lambda *_: None)
        with pytest.raises(StoreError):
            other_home.import_archive(archive)
    assert run_directories(other_home) == [relaxed.job_id]
    aside = Path(other_home.ask("system.version")["home"], "jobs", ".import.killed")
    Path(aside, relaxed.job_id).mkdir(parents=True)
    taken = other_home.import_archive(archive)
    assert (taken["job_ids"], taken["known"]) == ([relaxed.job_id], [])
    assert other_home.result(relaxed.job_id)["atoms"] == relaxed.result()["atoms"]
    assert not aside.exists()
    # On record, it is no leftover any more: without its row it would be a job of this home.
    place = Path(other_home.ask("system.version")["home"], "jobs", relaxed.job_id)
    assert [each.name for each in place.iterdir() if each.name.startswith(".")] == []


def test_what_is_not_ours_is_not_written_over(archive, relaxed, other_home):
    place = Path(other_home.ask("system.version")["home"], "jobs", relaxed.job_id)
    place.mkdir(parents=True)
    Path(place, "precious").write_text("mine")
    with pytest.raises(InvalidJob, match="its job is not on record; crystalmath doctor --rebuild"):
        other_home.import_archive(archive)
    assert [each.name for each in place.iterdir()] == ["precious"]


def run_directories(other):
    return [each.name for each in Path(other.ask("system.version")["home"], "jobs").glob("[!.]*")]


def test_only_what_has_ended_is_archived(client, tmp_path):
    file = tmp_path / "jobs.zip"
    with pytest.raises(InvalidJob, match="no job that has ended"):
        client.archive(file, labels={"project": "none such"})
    job = client.submit("lab_recipes.wait_for", AL, {"path": str(tmp_path / "go")})
    with pytest.raises(InvalidJob, match="only jobs that have ended are archived"):
        client.archive(file, [job.job_id])
    job.cancel()
    assert list(tmp_path.glob("*.zip")) == []
    assert list(tmp_path.glob(".*")) == []


# --- what is no archive of ours ------------------------------------------------------------------


def link(name):
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


HOSTILE = {
    "a path above": (lambda job: f"{job}/files/../../../evil", b"x", "can be none of a job's"),
    "a whole path": (lambda _: "/tmp/evil", b"x", "can be none of a job's"),
    "another folder": (lambda _: "evil/files/x", b"x", "can be none of a job's"),
    "a link": (lambda job: link(f"{job}/files/1.work/x"), b"/etc/passwd", "is a link"),
    "a POTCAR": (lambda job: f"{job}/files/1.work/POTCAR", b"PAW", "never travels"),
    "an engine's word": (lambda job: f"{job}/files/1.ended", b"{}", "never travels"),
    "a claim": (lambda job: f"{job}/files/1.claim", b"x", "never travels"),
    "the same again": (lambda job: f"{job}/record.json", b"{}", "has a file twice"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_may_be_in_no_archive_is_refused(client, relaxed, archive, other_home, what):
    name, data, said = HOSTILE[what]
    with (
        zipfile.ZipFile(archive, "a") as opened,
        pytest.warns() if "again" in what else contextlib.nullcontext(),
    ):
        opened.writestr(name(relaxed.job_id), data)
    refused(other_home, archive, said)


CHANGED = {
    "a record of another job": ("record.json", '"attempt": 1', '"attempt": "1"', "is damaged"),
    "a later format": ("archive.json", '"format": 1', '"format": 2', "has the format 2"),
}


@pytest.mark.parametrize("what", CHANGED)
def test_what_was_changed_is_refused(client, relaxed, archive, other_home, tmp_path, what):
    end, before, after, said = CHANGED[what]

    def changed(data):
        assert before.encode() in data
        return data.replace(before.encode(), after.encode())

    refused(other_home, rewritten(archive, tmp_path, {end: changed}), said)


def in_record(change):
    """Change what a record tells."""

    def changed(data):
        told = json.loads(data)
        change(told)
        return json.dumps(told)

    return changed


def of_job(**more):
    return lambda told: told["job"].update(more)


def of_summary(**more):
    return lambda told: told["job"]["result"].update(more)


def of_header(**more):
    def change(told):
        header, _, body = told["specification"].partition("\n")
        told["specification"] = f"{json.dumps({**json.loads(header), **more})}\n{body}"

    return change


def with_result(data, change):
    """Write an outcome again with another result, as its worker would have."""
    head, _, payload = data.partition(b"\n")
    told = json.loads(head)
    document = json.loads(gzip.decompress(payload))
    change(document, told)
    return published(told, gzip.compress(json.dumps(document).encode()))


def published(told, payload):
    with tempfile.TemporaryDirectory() as folder:
        directory = RunDirectory(folder)
        own = {"format", "size", "sha256", "text", "index"}
        header = {name: told[name] for name in told if name not in own}
        assert directory.publish(1, header, payload)
        return Path(folder, "1.outcome").read_bytes()


def edited(before, after):
    """Edit an outcome by hand: its result, or its header."""

    def change(data):
        head, _, payload = data.partition(b"\n")
        text = gzip.decompress(payload)
        assert (before in text) != (before in head)
        if before in text:
            payload = gzip.compress(text.replace(before, after))
            head = json.dumps({**json.loads(head), "size": len(payload)}).encode()
        return head.replace(before, after) + b"\n" + payload

    return change


def of_outcome(**more):
    return lambda data: with_result(data, lambda _, told: told.update(more))


def unpacked_much(data):
    told = json.loads(data.partition(b"\n")[0])
    return published(told, gzip.compress(b"[" + b"0," * (40 * 2**20) + b"0]"))


OUTCOMES = {
    "an edited result": (edited(b'"energy":', b'"energy":-999'), "its digest differs"),
    "an edited summary": (edited(b'"energy_ev": ', b'"energy_ev": 9'), "its digest differs"),
    "another summary": (
        lambda data: with_result(data, lambda _, told: told["summary"].update(energy_ev=-999.0)),
        "the summary of job .* differs",
    ),
    "another end": (
        of_outcome(state="failed", error="x"),
        "on record as completed, and .* 'failed'",
    ),
    "no outcome": (lambda _: None, "on record as completed, and .* is not there"),
    "one cut short": (lambda data: data[:-20], "is damaged"),
    "a bomb": (unpacked_much, "when they are unpacked"),
}


@pytest.mark.parametrize("what", OUTCOMES)
def test_an_outcome_that_tells_another_story_is_refused(archive, other_home, tmp_path, what):
    change, said = OUTCOMES[what]
    refused(other_home, rewritten(archive, tmp_path, {"1.outcome": change}), said)


def test_a_job_that_is_said_to_have_failed_has_no_result(archive, other_home, tmp_path):
    failed = in_record(of_job(status="failed", error="no"))
    said = "on record as failed, and .* says 'completed'"
    refused(other_home, rewritten(archive, tmp_path, {"record.json": failed}), said)


def test_a_file_that_unpacks_to_far_more_is_refused(archive, relaxed, other_home):
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr(f"{relaxed.job_id}/files/1.work/WAVECAR", bytes(65 * 2**20))
    refused(other_home, archive, "WAVECAR.* when they are unpacked")


def test_a_file_of_zeros_travels_all_the_same(client, relaxed, other_home, tmp_path):
    zeros = client.job(relaxed.job_id).work_dir / "WAVECAR"
    with zeros.open("wb") as file:
        file.truncate(65 * 2**20)
    try:
        client.archive(tmp_path / "zeros.zip", [relaxed.job_id])
    finally:
        zeros.unlink()
    other_home.import_archive(tmp_path / "zeros.zip")
    taken = other_home.job(relaxed.job_id).work_dir / "WAVECAR"
    assert taken.stat().st_size == 65 * 2**20


@pytest.mark.parametrize("how", ["it is gone", "its digest differs"])
def test_a_result_that_is_lost_holds_up_no_archive(client, relaxed, other_home, tmp_path, how):
    outcome = client.job(relaxed.job_id).work_dir.parent / "1.outcome"
    outcome.rename(tmp_path / "kept")
    if how != "it is gone":
        outcome.write_bytes((tmp_path / "kept").read_bytes()[:-1] + b"?")
    try:
        written = client.write_archive(tmp_path / "lost.zip", [relaxed.job_id])
    finally:
        (tmp_path / "kept").rename(outcome)
    (said,) = written["left_out"]
    assert said.startswith(f"{relaxed.job_id}/1.outcome: ")
    assert said.endswith(f"{how}; the record alone travels")
    other_home.import_archive(tmp_path / "lost.zip")
    taken, summary = other_home.job(relaxed.job_id), client.job(relaxed.job_id).summary
    assert taken.summary["energy_ev"] == summary["energy_ev"]
    with pytest.raises(FilesRemoved):
        other_home.result(relaxed.job_id)


def test_a_deep_look_finds_what_was_edited(archive, relaxed, cli, tmp_path, monkeypatch):
    monkeypatch.setenv("CRYSTALMATH_HOME", str(tmp_path / "second"))
    assert cli("import", archive).out == "1 job taken in\n"

    def look():
        checks = cli("doctor", "--deep", "--json").json["checks"]
        return next(check for check in checks if check["name"] == "outcomes")

    assert look()["state"] == "ok"
    outcome = tmp_path / "second" / "jobs" / relaxed.job_id / "1.outcome"
    outcome.write_bytes(edited(b'"energy":', b'"energy":-999')(outcome.read_bytes()))
    assert look()["state"] == "error"
    assert f"{relaxed.job_id}: {outcome} has changed since it was published" in look()["message"]
    written = outcome.read_bytes().partition(b"\n")
    told = json.loads(written[0])
    del told["state"]
    outcome.write_bytes(published(told, written[2]))
    assert f"{relaxed.job_id}: {outcome} does not say how it ended" in look()["message"]


def test_a_result_that_names_code_is_read_as_data(archive, relaxed, other_home, tmp_path):
    """As pairs within an object of a trusted class, where a check by names once saw nothing."""
    pairs = [["@module", "os"], ["@class", "system"]]
    hidden = {"@module": "builtins", "@class": "dict", "items": pairs}
    entry = {
        "@module": "pymatgen.core.entries",
        "@class": "ComputedEntry",
        "composition": {"Al": 1},
    }

    def changed(data):
        def add(document, _):
            document["code"] = {"@module": "os", "@callable": "system", "@bound": None}
            document["entry"] = {**entry, "energy": 1.0, "correction": 0.0, "data": {"a": hidden}}

        return with_result(data, add)

    other_home.import_archive(rewritten(archive, tmp_path, {"1.outcome": changed}))
    result = other_home.future(relaxed.job_id).result()
    assert result["code"] == {"@module": "os", "@callable": "system", "@bound": None}
    assert result["entry"]["data"] == {"a": dict(pairs)}
    assert result["atoms"] == relaxed.result()["atoms"]


WRONG = {
    "an attempt that never was": of_job(attempt=0),
    "attempts without end": of_job(attempt=10**9),
    "a time that no clock tells": of_job(created_at=1e300),
    "no time": of_job(created_at=None),
    "a time that is no number": of_job(finished_at=float("nan")),
    "a summary that is none": of_job(result=["energy_ev"]),
    "an energy that is none": of_summary(energy_ev="low"),
    "an energy beyond all": of_summary(energy_ev=10**400),
    "a path that is none": of_summary(work_dir={"path": "/etc"}),
    "a warning that is none": of_job(warnings=["careful"]),
    "files that were removed somehow": of_job(removed="perhaps"),
    "labels that are none": of_header(labels={"project": 7}),
    "a cluster that is none": of_header(cluster=["local"]),
    "a recipe that is none": of_header(recipe=7),
    "no recipe": of_header(recipe=None),
    "a recipe that is code": of_header(recipe=f"os import system as s; s('x'); from {RECIPE}"),
    "a recipe of nobody's": of_header(recipe="os.system"),
    "an engine that is a path": of_header(engine="../../x"),
    "a cluster of two lines": of_header(cluster="local\nx"),
    "a name of two lines": of_header(name="a\u2028b"),
    "a label of two lines": of_header(labels={"a": "b\nc"}),
    "resources that nothing can give": of_header(resources={"nodes": 2, "ranks": 3}),
    "a walltime that never ends": of_header(walltime_s=10**400),
    "a parent that is a path": of_header(parents=[{"job_id": "../x", "role": "retry"}]),
    "parameters that are none": lambda told: told.update(
        specification=told["specification"].partition("\n")[0]
        + '\n{"atoms": null, "parameters": []}'
    ),
    "a parent that is none": of_header(parents=[{"job_id": 7, "role": "structure"}]),
    "a header that is none": lambda told: told.update(specification="[]\n{}"),
    "no specification": lambda told: told.pop("specification"),
    "a body that is none": lambda told: told.update(specification="{}\n[]"),
    "a traceback that is none": lambda told: told.update(traceback=7),
    "POTCARs that are none": lambda told: told.update(potcars=7),
    "a POTCAR without a name": lambda told: told.update(potcars=[{"path": "/x"}]),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_record_that_is_none_is_refused(archive, other_home, tmp_path, what):
    file = rewritten(archive, tmp_path, {"record.json": in_record(WRONG[what])})
    refused(other_home, file, "record.json of .* is (damaged|not taken in)")


@pytest.mark.parametrize("jobs", [None, 7, [], ["../evil"], [{}]])
def test_an_archive_has_the_jobs_that_it_names(archive, other_home, tmp_path, jobs):
    named = json.dumps({"format": 1, "jobs": jobs})
    file = rewritten(archive, tmp_path, {"archive.json": lambda _: named})
    refused(other_home, file, "are not those that archive.json")


def test_packed_data_that_is_damaged_is_refused(archive, other_home):
    with zipfile.ZipFile(archive) as opened:
        info = next(each for each in opened.infolist() if each.filename.endswith("1.outcome"))
    data = bytearray(archive.read_bytes())
    begin = info.header_offset + 30 + len(info.filename)
    data[begin : begin + 40] = b"\xff" * 40
    archive.write_bytes(data)
    refused(other_home, archive, "cannot be read as an archive of jobs")


def rewritten(archive, folder, changes):
    """Write an archive again with others of the files of these names; `None` leaves one out."""
    file = folder / "changed.zip"
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            data = changes.get(name.rpartition("/")[2], bytes)(old.read(name))
            if data is not None:
                new.writestr(name, data)
    return file


def test_what_would_fill_the_disk_is_refused(client, archive, other_home, monkeypatch):
    usage = type("Usage", (), {"free": 600 * 2**20, "total": 2**40})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    monkeypatch.setattr("crystalmath.archive.importing._FREE", 600 * 2**20)
    refused(other_home, archive, "has room for 0")


def test_what_is_no_archive_at_all_is_refused(other_home, tmp_path):
    file = tmp_path / "no.zip"
    file.write_bytes(b"PK, but not quite")
    refused(other_home, file, "cannot be read as an archive of jobs")
    absent = "cannot be read as an archive of jobs: No such file or directory"
    refused(other_home, tmp_path / "none-such.zip", absent)


@pytest.fixture
def other_home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRYSTALMATH_HOME", str(tmp_path_factory.mktemp("other")))
        with in_process() as other:
            yield other


def refused(other, file, said, error=InvalidJob):
    """Nothing is taken in, and nothing left behind."""
    with pytest.raises(error, match=said):
        other.import_archive(file)
    assert list(other.list()) == []
    left = Path(other.ask("system.version")["home"], "jobs")
    assert list(left.glob("*import*")) == [] if left.exists() else True
