"""`docs/gallery.md`, word by word, at a shell: each calculation has the numbers of the page."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.vasp

PAGE = (Path(__file__).parents[2] / "docs/gallery.md").read_text(encoding="utf-8")
NUMBER = re.compile(r"(?<![\w-])-?\d+(?:\.\d+)?")


def _as_numbers(line):
    """Return the words of a line, without its numbers, and the numbers."""
    return NUMBER.sub("_", line), [float(number) for number in NUMBER.findall(line)]


@pytest.mark.by_turns
def test_the_gallery(follow):
    printed = [_as_numbers(line) for line in follow("gallery.md").splitlines()]
    shown = re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(shown) == 10
    for line in "".join(shown).splitlines():
        words, numbers = _as_numbers(line)
        assert any(
            words == others and numbers == pytest.approx(values, rel=2e-3)
            for others, values in printed
        ), line
