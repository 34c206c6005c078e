"""Write a distribution from a template, for authors of engines to begin with."""

from __future__ import annotations

import re
import string
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

#: The names that an engine of the template may have.
ENGINE_NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")
_SUFFIX = ".template"
#: The folders of files that are not at the top.
_FOLDERS = {"test_conformance.py": "tests"}


def write_engine(name: str, folder: Path) -> list[Path]:
    """Write the distribution of an engine into a new folder, whole or not at all; return its files.

    The name fits `ENGINE_NAME`. `FileExistsError` is raised if the folder exists.
    """
    distribution = f"crystalmath-engine-{name}".replace("_", "-")
    words = {
        "engine": name,
        "distribution": distribution,
        "module": distribution.replace("-", "_"),
        "runner": "".join(word.capitalize() for word in re.split("[-_]", name)) + "Runner",
    }
    texts = {}
    for source in (resources.files("crystalmath.testing") / "engine_template").iterdir():
        file = source.name.removesuffix(_SUFFIX)
        module = f"src/{words['module']}" if file.endswith(".py") else "."
        place = folder / _FOLDERS.get(file, module) / file
        texts[place] = string.Template(source.read_text(encoding="utf-8")).substitute(words)
    folder.mkdir(parents=True)
    for place, text in texts.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    return sorted(texts)
