"""Random trees of POTCAR files: described, built, and removed."""

from __future__ import annotations

import functools
import gzip
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from vasp.potcars import END, potcar

#: The datasets that VASP's libraries have of these elements, those that quacc's presets name first.
DATASETS = {
    "Al": ["Al"],
    "Cu": ["Cu", "Cu_pv"],
    "O": ["O", "O_s", "O_h"],
    "Si": ["Si"],
    "Ba": ["Ba_sv"],
    "Bi": ["Bi_d", "Bi"],
    "Cr": ["Cr_pv", "Cr", "Cr_sv"],
    "H": ["H", "H_h", "H.5"],
    "C": ["C", "C_s"],
    "Fe": ["Fe", "Fe_pv"],
    "Ti": ["Ti_pv", "Ti_sv", "Ti"],
    "Na": ["Na_pv", "Na"],
    "Eu": ["Eu_3", "Eu", "Eu_2"],
}
FOLDERS = [
    "potpaw_PBE.64",
    "potpaw_PBE.54",
    "potpaw_PBE.original",
    "potpaw_PBE",
    "potpaw_PBE.52",
    "potpaw_LDA.64",
    "potpaw_LDA.54",
    "potpaw",
    "mine",
]
_LEXCH = {"potpaw_LDA.64": "CA", "potpaw_LDA.54": "CA", "potpaw": "CA"}


@dataclass(frozen=True)
class Flaw:
    """What is wrong with some datasets: of one element or all, in one folder or all."""

    kind: str
    setup: str | None
    folder: str | None

    def hits(self, setup: str, folder: str) -> bool:
        return self.setup in {None, setup} and self.folder in {None, folder}


@dataclass(frozen=True)
class Tree:
    """What is at VASP_PP_PATH; every dataset is good but for the flaws, of which the first counts.

    Parameters
    ----------
    root : str
        ``good``, ``link``, ``missing``, ``empty``, ``file``, ``broken``, ``inside`` (one library's
        own folder), ``unlisted`` (may be entered, not listed), ``unentered`` (the other way),
        ``shut``.
    """

    root: str
    folders: tuple[str, ...] = ()
    flaws: tuple[Flaw, ...] = ()

    def kind(self, setup: str, folder: str) -> str:
        return next((flaw.kind for flaw in self.flaws if flaw.hits(setup, folder)), "good")

    def build(self, root: Path, elements: set[str]) -> None:
        """Write it, with the datasets of some elements; what was there is removed."""
        remove(root)
        place = root
        if self.root in _ROOTS:
            _ROOTS[self.root](root)
            return
        if self.root == "link":
            place = root.with_name(root.name + "-elsewhere")
            remove(place)
            root.symlink_to(place)
        place.mkdir()
        inside = self.root == "inside"
        for name in self.folders[:1] if inside else self.folders:
            folder = place if inside else place / name
            folder.mkdir(exist_ok=True)
            for element in sorted(elements & DATASETS.keys()):
                for setup in DATASETS[element]:
                    _KINDS[self.kind(setup, name)](folder, setup, _LEXCH.get(name, "PE"))
        if self.root in _MODES:
            place.chmod(_MODES[self.root])


def remove(place: Path) -> None:
    """Remove whatever it is."""
    if place.is_symlink() or place.is_file():
        place.unlink()
    elif place.exists():
        place.chmod(0o700)
        try:
            shutil.rmtree(place)
        except PermissionError:
            for folder in [place, *place.glob("*"), *place.glob("*/*")]:
                if folder.is_dir() and not folder.is_symlink():
                    folder.chmod(0o700)
            shutil.rmtree(place)


_MODES = {"unlisted": 0o311, "unentered": 0o644, "shut": 0}
_ROOTS: dict[str, Callable[[Path], object]] = {
    "missing": lambda root: None,
    "empty": lambda root: root.mkdir(),
    "file": lambda root: root.write_text("not a folder"),
    "broken": lambda root: root.symlink_to(root.with_name("nowhere")),
}


# ---- one dataset -------------------------------------------------------------------------------


_Write = Callable[[Path, str, str], object]


@functools.cache
def good(setup: str, lexch: str = "PE") -> str:
    return potcar(setup, lexch=lexch)


def _writes(change: Callable[[str], str | bytes]) -> _Write:
    """Write the good text, changed."""

    def write(folder: Path, setup: str, lexch: str) -> None:
        data = change(good(setup, lexch))
        (folder / setup).mkdir()
        (folder / setup / "POTCAR").write_bytes(data if isinstance(data, bytes) else data.encode())

    return write


def _makes(make: Callable[[Path, str], object]) -> _Write:
    """Make something of the dataset's folder, given the good text."""

    def write(folder: Path, setup: str, lexch: str) -> None:
        (folder / setup).mkdir()
        make(folder / setup, good(setup, lexch))

    return write


def _linked(folder: Path, text: str) -> None:
    (folder / "elsewhere").write_text(text)
    (folder / "POTCAR").symlink_to("elsewhere")


def _looped(folder: Path, _: str) -> None:
    (folder / "POTCAR").symlink_to("other")
    (folder / "other").symlink_to("POTCAR")


def _with_mode(mode: int) -> Callable[[Path, str], None]:
    def write(folder: Path, text: str) -> None:
        (folder / "POTCAR").write_text(text)
        (folder / "POTCAR").chmod(mode)

    return write


def _folder_with_mode(mode: int) -> Callable[[Path, str], None]:
    def write(folder: Path, text: str) -> None:
        (folder / "POTCAR").write_text(text)
        folder.chmod(mode)

    return write


def _gzipped(suffix: str) -> Callable[[Path, str], object]:
    return lambda folder, text: (folder / f"POTCAR{suffix}").write_bytes(
        gzip.compress(text.encode(), 1)
    )


def _both(folder: Path, text: str) -> None:
    (folder / "POTCAR").write_text(text)
    (folder / "POTCAR.Z").write_text("")


def _other_case(folder: Path, setup: str, lexch: str) -> None:
    name = setup.upper() if setup.upper() != setup else setup.lower()
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "POTCAR").write_text(good(setup, lexch))


def _folder_linked(folder: Path, setup: str, lexch: str) -> None:
    (folder / f"{setup}-elsewhere").mkdir()
    (folder / f"{setup}-elsewhere" / "POTCAR").write_text(good(setup, lexch))
    (folder / setup).symlink_to(f"{setup}-elsewhere")


def _header(text: str) -> str:
    return text[: text.index("END of PSCTR")]


#: What a job survives, at least here and there, the good first ...
_HARMLESS: dict[str, _Write] = {
    "good": _writes(lambda text: text),
    "blank lines at the end": _writes(lambda text: text + "\n\n"),
    "longer": _writes(lambda text: text.replace(END, "  0.1E+01\n" * 40 + END)),
    "for another element": _writes(lambda _: good("Pd")),
    "a link": _makes(_linked),
    "its folder a link": _folder_linked,
    "read-only": _makes(_with_mode(0o400)),
    "its folder not to be listed": _makes(_folder_with_mode(0o100)),
    "a POTCAR.Z beside it": _makes(_both),
    "an accent in it": _writes(lambda text: text.replace("core radius", "rayon du cœur")),
    "of another functional": _writes(lambda text: text.replace("LEXCH  = PE", "LEXCH  = CA")),
    "tabs": _writes(lambda text: text.replace("   LEXCH", "\tLEXCH")),
    "carriage returns": _writes(lambda text: text.replace("\n", "\r\n")),
}
#: ... and what it does not.
_BAD: dict[str, _Write] = {
    "gone": lambda folder, setup, _: None,
    "an empty folder": _makes(lambda folder, text: None),
    "a file for a folder": lambda folder, setup, _: (folder / setup).touch(),
    "empty": _writes(lambda _: ""),
    "blank": _writes(lambda _: "\n \n"),
    "cut in its header": _writes(lambda text: text[: text.index("LEXCH")]),
    "cut before its body": _writes(_header),
    "cut in its body": _writes(lambda text: text[: text.index(END) - 100]),
    "without its end": _writes(lambda text: text.removesuffix(END)),
    "without its beginning": _writes(lambda text: text[text.index("END of PSCTR") :]),
    "two datasets": _writes(lambda text: text + text),
    "two elements": _writes(lambda text: text + good("Pd")),
    "stray text": _writes(lambda _: "Please ask Anna for the POTCARs.\n"),
    "a web page": _writes(lambda _: "<!DOCTYPE html>\n<html><body>404</body></html>\n"),
    "no text": _writes(lambda _: bytes(range(256)) * 8),
    "UTF-16": _writes(lambda text: text.encode("utf-16")),
    "gzip": _writes(lambda text: gzip.compress(text.encode(), 1)),
    "NUL bytes": _writes(lambda text: text.encode().replace(b"98.2660", b"98\0\0660")),
    "all NUL": _writes(lambda text: bytes(len(text))),
    "a broken link": _makes(lambda folder, _: (folder / "POTCAR").symlink_to("nowhere")),
    "a loop of links": _makes(_looped),
    "a link to itself": lambda folder, setup, _: (folder / setup).symlink_to(setup),
    "a directory": _makes(lambda folder, _: (folder / "POTCAR").mkdir()),
    "unreadable": _makes(_with_mode(0)),
    "its folder shut": _makes(_folder_with_mode(0)),
    "its folder not to be entered": _makes(_folder_with_mode(0o600)),
    "POTCAR.gz": _makes(_gzipped(".gz")),
    "POTCAR.Z": _makes(_gzipped(".Z")),
    "POTCAR of lower case": _makes(lambda folder, text: (folder / "potcar").write_text(text)),
    "its folder in other case": _other_case,
}
_KINDS = _HARMLESS | _BAD


# ---- strategies --------------------------------------------------------------------------------


def trees(elements: set[str]) -> st.SearchStrategy[Tree]:
    """Draw trees, many of which have nothing wrong where these elements look."""
    setups = [setup for element in sorted(elements) for setup in DATASETS.get(element, [])]
    flaws = st.builds(
        Flaw,
        st.sampled_from([*_HARMLESS, *_BAD, *_BAD]),
        st.none() | st.sampled_from(setups or [None]),
        st.none() | st.none() | st.sampled_from(FOLDERS[:3]),
    )
    some = st.lists(st.sampled_from(FOLDERS), unique=True, max_size=4).map(tuple)
    return st.builds(
        Tree,
        # What is wrong above decides over all below it: mostly nothing is.
        _seldom(9, "good", st.sampled_from([*_ROOTS, *_MODES, "link", "inside"])),
        _seldom(7, tuple(FOLDERS), some),
        st.lists(flaws, max_size=3).map(tuple),
    )


def _seldom(times: int, usual: Any, otherwise: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Draw otherwise once in so many times."""
    number = st.integers(1, times)
    return number.flatmap(lambda drawn: otherwise if drawn == times else st.just(usual))


def listing(root: Path) -> str:
    """Show a tree, for people."""
    lines = []
    for folder, folders, files in os.walk(root):
        lines += [os.path.relpath(os.path.join(folder, each), root) for each in files + folders]
    return "\n".join(sorted(lines)) or f"({'nothing' if not root.exists() else 'no file'} there)"
