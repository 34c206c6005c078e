"""Paths, values and errors on one line of a message."""

from __future__ import annotations


def shown(value: object) -> str:
    """Write a path or an error on one line, quoted where it could be misread."""
    text = str(value)
    return text if text.isprintable() and text == text.strip() else repr(text)


def words_of(error: BaseException) -> str:
    """Say on one line what an error says."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return shown(" ".join(str(text).split()))
