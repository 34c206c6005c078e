"""Show what programs get, with who has set what, or write it into a folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from crystalmath.cli.shared import output
from crystalmath.errors import CrystalMathError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from crystalmath.models.inputs import Inputs, Setting, StepInputs

__all__ = ["SHOWN", "show", "with_value", "write"]

#: What ``--inputs`` is without a folder: show them.
SHOWN = "-"
#: So many lines of a file are shown: a large structure's positions tell nobody anything.
_LINES = 60
#: Where a mark stands, if the line leaves room for it.
_COLUMN = 44
_NAME = re.compile(r"[\s\"]*([A-Za-z][\w%]*(?:\([\d, ]+\))?)")


def with_value(arguments: list[str]) -> list[str]:
    """Let ``--inputs`` stand without a folder: the last word, or before another option."""
    told = []
    for word, after in zip(arguments, [*arguments, "--"][1:], strict=True):
        alone = word == "--inputs" and after.startswith("-") and after != SHOWN
        told.append(f"{word}={SHOWN}" if alone else word)
    return told


def show(inputs: Inputs) -> None:
    """Write all files to standard output, each line with who has set what stands in it."""
    for number, step in enumerate(inputs.steps, 1):
        output.write(output.printable("\n".join(_step(step, number, len(inputs.steps)))))
    if inputs.rest or not inputs.steps:
        none = "the recipe begins no calculation that could be seen"
        output.write(output.printable(inputs.rest or none))


def _step(step: StepInputs, number: int, count: int) -> Iterator[str]:
    what = [step.program, step.formula, f"preset {step.preset}" if step.preset else ""]
    yield f"step {number} of {count}: {', '.join(filter(None, what))}"
    if not step.certain:
        yield "what an earlier step's result may still change is marked with ?"
    for name, text in step.files.items():
        settings = [each for each in step.settings if each.file == name]
        yield ""
        yield _with_mark(f"--- {name}", next((s for s in settings if s.name == name), None))
        yield from _file(text, settings)
    yield ""


def _file(text: str, settings: Sequence[Setting]) -> Iterator[str]:
    parts = [each for each in settings if each.value is not None and each.name != each.file]
    known = {each.name.lower(): each for each in parts}
    lines = text.splitlines()
    for line in lines[:_LINES]:
        found = _NAME.match(line)
        yield _with_mark(line.rstrip(), known.get(found[1].lower()) if found else None)
    if len(lines) > _LINES:
        yield f"... and {len(lines) - _LINES} more lines"
    for each in settings:
        if each.value is None and each.origin != "quacc":
            yield _with_mark(f"({each.name} is left out)", each)


def _with_mark(line: str, setting: Setting | None) -> str:
    if setting is None or setting.origin is None:
        return line
    told = setting.origin + (f" ({setting.instead_of})" if setting.instead_of else "")
    return f"{line:{_COLUMN}}  {told}{'' if setting.certain else ' ?'}"


def write(inputs: Inputs, directory: str) -> list[Path]:
    """Write the files into a folder; those of several steps into one for each, ``step-1`` and on.

    Returns
    -------
    list of pathlib.Path
        What was written.

    Raises
    ------
    CrystalMathError
        One of the files is there already; nothing was written.
    """
    root = Path(directory)
    several = len(inputs.steps) > 1
    texts = {
        (root / f"step-{number}" if several else root) / name: text
        for number, step in enumerate(inputs.steps, 1)
        for name, text in step.files.items()
    }
    for path in texts:
        if path.exists():
            raise CrystalMathError(
                f"{path} is there already, and is not overwritten; name another folder with "
                "--inputs"
            )
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")
    return list(texts)
