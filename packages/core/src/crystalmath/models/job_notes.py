"""What stands with a job beside its fields: findings of the preflight, and what it came of."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

__all__ = ["Parent", "Told"]


class Told(TypedDict):
    """A finding of the preflight (:class:`~crystalmath.models.Finding`)."""

    severity: Literal["error", "warning"]
    code: str
    message: str
    path: str | None
    source: str | None
    remedy: str | None


class Parent(TypedDict):
    """A job that another came of.

    `role` is ``structure`` (its geometry was taken: its final one, or that of `frame`, counted from
    0, or what was read from the `file` in its run directory) ``retry`` (it was done again),
    or ``reread`` (its calculations were read again).
    """

    job_id: str
    role: Literal["structure", "retry", "reread"]
    frame: NotRequired[int]
    file: NotRequired[str]
