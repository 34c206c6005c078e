"""The limits that `docs/why-no-job-is-lost.md` names are those of the code."""

from pathlib import Path

import pytest

from crystalmath.config import LEASE_S
from crystalmath.jobs import life

PAGE = Path(__file__).parents[2] / "docs/why-no-job-is-lost.md"


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (life.ATTEMPTS == 2, "A lost attempt is repeated once,"),
        (life.PASS_ATTEMPTS == 5, "A pass of a flow has five attempts"),
        (life.RELAUNCHES == 5, "fails after six launches"),
        (life.GIVE_UP_S == 300, "not before five minutes"),
        (life.GONE_LOOKS == 3, "after three looks"),
        (life.GONE_S == 2, "in two seconds"),
        (LEASE_S == 20 * 60, "in each lease (20 minutes)"),
    ],
)
def test_the_page_says(value, sentence):
    assert sentence in " ".join(PAGE.read_text(encoding="utf-8").split())
    assert value
