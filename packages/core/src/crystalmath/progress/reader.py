"""What a plugin provides that reads how far a program's calculation has come."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeAlias

from attrs import frozen

from crystalmath.progress.last_lines import LastLines

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
