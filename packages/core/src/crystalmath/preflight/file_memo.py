"""What was made of files, remembered as long as they stay as they are."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Generic, TypeVar

from crystalmath.worker.imports import settled, signature

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

_Made = TypeVar("_Made")

_LIMIT = 2000


class FileMemo(Generic[_Made]):
    """Results by a key of the caller's, each with the signatures of its files."""

    def __init__(self) -> None:
        self._known: dict[Hashable, tuple[list[tuple[int, ...]], _Made]] = {}

    def get(self, key: Hashable, paths: Sequence[str], make: Callable[[], _Made]) -> _Made:
        """Return what is known, or make it: again where one of the files has changed.

        Parameters
        ----------
        key : hashable
            What is asked for.
        paths : sequence of str
            The files that it is made of.
        make : callable
            How it is made.
        """
        now = [signature(path) for path in paths]
        known = self._known.get(key)
        if known and known[0] == now:
            for path in paths:
                # Whoever listens to what is read (opened_files) must be told of this, too.
                sys.audit("open", path, "r", os.O_RDONLY)
            return known[1]
        looked = time.time()
        made = make()
        if all(settled(seen, looked) for seen in now):
            if len(self._known) >= _LIMIT:
                self._known.clear()
            self._known[key] = now, made
        return made
