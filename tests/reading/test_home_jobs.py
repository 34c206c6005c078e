"""Lists of a home without a server, beside unfinished jobs of processes that have ended."""

import dataclasses

import pytest

from crystalmath import config, processes
from crystalmath.jobs.identities import IDENTITIES, IdentityFile
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.models import JobState
from crystalmath.quacc.store import JobStore
from crystalmath.reading.home_jobs import HomeJobs
from rundirs import new_job

#: A process of this host that has ended.
OWNER = vars(dataclasses.replace(processes.own_identity(), pid=2**22 + 1))
PENDING, COMPLETED = JobState.PENDING, JobState.COMPLETED


@pytest.fixture
def left(home):
    """Return the run directories of forty jobs that their owner has left pending."""
    (home / "jobs").mkdir()
    with JobStore(f"sqlite:///{home / 'jobs.sqlite'}") as store:
        jobs = store.insert([new_job(owner=OWNER, labels={"n": str(n)}) for n in range(40)])
    directories = [RunDirectory(home / "jobs" / job.job_id) for job in jobs]
    for job, directory in zip(jobs, directories, strict=True):
        directory.write_spec({"job_id": job.job_id, "attempt": 1, "owner": OWNER}, "{}")
    return directories


@pytest.fixture
def reads(monkeypatch):
    """Return the run directories whose specification is read, as that happens."""
    read, directories = RunDirectory.read_header, []
    monkeypatch.setattr(
        RunDirectory,
        "read_header",
        lambda directory: directories.append(directory.path) or read(directory),
    )
    return directories


def begin(directory, state=None):
    """Claim a job as a worker does that outlives its owner, and end it in a state."""
    folder = directory.path.rpartition("/")[0]
    identity = dataclasses.replace(processes.own_identity(), pid=2**22 + 2)
    assert directory.claim(1, IdentityFile(f"{folder}/{IDENTITIES}", identity))
    if state is not None:
        directory.publish(1, {"state": state.value, "started": 1.0, "finished": 2.0})


def test_a_page_reads_the_files_of_its_own_jobs(left, reads):
    begin(left[-1], COMPLETED)
    begin(left[0], COMPLETED)
    with HomeJobs.look(config.load()) as home:
        page = home.jobs(limit=5)
        assert [job.state for job in page] == [COMPLETED, *[PENDING] * 4]
        assert set(reads) == {directory.path for directory in left[-5:]}
        del reads[:]
        (oldest,) = home.jobs(label={"n": "0"})
        assert oldest.state is COMPLETED
        assert reads == [left[0].path]


def test_counts_and_filters_by_state_read_the_files_of_jobs_that_have_begun(left, reads):
    begin(left[3], COMPLETED)
    begin(left[30], COMPLETED)
    left[10].publish(1, {"state": "cancelled", "error": "cancelled"})
    ended = [left[30].path, left[10].path, left[3].path]

    def listed(**filters):
        return [f"{left[0].path.rpartition('/')[0]}/{job.job_id}" for job in home.jobs(**filters)]

    with HomeJobs.look(config.load()) as home:
        assert home.totals() == {PENDING: 37, COMPLETED: 2, JobState.CANCELLED: 1}
        assert home.summary()[0] == home.totals()
        assert listed(state=[COMPLETED, JobState.CANCELLED]) == ended
        assert set(reads) == set(ended)
        assert listed(exclude={"state": [PENDING]}) == ended
        assert [job.state for job in home.jobs(state=[PENDING])] == [PENDING] * 37
        assert len(listed()) == 40
