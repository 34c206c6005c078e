"""How often a job has run: the recipe ``count_and_wait`` leaves a mark each time."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crystalmath.testing.oracle import Oracle


def touch(path: str) -> None:
    """Make a file that recipes wait for."""
    with open(path, "ab"):  # noqa: PTH123 - a parameter of a recipe, and so a string
        pass


def count(counted: dict[str, str]) -> str:
    """Give the marks that the runs have left."""
    try:
        with open(counted["count"], encoding="ascii") as file:  # noqa: PTH123
            return file.read()
    except FileNotFoundError:
        return ""


def ran_once(oracle: Oracle, job_id: str, counted: dict[str, str]) -> None:
    """Check that a job ran once, and completed."""
    assert count(counted) == "x"
    assert oracle.attempts(job_id) == 1
    outcome = oracle.outcome(job_id)
    assert outcome is not None
    assert outcome["state"] == "completed"
