"""What `docs/writing-an-engine.md` shows is what lies in `examples/engine-dask`."""

from __future__ import annotations

import ast
import io
import re
import sys
import textwrap
import tokenize
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import guide_page
from commands import ran
from crystalmath.config import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples/engine-dask"
#: The other example is whole on the page; `tests/kit` types it in.
BLOCKS = [(name, block) for name, block in guide_page.BLOCKS if not name.startswith("batch/")]
MOST_LINES = 150
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


@pytest.mark.parametrize(
    ("name", "block"),
    [pytest.param(*block, id=f"{i}-{block[0]}") for i, block in enumerate(BLOCKS)],
)
def test_block_is_part_of_its_file(name: str, block: str) -> None:
    lines = (EXAMPLE / name).read_text().splitlines()
    wanted = textwrap.dedent(block).splitlines()
    windows = (lines[start : start + len(wanted)] for start in range(len(lines)))
    assert any(textwrap.dedent("\n".join(each)).splitlines() == wanted for each in windows), (
        f"not a part of {EXAMPLE / name}:\n{block}"
    )


def test_blocks_are_found() -> None:
    assert len(BLOCKS) >= 8


def test_the_example_typed_in_from_the_page_is_the_one_that_passes_the_kit() -> None:
    # `nox -s "contract(dask)"` runs the kit on the files.
    typed: dict[str, list[str]] = {}
    for name, block in BLOCKS:
        typed.setdefault(name, []).extend(line for line in block.splitlines() if line.strip())
    sources = [path for path in EXAMPLE.rglob("*.py") if path.name != "__init__.py"]
    for path in [*sources, EXAMPLE / "pyproject.toml"]:
        lines = [line for line in path.read_text().splitlines() if line.strip()]
        assert typed[str(path.relative_to(EXAMPLE))] == lines, path


def test_example_keeps_to_published_interfaces() -> None:
    contract = (ROOT / "docs/engine-contract.md").read_text()
    chapter = contract.partition("\n## Published interfaces\n")[2].partition("\n## ")[0]
    published = set(_published(chapter))
    assert len(published) > 8
    for path in EXAMPLE.rglob("*.py"):
        used = set(_used(ast.parse(path.read_text())))
        assert used <= published, f"{path} uses {sorted(used - published)}"


def test_example_is_short() -> None:
    sources = sorted((EXAMPLE / "src").rglob("*.py"))
    count = sum(len(_code_lines(path.read_text())) for path in sources)
    assert 0 < count <= MOST_LINES


def _published(chapter: str) -> Iterator[str]:
    """Yield the full names in the table: its first column, and what the second lists of it."""
    for place, contents in re.findall(
        r"^\| `(crystalmath[\w.]*)` \| (.*) \|$", chapter, re.MULTILINE
    ):
        yield place
        yield from (f"{place}.{name}" for name in re.findall(r"`(\w+)`", contents))


def _used(tree: ast.Module) -> Iterator[str]:
    """Yield the full names of ours that a module imports; of imported modules, what it uses."""
    modules: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] == "crystalmath")
        elif (
            isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "crystalmath"
        ):
            for alias in node.names:
                if node.module == "crystalmath":
                    modules[alias.asname or alias.name] = f"crystalmath.{alias.name}"
                else:
                    yield f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=module)) if module in modules:
                yield f"{modules[module]}.{node.attr}"


def _code_lines(source: str) -> set[int]:
    """Return the numbers of the lines that are code: no docstrings, comments or blank lines."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NO_CODE:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None:
            text = node.body[0]
            lines -= set(range(text.lineno, (text.end_lineno or text.lineno) + 1))
    return lines


def test_the_page_of_settings_has_each_key() -> None:
    # It imports engines that are not installed, which other tests would take for installed ones.
    write = "import reference_pages; print(reference_pages.configuration())"
    page = ran(sys.executable, "-c", write, cwd=ROOT / "docs", check=True).stdout

    def check(table: str, keys: Mapping[str, object]) -> None:
        for key, value in keys.items():
            name = key.replace("*", "NAME")
            if isinstance(value, tuple):
                assert f"\n| `{name}` | " in page.partition(f"## `[{table}]`" if table else "")[2]
            else:
                below = f"{table}.{name}".lstrip(".")
                assert f"## `[{below}" in page
                check(below, value if isinstance(value, dict) else {})

    assert "| `engine` | text | engine of submissions" in page
    check("", {name: keys for name, keys in SETTINGS.items() if not isinstance(keys, tuple)})


def test_pages_name_modules_that_are_there():
    source = ROOT / "packages/core/src/crystalmath"
    rooms = "|".join(path.name for path in source.iterdir() if path.is_dir())
    named = re.compile(rf"`((?:{rooms})/[a-z_0-9/]*[a-z_0-9])(?:\.py)?/?`")
    # Other pages tell of files in a home.
    pages = [ROOT / "docs/architecture.md", *(ROOT / "docs/internals").glob("*.md")]
    found = {(page.name, name) for page in pages for name in named.findall(page.read_text())}
    assert ("architecture.md", "jobs/life") in found
    gone = {each for each in found if not (source / each[1]).is_dir()}
    assert not {each for each in gone if not (source / f"{each[1]}.py").exists()}
