"""Sentences name their subject first: pages, docstrings and comments are read once."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
#: `nox -s docs` writes these, and the project's, of texts that are read where they stand.
WRITTEN = {("reference", f"{name}.md") for name in ("commands", "configuration", "methods")}
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted(
        page
        for page in (ROOT / "docs").rglob("*.md")
        if page.parent.name != "project" and page.parts[-2:] not in WRITTEN
    ),
]
SOURCES = sorted((ROOT / "packages").glob("*/src/**/*.py"))
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)

#: A reader of a sentence that opens so waits for its subject.
SLOW = re.compile(r"(?:Of|Whoever|Who|Whatever|What|Where|Such|So many|So much)\b")
#: A docstring that opens so does not say what is returned or done.
VAGUE = re.compile(r"(?:Give|Tell|Say|What|Of|Who)\b")
MOST_SLOW = 0.01

#: Parts of a page that are no prose, or stand for a single word in it.
NO_PROSE = re.compile(
    r"^```.*?^```|^ *\|.*?$|^#.*?$|^ {4,}\S.*?$|<[^>\n]+>", re.DOTALL | re.MULTILINE
)
CODE = re.compile(r"``.+?``|`[^`\n]*`", re.DOTALL)
LINK = re.compile(r"\[([^]]*)\]\([^)]*\)")
BLOCKS = re.compile(r"\n\s*\n|\n\s*(?:[-*]|\d+\.)\s+")


def sentences(text: str) -> Iterator[str]:
    """Yield the sentences of a text, each on one line and with ``x`` for code."""
    prose = LINK.sub(r"\1", CODE.sub("x", NO_PROSE.sub("", text)))
    for block in BLOCKS.split(f"\n{prose}"):
        for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Zx\"(*_])", " ".join(block.split())):
            if len(sentence.split()) > 1:
                yield sentence.lstrip("-*_( ")


def is_slow(sentence: str) -> bool:
    return bool(SLOW.match(sentence)) and not sentence.endswith("?")


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Yield the docstrings of a module, each with the line of what it documents."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node)):
            yield getattr(node, "lineno", 1), text


def comments(source: str) -> Iterator[tuple[int, str]]:
    """Yield the comments of a module; lines that follow each other are one."""
    block: list[str] = []
    start = after = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            is_alone = not token.line[:column].strip()
            if block and not (is_alone and row == after):
                yield start, "\n".join(block)
                block = []
            start = start if block else row
            after = row + 1 if is_alone else 0
            block.append(token.string.lstrip("#:! "))
    if block:
        yield start, "\n".join(block)


def texts() -> Iterator[tuple[str, str]]:
    """Yield all prose of the repository, each text with its place."""
    for page in PAGES:
        yield str(page.relative_to(ROOT)), page.read_text(encoding="utf-8")
    for path in SOURCES:
        source = path.read_text(encoding="utf-8")
        for line, text in chain(docstrings(source), comments(source)):
            yield f"{path.relative_to(ROOT)}:{line}", text


def test_sentences_open_with_their_subject() -> None:
    count, slow = 0, []
    for place, text in texts():
        for sentence in sentences(text):
            count += 1
            if is_slow(sentence):
                slow.append(f"{place}: {sentence}")
    share = len(slow) / count
    assert share < MOST_SLOW, f"{len(slow)} of {count} sentences ({share:.1%}):\n" + "\n".join(slow)


def test_docstrings_open_with_what_is_returned_or_done() -> None:
    vague = [
        f"{path.relative_to(ROOT)}:{line}: {text.splitlines()[0]}"
        for path in SOURCES
        for line, text in docstrings(path.read_text(encoding="utf-8"))
        if VAGUE.match(text)
    ]
    assert not vague, "\n".join(vague)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Some jobs fail.  Others\nrun on.", ["Some jobs fail.", "Others run on."]),
        ("`wait` returns. `stop` does not!", ["x returns.", "x does not!"]),
        ("A claim is a link, e.g. of a folder.", ["A claim is a link, e.g. of a folder."]),
        ("# What it does\n\nIt runs jobs.", ["It runs jobs."]),
        ("```sh\nWhat a line.\n```\n\nIt runs.", ["It runs."]),
        ("| What | a table |\n\nIt runs.", ["It runs."]),
        ("See [the page](What.md): it helps.", ["See the page: it helps."]),
        ("Two kinds:\n\n- a job\n- What runs.", ["Two kinds:", "a job", "What runs."]),
        ("1. Ids win.\n2. **Where** none is.", ["Ids win.", "Where** none is."]),
    ],
)
def test_a_text_is_cut_into_sentences(text: str, parts: list[str]) -> None:
    assert list(sentences(text)) == parts


def test_slow_openings_are_seen() -> None:
    slow = [
        "Of many jobs some fail.",
        "Who waits has a connection of its own.",
        "What comes alone waits for no company.",
        "So many parcels go to a worker.",
    ]
    quick = [
        "Some jobs of a large set fail.",
        "What became of my jobs?",
        "So the worker ends.",
        "Often it is absent.",
        "Whole folders go.",
    ]
    assert [sentence for sentence in (*slow, *quick) if is_slow(sentence)] == slow


def test_comments_in_a_row_are_one_text() -> None:
    source = "# A job\n# Where it ran\nx = 1  # seconds\n# alone\n\n#: A mark.\ny = '# none'\n"
    assert list(comments(source)) == [
        (1, "A job\nWhere it ran"),
        (3, "seconds"),
        (4, "alone"),
        (6, "A mark."),
    ]


def test_docstrings_are_found() -> None:
    source = '"""A module."""\nclass A:\n    """A class."""\n    def b():\n        """Do it."""\n'
    assert list(docstrings(source)) == [(1, "A module."), (2, "A class."), (4, "Do it.")]
