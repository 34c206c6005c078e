"""Chemical formulas in one form, so that they can be compared."""

from __future__ import annotations

import math
import re
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING

from attrs import frozen

from crystalmath.errors import InvalidJob, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_PART = re.compile(r"([A-Z][a-z]?)([0-9]*)")


@frozen
class Composition:
    """The elements and numbers of atoms of a formula."""

    #: All atoms, in Hill's order: ``C2H6O``, ``Cl4Na4``.
    formula: str
    #: The formula with the smallest whole numbers: ``ClNa``.
    reduced: str
    #: The symbols, in alphabetical order.
    elements: tuple[str, ...]
    natoms: int


@lru_cache(maxsize=4096)
def composition(formula: str) -> Composition | None:
    """Read a formula without brackets, as :class:`ase.Atoms` writes it; ``None``: it has some."""
    parts = _PART.findall(formula)
    if not parts or "".join(f"{symbol}{number}" for symbol, number in parts) != formula:
        return None
    counts: Counter[str] = Counter()
    for symbol, number in parts:
        counts[symbol] += int(number or 1)
    counts = +counts
    return _composition(counts) if counts else None


def read_formula(text: str) -> Composition:
    """Read a formula as people write it, ``Fe2(SO4)3``; `InvalidJob`: it is no formula."""
    from ase.formula import Formula

    try:
        counts = Formula(text).count()
    except (ValueError, RecursionError):
        counts = {}
    present = {symbol: count for symbol, count in counts.items() if count}
    if not present:
        raise InvalidJob(f"{shown(text)} is no formula; write it as NaCl or Fe2(SO4)3")
    return _composition(present)


def read_elements(symbols: Iterable[str]) -> tuple[str, ...]:
    """Return symbols of elements, capitalised; `InvalidJob`: one belongs to no element."""
    from ase.data import atomic_numbers

    elements = tuple(symbol.strip().capitalize() for symbol in symbols)
    for symbol in elements:
        if symbol not in atomic_numbers:
            raise InvalidJob(f"{shown(symbol)} is no element; write symbols, as Cu,O")
    return elements


def _composition(counts: Mapping[str, int]) -> Composition:
    divisor = math.gcd(*counts.values())
    return Composition(
        formula=_hill(counts),
        reduced=_hill({symbol: count // divisor for symbol, count in counts.items()}),
        elements=tuple(sorted(counts)),
        natoms=sum(counts.values()),
    )


def _hill(counts: Mapping[str, int]) -> str:
    first = [symbol for symbol in ("C", "H") if "C" in counts and symbol in counts]
    order = [*first, *sorted(counts.keys() - set(first))]
    return "".join(f"{one}{counts[one] if counts[one] > 1 else ''}" for one in order)
