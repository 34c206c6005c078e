"""`docs/chains.md`, word by word, at a shell."""

import re

import pytest

from crystalmath.client import connect

pytestmark = pytest.mark.server


@pytest.mark.by_turns
def test_chains(follow, home_server):
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
