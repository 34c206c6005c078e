"""The database selects the jobs whose files are pruned, page by page."""

import time

import pytest

from crystalmath.jobs.changes import Change
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.jobs.worktree import at_once
from crystalmath.models import JobState
from crystalmath.quacc.store import JobStore
from crystalmath.running.pruning import Choice, prune
from crystalmath.running.recorder import Recorder
from rundirs import new_job

DAY = 86400.0
COMPLETED, FAILED, CANCELLED = JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED


@pytest.fixture
def recorder(tmp_path):
    """Return the recorder of a home with jobs that ended 0 to 11 days ago, by turns."""
    url = f"sqlite:///{tmp_path}/jobs.sqlite"
    (tmp_path / "jobs").mkdir()
    now = time.time()
    with JobStore(url) as store:
        jobs = store.insert(
            [
                new_job(labels={"n": str(n), "odd": str(n % 2)}, created_at=now - 20 * DAY)
                for n in range(12)
            ]
        )
        for n, job in enumerate(jobs):
            state = (COMPLETED, FAILED, CANCELLED)[n % 3]
            store.apply([Change(job_id=job.job_id, state=state, at=now - n * DAY - 60.0)])
            RunDirectory(tmp_path / "jobs" / job.job_id).make()
        store.insert([new_job(created_at=now - 40 * DAY)])  # it has not ended
    made = Recorder(url, tmp_path / "jobs")
    yield made
    made.close()


def pruned(recorder, tmp_path, *, dry_run=False, **choice):
    done = at_once(prune(recorder, tmp_path / "jobs", Choice(**choice), dry_run=dry_run))
    assert (done.left, done.cursor) == ([], None)
    return sorted(int(job.labels["n"]) for job, _ in done.jobs)


@pytest.mark.parametrize(
    ("choice", "numbers"),
    [
        ({"older_s": 10 * DAY}, [10, 11]),
        ({"older_s": 12 * DAY}, []),
        ({"older_s": 7 * DAY, "filters": {"state": [FAILED]}}, [7, 10]),
        ({"older_s": 7 * DAY, "filters": {"label": {"odd": "1"}}}, [7, 9, 11]),
        ({"filters": {"label": {"n": "3"}}}, [3]),
        ({"older_s": 0.0, "filters": {"exclude": {"label": {"odd": "1"}}}}, [0, 2, 4, 6, 8, 10]),
        ({"older_s": 9 * DAY, "larger": 2**30}, []),
    ],
)
def test_old_jobs_are_chosen_by_age_state_and_labels(recorder, tmp_path, choice, numbers):
    assert pruned(recorder, tmp_path, dry_run=True, **choice) == numbers
    assert pruned(recorder, tmp_path, **choice) == numbers
    assert pruned(recorder, tmp_path, **choice) == []


def test_only_the_jobs_that_fit_are_read(recorder, tmp_path, monkeypatch):
    monkeypatch.setattr("crystalmath.running.pruning._PAGE", 2)
    read, pages = JobStore.list, []

    def listed(store, **asked):
        pages.append(read(store, **asked))
        return pages[-1]

    monkeypatch.setattr(JobStore, "list", listed)
    assert pruned(recorder, tmp_path, older_s=8 * DAY) == [8, 9, 10, 11]
    assert [len(page) for page in pages] == [2, 2, 0]
    del pages[:]
    assert pruned(recorder, tmp_path, older_s=8 * DAY) == []
    assert [len(page) for page in pages] == [0]
