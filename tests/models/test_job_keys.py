"""A submission without a key gets one, so that it can be sent twice."""

import pytest

from crystalmath.models.job_keys import with_keys


@pytest.mark.parametrize(
    ("method", "params", "ours"),
    [
        ("jobs.submit", {"recipe": "x"}, {0}),
        ("jobs.submit", {"recipe": "x", "key": "mine"}, set()),
        ("jobs.submit_many", {"jobs": [{"key": "mine"}, {}, {"key": None}]}, {1, 2}),
        ("jobs.list", {"limit": 1}, set()),
    ],
)
def test_a_submission_without_a_key_gets_one(method, params, ours):
    sent, keyed_here = with_keys(method, params)
    assert keyed_here == ours
    jobs = sent.get("jobs", [sent])
    assert len({jobs[at]["key"] for at in ours}) == len(ours)
    assert {job.get("key") for at, job in enumerate(jobs) if at not in ours} <= {"mine", None}
