"""`docs/potentials.md`, word by word, at a shell: 1,296 alloys, and their hull."""

import pytest

from crystalmath.client import connect

pytestmark = pytest.mark.server

COUNT = 6**4


@pytest.mark.by_turns
def test_potentials(follow, home_server):
    said = follow("potentials.md")
    assert f"{COUNT} structures\n" in said
    with connect(start=False) as client:
        assert client.totals(labels={"project": "alloys"})["completed"] == COUNT
        jobs = list(client.list(labels={"project": "alloys"}))
    sizes = [job.summary.get("batch", 1) for job in jobs]
    assert 2 < max(sizes) <= 100
    # Most jobs share a call with others.
    assert sum(size > 1 for size in sizes) > COUNT * 0.9
