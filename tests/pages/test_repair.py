"""`docs/repair.md`, word by word, at a shell."""

import pytest

from crystalmath.client import connect

pytestmark = pytest.mark.server


@pytest.mark.by_turns
def test_repair(follow, home_server):
    said = follow("repair.md")
    with connect(start=False) as client:
        jobs = list(client.list(labels={"project": "metals"}, all_tries=True))
        left = list(client.list(labels={"project": "metals"}))
    old = {job.job_id: job for job in jobs if not job.parents}
    new = [job for job in jobs if job.parents]
    assert left == new
    assert old
    assert {job.state.value for job in old.values()} == {"failed"}
    assert {job.state.value for job in new} == {"completed"}
    assert sorted(job.parents[-1]["job_id"] for job in new) == sorted(old)
    for job in new:
        assert job.name == old[job.parents[-1]["job_id"]].name
        assert "/opt.traj" in job.parents[0]["file"]
        assert job.job_id in said
