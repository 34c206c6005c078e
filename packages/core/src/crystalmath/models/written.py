"""Spans of time, amounts of memory, forces and labels, as people write them."""

from __future__ import annotations

import json
import math
import re
from typing import Any

_NUMBER = r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_UNITS = re.compile("".join(f"(?:{_NUMBER}{unit})?" for unit in "dhms"), re.IGNORECASE)
# A capital M beside no other unit: in dates it stands for months, which have no one length.
_MONTHS = re.compile(f"{_NUMBER}M")
_SLURM = re.compile(r"(?:([0-9]+)-)?([0-9]+)(?::([0-9]{1,2}))?(?::([0-9]{1,2}))?")
_SCALE = (86400.0, 3600.0, 60.0, 1.0)


def read_timespan(text: str) -> float | None:
    """Read a span of time and return it in seconds; ``None`` if unreadable.

    Parameters
    ----------
    text : str
        With units (``90s``, ``2h``, ``1h30m``, ``1.5h``, ``1d``), or Slurm's ``HH:MM:SS`` and
        ``D-HH[:MM[:SS]]``. A number alone is none: it is minutes for Slurm, and seconds for others.
        Neither is ``2M``, which may be meant as months.
    """
    text = text.strip()
    joined = text.replace(" ", "")
    units = None if _MONTHS.fullmatch(joined) else _UNITS.fullmatch(joined)
    if units and text:
        return _total(units.groups())
    slurm = _SLURM.fullmatch(text)
    # Slurm reads 02:30 as minutes and seconds, most people as hours and minutes.
    if slurm and (slurm[1] or slurm[4]):
        return _total(slurm.groups())
    return None


def timespan_text(seconds: float) -> str:
    """Write a span of time as `read_timespan` reads it: ``1d12h``, ``90.5s`` as ``1m30.5s``."""
    text = ""
    for unit, scale in zip("dhm", _SCALE, strict=False):
        whole, seconds = divmod(seconds, scale)
        text += f"{whole:.0f}{unit}" if whole else ""
    return text + (f"{seconds:g}s" if seconds or not text else "")


def _total(parts: tuple[str | None, ...]) -> float:
    return sum(float(part or 0) * scale for part, scale in zip(parts, _SCALE, strict=True))


_MEMORY = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(?:([KMGT])I?B?)?", re.IGNORECASE)
_MEGABYTES = {"K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0**2}


def read_megabytes(text: str) -> float | None:
    """Read an amount of memory and return it in MB of 1024 * 1024 bytes; ``None`` if unreadable.

    Parameters
    ----------
    text : str
        ``4GB``, ``512MB``, ``1.5T``. As for schedulers, a GB is 1024 MB, and a number alone is MB.
    """
    read = _MEMORY.fullmatch(text.strip())
    return None if read is None else float(read[1]) * _MEGABYTES[(read[2] or "M").upper()]


def memory_text(megabytes: float) -> str:
    """Write an amount of memory, in GB if that is a whole number."""
    return f"{megabytes / 1024:g}GB" if megabytes % 1024 == 0 else f"{megabytes:g}MB"


def force_text(ev_ang: float) -> str:
    """Write a force (eV/Å) for people, with as many digits as the page."""
    return f"{ev_ang:.4f}"


def label_of(value: object) -> str:
    """Write a value as a label."""
    if isinstance(value, str):
        return value
    if isinstance(value, type):  # an optimizer, which people call by its name
        return value.__name__
    try:
        return json.dumps(value, separators=(",", ":"))  # as people type it, without quotes
    except TypeError:  # a complex number
        return str(value)


def label_cell(text: str) -> str | float:
    """Read a label for a table: as a number if it is written as one, as ``400`` but not ``007``."""
    value = label_value(text)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if number and label_of(value) == text else text


def label_value(text: str) -> Any:
    """Read a label as a swept value, which is always finite."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return text if isinstance(value, float) and not math.isfinite(value) else value
