"""The base of readers of progress, which plugins provide, and the lines that they read."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias, overload

from attrs import frozen

_BLOCK = 2**16
#: A section is decoded in pieces of so many bytes: most end long before the file does.
_SECTION = 2**12


class LastLines(Sequence[str]):
    """The last lines of a file, decoded on demand.

    `data` is the end of the file in whole lines. Invalid UTF-8 becomes replacement characters.
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
        """Yield each section's lines, from its heading to the next one; the last section first.

        Other lines are not decoded, which would take ten times as long.

        Parameters
        ----------
        heading : str
            A text in the heading's line.
        """
        text, end = heading.encode(), len(self._data)
        while (position := self._data.rfind(text, 0, end)) >= 0:
            begin = self._data.rfind(b"\n", 0, position) + 1
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

#: Returns the last lines of one of the calculation's files by its name, as a sequence of str. An
#: unfinished line is left out. There are none if the file is missing.
Lines: TypeAlias = Callable[[str], LastLines]


@frozen(kw_only=True)
class Reading:
    """The progress of a calculation; ``None`` for each figure that is not written yet.

    Parameters
    ----------
    ionic_step : int, optional
        The step of the relaxation or dynamics that is being computed, or the last one.
    electronic_step : int, optional
        The step of the self-consistent cycle within it.
    energy_ev : float, optional
        The energy of the last ionic step in eV. During the first one, the energy of its last
        electronic step.
    max_force_ev_ang : float, optional
        The largest force on an atom after the last ionic step, in eV/Å.
    """

    ionic_step: int | None = None
    electronic_step: int | None = None
    energy_ev: float | None = None
    max_force_ev_ang: float | None = None


class ProgressReader(ABC):
    """Reads the output of one program while the program runs.

    Attributes
    ----------
    program : str
        The program's name for people.
    file : str
        The file by which a calculation is recognised; it grows while the calculation runs. Once it
        has ended, the same name with ``.gz`` stands for it.
    others : tuple of str
        Further files beside it that are read.
    """

    program: str
    file: str
    others: tuple[str, ...] = ()

    @abstractmethod
    def read(self, lines: Lines) -> Reading:
        """Return the progress so far; the output may end anywhere.

        Parameters
        ----------
        lines : callable
            Returns the last lines of `file` or one of `others`, at most 1 MiB. The server calls
            `read` often: ``reversed(lines(...))`` and ``lines(...).sections(heading)`` decode only
            the lines that are used.
        """

    def collector(self) -> StepCollector | None:
        """Return a collector of one calculation's ionic steps; ``None`` if there is none."""
        return None


class StepCollector(ABC):
    """Collects the ionic steps of one calculation from the lines of its files."""

    @abstractmethod
    def take(self, file: str, lines: Sequence[str]) -> None:
        """Take the next lines of a file. Each file comes whole, from its beginning.

        Parameters
        ----------
        file : str
            The reader's `file`, and after its end each of its `others` in turn.
        lines : sequence of str
            Whole lines, some hundreds of them.
        """

    @abstractmethod
    def steps(self) -> Sequence[Reading]:
        """Return the completed steps, the oldest first."""


def largest(forces: Sequence[Sequence[float]], unit: float = 1.0) -> float | None:
    """Return the largest force on an atom.

    Parameters
    ----------
    forces : sequence of sequence of float
        A row of three for each atom.
    unit : float
        The unit of `forces` in eV/Å.
    """
    return max((math.hypot(*row) * unit for row in forces), default=None)
