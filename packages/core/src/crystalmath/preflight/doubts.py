"""Say what the owner of a job should know, though it would run."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from crystalmath.models import Finding
from crystalmath.preflight.case import brief, safe, said
from crystalmath.preflight.surroundings import Surroundings
from crystalmath.recipes.potcar_path import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from crystalmath.preflight.case import Case, Wanted

__all__ = ["findings"]

_MANY = 5
_FULL = 0.999
#: LEXCH -> the class of the functional, as pymatgen's PotcarSingle tells it.
_CLASSES = {
    **dict.fromkeys(("91", "AM", "LM", "PB", "PE", "PS", "PW", "RP"), "GGA"),
    **dict.fromkeys(("CA", "HL", "WI"), "LDA"),
}
#: The folders that ASE knows by the names of functionals; it calls VASP's old LDA files potpaw.
_LIBRARY = re.compile(r"potpaw(_PBE|_LDA)?(?(1)(\..+)?)")


def findings(case: Case) -> Iterator[Finding]:
    """Find what is odd about the files, the structure and the parameters."""
    for wanted in case.files:
        if wanted.facts.problem is None:
            yield from _element(case, wanted)
    good = [wanted for wanted in case.files if wanted.facts.problem is None and wanted.potcar]
    yield from _functionals(case, good)
    changed = [wanted for wanted in good if wanted.facts.hash_holds is False]
    message = "the content does not have the SHA256 that the header states"
    remedy = "it was changed, or copied badly: copy it again from where it came"
    yield from _of_files(case, "potcar_hash", message, changed, remedy)
    yield from _occupancies(case)
    yield from _parameters(case)
    unknown = [wanted for wanted in good if wanted.facts.official is False]
    unknown = [wanted for wanted in unknown if wanted not in changed]
    message = "not official, as far as pymatgen's table of VASP's own POTCARs goes"
    yield from _of_files(case, "potcar_unofficial", message, unknown, "compare with VASP's own")


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
            remedy=_right_element(wanted, wrong),
        )


def _right_element(wanted: Wanted, wrong: Sequence[str]) -> str:
    """Mend the choice of the file where a parameter made it, else the file."""
    parameter = "setups" if wanted.potcar else "pseudopotentials"
    chosen = f"parameter {parameter}" in wanted.reason
    # Setups are suffixes, but for those of single atoms: Al_sv is where aluminium should be.
    if wanted.potcar and any(wanted.setup.startswith(symbol) for symbol in wrong):
        chosen = False
    if chosen:
        return f"name one of {brief(wrong)} with the parameter {parameter}"
    return f"put the {wanted.noun} of {brief(wrong)} there"


def _functionals(case: Case, files: Sequence[Wanted]) -> Iterator[Finding]:
    """Find files in the folder of another class of functionals."""
    odd: dict[str, list[Wanted]] = {}
    for wanted in files:
        folder = os.path.basename(Surroundings(wanted, case).library)
        found = _CLASSES.get((wanted.facts.lexch or "").upper())
        library = _LIBRARY.fullmatch(folder)
        if found is None or library is None:
            continue
        wants, of = ("PBE", "GGA") if library[1] == "_PBE" else ("LDA", "LDA")
        if found != of:
            message = (
                f"made for another functional than its folder: LEXCH = {wanted.facts.lexch} "
                f"({found}), and {shown(folder)} is for {wants}"
            )
            odd.setdefault(message, []).append(wanted)
    for message, group in odd.items():
        remedy = "put VASP's own files there, or choose their folder with pp and pp_version"
        yield from _of_files(case, "potcar_functional", message, group, remedy)


def _of_files(
    case: Case, code: str, message: str, files: Sequence[Wanted], remedy: str
) -> Iterator[Finding]:
    """Say the same of files, once for each library."""
    libraries: dict[str, list[Wanted]] = {}
    for wanted in files:
        libraries.setdefault(Surroundings(wanted, case).library, []).append(wanted)
    for library, group in libraries.items():
        one = len(group) == 1
        listed = brief([wanted.setup for wanted in group], _MANY)
        steps = sorted({number for wanted in group for number in wanted.steps})
        yield Finding(
            severity="warning",
            code=code,
            message=f"{message}: {shown(group[0].path) if one else f'{listed} in {shown(library)}'}"
            f"{case.where(steps)}",
            path=safe(group[0].path if one else library),
            source=Surroundings(group[0], case).source,
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
    unknown: dict[tuple[str, str | None], list[int]] = {}
    for number, step in enumerate(case.report.steps):
        for told in step.unknown.items():
            unknown.setdefault(told, []).append(number)
    for (name, near), steps in unknown.items():
        yield Finding(
            severity="warning",
            code="parameter_unknown",
            message=f"no parameter of VASP is known as {shown(name)!r}; it is written into INCAR "
            f"as it stands{case.where(steps)}",
            source=f"the parameter {name}",
            remedy=f"did you mean {near!r}?" if near else None,
        )
