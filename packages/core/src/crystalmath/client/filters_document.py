"""Filters as a caller of the client gives them, as ``jobs.list`` takes them."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def filters_document(filters: Mapping[str, Any]) -> dict[str, Any]:
    """Write filters for the wire, without those that are ``None`` or empty."""
    return {
        name: _plain(name, value)
        for name, value in filters.items()
        if value is not None and not (name in {"labels", "exclude"} and not value)
    }


def _plain(name: str, value: Any) -> Any:
    if name == "exclude":
        return filters_document(value)
    if name == "elements" and isinstance(value, str):
        return [symbol for symbol in value.replace(",", " ").split() if symbol]
    if isinstance(value, datetime):
        return value.timestamp()
    if name == "labels":
        return dict(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(value)
    return value
