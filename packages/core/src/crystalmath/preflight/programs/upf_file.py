"""Read a pseudopotential of Quantum ESPRESSO, as far as pw.x is sure to refuse it.

pw.x reads a dozen formats, by content and by the file's name; only UPF is looked into. The rules
were measured with pw.x 6.7: it reads files without ``</UPF>``, and dies of a section that has no
end, and of a ``.UPF`` that is no UPF.
"""

from __future__ import annotations

import re
from collections import Counter

from crystalmath.preflight.report import FileFacts

_UPF = re.compile(rb"<UPF\b|<qe_pp:|<PP_HEADER>")
_INFO = re.compile(rb"<PP_INFO>.*?</PP_INFO>", re.DOTALL)
_OPENED = re.compile(rb"<(PP_[\w.]+)(?:\s+[\w:.]+\s*=\s*(?:\"[^\"]*\"|'[^']*'))*\s*>")
_CLOSED = re.compile(rb"</(PP_[\w.]+)\s*>")
_ELEMENT = re.compile(
    rb"\belement\s*=\s*[\"']\s*([A-Za-z]{1,2})\b|^\s*([A-Za-z]{1,2})\s+Element", re.MULTILINE
)
_VALENCE = re.compile(
    rb"\bz_valence\s*=\s*[\"']\s*([\d.eEdD+-]+)|^\s*([\d.eEdD+-]+)\s+Z valence", re.MULTILINE
)


def read(path: str, data: bytes) -> FileFacts:
    """Judge the content of a pseudopotential file.

    Parameters
    ----------
    path : str
        pw.x goes by its ending.
    data : bytes
        All of it.

    Returns
    -------
    FileFacts
        Without signature and hash of the file.
    """
    if not data.strip():
        return FileFacts(problem="empty", detail="it holds only blank lines" if data else None)
    version = _UPF.search(data)
    if version is None:
        if path.lower().endswith(".upf"):
            return FileFacts(problem="no_header", detail="it is no UPF file, as its name says")
        return FileFacts()
    element, valence = _ELEMENT.search(data), _VALENCE.search(data)
    trouble = _cut(data, first=version[0] == b"<PP_HEADER>")
    return FileFacts(
        problem="truncated" if trouble else None,
        detail=trouble,
        element=(element[1] or element[2]).decode().capitalize() if element else None,
        zval=_number((valence[1] or valence[2]).decode()) if valence else None,
    )


def _cut(data: bytes, *, first: bool) -> str | None:
    # Authors write what they like into PP_INFO.
    sections = _INFO.sub(b"", data)
    opened = Counter(_OPENED.findall(sections))
    left = opened - Counter(_CLOSED.findall(sections))
    if first:
        # Version 1 is read without a look for this one's end.
        del left[b"PP_ADDINFO"]
    if left:
        return f"its section {next(iter(left)).decode()} has no end"
    if not first and b"</UPF>" in data:
        return None
    needed = (b"PP_MESH", b"PP_LOCAL", b"PP_RHOATOM") if first else (b"PP_MESH", b"PP_LOCAL")
    lacking = [name.decode() for name in needed if name not in opened]
    return f"it has no section {lacking[0]}" if lacking else None


def _number(text: str) -> float | None:
    try:
        return float(re.sub("[dD]", "e", text))
    except ValueError:
        return None
