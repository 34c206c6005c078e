"""Explain a missing file: the folder that is to blame, and the files there with similar names."""

from __future__ import annotations

import os
import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from crystalmath.errors import one_line
from crystalmath.plugins.checked_job import brief, said
from crystalmath.recipes.source_folders import folder_trouble

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crystalmath.plugins.checked_job import CheckedJob, Wanted

__all__ = ["FolderTrouble", "Folders", "names_below", "unusable"]

#: At most so many names of a folder are searched: it may be /home.
_SEARCHED = 2000


@frozen(kw_only=True)
class FolderTrouble:
    """The reason why no file can be read below a folder, with its remedy."""

    code: str
    path: str
    message: str
    remedy: str


@frozen(slots=False)
class Folders:
    """The folders in which a job looks for a file.

    This class fits programs that keep all their files in one folder. A subclass changes the first
    part: the words for the root and the library.
    """

    wanted: Wanted
    job: CheckedJob

    # ---- what a program may override ----

    @property
    def library(self) -> str:
        """The folder of the file, in which similar files are looked for."""
        return os.path.dirname(self.wanted.path)

    def named_by(self) -> str:
        """Return the setting or variable that names the root, or that should name it."""
        return said(self.wanted.reason)

    def unset(self) -> FolderTrouble:
        """Return the trouble that nothing names the root."""
        kind = self.wanted.kind
        return FolderTrouble(
            code="unset",
            path="",
            message=f"no setting names the folder of {kind.title}'s {kind.noun}s",
            remedy=f"name {self.holder}",
        )

    @property
    def is_unset(self) -> bool:
        """Whether nothing names the root: the one in the report is a default that cannot exist."""
        return False

    @property
    def holder(self) -> str:
        """The description of a right root, as it follows "must name"."""
        return "the folder that holds them"

    def no_library(self, root: str, words: str) -> FolderTrouble:
        """Return the trouble that the root is usable and the library below it is not."""
        name = os.path.basename(self.library)
        return FolderTrouble(
            code="no_library",
            path=self.library,
            message=f"{self.wants_of(name)} {words}",
            remedy=f"put {one_line(name)} into {one_line(root)}, or correct {self.source}: it must "
            f"name {self.holder}",
        )

    @cached_property
    def variants(self) -> list[str]:
        """Files of the same elements, and other spellings of the wanted name."""
        return _alike(names_below(self.library), self.wanted.setup, self.wanted.symbols)

    def instead(self) -> str:
        """Return the end of a sentence that names the variants; empty if there are none."""
        return f"; found {brief(self.variants)} instead" if self.variants else ""

    def put_there(self) -> str:
        """Return the remedy if no similar file is there."""
        choice = self.wanted.kind.choice
        other = f", or name another with the parameter {choice}" if choice else ""
        return f"put the file there{other}"

    # ---- what holds for all ----

    @cached_property
    def root(self) -> str | None:
        """The folder of all files of this kind; ``None`` if this file is not below it."""
        root = self.wanted.step.root
        if root is None:
            return None
        inside = not os.path.isabs(self.wanted.path) or _below(self.wanted.path, root)
        return root if inside else None

    @cached_property
    def source(self) -> str:
        """The setting, variable or parameter that named the path."""
        if self.root is None and os.path.isabs(self.wanted.path):
            return said(self.wanted.reason)
        return self.named_by()

    def wants_of(self, library: str) -> str:
        """Return the beginning of a sentence about a library; a verb follows."""
        return (
            f"{said(self.wanted.reason)} wants {self.wanted.kind.noun}s of {one_line(library)}, "
            f"but {one_line(self.library)} (from {self.source})"
        )

    def trouble(self) -> FolderTrouble | None:
        """Return the trouble of a folder that hides this file and others, or ``None``."""
        root = self.root
        if root is None and not os.path.isabs(self.wanted.path):
            return self.unset()
        if root is not None:
            if self.is_unset:
                return self.unset()
            if not os.path.isabs(root):
                return self._relative(root)
            if trouble := unusable(root):
                return self._bad_root(root, *trouble)
        if self.library != root and (trouble := unusable(self.library)):
            return self.no_library(root or os.path.dirname(self.library), trouble[1])
        return None

    def _relative(self, root: str) -> FolderTrouble:
        remedy = "name it by an absolute path"
        if name := re.match(r"\$\w+|\$\{\w+\}", root):
            remedy += f": the variable {name[0]} is not set where jobs run"
        return FolderTrouble(
            code="relative",
            path=root,
            message=f"the {self.wanted.kind.noun} folder {root!r} (from {self.source}) is a "
            "relative path, but a job runs in another directory",
            remedy=remedy,
        )

    def _bad_root(self, root: str, code: str, words: str) -> FolderTrouble:
        remedy = f"correct {self.source}: it must name {self.holder}"
        if root.startswith("~"):
            remedy += "; write the path without '~', which jobs do not expand"
        message = (
            f"the {self.wanted.kind.noun} folder {one_line(root)} (from {self.source}) {words}"
        )
        return FolderTrouble(code=code, path=root, message=message, remedy=remedy)

    def addition(self) -> str:
        """Return the remedy for a file that is not there: unpack, rename or add it."""
        path, setup = self.wanted.path, self.wanted.setup
        for suffix, unpack in ((".gz", "gunzip"), (".Z", "uncompress")):
            if os.path.exists(path + suffix):
                return f"unpack it: {unpack} {one_line(path + suffix)}"
        for name in self.variants:
            if name.lower() == setup.lower():
                return f"rename {one_line(name)} to {one_line(setup)}"
        return self.put_there()


def unusable(folder: str) -> tuple[str, str] | None:
    """Return why no file can be opened in a folder, as a code and words; ``None`` if it can."""
    code, words = folder_trouble(Path(folder))
    # A file is opened by its name: the folder need not be listed.
    return None if code in {"", "unlisted"} else (code, words)


def names_below(path: str) -> list[str]:
    """Return the names in a folder, sorted; none if it cannot be listed."""
    try:
        return sorted(os.listdir(path))[:_SEARCHED] if path else []
    except (OSError, ValueError):
        return []


def _below(path: str, folder: str) -> bool:
    return path.startswith(os.path.join(folder, ""))


def _alike(names: Iterable[str], wanted: str, symbols: Iterable[str]) -> list[str]:
    """Return the names that are variants of the elements, or other spellings of `wanted`."""
    elements = "|".join(re.escape(symbol) for symbol in symbols if symbol)
    variant = re.compile(rf"({elements or '(?!)'})([._\-\d].*)?", re.DOTALL)
    return [
        name
        for name in names
        if name != wanted and (variant.fullmatch(name) or name.lower() == wanted.lower())
    ]
