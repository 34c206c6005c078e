"""A disk that a job fills up: nothing that was computed is lost, and the job can be stopped."""

import asyncio
import os
import subprocess
import threading
import time

import pytest

from conftest import LAB, eventually
from crystalmath import config, worker
from crystalmath.models import JobState
from crystalmath.server.handlers import METHODS
from crystalmath.service import JobService
from ends import lab_job
from rundirs import write_job

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small file system"),
]


@pytest.fixture
def disk(tmp_path, request):
    """Yield a small file system of its own; as a rule too small for a reserve."""
    place = tmp_path / "disk"
    place.mkdir()
    size = getattr(request, "param", 8)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}m,mode=700", "tmpfs", str(place)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def service(disk, lab, monkeypatch):
    """Yield a service whose home is on that disk."""
    monkeypatch.syspath_prepend(LAB)
    environ = {"CRYSTALMATH_HOME": str(disk / "home"), "CRYSTALMATH_RECIPES": "lab_recipes"}
    with JobService(config.load(environ)) as service:
        yield service


def submit(service, **parameters):
    return service.submit(lab_job("fill_disk", parameters=parameters)).job_id


def test_a_result_waits_until_there_is_room(service, disk):
    job_id = submit(service, path=str(disk / "filler"))
    eventually(lambda: os.statvfs(disk).f_bavail == 0)
    time.sleep(1)
    assert not service.job(job_id).state.is_terminal()
    (disk / "filler").unlink()
    eventually(lambda: service.job(job_id).state is JobState.COMPLETED)
    job = service.job(job_id)
    assert (job.state, job.attempt) == (JobState.COMPLETED, 1), job.error
    assert service.result(job_id) == {"sum": "x" * 10_000}


@pytest.mark.parametrize("disk", [128], indirect=True)
def test_a_reserve_is_given_up_for_a_result(service, disk):
    for number in range(2):  # it is put aside again once there is room
        filler = disk / f"filler-{number}"
        job_id = submit(service, path=str(filler))
        eventually(lambda job_id=job_id: service.job(job_id).state is JobState.COMPLETED)
        assert filler.stat().st_size > 100 * 2**20
        assert not (disk / "home/jobs/.reserve").exists()
        filler.unlink()


@pytest.mark.parametrize("disk", [128], indirect=True)
def test_a_job_begins_once_there_is_room(disk, chains_end):
    """It has been launched; its supervisor finds no room for the claim, nor for what it needs."""
    first, second = (write_job(disk, "lab_recipes.value") for _ in range(2))
    worker.run(first.path)
    assert (disk / "jobs/.reserve").exists()
    there = os.statvfs(disk)
    remount(disk, there.f_files - there.f_ffree)
    thread = threading.Thread(target=worker.run, args=(second.path,))
    thread.start()
    # The reserve was given up for the claim, and then there is no room for the work directory.
    eventually(lambda: second.claimed(1) or not thread.is_alive())
    remount(disk, there.f_files)
    thread.join()
    assert second.outcome(1)["state"] == "completed"


def remount(disk, files):
    """Set how many files a disk can have."""
    told = f"remount,nr_inodes={files}"
    subprocess.run(["mount", "-o", told, str(disk)], check=True)


def told(service, job_id):
    """Return a job as a front end sees it."""
    return asyncio.run(METHODS["jobs.status"](service, {"job_id": job_id}))


def test_a_job_whose_result_waits_says_so(service, disk):
    job_id = submit(service, path=str(disk / "filler"))
    full = {"status": "running", "reason": "disk full"}
    eventually(lambda: told(service, job_id).items() >= full.items())
    listed = asyncio.run(METHODS["jobs.list"](service, {}))["jobs"]
    assert [(job["status"], job["reason"]) for job in listed] == [("running", "disk full")]
    assert service.disk.last.free < 2**20
    (disk / "filler").unlink()
    eventually(lambda: told(service, job_id)["status"] == "completed")
    assert told(service, job_id)["reason"] is None


def test_who_fills_the_disk_can_be_cancelled(service, disk, tmp_path):
    job_id = submit(service, path=str(disk / "filler"), gate=str(tmp_path / "never"))
    eventually(lambda: os.statvfs(disk).f_bavail == 0)
    assert service.cancel(job_id)
    eventually(lambda: not running(job_id), 60, "its process goes on")
    (disk / "filler").unlink()
    eventually(lambda: service.job(job_id).state is JobState.CANCELLED)


def running(job_id):
    """Tell whether a process has this job's directory as its own."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if job_id in os.readlink(f"/proc/{pid}/cwd"):
                return True
        except OSError:
            continue
    return False
