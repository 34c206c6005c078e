"""quacc's YAML files, read once: parsing one takes longer than all the rest of a question."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from crystalmath.preflight.file_memo import FileMemo

if TYPE_CHECKING:
    from pathlib import Path

_read: FileMemo[Any] = FileMemo()


def install() -> None:
    """Have quacc read a preset again only where its file has changed."""
    import quacc.utils.files

    quacc.utils.files.YAML = _Reader


class _Reader:
    """In the place of :class:`ruamel.yaml.YAML`, as far as quacc's presets need it."""

    def load(self, path: Path) -> Any:
        # What is read is changed afterwards.
        return copy.deepcopy(_read.get(path, [str(path)], lambda: _parse(path)))


def _parse(path: Path) -> Any:
    from ruamel.yaml import YAML

    return _plain(YAML().load(path))


def _plain(node: Any) -> Any:
    """Leave out the comments, which take longest to copy."""
    if isinstance(node, dict):
        return {key: _plain(value) for key, value in node.items()}
    return [_plain(value) for value in node] if isinstance(node, list) else node
