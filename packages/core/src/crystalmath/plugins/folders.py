"""Look around a missing file: which folder is to blame, what is there instead."""

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
class Folders:
    """The folders of a file of a job. As it stands, for files that lie side by side in one."""

    wanted: Wanted
    job: CheckedJob

    # ---- what a program may say otherwise ----

    @property
    def library(self) -> str:
        """The folder in which another file would be as good."""
        return os.path.dirname(self.wanted.path)

    def named_by(self) -> str:
        """Return what named the root, or what should have."""
        return said(self.wanted.reason)

    def unset(self) -> FolderTrouble:
        """Say that nothing names the root."""
        kind = self.wanted.kind
        return FolderTrouble(
            code="unset",
            path="",
            message=f"nothing says where the {kind.noun}s of {kind.title} are",
            remedy=f"name {self.holder}",
        )

    @property
    def is_unset(self) -> bool:
        """Whether nothing names the root, though there seems to be one."""
        return False

    @property
    def holder(self) -> str:
        """What the root must be."""
        return "the folder that holds them"

    def no_library(self, root: str, words: str) -> FolderTrouble:
        """Say that the library is not to be used, though the root is there."""
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
        """Name other files of these elements, and other spellings of the one that is wanted."""
        return _alike(names_below(self.library), self.wanted.setup, self.wanted.symbols)

    def instead(self) -> str:
        """Return what is there instead of the file."""
        return f"; found {brief(self.variants)} instead" if self.variants else ""

    def put_there(self) -> str:
        """Return how the file comes to its place, where nothing like it is there."""
        choice = self.wanted.kind.choice
        other = f", or name another with the parameter {choice}" if choice else ""
        return f"put the file there{other}"

    # ---- what holds for all ----

    @cached_property
    def root(self) -> str | None:
        """The folder of all such files, if this one is looked for below it."""
        root = self.wanted.step.root
        if root is None:
            return None
        inside = not os.path.isabs(self.wanted.path) or _below(self.wanted.path, root)
        return root if inside else None

    @cached_property
    def source(self) -> str:
        """What named the path."""
        if self.root is None and os.path.isabs(self.wanted.path):
            return said(self.wanted.reason)
        return self.named_by()

    def wants_of(self, library: str) -> str:
        """Begin a sentence about a library."""
        return (
            f"{said(self.wanted.reason)} wants {self.wanted.kind.noun}s of {one_line(library)}, "
            f"and {one_line(self.library)} (from {self.source})"
        )

    def trouble(self) -> FolderTrouble | None:
        """Find the folder that keeps this file, and others, from being found."""
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
        remedy = "give it as an absolute path"
        if name := re.match(r"\$\w+|\$\{\w+\}", root):
            remedy += f": the variable {name[0]} is not set where jobs run"
        return FolderTrouble(
            code="relative",
            path=root,
            message=f"the {self.wanted.kind.noun} folder {root!r} (from {self.source}) is a "
            "relative path, and a job does not run in this directory",
            remedy=remedy,
        )

    def _bad_root(self, root: str, code: str, words: str) -> FolderTrouble:
        remedy = f"correct {self.source}: it must name {self.holder}"
        if root.startswith("~"):
            remedy += "; write it without '~', which is not expanded there"
        message = (
            f"the {self.wanted.kind.noun} folder {one_line(root)} (from {self.source}) {words}"
        )
        return FolderTrouble(code=code, path=root, message=message, remedy=remedy)

    def addition(self) -> str:
        """Return how the file comes to its place."""
        path, setup = self.wanted.path, self.wanted.setup
        for suffix, unpack in ((".gz", "gunzip"), (".Z", "uncompress")):
            if os.path.exists(path + suffix):
                return f"unpack it: {unpack} {one_line(path + suffix)}"
        for name in self.variants:
            if name.lower() == setup.lower():
                return f"rename {one_line(name)} to {one_line(setup)}"
        return self.put_there()


def unusable(folder: str) -> tuple[str, str] | None:
    """Return why no file can be opened in a folder: a code and words."""
    code, words = folder_trouble(Path(folder))
    # Files are opened by their names, which needs no listing.
    return None if code in {"", "unlisted"} else (code, words)


def names_below(path: str) -> list[str]:
    """List what is in a folder; nothing where that cannot be."""
    try:
        return sorted(os.listdir(path))[:_SEARCHED] if path else []
    except (OSError, ValueError):
        return []


def _below(path: str, folder: str) -> bool:
    return path.startswith(os.path.join(folder, ""))


def _alike(names: Iterable[str], wanted: str, symbols: Iterable[str]) -> list[str]:
    """Pick the variants of the elements, and other spellings of what is wanted."""
    elements = "|".join(re.escape(symbol) for symbol in symbols if symbol)
    variant = re.compile(rf"({elements or '(?!)'})([._\-\d].*)?", re.DOTALL)
    return [
        name
        for name in names
        if name != wanted and (variant.fullmatch(name) or name.lower() == wanted.lower())
    ]
