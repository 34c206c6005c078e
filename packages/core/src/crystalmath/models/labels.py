"""Values in labels: what a sweep writes there, and what is read of it."""

from __future__ import annotations

import json
import math
from typing import Any

__all__ = ["label_cell", "label_of", "label_value"]


def label_of(value: object) -> str:
    """Write a value as a label."""
    if isinstance(value, str):
        return value
    if isinstance(value, type):  # an optimizer, which is asked for by its name
        return value.__name__
    try:
        return json.dumps(value, separators=(",", ":"))  # as people type it, without quotes
    except TypeError:  # a complex number
        return str(value)


def label_cell(text: str) -> str | float:
    """Read a label for a table: a number where it is written as one, as ``400`` and not ``007``."""
    value = label_value(text)
    number = (
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf
    )
    return value if number and label_of(value) == text else text


def label_value(text: str) -> Any:
    """Read a label as the value that was swept."""
    try:
        return json.loads(text)
    except ValueError:
        return text
