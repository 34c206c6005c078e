"""Carry out at once work that yields where others may come between."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Generator

_T = TypeVar("_T")


def at_once(work: Generator[None, None, _T]) -> _T:
    """Return what a piece of work returns; nobody comes between."""
    while True:
        try:
            next(work)
        except StopIteration as stop:
            value: _T = stop.value
            return value
