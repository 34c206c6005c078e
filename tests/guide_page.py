"""Types in what stands on the page `docs/writing-an-engine.md`."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

__all__ = ["BLOCKS", "GUIDE", "register", "type_in"]

GUIDE = (Path(__file__).parents[1] / "docs/writing-an-engine.md").read_text()
#: A line with nothing but a path and a colon, and the block below it.
BLOCKS = re.findall(r"^`([^`\n]+)`:\n\n```\w+\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


def type_in(folder: str, into: Path) -> Path:
    """Write the files of one folder, block by block; its distribution counts as installed there."""
    into.mkdir()
    for name, block in BLOCKS:
        if name.startswith(f"{folder}/"):
            with (into / name.removeprefix(f"{folder}/")).open("a", encoding="utf-8") as file:
                file.write(block + "\n")
    register(into / "pyproject.toml", into)
    return into


def register(pyproject: Path, folder: Path) -> None:
    """Have a distribution count as installed in a folder that has its modules."""
    project = tomllib.loads(pyproject.read_text())["project"]
    metadata = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    points = [
        line
        for group, entries in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{key} = {value}" for key, value in entries.items()))
    ]
    (metadata / "entry_points.txt").write_text("\n".join(points))
