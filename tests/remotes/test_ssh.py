"""Commands on another machine, over ssh."""

import pytest

from conftest import AL

pytestmark = pytest.mark.server


def test_a_job_is_submitted_there_and_followed_from_here(hawk, cli):
    answer = cli("--on", "hawk", "submit", "lab_recipes.value", AL, "--name", "one")
    assert answer.code == 0, answer.err
    job_id = answer.out.strip()
    assert cli("--on", "hawk", "wait", job_id).code == 0
    assert hawk.run("status", job_id).returncode == 0
    assert job_id[:8] in cli("--on", "hawk", "list").out
