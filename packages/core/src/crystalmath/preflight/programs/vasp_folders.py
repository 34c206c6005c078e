"""Look around a missing POTCAR: ``<root>/potpaw_PBE.64/Ba_sv/POTCAR``."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

from attrs import frozen

from crystalmath.preflight.checked_job import brief
from crystalmath.preflight.folders import Folders, FolderTrouble, names_below
from crystalmath.recipes.one_line import shown
from crystalmath.recipes.potcar_path import VARIABLE, PotcarPath, fresh_process


@frozen(slots=False)
class PotcarFolders(Folders):
    """The folder of a dataset, its library, and the root of all libraries."""

    @cached_property
    def named(self) -> PotcarPath:
        """Where the job's environment says that POTCARs are."""
        return fresh_process(self.job.environment)

    @property
    def library(self) -> str:
        """The folder of the datasets."""
        return os.path.dirname(os.path.dirname(self.wanted.path))

    def named_by(self) -> str:
        """Return what named the root; a recipe may have one of its own."""
        if self.root is None or self.named.path in {None, Path(self.root)}:
            return self.named.source or VARIABLE
        return "the recipe"

    @property
    def is_unset(self) -> bool:
        """Whether the path is empty."""
        return self.root == "." and not self.named.path

    def unset(self) -> FolderTrouble:
        """Say that nothing names the root, or what should cannot be read."""
        if trouble := self.named.trouble:
            remedy = f"mend it: {VARIABLE} there must name {self.holder}"
            return FolderTrouble(code="settings", path="", message=trouble, remedy=remedy)
        return FolderTrouble(
            code="unset",
            path="",
            message=f"{VARIABLE} is not set, and nothing else says where VASP's POTCAR files are",
            remedy=f"set {VARIABLE} to {self.holder}",
        )

    @property
    def holder(self) -> str:
        """What the root must be."""
        return f"the folder that holds {shown(os.path.basename(self.library) or 'potpaw_PBE.64')}"

    def no_library(self, root: str, words: str) -> FolderTrouble:
        """Return which libraries there are, or that the path names one of them."""
        root, name = os.path.normpath(root), os.path.basename(self.library)
        message = f"{self.wants_of(name)} {words}"
        present = [each for each in names_below(root) if _like(each, name, root)]
        remedy = f"put VASP's {shown(name)} there"
        if os.path.basename(root).startswith("potpaw") or _has(root, self.wanted.setup):
            message += f"; {shown(root)} is such a folder itself"
            remedy = f"point at the parent folder: {self.source} = {shown(os.path.dirname(root))}"
            if os.path.basename(root) != name:
                remedy += f", and see that {shown(name)} is there"
        elif present:
            message += f"; folders present: {brief(present)}"
            remedy += ", or choose a folder that is there with the parameters pp and pp_version"
        else:
            remedy += f", or correct {self.source}: it must name {self.holder}"
        return FolderTrouble(code="no_library", path=self.library, message=message, remedy=remedy)

    @cached_property
    def variants(self) -> list[str]:
        """Name other datasets of these elements."""
        return [name for name in super().variants if _has(self.library, name)]

    def instead(self) -> str:
        """Return what is there instead of the file, in this library and in others."""
        folder, setup = os.path.dirname(self.wanted.path), self.wanted.setup
        others = [name for name in names_below(folder) if name != "POTCAR"]
        if inside := [name for name in others if "POTCAR" in name.upper()]:
            return f"; that folder holds {brief(inside)}"
        words, root = super().instead(), self.root or ""
        libraries = {each: os.path.join(root, each) for each in names_below(root)}
        elsewhere = [
            each for each, path in libraries.items() if path != self.library and _has(path, setup)
        ]
        return f"{words}; {shown(setup)} is in {brief(elsewhere)}" if elsewhere else words

    def put_there(self) -> str:
        """Return where the dataset comes from."""
        library, setup = os.path.basename(self.library), self.wanted.setup
        for symbol in self.wanted.symbols:
            if setup.startswith(symbol * 2):
                given = setup.removeprefix(symbol * 2)
                return f'setups are suffixes: setups={{"{symbol}": "{given}"}}'
        words = f"add the folder {shown(setup)} of VASP's {shown(library)}"
        choice = ", or choose a dataset that is there with the parameter setups"
        return words + choice if self.variants else words


def _has(library: str, setup: str) -> bool:
    return os.path.exists(os.path.join(library, setup, "POTCAR"))


def _like(name: str, library: str, root: str) -> bool:
    similar = name.startswith("potpaw") or name.lower() == library.lower()
    return similar and os.path.isdir(os.path.join(root, name))
