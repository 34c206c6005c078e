"""Read a POTCAR line by line, as VASP does: title, valence, header, body, end.

ASE writes the files of a calculation one behind the other into the POTCAR that VASP reads, and
VASP takes its datasets from there without looking for them: what stands behind the end of one is
the title of the next.
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
#: All of VASP's own files have them, as pymatgen's table of these shows.
_REQUIRED = ("TITEL", "LEXCH", "POMASS", "ZVAL")
_ITEM = re.compile(r"([^\s;=]+)[^\S\n]*=[^\S\n]*([^;\n]*)")
_STRANGE = re.compile(r"[^\t\n\x20-\x7e]")
_ELEMENT = re.compile(r"[A-Z][a-z]?")
#: What VRHFIN says in some of VASP's own files.
_VRHFIN = {"X": "Xe", "r": "Zr"}


def read(path: str, data: bytes) -> FileFacts:
    """Judge the content of a POTCAR; ASE takes ``POTCAR.Z`` for gzipped, and cannot write it."""
    if path.endswith(".Z"):
        return FileFacts(problem="compressed", detail="only POTCAR.Z is there")
    if not data.strip():
        return FileFacts(problem="empty", detail="it holds only blank lines" if data else None)
    if b"\0" in data:
        return FileFacts(problem="not_text", detail="it holds NUL bytes")
    try:
        # As ASE's open() does.
        text = data.decode(locale.getpreferredencoding(do_setlocale=False))
    except ValueError as error:
        return FileFacts(problem="not_text", detail=str(error))
    return _dataset(text.replace("\r\n", "\n").replace("\r", "\n"))


@frozen
class _Parts:
    """A POTCAR's lines; ``end`` is where its first dataset ends."""

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
    # No header ends in another's dataset.
    cut = head is None or (end is not None and end < head)
    items = _items(parts.header) if _BEGIN in parts.header and not cut else {}
    found = FileFacts(
        element=_element(items),
        titel=items.get("TITEL"),
        lexch=items.get("LEXCH"),
        zval=_number(items.get("ZVAL", "")),
    )
    if trouble := _header_trouble(parts, items, cut=cut):
        return evolve(found, problem="no_header", detail=trouble)
    if trouble := _body_trouble(parts):
        return evolve(found, problem="truncated", detail=trouble)
    if strange := _STRANGE.search(parts.body):
        return evolve(found, problem="not_text", detail=f"its body holds {strange[0]!r}")
    if any(line.strip() for line in parts.rest):
        return evolve(found, **_more(text, parts.rest))
    official = _official(text)
    if official:
        # The title of a file that pymatgen knows is right, unlike VRHFIN (Pb in the old US Bi).
        found = evolve(found, element=_titled(items) or found.element)
    loose = parts.rest != [""]
    return evolve(found, hash_holds=_hash_holds(parts, items), official=official, loose_end=loose)


def _items(header: str) -> dict[str, str]:
    return {key: value.strip() for key, value in _ITEM.findall(header)}


def _header_trouble(parts: _Parts, items: Mapping[str, str], *, cut: bool) -> str | None:
    if cut or _BEGIN not in parts.header:
        return _without_line(parts, _HEADER_END if cut else _BEGIN)
    if parts.header.count(_BEGIN) > 1:
        return "another dataset begins in its header"
    # VASP reads the valence with a format that passes over blank lines.
    second = next((line for line in parts.lines[1:] if line.strip()), "")
    if not parts.lines[0].strip() or _number(second) is None:
        place = f"{second.strip()[:40]!r} stands where VASP reads the number of valence electrons"
        return f"its first two lines are not title and valence: {place}"
    if lacking := [key for key in _REQUIRED if not items.get(key)]:
        return f"its header lacks {', '.join(lacking)}"
    if _number(items["ZVAL"]) is None:
        return f"its header has no number for ZVAL: {items['ZVAL'][:40]!r}"
    return None


def _without_line(parts: _Parts, line: str) -> str:
    for at, text in enumerate(parts.lines, 1):
        if parts.head is None and text.lstrip().startswith(line):
            return f"its line {at}, {line!r}, is indented: it must begin at the margin"
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
        named = ", ".join(title.strip() for title in titles[:4])
        detail = f"{named}{', ...' if len(titles) > 4 else ''}"  # noqa: PLR2004
        return {"problem": "several", "detail": detail}
    stray = next(line.strip() for line in rest if line.strip())
    return {"problem": "stray_text", "detail": f"{stray[:40]!r} stands behind {_END!r}"}


def _element(items: Mapping[str, str]) -> str | None:
    """Read the element where VASP does (VRHFIN), else from the title."""
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
    # VASP's hash is of the dataset without the lines of hash and copyright, which came later.
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
        except Exception:  # noqa: BLE001 - what custodian makes of it, the recipe's asking tells
            return None
    return not any(issubclass(warning.category, UnknownPotcarWarning) for warning in caught)
