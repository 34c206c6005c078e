"""Look around a missing pseudopotential: which folder is to blame, what is there instead."""

from __future__ import annotations

import os
import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from crystalmath.preflight.case import brief, said
from crystalmath.recipes.potcar_path import VARIABLE, folder_trouble, quacc_setting, shown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crystalmath.preflight.case import Case, Wanted

__all__ = ["FolderTrouble", "Surroundings"]

_PSEUDO = "ESPRESSO_PSEUDO"
#: A folder that is searched may be anything, /home or a mirror of the world.
_SEARCHED = 2000


@frozen(kw_only=True)
class FolderTrouble:
    """Why no file can be found below a folder."""

    code: str
    path: str
    message: str
    remedy: str


@frozen(slots=False)
class Surroundings:
    """The folders of a file.

    Parameters
    ----------
    wanted : Wanted
        The file.
    case : Case
        The job, whose environment says where pseudopotentials are.
    """

    wanted: Wanted
    case: Case

    @cached_property
    def root(self) -> str | None:
        """The folder of all pseudopotentials, if the file is looked for below it."""
        root = self.wanted.step.root
        if root is None:
            return None
        inside = not os.path.isabs(self.wanted.path) or _below(self.wanted.path, root)
        return root if inside else None

    @cached_property
    def library(self) -> str:
        """The folder of the datasets."""
        folder = os.path.dirname(self.wanted.path)
        return os.path.dirname(folder) if self.wanted.potcar else folder

    @cached_property
    def source(self) -> str:
        """What named the path."""
        if self.root is None and os.path.isabs(self.wanted.path):
            return said(self.wanted.reason)
        if not self.wanted.potcar:
            return self._pseudo_source
        named = self.case.named
        if self.root is None or named.path in {None, Path(self.root)}:
            return named.source or VARIABLE
        return "the recipe"

    @cached_property
    def _pseudo_source(self) -> str:
        try:
            setting = quacc_setting(_PSEUDO, self.case.environment)
        except ValueError:
            setting = None
        if setting and isinstance(setting[0], str) and setting[0]:
            name = os.path.basename(setting[0].rstrip("/"))
            if self.root is None or os.path.basename(self.root.rstrip("/")) == name:
                return setting[1]
        return f"QUACC_{_PSEUDO}" if self.root is None else "the parameter input_data"

    def trouble(self) -> FolderTrouble | None:
        """Find the folder that keeps this file, and others, from being found."""
        root = self.root
        if root is None and not os.path.isabs(self.wanted.path):
            return self._unset()
        if root is not None:
            if root == "." and not self.case.named.path and self.wanted.potcar:
                return self._unset()  # it is empty
            if not os.path.isabs(root):
                return self._relative(root)
            if trouble := _trouble(root):
                return self._bad_root(root, *trouble)
        if self.library != root and (trouble := _trouble(self.library)):
            return self._bad_library(root or os.path.dirname(self.library), trouble[1])
        return None

    def _unset(self) -> FolderTrouble:
        if self.wanted.potcar and self.case.named.trouble:
            remedy = f"mend it: {VARIABLE} there must name {_holder(self.library)}"
            return FolderTrouble(
                code="settings", path="", message=self.case.named.trouble, remedy=remedy
            )
        variable, files = (
            (VARIABLE, "VASP's POTCAR files")
            if self.wanted.potcar
            else (f"QUACC_{_PSEUDO}", "the pseudopotentials of Quantum ESPRESSO")
        )
        message = f"{variable} is not set, and nothing else says where {files} are"
        if not self.wanted.potcar and self.case.environment.get(_PSEUDO):
            message += f"; {_PSEUDO} is set, and quacc does not read it"
        return FolderTrouble(
            code="unset",
            path="",
            message=message,
            remedy=f"set {variable} to {self._holder_words}",
        )

    def _relative(self, root: str) -> FolderTrouble:
        remedy = "give it as an absolute path"
        if name := re.match(r"\$\w+|\$\{\w+\}", root):
            remedy += f": the variable {name[0]} is not set where jobs run"
        return FolderTrouble(
            code="relative",
            path=root,
            message=f"the {self.wanted.noun} folder {root!r} (from {self.source}) is a relative "
            "path, and a job does not run in this directory",
            remedy=remedy,
        )

    def _bad_root(self, root: str, code: str, words: str) -> FolderTrouble:
        remedy = f"correct {self.source}: it must name {self._holder_words}"
        if root.startswith("~"):
            remedy += "; write it without '~', which is not expanded there"
        message = f"the {self.wanted.noun} folder {shown(root)} (from {self.source}) {words}"
        return FolderTrouble(code=code, path=root, message=message, remedy=remedy)

    def _bad_library(self, root: str, words: str) -> FolderTrouble:
        root, name = os.path.normpath(root), os.path.basename(self.library)
        message = (
            f"{said(self.wanted.reason)} wants {self.wanted.noun}s of {shown(name)}, and "
            f"{shown(self.library)} (from {self.source}) {words}"
        )
        present = [each for each in _names(root) if _like(each, name, root)]
        remedy = f"put VASP's {shown(name)} there"
        if self._is_library(root):
            message += f"; {shown(root)} is such a folder itself"
            remedy = f"point at the parent folder: {self.source} = {shown(os.path.dirname(root))}"
            if os.path.basename(root) != name:
                remedy += f", and see that {shown(name)} is there"
        elif present:
            message += f"; folders present: {brief(present)}"
            remedy += ", or choose a folder that is there with the parameters pp and pp_version"
        else:
            remedy += f", or correct {self.source}: it must name {self._holder_words}"
        return FolderTrouble(code="no_library", path=self.library, message=message, remedy=remedy)

    def _is_library(self, root: str) -> bool:
        named = os.path.basename(root).startswith("potpaw")
        return named or _has(root, self.wanted.setup)

    @cached_property
    def _holder_words(self) -> str:
        return _holder(self.library) if self.wanted.potcar else "the folder that holds them"

    @cached_property
    def variants(self) -> list[str]:
        """Other datasets of these elements, and other spellings of the one that is wanted."""
        names = _alike(_names(self.library), self.wanted.setup, self.wanted.symbols)
        if not self.wanted.potcar:
            return names
        return [name for name in names if _has(self.library, name)]

    def instead(self) -> str:
        """Say what is there instead of the file."""
        if inside := self._inside():
            return f"; that folder holds {brief(inside)}"
        words = f"; found {brief(self.variants)} instead" if self.variants else ""
        root, setup = self.root or "", self.wanted.setup
        libraries = {each: os.path.join(root, each) for each in _names(root)}
        others = [
            each
            for each, path in libraries.items()
            if self.wanted.potcar and path != self.library and _has(path, setup)
        ]
        return f"{words}; {shown(setup)} is in {brief(others)}" if others else words

    def _inside(self) -> list[str]:
        folder = os.path.dirname(self.wanted.path) if self.wanted.potcar else ""
        others = [each for each in _names(folder) if each != os.path.basename(self.wanted.path)]
        return [each for each in others if "POTCAR" in each.upper()]

    def addition(self) -> str:
        """Say how the file comes to its place."""
        path, setup = self.wanted.path, self.wanted.setup
        for suffix, unpack in ((".gz", "gunzip"), (".Z", "uncompress")):
            if os.path.exists(path + suffix):
                return f"unpack it: {unpack} {shown(path + suffix)}"
        for name in self.variants:
            if name.lower() == setup.lower():
                return f"rename {shown(name)} to {shown(setup)}"
        if not self.wanted.potcar:
            return "put the file there, or name another with the parameter pseudopotentials"
        words = f"add the folder {shown(setup)} of VASP's {shown(os.path.basename(self.library))}"
        choice = ", or choose a dataset that is there with the parameter setups"
        return words + choice if self.variants else words


def _trouble(folder: str) -> tuple[str, str] | None:
    code, words = folder_trouble(Path(folder))
    # Files are opened by their names, which needs no listing.
    return None if code in {"", "unlisted"} else (code, words)


def _has(library: str, setup: str) -> bool:
    return os.path.exists(os.path.join(library, setup, "POTCAR"))


def _holder(library: str) -> str:
    return f"the folder that holds {shown(os.path.basename(library) or 'potpaw_PBE.64')}"


def _below(path: str, folder: str) -> bool:
    return path.startswith(os.path.join(folder, ""))


def _names(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))[:_SEARCHED] if path else []
    except (OSError, ValueError):
        return []


def _like(name: str, library: str, root: str) -> bool:
    similar = name.startswith("potpaw") or name.lower() == library.lower()
    return similar and os.path.isdir(os.path.join(root, name))


def _alike(names: Iterable[str], wanted: str, symbols: Iterable[str]) -> list[str]:
    """Pick the variants of the elements, and other spellings of what is wanted."""
    variant = re.compile(rf"({'|'.join(map(re.escape, symbols))})([._\-\d].*)?", re.DOTALL)
    return [
        name
        for name in names
        if name != wanted and (variant.fullmatch(name) or name.lower() == wanted.lower())
    ]
