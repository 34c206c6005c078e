"""Writes what programs get into a folder, where they run without us."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from crystalmath.errors import CrystalMathError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crystalmath.models import Inputs

#: Where a calculation ran; a program that is started in the folder of its input has it here.
_FOLDER = re.compile(r"/[^\s'\"]*/tmp-quacc-[\d-]+")


def input_files(inputs: Inputs, directory: str) -> dict[Path, str]:
    """Name the files of inputs in a folder; those of several steps lie in ``step-1`` and on."""
    root = Path(directory)
    several = len(inputs.steps) > 1
    return {
        (root / f"step-{number}" if several else root) / name: _FOLDER.sub(".", text)
        for number, step in enumerate(inputs.steps, 1)
        for name, text in step.files.items()
    }


def write_texts(texts: Mapping[Path, str], option: str) -> list[Path]:
    """Write files with their folders, and return their paths.

    `CrystalMathError`: one of the files is there already, and `option` names another folder;
    nothing was written.
    """
    for path in texts:
        if path.exists():
            raise CrystalMathError(
                f"{path} is there already, and is not overwritten; name another folder with "
                f"{option}"
            )
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")
        if text.startswith("#!"):
            path.chmod(0o755)
    return list(texts)
