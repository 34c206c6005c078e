"""Read a POTCAR line by line, as VASP does: title, valence, header, body, end.

ASE joins the files of a calculation into the one POTCAR that VASP reads. VASP takes the line behind
the end of one dataset as the title of the next.
"""

from __future__ import annotations

import hashlib
import locale
import re
import warnings
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from crystalmath.plugins.report import FileFacts

if TYPE_CHECKING:
    from collections.abc import Mapping

_BEGIN = "parameters from PSCTR are:"
_HEADER_END = "END of PSCTR-controll parameters"
_END = "End of Dataset"
#: A message names at most so many datasets of one file.
_MANY = 4
#: Keys of every file in pymatgen's table of VASP's own.
_REQUIRED = ("TITEL", "LEXCH", "POMASS", "ZVAL")
_ITEM = re.compile(r"([^\s;=]+)[^\S\n]*=[^\S\n]*([^;\n]*)")
_STRANGE = re.compile(r"[^\t\n\x20-\x7e]")
_ELEMENT = re.compile(r"[A-Z][a-z]?")
#: Wrong elements in the VRHFIN of some of VASP's own files.
_VRHFIN = {"X": "Xe", "r": "Zr"}


def read(path: str, data: bytes) -> FileFacts:
    """Judge the content of a POTCAR. ASE cannot read ``POTCAR.Z``, which it takes for gzip."""
    if path.endswith(".Z"):
        return FileFacts(problem="compressed", detail="only POTCAR.Z is there")
    if not data.strip():
        return FileFacts(problem="empty", detail="it holds only blank lines" if data else None)
    if b"\0" in data:
        return FileFacts(problem="not_text", detail="it holds NUL bytes")
    try:
        # ASE opens it with the locale's encoding, too.
        text = data.decode(locale.getpreferredencoding(do_setlocale=False))
    except ValueError as error:
        return FileFacts(problem="not_text", detail=str(error))
    return _dataset(text.replace("\r\n", "\n").replace("\r", "\n"))


@frozen
class _Parts:
    """The lines of a POTCAR, with the numbers of the last of its header and first dataset."""

    lines: list[str]
    head: int | None
    end: int | None

    @property
    def header(self) -> str:
        return "\n".join(self.lines[1 : self.head])

    @property
    def body(self) -> str:
        return "\n".join(self.lines[(self.head or 0) + 1 : self.end])

    @property
    def rest(self) -> list[str]:
        return [] if self.end is None else self.lines[self.end + 1 :]


def _dataset(text: str) -> FileFacts:
    lines = text.split("\n")
    head = next((at for at, line in enumerate(lines) if line.startswith(_HEADER_END)), None)
    end = next((at for at, line in enumerate(lines) if line.strip() == _END), None)
    parts = _Parts(lines, head, end)
    # The first header must end before the first dataset does.
    cut = head is None or (end is not None and end < head)
    items = _items(parts.header) if _BEGIN in parts.header and not cut else {}
    facts = FileFacts(
        element=_element(items),
        titel=items.get("TITEL"),
        lexch=items.get("LEXCH"),
        zval=_number(items.get("ZVAL", "")),
    )
    if trouble := _header_trouble(parts, items, cut=cut):
        return evolve(facts, problem="no_header", detail=trouble)
    if trouble := _body_trouble(parts):
        return evolve(facts, problem="truncated", detail=trouble)
    if strange := _STRANGE.search(parts.body):
        return evolve(facts, problem="not_text", detail=f"its body holds {strange[0]!r}")
    if any(line.strip() for line in parts.rest):
        return evolve(facts, **_more(text, parts.rest))
    official = _official(text)
    if official:
        # In official files the title is right even if VRHFIN is wrong (Pb in the old US Bi).
        facts = evolve(facts, element=_titled(items) or facts.element)
    loose = parts.rest != [""]
    return evolve(facts, hash_holds=_hash_holds(parts, items), official=official, loose_end=loose)


def _items(header: str) -> dict[str, str]:
    return {key: value.strip() for key, value in _ITEM.findall(header)}


def _header_trouble(parts: _Parts, items: Mapping[str, str], *, cut: bool) -> str | None:
    if cut or _BEGIN not in parts.header:
        return _without_line(parts, _HEADER_END if cut else _BEGIN)
    if parts.header.count(_BEGIN) > 1:
        return "another dataset begins in its header"
    # VASP skips blank lines before the valence.
    second = next((line for line in parts.lines[1:] if line.strip()), "")
    if not parts.lines[0].strip() or _number(second) is None:
        place = f"VASP reads {second.strip()[:40]!r} as the number of valence electrons"
        return f"its first two lines are not title and valence: {place}"
    if lacking := [key for key in _REQUIRED if not items.get(key)]:
        return f"its header lacks {', '.join(lacking)}"
    if _number(items["ZVAL"]) is None:
        return f"ZVAL in its header is no number: {items['ZVAL'][:40]!r}"
    return None


def _without_line(parts: _Parts, line: str) -> str:
    for at, text in enumerate(parts.lines, 1):
        if parts.head is None and text.lstrip().startswith(line):
            return f"its line {at}, {line!r}, is indented: it must begin in the first column"
    return f"it has no line {line!r} before its body"


def _body_trouble(parts: _Parts) -> str | None:
    if parts.end is None:
        return f"it has no line {_END!r}"
    if _BEGIN in parts.body:
        return f"another dataset begins in it before the line {_END!r}"
    if not any(character.isdigit() for character in parts.body):
        return f"it has no numbers between its header and {_END!r}"
    return None


def _more(text: str, rest: list[str]) -> dict[str, Any]:
    titles = [value for key, value in _ITEM.findall(text) if key == "TITEL"]
    if any(_BEGIN in line for line in rest):
        named = ", ".join(title.strip() for title in titles[:_MANY])
        detail = f"{named}{', ...' if titles[_MANY:] else ''}"
        return {"problem": "several", "detail": detail}
    stray = next(line.strip() for line in rest if line.strip())
    return {"problem": "stray_text", "detail": f"{stray[:40]!r} follows the line {_END!r}"}


def _element(items: Mapping[str, str]) -> str | None:
    """Return the element in VRHFIN, where VASP reads it, else the one in the title."""
    named = items.get("VRHFIN", "").partition(":")[0].strip()
    named = _VRHFIN.get(named, named)
    return named if _ELEMENT.fullmatch(named) else _titled(items)


def _titled(items: Mapping[str, str]) -> str | None:
    words = items.get("TITEL", "").split()
    # "PAW_PBE Ba_sv 06Sep2000", "US H", or "H" alone.
    named = _ELEMENT.match(words[min(1, len(words) - 1)]) if words else None
    return named[0] if named else None


def _number(text: str) -> float | None:
    try:
        return float(re.sub("[dD]", "e", text.split(maxsplit=1)[0]))
    except (ValueError, IndexError):
        return None


def _hash_holds(parts: _Parts, items: Mapping[str, str]) -> bool | None:
    stated = re.match(r"[0-9a-fA-F]{64}\b", items.get("SHA256", ""))
    if stated is None:
        return None
    # VASP hashed the dataset before it added the lines of hash and copyright.
    lines = parts.lines[: (parts.end or 0) + 1]
    kept = [line for line in lines if not line.lstrip().startswith(("SHA256", "COPYR"))]
    digest = hashlib.sha256("\n".join([*kept, ""]).encode()).hexdigest()
    return digest == stated[0].lower()


def _official(text: str) -> bool | None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            from pymatgen.io.vasp.inputs import PotcarSingle, UnknownPotcarWarning

            _ = PotcarSingle(text).functional  # custodian asks for it, too
        except Exception:  # noqa: BLE001 - the trouble `parse` reports pymatgen's errors
            return None
    return not any(issubclass(warning.category, UnknownPotcarWarning) for warning in caught)
