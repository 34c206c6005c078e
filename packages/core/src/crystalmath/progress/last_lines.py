"""The last lines of a file, of which only those are decoded that somebody looks at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

__all__ = ["LastLines"]

_BLOCK = 2**16


class LastLines(Sequence[str]):
    """Lines that are mostly read from the last one back, and seldom all.

    Parameters
    ----------
    data : bytes
        The end of the file. What of it is no UTF-8 is shown as replacement characters.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._all: list[str] | None = None

    def __reversed__(self) -> Iterator[str]:
        end = len(self._data)
        while end > 0:
            begin = self._data.rfind(b"\n", 0, max(0, end - _BLOCK)) + 1
            yield from reversed(self._lines(begin, end))
            end = begin

    def __len__(self) -> int:
        return len(self._whole())

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        return self._whole()[index]

    def _whole(self) -> list[str]:
        if self._all is None:
            self._all = self._lines(0, len(self._data))
        return self._all

    def _lines(self, begin: int, end: int) -> list[str]:
        return self._data[begin:end].decode("utf-8", "replace").splitlines()
