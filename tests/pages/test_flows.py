"""`docs/flows.md`, word by word, at a shell."""

import re

import pytest

from crystalmath.client import connect

pytestmark = pytest.mark.server


@pytest.mark.by_turns
def test_flows(follow, home_server):
    said = " ".join(follow("flows.md").split())
    # A shell of 80 columns leaves less of the recipe where the ages are longer.
    assert re.search(r"slabs completed \S*slabs_flow local 8/8", said)
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
