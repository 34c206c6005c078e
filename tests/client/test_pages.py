"""The pages of `docs` that are gone through at a shell, word by word."""

import re

import pytest

from crystalmath.client import connect


@pytest.mark.by_turns
def test_chains(follow, server):
    said = " ".join(follow("chains.md").split())
    assert re.search(r"name Al came of \S{36} \(its final geometry\)", said)
    assert re.search(r"state pending reason \S.* waits for \S{36} \(its final geometry\)", said)
    assert re.search(r"came of \S{36} \(its final geometry, of its retry \w{8}\)", said)
    with connect(start=False) as client:
        of_chain = list(client.list(labels={"project": "chain"}))
        assert {job.state.value for job in of_chain} == {"completed"}
        assert sorted(job.labels["step"] for job in of_chain) == [
            step for step in ("md", "relax", "static") for _ in range(3)
        ]
        (one, zero), (final, *_), (again,) = (
            [job.summary["energy_ev"] for job in client.list(labels={"step": step})]
            for step in ("way", "cutoff", "again")
        )
    # The newest first: the geometries 1 and 0 of the way are above the relaxed one.
    assert min(one, zero) > final
    assert again == pytest.approx(final, abs=1e-6)


@pytest.mark.by_turns
def test_flows(follow, server):
    said = " ".join(follow("flows.md").split())
    # A shell of 80 columns leaves less of the recipe where the ages are longer.
    assert re.search(r"slabs completed \S*s\.bulk_to_slabs_flow local 8/8", said)
    assert re.search(
        r"state failed error StepFailed: step \S*relax_job#0 .* did not converge", said
    )
    assert re.search(r"failed \S*relax_job#\d \(\w{8}\): RuntimeError: Optimization did not", said)
    with connect(start=False) as client:
        # Other pages use the same home.
        every = client.jobs(all_tries=True)
        search, again, failing, slabs = (job for job in every if job.info().steps)
        assert failing.info().superseded_by == again.job_id
        for flow in (search, again, slabs):
            assert flow.info().steps == {"completed": len(flow.steps())}, flow.name
        assert failing.info().steps["failed"] >= 2
        best = min(
            step.result()["results"]["energy"]
            for step in search.steps()
            if step.labels["step"] == "static_job"
        )
        assert search.result()["results"]["energy"] == best


@pytest.mark.by_turns
def test_repair(follow, server):
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
