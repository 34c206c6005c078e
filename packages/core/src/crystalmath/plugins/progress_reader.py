"""What a plugin provides that reads how far a calculation has come, and the lines that it reads."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias, overload

from attrs import frozen

_BLOCK = 2**16
#: So much of a section is decoded at a time, in bytes: most end long before the file does.
_SECTION = 2**12


class LastLines(Sequence[str]):
    """The last lines of a file, decoded only as far as they are looked at.

    `data` is the end of the file, whole lines; what is no UTF-8 becomes replacement characters.
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


__all__ = ["Lines", "ProgressReader", "Reading", "StepCollector", "largest"]

#: Gives the last lines of a file of the calculation by its name, without one that has no end yet;
#: none where there is no such file. They are a sequence of str.
Lines: TypeAlias = Callable[[str], LastLines]


@frozen(kw_only=True)
class Reading:
    """What a reader has read; ``None`` where that is not written yet.

    Parameters
    ----------
    ionic_step : int, optional
        The step of the relaxation or dynamics that is computed, or was the last.
    electronic_step : int, optional
        The step of the self-consistent cycle in it.
    energy_ev : float, optional
        The energy of the last ionic step in eV; in the first one, of its last electronic step.
    max_force_ev_ang : float, optional
        The largest force on an atom after the last ionic step, in eV/Å.
    """

    ionic_step: int | None = None
    electronic_step: int | None = None
    energy_ev: float | None = None
    max_force_ev_ang: float | None = None


class ProgressReader(ABC):
    """Reads the output of one program while it is written.

    Attributes
    ----------
    program : str
        What people call the program.
    file : str
        The file by which a calculation of it is known; it grows while the calculation runs. One
        that ends in ``.gz`` beside it is the same, once the calculation has ended.
    others : tuple of str
        Further files beside it that are read.
    """

    program: str
    file: str
    others: tuple[str, ...] = ()

    @abstractmethod
    def read(self, lines: Lines) -> Reading:
        """Read what there is; it may have been cut anywhere.

        Parameters
        ----------
        lines : callable
            Gives the last lines of `file` or one of `others`: 1 MiB of them at most. Going through
            them with ``reversed``, or from a heading on with ``sections``, costs only what is
            looked at; the server asks again and again.
        """

    def collector(self) -> StepCollector | None:
        """Make what collects the ionic steps of one calculation; ``None``: they cannot be told."""
        return None


class StepCollector(ABC):
    """Collects the ionic steps of one calculation from the lines of its files."""

    @abstractmethod
    def take(self, file: str, lines: Sequence[str]) -> None:
        """Take the next lines of a file; all of it comes so, from its beginning.

        Parameters
        ----------
        file : str
            The reader's `file`, or thereafter each of its `others` in turn.
        lines : sequence of str
            Whole lines, some hundreds of them.
        """

    @abstractmethod
    def steps(self) -> Sequence[Reading]:
        """Return the steps that were computed to their ends, the oldest first."""


def largest(forces: Sequence[Sequence[float]], unit: float = 1.0) -> float | None:
    """Return the largest force on an atom.

    Parameters
    ----------
    forces : sequence of sequence of float
        A row of three for each atom.
    unit : float
        What they are given in, in eV/Å.
    """
    return max((math.hypot(*row) * unit for row in forces), default=None)
