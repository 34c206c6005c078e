"""One thing that was looked at: by ``crystalmath doctor``, or on a cluster."""

from __future__ import annotations

from attrs import frozen

__all__ = ["Check"]


@frozen(kw_only=True)
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
    state: str
    message: str
    remedy: str | None = None
