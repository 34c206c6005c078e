"""Tell whether VASP's parallelization tags, as they were given, go with a number of ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crystalmath.models import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

#: Groups of ranks within those that share a k-point.
_BAND_TAGS = ("ncore", "npar")


def findings(parameters: Mapping[str, Any], ranks: int) -> Iterator[Finding]:
    """Find tags that do not divide the ranks; none is guessed where none was given.

    KPAR is to divide the number of ranks (https://vasp.at/wiki/KPAR), and NPAR times NCORE is the
    number of ranks divided by KPAR (https://www.vasp.at/wiki/index.php/NPAR).
    """
    given = {name.lower(): (name, value) for name, value in parameters.items()}
    tags = {name: given[name] for name in ("kpar", *_BAND_TAGS) if _is_count(given.get(name))}
    kpar = tags["kpar"][1] if "kpar" in tags else 1
    if ranks % kpar:
        name = tags["kpar"][0]
        yield _finding(name, f"{name} = {kpar} does not divide the {ranks} ranks", "the ranks")
        return
    for tag in _BAND_TAGS:
        if tag in tags and (ranks // kpar) % tags[tag][1]:
            name, value = tags[tag]
            each = f"{ranks // kpar} ranks of each k-point" if kpar > 1 else f"{ranks} ranks"
            yield _finding(
                name, f"{name} = {value} does not divide the {each}", "the ranks by KPAR"
            )


def _is_count(given: tuple[str, Any] | None) -> bool:
    return given is not None and type(given[1]) is int and given[1] > 0


def _finding(name: str, message: str, what: str) -> Finding:
    return Finding(
        severity="warning",
        code="ranks_undivided",
        message=f"{message}: VASP may stop, or leave ranks idle",
        source=f"parameter {name}",
        remedy=f"choose a {name.upper()} that divides {what}, or another number of ranks",
    )
