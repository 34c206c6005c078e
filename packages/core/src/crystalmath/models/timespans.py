"""Spans of time as people write them: on the command line, and in the configuration file."""

from __future__ import annotations

import re

__all__ = ["read_timespan"]

_NUMBER = r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_UNITS = re.compile("".join(f"(?:{_NUMBER}{unit})?" for unit in "dhms"), re.IGNORECASE)
_SLURM = re.compile(r"(?:([0-9]+)-)?([0-9]+)(?::([0-9]{1,2}))?(?::([0-9]{1,2}))?")
_SCALE = (86400.0, 3600.0, 60.0, 1.0)


def read_timespan(text: str) -> float | None:
    """Read a span of time and return it in seconds, or ``None`` for what is none.

    Parameters
    ----------
    text : str
        With units (``90s``, ``2h``, ``1h30m``, ``1.5h``, ``1d``), or Slurm's ``HH:MM:SS`` and
        ``D-HH[:MM[:SS]]``. A number alone is none: it is minutes for Slurm, and seconds for others.
    """
    text = text.strip()
    units = _UNITS.fullmatch(text.replace(" ", ""))
    if units and text:
        return _total(units.groups())
    slurm = _SLURM.fullmatch(text)
    # Slurm reads 02:30 as minutes and seconds, most people as hours and minutes.
    if slurm and (slurm[1] or slurm[4]):
        return _total(slurm.groups())
    return None


def _total(parts: tuple[str | None, ...]) -> float:
    return sum(float(part or 0) * scale for part, scale in zip(parts, _SCALE, strict=True))
