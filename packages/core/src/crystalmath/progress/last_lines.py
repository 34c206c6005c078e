"""The last lines of a file, of which only those are decoded that somebody looks at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

_BLOCK = 2**16
#: So much of a section is decoded at a time, in bytes: most end long before the file does.
_SECTION = 2**12


class LastLines(Sequence[str]):
    """Lines that are mostly read from the last one back, and seldom all.

    Parameters
    ----------
    data : bytes
        The end of the file, whole lines. What of it is no UTF-8 is shown as replacement characters.
    """

    def __init__(self, data: bytes = b"") -> None:
        self._data = data
        self._all: list[str] | None = None

    def __reversed__(self) -> Iterator[str]:
        end = len(self._data)
        while end > 0:
            begin = self._data.rfind(b"\n", 0, max(0, end - _BLOCK)) + 1
            yield from reversed(self._lines(begin, end))
            end = begin

    def sections(self, heading: str) -> Iterator[Iterator[str]]:
        """Yield the lines from each heading on, to the one before; the last heading comes first.

        Lines before it are passed over unseen: to look at each takes ten times as long.

        Parameters
        ----------
        heading : str
            What its line contains.
        """
        wanted, end = heading.encode(), len(self._data)
        while (found := self._data.rfind(wanted, 0, end)) >= 0:
            begin = self._data.rfind(b"\n", 0, found) + 1
            yield self._forward(begin, end)
            end = begin

    def _forward(self, begin: int, end: int) -> Iterator[str]:
        while begin < end:
            stop = self._data.find(b"\n", min(begin + _SECTION, end) - 1, end) + 1 or end
            yield from self._lines(begin, stop)
            begin = stop

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
