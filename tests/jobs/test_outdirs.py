"""A job's own copy of the folder that its recipe names for a program to run in."""

import ast
import errno
import gzip
import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from ase.build import bulk

from crystalmath.errors import BadFile
from crystalmath.jobs import outdirs
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.jobs.written_spec import WrittenSpec
from crystalmath.models import JobSpec
from crystalmath.recipes import codec
from crystalmath.recipes.lookup import catalogue, look_up
from crystalmath.recipes.source_folders import FOLDERS, RUN_IN, run_folders
from crystalmath.worker import given_outputs
from crystalmath.worker.own_outdirs import ESPRESSO, OwnOutdirs, own_outdirs
from digests import changed_since, digests

#: Parameters by which quacc's recipes take folders and files, each of which a test runs with.
KNOWN = {"copy_files", *FOLDERS}
#: Those that are read alone: species of FHI-aims, a model.
READ = {"species_dir", "model_path"}


def calculation(folder, text="density"):
    """Write what a calculation of pw.x leaves."""
    save = folder / "pwscf.save"
    save.mkdir(parents=True)
    (save / "charge-density.dat").write_text(text)
    (folder / "pwscf.xml").write_text("xml")
    for name in ("pw.in", "pw.err", "CRASH"):
        (folder / name).write_text("said")
    (folder / "pw.out.gz").write_bytes(gzip.compress(b"said"))
    return folder


class Home:
    """Jobs that name folders, in a few lines."""

    def __init__(self, path):
        self.path = path

    def job(self, *parents, role="value", attempt=1, **more):
        """Write the specification of a job that comes after others."""
        job_id = str(uuid.uuid4())
        directory = RunDirectory(self.path / job_id)
        told = [{"job_id": each, "role": role, **more} for each in parents]
        spec = JobSpec(job_id=job_id, recipe="quacc.recipes.espresso.dos.dos_job", parents=told)
        directory.write_spec({**spec.header(), "attempt": attempt}, codec.encode_spec(spec))
        Path(directory.work(attempt)).mkdir()
        return job_id

    def work(self, job_id, attempt=1):
        return Path(RunDirectory(self.path / job_id).work(attempt))

    def own(self, job_id, folder, calculation="tmp-quacc-1", attempt=1):
        """Return where a job runs whose recipe names a folder."""
        directory = RunDirectory(self.path / job_id)
        runs = OwnOutdirs(directory, attempt, WrittenSpec.read(directory))
        return Path(runs.own(folder, calculation))

    def write(self, job_id, folder, text, *, state="completed"):
        """Run a job that changes the density of a folder; return where it ran."""
        place = self.own(job_id, folder)
        (place / "pwscf.save/charge-density.dat").write_text(text)
        RunDirectory(self.path / job_id).publish(1, {"state": state, "summary": None})
        return place

    def read(self, job_id, folder):
        return (self.own(job_id, folder) / "pwscf.save/charge-density.dat").read_text()


@pytest.fixture
def home(tmp_path):
    (tmp_path / "jobs").mkdir()
    return Home(tmp_path / "jobs")


@pytest.fixture
def scf(tmp_path):
    return calculation(tmp_path / "elsewhere")


# --- which copy a job gets -----------------------------------------------------------------------


def test_a_job_runs_in_its_own_copy(home, scf):
    left = digests(scf)
    job = home.job()
    place = home.write(job, scf, "changed")
    assert place == home.work(job) / "outdir"
    assert digests(scf) == left
    assert sorted(digests(place)) == ["pwscf.save", "pwscf.save/charge-density.dat", "pwscf.xml"]


def test_what_a_calculation_was_asked_and_said_is_not_copied(home, scf):
    """Whoever looks for the outputs of a job would take those of another for its own."""
    (scf / "pwscf.save/step.out").write_text("said")
    (scf / "failed-quacc-2026-01-01-00-00-00-000000-12345").mkdir()
    names = digests(home.own(home.job(), scf))
    assert not [name for name in names if name.endswith((".in", ".out", ".gz", ".err"))]
    assert not [name for name in names if "quacc" in name or "CRASH" in name]


def test_calculations_of_one_job_share_the_copy_of_a_folder(home, scf, tmp_path):
    directory = RunDirectory(home.path / home.job())
    runs = OwnOutdirs(directory, 1, WrittenSpec.read(directory))
    first = Path(runs.own(scf, "tmp-quacc-1"))
    assert runs.own(scf, "tmp-quacc-2") == str(first)
    assert runs.own(f"{scf}/../elsewhere/", "tmp-quacc-3") == str(first)
    assert runs.own(first, "tmp-quacc-2") == str(first)
    other = calculation(tmp_path / "other", "another")
    second = Path(runs.own(other, "tmp-quacc-4"))
    assert second.name == "outdir-2"
    record = outdirs.read(Path(directory.work(1)))
    assert [each.calculations for each in record] == [
        ("quacc-1", "quacc-2", "quacc-3"),
        ("quacc-4",),
    ]


def test_a_folder_of_the_recipes_own_is_left_alone(home, scf):
    """A recipe begins in the work directory, and may make there what it likes."""
    job = home.job()
    (home.work(job) / "outdir").mkdir()
    assert home.own(job, scf).name == "outdir-2"
    assert not os.listdir(home.work(job) / "outdir")


def test_the_folder_of_a_calculation_leads_to_the_copy_it_ran_in(home, scf):
    nscf = home.job()
    place = home.write(nscf, scf, "nscf")
    work = home.work(nscf)
    for name in ("quacc-1", "failed-quacc-1", "quacc-2"):
        (work / name).mkdir()
    assert outdirs.place_of(work / "quacc-1") == place
    assert outdirs.place_of(work / "failed-quacc-1") == place
    assert outdirs.place_of(work) == place
    assert outdirs.place_of(work / "quacc-2") == work / "quacc-2"
    assert home.read(home.job(nscf), work / "quacc-1") == "nscf"


def test_a_job_finds_what_the_one_before_it_has_left(home, scf):
    nscf = home.job()
    home.write(nscf, scf, "nscf")
    assert home.read(home.job(nscf, role="after"), scf) == "nscf"
    assert home.read(home.job(), scf) == "density", "what has nothing to do with it is not found"


def test_it_is_found_past_jobs_that_have_not_run_there_and_past_flows(home, scf):
    nscf = home.job()
    home.write(nscf, scf, "nscf")
    between = home.job(nscf)
    flow = home.job(between)
    assert home.read(home.job(flow, role="flow"), scf) == "nscf"


def test_the_last_of_several_counts(home, scf):
    first = home.job()
    home.write(first, scf, "first")
    second = home.job(first)
    home.write(second, scf, "second")
    for parents in ((first, second), (second, first)):
        assert home.read(home.job(*parents), scf) == "second"


@pytest.mark.parametrize("state", ["failed", "cancelled", "lost"])
def test_what_has_not_completed_is_not_gone_on_from(home, scf, state):
    first = home.job()
    home.write(first, scf, "first")
    second = home.job(first)
    home.write(second, scf, "half", state=state)
    assert home.read(home.job(second, role="after"), scf) == "first"


def test_a_retry_begins_with_what_its_job_began_with(home, scf):
    first = home.job()
    home.write(first, scf, "first")
    second = home.job(first)
    home.write(second, scf, "second")
    retry = home.job(second, role="retry")
    assert home.read(retry, scf) == "first"


def test_a_job_that_is_read_again_has_what_its_program_left(home, scf):
    failed = home.job()
    home.write(failed, scf, "computed", state="failed")
    again = home.job(failed, role="reread")
    assert home.read(again, scf) == "computed"
    written = [f"outdir = '{home.work(job)}/outdir'".encode() for job in (failed, again)]
    assert written[0] != written[1]
    assert len(set(map(given_outputs._plain, written))) == 1, "both have the same input"


def test_the_retry_of_a_job_takes_its_place(home, scf):
    failed = home.job()
    home.write(failed, scf, "half", state="failed")
    retry = home.job(failed, role="retry")
    home.write(retry, scf, "retried")
    assert home.read(home.job(failed, taken_from=retry), scf) == "retried"


def test_a_later_attempt_begins_anew(home, scf):
    job = home.job()
    home.write(job, scf, "half", state="lost")
    home.work(job, 2).mkdir()
    place = home.own(job, scf, attempt=2)
    assert place == home.work(job, 2) / "outdir"
    assert (place / "pwscf.save/charge-density.dat").read_text() == "density"


def test_jobs_that_were_pruned_are_passed_over(home, scf):
    assert home.read(home.job(str(uuid.uuid4())), scf) == "density"


def test_a_damaged_record_is_told(home, scf):
    nscf = home.job()
    home.write(nscf, scf, "nscf")
    (home.work(nscf) / outdirs.RECORD).write_text("{")
    with pytest.raises(BadFile, match=outdirs.RECORD):
        home.own(home.job(nscf), scf)


# --- the copy itself -----------------------------------------------------------------------------


def test_nothing_written_into_a_copy_goes_through_links(home, scf, tmp_path):
    kept = calculation(tmp_path / "kept", "kept")
    (scf / "pwscf.save/charge-density.dat").unlink()
    (scf / "pwscf.save").rmdir()
    (scf / "pwscf.save").symlink_to(kept / "pwscf.save")
    (scf / "around").symlink_to(scf)
    (scf / "broken").symlink_to("nowhere")
    os.link(kept / "pwscf.xml", scf / "pwscf.linked")
    left = digests(kept)
    place = home.write(home.job(), scf, "changed")
    (place / "pwscf.linked").write_text("changed")
    assert digests(kept) == left
    assert sorted(os.listdir(place)) == ["pwscf.linked", "pwscf.save", "pwscf.xml"]


def test_a_copy_of_files_that_nobody_may_write_can_be_written(home, scf):
    for path in scf.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    place = home.own(home.job(), scf)
    assert all(path.stat().st_mode & 0o200 for path in place.rglob("*"))


def test_a_folder_that_is_not_there_is_an_empty_one(home, tmp_path):
    """As for pw.x, which makes it."""
    assert not os.listdir(home.own(home.job(), tmp_path / "none"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small file system")
def test_a_full_disk_says_what_had_no_room(home, scf):
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(home.path)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        (scf / "pwscf.wfc1").write_bytes(bytes(3_000_000))
        job = home.job()
        words = r"own copy of 3 MB of the folder .*\[storage\] runs"
        with pytest.raises(OSError, match=words) as raised:
            home.own(job, scf)
        assert raised.value.errno == errno.ENOSPC
        assert str(scf) in str(raised.value)
        assert not os.listdir(home.work(job)), "what was copied takes no room any more"
    finally:
        subprocess.run(["umount", "--lazy", str(home.path)], check=True)


_COPIES = """
import sys, pathlib
from crystalmath.jobs import outdirs
print("begun", flush=True)
outdirs.copy(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
"""


def test_a_copy_that_was_killed_half_way_is_never_taken_for_whole(tmp_path):
    source, target = tmp_path / "source", tmp_path / "outdir"
    source.mkdir()
    for number in range(2000):
        (source / f"pwscf.wfc{number}").write_bytes(b"x" * 20_000)
    command = [sys.executable, "-c", _COPIES, str(source), str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as copier:
        copier.stdout.readline()
        part = tmp_path / "outdir.part"
        while not part.exists() or len(os.listdir(part)) < 10:
            time.sleep(0.001)
        copier.send_signal(signal.SIGKILL)
    assert part.exists()
    assert not target.exists()


@pytest.mark.file_systems
@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mkfs.btrfs") is None,
    reason="only root mounts a file system that shares blocks: apt-get install btrfs-progs",
)
def test_a_copy_shares_its_blocks_where_the_file_system_can(tmp_path):
    image, place = tmp_path / "image", tmp_path / "disk"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(300_000_000)
    subprocess.run(["mkfs.btrfs", "-q", image], check=True)
    if subprocess.run(["mount", "-o", "loop", image, place], check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        source = calculation(place / "scf")
        file = source / "pwscf.wfc1"
        file.write_bytes(os.urandom(100_000_000))
        os.sync()
        free = os.statvfs(place).f_bfree
        copied = outdirs.copy(source, place / "outdir")
        os.sync()
        assert copied.shared == copied.size > 100_000_000
        assert (free - os.statvfs(place).f_bfree) * os.statvfs(place).f_frsize < 1_000_000
        left = digests(source)
        with (place / "outdir/pwscf.wfc1").open("r+b") as program:
            program.write(b"changed")
        assert digests(source) == left
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def test_how_large_a_copy_will_be(home, scf):
    assert outdirs.size(scf) == len("density") + len("xml")
    nested = {"job_params": {"dos_job": {"prev_outdir": str(scf)}}, "prev_outdir": f"{scf}/none"}
    assert run_folders("quacc.recipes.espresso.dos.dos_flow", nested) == [str(scf)]
    assert not run_folders("mylab.recipes.dos", nested)


# --- quacc ---------------------------------------------------------------------------------------


def test_quaccs_programs_ask_just_before_they_write_their_input(home, scf):
    """Our copies stand on `EspressoTemplate.outdir` and its `write_input`."""
    espresso = pytest.importorskip(ESPRESSO)
    job = home.job()
    directory = RunDirectory(home.path / job)
    folder = home.work(job) / "tmp-quacc-1"
    folder.mkdir()
    left = digests(scf)
    template = espresso.EspressoTemplate("dos", outdir=scf)
    profile = espresso.EspressoProfile("dos.x", "/nowhere")
    with own_outdirs(directory, 1, WrittenSpec.read(directory)):
        template.write_input(
            profile=profile, directory=folder, atoms=bulk("Si"), parameters={}, properties=[]
        )
    assert str(home.work(job) / "outdir") in (folder / "dos.in").read_text()
    assert digests(scf) == left
    outside = espresso.EspressoTemplate("dos", outdir=scf)
    outside.write_input(profile, folder, bulk("Si"), {}, [])
    assert outside.outdir == scf, "nothing changes where no job runs"


def test_each_parameter_of_quacc_that_names_a_folder_is_known():
    """One that is new must be looked at: does a program write where it leads?"""
    names = {
        name
        for recipe in catalogue()
        for name, parameter in look_up(recipe.name).signature.parameters.items()
        if name.endswith(("dir", "_path"))
        or any(word in str(parameter.annotation) for word in ("Path", "Directory", "CopyFiles"))
    }
    assert names == KNOWN | READ


def test_quacc_runs_programs_nowhere_else():
    """Each ``prev_outdir`` becomes the ``outdir`` of the class that is watched, or is passed on."""
    folder = Path(inspect.getfile(pytest.importorskip("quacc"))).parent
    uses = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                for keyword in node.keywords:
                    value = keyword.value
                    if isinstance(value, ast.Name) and value.id in RUN_IN:
                        uses.add((getattr(node.func, "id", None), keyword.arg))
    assert uses == {
        ("EspressoTemplate", "outdir"),
        ("ph_job", "prev_outdir"),
        ("ph_init_job", "prev_outdir"),
    }


def test_the_record_is_json_of_ours(home, scf):
    job = home.job()
    home.own(job, scf)
    header = json.loads((home.work(job) / outdirs.RECORD).read_text())
    assert header["outdirs"] == [
        {"of": str(scf.resolve()), "name": "outdir", "calculations": ["quacc-1"]}
    ]


def test_what_is_written_after_the_end_of_a_job_is_noticed(home, scf, tmp_path):
    """The check that stands behind the tests of chains, flows and retries."""
    job = home.job()
    place = home.write(job, scf, "changed")
    assert not changed_since([tmp_path])
    time.sleep(0.05)
    (place / "pwscf.xml").write_text("other")
    assert changed_since([tmp_path]) == [place / "pwscf.xml"]
