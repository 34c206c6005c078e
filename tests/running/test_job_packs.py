"""Packed jobs answer as before; nothing is lost or doubled, whoever reads meanwhile."""

import base64
import hashlib
import json
import os
import random
import re
import resource
import threading
import time

import pytest

from conftest import eventually
from crystalmath.client import in_process
from crystalmath.errors import CrystalMathError
from crystalmath.jobs import packs
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.jobs.worktree import at_once
from crystalmath.quacc.store import JobStore
from crystalmath.running import job_packs, pruning
from crystalmath.running.job_packs import pack_old
from crystalmath.running.rebuild import rebuild
from server.written_home import VASP, Home

pytestmark = pytest.mark.server

DAY = 86400.0
OSZICAR = {"OSZICAR": 0, "vasp.out": 900, **VASP}


@pytest.fixture
def here(home):
    here = Home(home)
    yield here
    here.close()


def names(here):
    """Return the names of the run directories that are in their places."""
    return {path.name for path in here.jobs.iterdir() if not path.name.startswith(".")}


def answers(here, job_ids):
    """Return what the reading methods answer about jobs."""
    answers = {
        method: here.call(method, job_ids=job_ids)
        for method in ("jobs.status_many", "jobs.results", "jobs.table", "jobs.progress")
    }
    answers["jobs.list"] = here.call("jobs.list")
    for job_id in job_ids:
        for method in ("jobs.status", "jobs.result", "jobs.show", "jobs.specification"):
            answers[method, job_id] = here.call(method, job_id=job_id)
    return answers


def answers_of_files(here, job_ids):
    """Return what the methods answer that read files; they bring jobs back."""
    return {
        (method, job_id): here.call(method, job_id=job_id, **more)
        for job_id in job_ids
        for method, more in (
            ("jobs.files", {}),
            ("jobs.logs", {"file": "vasp.out"}),
            ("jobs.file", {"file": "s/OUTCAR.gz"}),
            ("jobs.logs", {"tail": 3}),
        )
    }


def test_packed_jobs_answer_as_before(here):
    completed = here.make(OSZICAR, labels={"project": "a"})
    job_ids = [completed, here.make(OSZICAR, state="failed")]
    before, of_files = answers(here, job_ids), answers_of_files(here, job_ids)
    assert sorted(here.call("jobs.pack")["job_ids"]) == sorted(job_ids)
    assert names(here) == set()
    assert answers(here, job_ids) == before
    assert names(here) == set()
    usage = here.call("jobs.usage")["total"]
    assert (usage["jobs"], usage["packed"], usage["files"]) == (2, 2, 0)
    assert 0 < usage["size"] < 10_000
    assert answers_of_files(here, job_ids) == of_files
    assert names(here) == set(job_ids)
    assert here.call("jobs.usage")["total"]["packed"] == 0
    assert here.call("jobs.pack")["left"] == []
    assert sorted(here.call("jobs.unpack")["job_ids"]) == sorted(job_ids)
    assert answers(here, job_ids) == before


def test_the_choice_of_jobs(here):
    old = here.make(VASP, ended_s=40 * DAY, labels={"project": "a"})
    young = here.make(VASP, labels={"project": "b"})
    runs = here.make(VASP, state="running")
    waits = here.make(VASP, state="pending")
    for asked, expected in (
        ({}, {old, young}),
        ({"older_s": DAY}, {old}),
        ({"labels": {"project": "b"}}, {young}),
        ({"job_ids": [young]}, {young}),
        ({"job_ids": []}, set()),
        ({"state": "failed"}, set()),
    ):
        answer = here.call("jobs.pack", dry_run=True, **asked)
        assert set(answer["job_ids"]) == expected
        assert names(here) == {old, young, runs, waits}
    answer = here.call("jobs.pack", job_ids=[old, runs, waits, "0" * 8 + old[8:]])
    assert answer["job_ids"] == [old]
    left = {one["job_id"]: one for one in answer["left"]}
    assert "is running; it can be packed once it has ended" in left[runs]["error"]
    assert "is pending; it can be packed once it has ended" in left[waits]["error"]
    assert left["0" * 8 + old[8:]]["code"] == "unknown_job"
    refused = here.call("jobs.pack", state="running")
    assert "running jobs are never packed" in refused["error"]
    refused = here.call("jobs.unpack", job_ids=[old], state="failed")
    assert "jobs are named, and also chosen by state" in refused["error"]
    assert names(here) == {young, runs, waits}


def test_pages_fill_one_pack_after_the_other(here, monkeypatch):
    monkeypatch.setattr(packs, "MOST_JOBS", 4)
    job_ids = {here.make({"CHG": 1}) for _ in range(10)}
    cursor, seen = None, []
    while True:
        page = here.call("jobs.pack", limit=3, **({"cursor": cursor} if cursor else {}))
        seen += page["job_ids"]
        assert len(page["job_ids"]) <= 3
        if (cursor := page["cursor"]) is None:
            break
    assert (set(seen), len(seen)) == (job_ids, 10)
    full = packs.packs_of(str(here.jobs)).packs().values()
    assert sorted(map(len, full)) == [2, 4, 4]
    seen.clear()
    while True:
        page = here.call("jobs.unpack", limit=4, **({"cursor": cursor} if cursor else {}))
        seen += page["job_ids"]
        if (cursor := page["cursor"]) is None:
            break
    assert (set(seen), len(seen)) == (job_ids, 10)
    assert names(here) == job_ids
    left = {path.name for path in (here.jobs / ".packs").iterdir()}
    assert left == {".lock", ".packing"}


def test_a_pack_is_closed_once_it_is_large(here, monkeypatch):
    monkeypatch.setattr(packs, "MOST_BYTES", 200_000)
    for _ in range(3):
        here.make({"OUTCAR": 150_000})
    assert len(here.call("jobs.pack")["job_ids"]) == 3
    assert sorted(map(len, packs.packs_of(str(here.jobs)).packs().values())) == [1, 2]


def test_packed_jobs_are_pruned(here):
    job_ids = [here.make(VASP) for _ in range(5)]
    here.call("jobs.pack")
    dry = here.call("jobs.prune", job_ids=job_ids[:1], dry_run=True)
    assert dry["jobs"][0]["size"] > 0
    gone = job_ids[:3]
    assert {job["job_id"] for job in here.call("jobs.prune", job_ids=gone)["jobs"]} == set(gone)
    for job_id in gone:
        assert here.call("jobs.status", job_id=job_id)["removed"] == "all"
        assert here.call("jobs.result", job_id=job_id)["code"] == "files_removed"
    (pack,) = (here.jobs / ".packs").glob("*.pack")
    before = pack.stat().st_size
    assert here.call("jobs.unpack", job_ids=gone)["job_ids"] == []
    assert pack.stat().st_size <= before
    assert packs.packs_of(str(here.jobs)).packs() == {
        pack.stem: sorted(job_ids[3:], key=lines(pack))
    }
    assert here.call("jobs.result", job_id=job_ids[4])["result"]["energy"] == -1.5
    # Heavy files are removed from a directory in its place.
    kept = here.call("jobs.prune", job_ids=job_ids[3:4], keep_results=True)
    assert [job["job_id"] for job in kept["jobs"]] == job_ids[3:4]
    assert here.call("jobs.result", job_id=job_ids[3])["result"]["energy"] == -1.5
    assert here.files_of(job_ids[3]) == ["s/CONTCAR", "s/OUTCAR.gz", "s/POTCAR.titel"]
    assert names(here) == {job_ids[3]}


def lines(pack):
    """Return a key that orders jobs as an index lists them."""
    text = pack.with_suffix(".index").read_text()
    return text.find


def test_rows_are_rebuilt_from_packs(home, here, lab):
    from crystalmath.service import JobService
    from ends import finish, lab_job

    with JobService() as service:
        job = finish(service, service.submit(lab_job("value", name="n", key="k")).job_id)
        assert at_once(service.pack(_all())).job_ids == [job.job_id]
    here.close()
    for path in home.glob("jobs.sqlite*"):
        path.unlink()
    with JobStore(f"sqlite:///{home}/jobs.sqlite") as store:
        assert rebuild(store, home / "jobs").recorded == (job.job_id,)
        again = store.get(job.job_id)
    assert (again.state, again.name, again.summary) == (job.state, "n", job.summary)


def _all():
    from crystalmath.running.pruning import Choice

    return Choice()


def test_archives_have_packed_jobs(here, tmp_path):
    job_ids = [here.make(VASP) for _ in range(3)]
    plain, packed = tmp_path / "plain.zip", tmp_path / "packed.zip"
    before = here.call("jobs.archive", file=str(plain), job_ids=job_ids)
    here.call("jobs.pack", job_ids=job_ids[:2])
    after = here.call("jobs.archive", file=str(packed), job_ids=job_ids)
    assert after == before
    assert before["left_out"] == []
    assert names(here) == {job_ids[2]}
    assert not list((here.jobs / ".packs").glob(".aside*"))


def test_files_that_an_unfinished_job_will_read_stay(here):
    read, other = here.make(VASP), here.make(VASP)
    place = f"{here.jobs}/{read}/1.work"
    reader = here.make(
        state="pending",
        specification=f'{{}}\n{{"atoms": null, "parameters": {{"prev_dir": {json.dumps(place)}}}}}',
    )
    answer = here.call("jobs.pack")
    assert answer["job_ids"] == [other]
    assert [one["job_id"] for one in answer["left"]] == [read]
    assert f"the unfinished job {reader} will read its files" in answer["left"][0]["error"]


def test_a_job_that_names_the_files_of_a_packed_one_brings_it_back(home, here, lab):
    first = here.make({"out.txt": 5})
    here.call("jobs.pack")
    with in_process() as client:
        path = f"{here.jobs}/{first}/1.work/out.txt"
        future = client.submit("lab_recipes.without_structure", None, {"files": [path]})
        assert os.path.exists(path)
        assert future.result(60)["files"] == [path]


def test_a_copy_of_an_outdir_stays(here):
    job_id = here.make({"outdir.json": 2, "outdir/a": 1})
    answer = here.call("jobs.pack")
    assert [one["job_id"] for one in answer["left"]] == [job_id]
    assert "its copy of a folder" in answer["left"][0]["error"]


def test_readers_are_right_while_jobs_are_packed_and_unpacked(here):
    job_ids = [here.make(OSZICAR) for _ in range(6)]
    expected = answers_of_files(here, job_ids)
    wrong, ended = [], threading.Event()

    def read(seed):
        rng = random.Random(seed)
        try:
            while not ended.is_set():
                job_id = rng.choice(job_ids)
                result = here.call("jobs.result", job_id=job_id)
                if result["result"] is None or result["result"]["energy"] != -1.5:
                    wrong.append(result)
                seen = answers_of_files(here, [job_id])
                wrong.extend((one, seen[one]) for one in seen if seen[one] != expected[one])
                if here.call("jobs.status", job_id=job_id)["removed"] is not None:
                    wrong.append(job_id)
        except Exception as error:  # noqa: BLE001 - a thread tells the test of any
            wrong.append(error)

    readers = [threading.Thread(target=read, args=(seed,)) for seed in range(3)]
    for reader in readers:
        reader.start()
    packed = 0
    end = time.monotonic() + 8
    while time.monotonic() < end and not wrong:
        packed += len(here.call("jobs.pack")["job_ids"])
    ended.set()
    for reader in readers:
        reader.join(30)
    assert not wrong, wrong[:3]
    assert packed > 10
    here.call("jobs.unpack")
    assert names(here) == set(job_ids)


@pytest.fixture
def short_files():
    """Let no file become longer than some bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_loses_nothing(here, short_files):
    jobs, folder = str(here.jobs), here.jobs / ".packs"
    job_ids = [here.make({"s/OUTCAR": 6000, "s/x": 10}) for _ in range(3)]
    for job_id in job_ids:
        (here.jobs / job_id / "1.work/s/x").write_bytes(random.Random(1).randbytes(9000))
    failures, messages = 0, set()
    for size in range(0, 10**6, 1024):
        short_files(size)
        try:
            packed = at_once(here.service.pack(_all()))
        except CrystalMathError as error:
            failures += 1
            messages.add(str(error).partition("; ")[2])
        else:
            break
        finally:
            short_files(resource.RLIM_INFINITY)
        assert names(here) == set(job_ids)
        assert not [path for path in folder.iterdir() if not path.name.startswith(".")]
        assert not list(folder.glob("*.part"))
    assert failures > 5
    assert sorted(packed.job_ids) == sorted(job_ids)
    for size in range(0, 10**6, 1024):
        short_files(size)
        try:
            done = packs.unpack(jobs, job_ids[0])
        except CrystalMathError as error:
            failures += 1
            messages.add(str(error).partition(": ")[0])
        else:
            assert done
            break
        finally:
            short_files(resource.RLIM_INFINITY)
        assert names(here) == set()
        assert {path.name[:2] for path in folder.iterdir() if path.is_dir()} == set()
        assert here.call("jobs.result", job_id=job_ids[0])["result"]["energy"] == -1.5
    assert (here.jobs / job_ids[0] / "1.work/s/x").stat().st_size == 9000
    assert messages == {"the run directories stay", f"cannot unpack job {job_ids[0]}"}


def test_a_damaged_pack_harms_no_other(here):
    one = here.make(VASP)
    here.call("jobs.pack")
    (pack,) = (here.jobs / ".packs").glob("*.pack")
    os.truncate(pack, 3000)
    other = here.make(VASP)
    assert here.call("jobs.pack")["job_ids"] == [other]
    answer = here.call("jobs.result", job_id=one)
    assert answer["code"] == "bad_file"
    assert f"{pack} is damaged" in answer["error"]
    assert here.call("jobs.result", job_id=other)["result"]["energy"] == -1.5
    assert pack.stat().st_size == 3000


def test_old_jobs_are_packed_once_they_have_not_changed_for_the_time(here):
    old, young = here.make(VASP, ended_s=9 * DAY), here.make(VASP)
    runs = here.make(VASP, state="running")
    long_ago = time.time() - 8 * DAY
    for job_id in (old, young, runs):
        os.utime(here.jobs / job_id, (long_ago, long_ago))

    def packed():
        return at_once(pack_old(here.service._recorder, here.jobs, 7 * DAY))

    assert packed() == 1
    assert names(here) == {young, runs}
    here.call("jobs.files", job_id=old)
    assert packed() == 0  # somebody has just read it
    os.utime(here.jobs / old, (long_ago, long_ago))
    assert packed() == 1


def test_the_server_packs_in_the_background(server, lab):
    server.home.mkdir(mode=0o700)
    (server.home / "config.toml").write_text('[storage]\npack_after = "1s"\n')
    server.start()
    asked = {"recipe": "lab_recipes.without_structure", "params": {"number": 3}}
    job_id = server.call("jobs.submit", **asked)["job_id"]
    place = server.home / "jobs" / job_id
    eventually(lambda: server.call("jobs.status", job_id=job_id)["status"] == "completed")
    eventually(lambda: not place.exists(), timeout=60)
    assert server.call("jobs.result", job_id=job_id)["result"]["number"] == 3
    assert server.call("jobs.usage")["total"]["packed"] == 1


def test_a_job_that_is_unpacked_while_it_is_packed_keeps_its_files(here, monkeypatch):
    one, other = here.make(VASP), here.make(VASP)
    publish = packs.Writer.publish

    def and_unpack(writer, kept):
        publish(writer, kept)
        there.append(one in packs.packs_of(str(here.jobs)).ids())

    there = []
    monkeypatch.setattr(packs.Writer, "publish", and_unpack)
    moved_aside = job_packs._moved_aside

    def unpacked_before(*arguments):
        assert packs.unpack(str(here.jobs), one)
        return moved_aside(*arguments)

    monkeypatch.setattr(job_packs, "_moved_aside", unpacked_before)
    answer = here.call("jobs.pack")
    assert there == [True]
    assert answer["job_ids"] == [other]
    assert "it has changed meanwhile" in answer["left"][0]["error"]
    assert names(here) == {one}
    assert here.files_of(one) == sorted(VASP)


def test_several_unpack_beside_one_who_packs(here):
    job_ids = {here.make(VASP) for _ in range(30)}
    before = {job_id: here.files_of(job_id) for job_id in job_ids}
    wrong, ended = [], threading.Event()

    def unpack():
        try:
            while not ended.is_set():
                wrong.extend(here.call("jobs.unpack")["left"])
        except Exception as error:  # noqa: BLE001 - a thread tells the test of any
            wrong.append(error)

    threads = [threading.Thread(target=unpack) for _ in range(2)]
    for thread in threads:
        thread.start()
    packed = 0
    end = time.monotonic() + 5
    while time.monotonic() < end and not wrong:
        packed += len(here.call("jobs.pack")["job_ids"])
    ended.set()
    for thread in threads:
        thread.join(60)
    assert not wrong, wrong[:3]
    assert packed > 30
    here.call("jobs.unpack")
    assert {job_id: here.files_of(job_id) for job_id in job_ids} == before
    assert {path.name for path in (here.jobs / ".packs").iterdir()} == {".lock", ".packing"}


#: Commands on a job that only read; those that walk its files bring it back.
READING = {
    "status": ["status", "ID"],
    "show": ["show", "ID", "--json"],
    "list": ["list", "--csv"],
    "result": ["result", "ID"],
    "whole result": ["result", "ID", "--json"],
    "field": ["result", "ID", "--field", "results.energy"],
    "log": ["logs", "ID"],
    "file": ["logs", "ID", "opt.log"],
    "files": ["files", "ID", "--json"],
    "path": ["path", "ID"],
    "plot": ["plot", "ID", "--json"],
    "progress": ["progress", "ID", "--json"],
    "inputs": ["inputs", "ID"],
    "script": ["export", "--script", "ID"],
    "counts": ["list", "--summary"],
}
BRING_BACK = {"log", "file", "files", "path"}


@pytest.fixture
def relaxed(home, cli):
    """Return the id of a job that has relaxed a cell, in this process."""
    (home / "config.toml").write_text("[engines.local]\nworkers = 1\n")
    poscar = os.path.join(os.path.dirname(__file__), "../../examples/Cu.poscar")
    ran = cli("run", "emt.core.relax_job", poscar, "--json")
    assert ran.code == 0, ran.err
    return ran.json["job_id"]


def test_all_commands_work_on_packed_jobs(home, cli, relaxed, tmp_path):
    jobs = home / "jobs"

    def pack():
        assert cli("pack").code == 0
        assert not (jobs / relaxed).exists()

    def read(words):
        answer = cli(*(relaxed if word == "ID" else word for word in words))
        return answer.code, re.sub(r"\d+ s ago", "AGO", answer.out)

    before = {name: read(words) for name, words in READING.items()}
    assert all(code == 0 for code, _ in before.values())
    for name, words in READING.items():
        pack()
        assert read(words) == before[name], name
        assert (jobs / relaxed).exists() == (name in BRING_BACK), name
    pack()
    got = cli("files", relaxed, "--get", tmp_path / "got")
    assert got.code == 0, got.err
    work = jobs / relaxed / "1.work"
    there = {path for path in work.rglob("*") if path.is_file() and not path.is_symlink()}
    assert {path.read_bytes() for path in there} == {
        path.read_bytes() for path in (tmp_path / "got").rglob("*") if path.is_file()
    }
    pack()
    assert cli("export", tmp_path / "table.csv", relaxed).code == 0
    assert "-0.0" in (tmp_path / "table.csv").read_text()
    assert cli("export", "--archive", tmp_path / "jobs.zip", relaxed).code == 0
    assert cli("export", "--inputs", tmp_path / "inputs", relaxed).code == 0
    assert cli("du").lines[-1].endswith("all, 1 packed")
    assert not (jobs / relaxed).exists()
    ran = cli("run", "emt.core.static_job", f"job:{relaxed}", "--json")
    assert ran.json["result"]["energy_ev"] is not None
    pack()
    with in_process() as client:
        (again,) = client.retry(relaxed)
        assert again.result(60)["results"]["energy"] is not None
    pack()
    pruned = cli("prune", relaxed, "--yes", "--json")
    assert [job["job_id"] for job in pruned.json["jobs"]] == [relaxed]
    assert pruned.json["jobs"][0]["size"] > 0
    assert f"the run directory of job {relaxed} was removed" in cli("result", relaxed).err
    with in_process() as client:  # another home imports what was packed here
        assert client.import_archive(tmp_path / "jobs.zip")["known"] == [relaxed]


def test_the_page_downloads_files_of_packed_jobs(here):
    pytest.importorskip("crystalmath_web.app", reason="crystalmath-web is not installed")
    from web.conftest import Page

    job_id = here.make({"s/OUTCAR": 5000, "s/CONTCAR": 9})
    here.call("jobs.pack")
    with in_process() as client, Page(client) as page:
        _, listed = page.call("jobs.files", {"job_id": job_id})
        assert [file["file"] for file in listed["files"]] == ["s/CONTCAR", "s/OUTCAR"]
        here.call("jobs.pack")  # it may be packed again between two parts
        asked = {"job_id": job_id, "file": "s/OUTCAR", "max_bytes": 3000}
        _, first = page.call("jobs.file", asked)
        here.call("jobs.pack")
        _, rest = page.call("jobs.file", {**asked, "offset": first["offset"], "sha256": True})
        assert (first["size"], rest["offset"]) == (5000, 5000)
        data = base64.b64decode(first["data"]) + base64.b64decode(rest["data"])
        assert hashlib.sha256(data).hexdigest() == rest["sha256"]
        _, result = page.call("jobs.result", {"job_id": job_id})
        assert result["result"]["energy"] == -1.5


def test_path_brings_a_flow_back_with_its_steps(here, cli):
    flow = here.make({"a": 1}, stage="steps")
    parent = {"job_id": flow, "role": "flow", "step": "relax_job#0"}
    step = here.make({"s/CONTCAR": 9}, parents=[parent])
    RunDirectory(here.jobs / flow).link_steps({"01-relax": f"../../{step}/1.work"})
    assert len(here.call("jobs.pack")["job_ids"]) == 2
    for _ in range(2):  # the second time only the step is packed
        path = cli("path", flow)
        assert (path.code, path.out) == (0, f"{here.jobs}/{flow}/steps\n")
        assert (here.jobs / flow / "steps/01-relax/s/CONTCAR").stat().st_size == 9
        here.call("jobs.pack", job_ids=[step])
    other = here.make({"a": 1}, parents=[{**parent, "step": "static_job#0"}])
    links = here.jobs / flow / "steps"
    (links / "02-static").symlink_to(f"../../{other}/1.work")
    here.call("jobs.prune", job_ids=[other])
    assert [link.name for link in links.iterdir()] == ["01-relax"]


def test_a_job_that_is_packed_while_it_is_pruned_is_gone(here, monkeypatch):
    job_id = here.make(VASP)
    remove = pruning.remove_from_packs

    def and_pack(directory, job_ids):
        remove(directory, job_ids)
        packed.extend(here.call("jobs.pack")["job_ids"])

    packed = []
    monkeypatch.setattr(pruning, "remove_from_packs", and_pack)
    assert len(here.call("jobs.prune", job_ids=[job_id])["jobs"]) == 1
    assert packed == [job_id]
    assert packs.packs_of(str(here.jobs)).ids() == set()
    assert here.call("jobs.status", job_id=job_id)["removed"] == "all"


def test_a_reader_may_name_the_folder_to_which_a_link_leads(tmp_path, home):
    (home / "config.toml").write_text(f'[storage]\nruns = "{tmp_path}"\n')
    here = Home(home)
    read, packed = here.make(VASP), here.make(VASP)
    place = here.jobs.resolve()
    assert place.parent == tmp_path
    here.make(
        state="pending",
        specification=f'{{}}\n{{"atoms": null, "parameters": {{"prev_dir": "{place}/{read}/s"}}}}',
    )
    assert here.call("jobs.pack")["job_ids"] == [packed]
    here.service.unpack_named(f'"{place}/{packed}/1.work"')
    assert names(here) >= {read, packed}
    here.close()


def test_commands(here, cli):
    job_id = here.make(VASP)
    runs = here.make(VASP, state="running")
    assert cli("pack", "--dry-run").out == "1 job would be packed\n"
    assert cli("pack", "--older", "1d").out == "0 jobs packed\n"
    assert cli("pack").out == "1 job packed\n"
    assert cli("du").lines[-1].endswith("2  all, 1 packed")
    checks = cli("doctor", "--json").checks
    assert checks["packs"]["message"].startswith("1 job in 1 pack with ")
    assert cli("result", job_id, "--json").json["result"]["energy"] == -1.5
    assert names(here) == {runs}
    assert cli("path", job_id).out == f"{here.jobs}/{job_id}/1.work\n"
    assert names(here) == {job_id, runs}
    refused = cli("pack", job_id, runs, "--json")
    assert (refused.code, refused.json["job_ids"]) == (1, [job_id])
    assert "it can be packed once it has ended" in refused.json["left"][0]["error"]
    assert cli("unpack", job_id).out == "1 job unpacked\n"
    assert names(here) == {job_id, runs}
    assert cli("pack", "--state", "running").code == 1
    assert cli("pack", "--state", "lost").code == 2
    assert cli("pack", "--older", "10").code == 2
