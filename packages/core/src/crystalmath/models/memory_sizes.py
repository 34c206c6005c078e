"""Amounts of memory as people write them."""

from __future__ import annotations

import re

__all__ = ["memory_text", "read_megabytes"]

_MEMORY = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(?:([KMGT])I?B?)?", re.IGNORECASE)
_MEGABYTES = {"K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0**2}


def read_megabytes(text: str) -> float | None:
    """Read an amount of memory and give it in MB of 1024 * 1024 bytes; ``None`` for what is none.

    Parameters
    ----------
    text : str
        ``4GB``, ``512MB``, ``1.5T``. As for schedulers, a GB is 1024 MB, and a number alone is MB.
    """
    read = _MEMORY.fullmatch(text.strip())
    return None if read is None else float(read[1]) * _MEGABYTES[(read[2] or "M").upper()]


def memory_text(megabytes: float) -> str:
    """Write an amount of memory, in GB where that is a whole number."""
    return f"{megabytes / 1024:g}GB" if megabytes % 1024 == 0 else f"{megabytes:g}MB"
