"""Say what the owner of a job should know, though it would run."""

from __future__ import annotations

import difflib
import functools
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from crystalmath.inspection.case import brief, safe, said
from crystalmath.inspection.surroundings import Surroundings
from crystalmath.models import Finding
from crystalmath.quacc.potcar_path import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from crystalmath.inspection.case import Case, Wanted

__all__ = ["findings"]

_MANY = 5
_FULL = 0.999


def findings(case: Case) -> Iterator[Finding]:
    """Find what is odd about the files, the structure and the parameters."""
    for wanted in case.files:
        if wanted.facts.problem is None:
            yield from _element(case, wanted)
    good = [wanted for wanted in case.files if wanted.facts.problem is None and wanted.potcar]
    changed = [wanted for wanted in good if wanted.facts.hash_holds is False]
    if changed:
        message = "the content does not have the SHA256 that the header states"
        yield _of_files(case, "potcar_hash", message, changed, "it was changed, or copied badly")
    unknown = [wanted for wanted in good if wanted.facts.official is False]
    unknown = [wanted for wanted in unknown if wanted not in changed]
    if unknown:
        message = "not an official file, as far as pymatgen's table of VASP's own POTCARs goes"
        yield _of_files(case, "potcar_unofficial", message, unknown, "compare it with VASP's own")
    yield from _occupancies(case)
    yield from _parameters(case)


def _element(case: Case, wanted: Wanted) -> Iterator[Finding]:
    element = wanted.facts.element
    wrong = [symbol for symbol in wanted.symbols if element not in (None, symbol)]
    if wrong:
        program = "VASP" if wanted.potcar else "pw.x"
        title = f" (TITEL = {said(wanted.facts.titel)})" if wanted.facts.titel else ""
        around = Surroundings(wanted, case)
        yield Finding(
            severity="warning",
            code=f"{wanted.prefix}_element",
            message=f"WRONG ELEMENT: {program} computes {shown(element)} where the structure has "
            f"{brief(wrong)}: {shown(wanted.path)} is a file for {shown(element)}{title}"
            f"{case.where(wanted.steps)}",
            path=safe(wanted.path),
            source=around.source,
            remedy=f"put the {wanted.noun} of {brief(wrong)} there",
        )


def _of_files(case: Case, code: str, message: str, files: Sequence[Wanted], remedy: str) -> Finding:
    named = brief([f"{wanted.setup} ({wanted.path})" for wanted in files], _MANY)
    around = Surroundings(files[0], case)
    one = len(files) == 1
    return Finding(
        severity="warning",
        code=code,
        message=f"{message}: {named}",
        path=safe(files[0].path if one else os.path.dirname(os.path.dirname(files[0].path))),
        source=around.source,
        remedy=remedy,
    )


def _occupancies(case: Case) -> Iterator[Finding]:
    """Find sites that a CIF fills partly; ASE gives each to its most frequent element."""
    told = case.atoms.info.get("occupancy")
    if not isinstance(told, Mapping):
        return
    partial = []
    for site in told.values():
        try:
            shares = {str(symbol): float(share) for symbol, share in site.items()}
        except (AttributeError, TypeError, ValueError):
            continue
        if shares and max(shares.values()) < _FULL:
            ordered = sorted(shares, key=lambda symbol: (-shares[symbol], symbol))
            words = " ".join(f"{symbol} {shares[symbol]:g}" for symbol in ordered)
            partial.append(f"{words} as {ordered[0]}")
    if partial:
        yield Finding(
            severity="warning",
            code="structure_occupancy",
            message="the structure has partly occupied sites, and the calculation takes each as "
            f"fully occupied by one element: {brief(dict.fromkeys(partial), _MANY)}",
            remedy="build an ordered structure, such as a supercell, from it",
        )


def _parameters(case: Case) -> Iterator[Finding]:
    unknown: dict[str, list[int]] = {}
    for number, step in enumerate(case.report.steps):
        for name in step.unknown:
            unknown.setdefault(name, []).append(number)
    for name, steps in unknown.items():
        near = difflib.get_close_matches(name.lower(), _known(), n=1)
        yield Finding(
            severity="warning",
            code="parameter_unknown",
            message=f"no parameter of VASP is known as {shown(name)!r}; it is written into INCAR "
            f"as it stands{case.where(steps)}",
            remedy=f"did you mean {near[0]!r}?" if near else None,
        )


@functools.cache
def _known() -> tuple[str, ...]:
    """List the parameters of ASE's calculator, whose import takes a tenth of a second."""
    from ase.calculators.vasp import create_input

    names = set(create_input.GenerateVaspInput().input_params)
    for kind, keys in vars(create_input).items():
        if kind.endswith("_keys"):
            names.update(keys)
    return tuple(sorted(names))
