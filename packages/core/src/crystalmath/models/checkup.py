"""One thing that was looked at: by ``crystalmath doctor``, or on a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from attrs import frozen

from crystalmath.models.fields import Limits

if TYPE_CHECKING:
    from collections.abc import Mapping


@frozen
class Check:
    """One thing that was looked at.

    Parameters
    ----------
    name : str
        What was looked at.
    state : {"ok", "warning", "error"}
        An error keeps every job from running, a warning some.
    message : str
        What was seen.
    remedy : str, optional
        What to do about it.
    """

    name: str
    state: Annotated[str, Limits(enum=["ok", "warning", "error"])]
    message: str
    remedy: str | None = None


def cluster_checks(entry: Mapping[str, Any]) -> list[Check]:
    """Check what is in the way of all jobs on a cluster, by its entry in the list of clusters."""
    told = f"{entry['name']}: engine {entry['engine']}, scheduler {entry['scheduler']}"
    state = "error" if entry["error"] else "ok"
    checks = [Check("cluster", state, told, entry["error"])]
    if entry["trouble"]:
        told = f"{entry['scheduler']} does not answer"
        checks.append(Check("scheduler", "error", told, entry["trouble"]))
    return checks
