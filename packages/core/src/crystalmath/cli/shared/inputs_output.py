"""Show what programs get, with who has set what, or write it into a folder."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crystalmath.cli.shared import completion, output

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from crystalmath.models.inputs import Difference, Inputs, Setting, StepInputs

Diff = Annotated[
    str | None,
    typer.Option(
        "--diff",
        metavar="JOB",
        help="Show what differs from the inputs of another job, in place of the files.",
        autocompletion=completion.job_ids,
    ),
]

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
    # Before the first step there is no result.
    elsewhere = any(not step.certain for step in inputs.steps[:1])
    for number, step in enumerate(inputs.steps, 1):
        lines = _step(step, number, len(inputs.steps), elsewhere=elsewhere)
        output.write(output.printable("\n".join(lines)))
    if inputs.rest or not inputs.steps:
        none = "the recipe begins no calculation that could be seen"
        output.write(output.printable(inputs.rest or none))


def show_differences(inputs: Inputs, other: Inputs) -> None:
    """Write what differs to standard output: of each setting what the one and the other has."""
    found = inputs.differences(other)
    before = None
    for one in found:
        place = (one.step, one.file)
        if place != before:
            output.write(output.printable(f"step {one.step}, {one.file}:"))
            before = place
        output.write(output.printable("\n".join(_difference(one))))
    if not found:
        steps = len(inputs.steps)
        output.write(f"no differences in {steps} step{'' if steps == 1 else 's'}")


def _difference(one: Difference) -> Iterator[str]:
    texts = [one.value, one.other]
    if any(text is not None and "\n" in text for text in texts):
        ours, others = ((text or "").splitlines() for text in texts)
        # The two lines before the first hunk name files, and there are none.
        changed = list(difflib.unified_diff(others, ours, n=1, lineterm=""))[2:]
        if one.name != one.file:
            yield f"  {one.name}"
        yield from (f"  {line}" for line in changed[:_LINES])
        if len(changed) > _LINES:
            yield f"  ... and {len(changed) - _LINES} more lines"
    else:
        mine, its = ("(none)" if text is None else text for text in texts)
        yield f"  {one.name} = {mine}  (other: {its})"


def document(inputs: Inputs, other: Inputs | None) -> dict[str, Any]:
    """Return inputs as the commands write them as JSON, and what differs from another job's."""
    from attrs import asdict

    told: dict[str, Any] = {"inputs": inputs.document()}
    if other is not None:
        told["differences"] = [asdict(each) for each in inputs.differences(other)]
    return told


def _step(step: StepInputs, number: int, count: int, *, elsewhere: bool) -> Iterator[str]:
    what = [step.program, step.formula, f"preset {step.preset}" if step.preset else ""]
    yield f"step {number} of {count}: {', '.join(filter(None, what))}"
    if not step.certain:
        what = ["an earlier step's result"] * (number > 1)
        what += ["the machine that the job runs on"] * elsewhere
        yield f"what {' or '.join(what)} may still change is marked with ?"
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
        if each.value is None and not each.certain:
            yield _with_mark(f"({each.name} may be set)", each)
        elif each.value is None and each.origin != "quacc":
            yield _with_mark(f"({each.name} is left out)", each)


def _with_mark(line: str, setting: Setting | None) -> str:
    if setting is None or setting.origin is None:
        return line
    told = setting.origin + (f" ({setting.instead_of})" if setting.instead_of else "")
    return f"{line:{_COLUMN}}  {told}{'' if setting.certain else ' ?'}"


def write(inputs: Inputs, directory: str, option: str = "--inputs") -> list[Path]:
    """Write the files into a folder; see :mod:`crystalmath.client.input_folder`."""
    from crystalmath.client.input_folder import input_files, write_texts

    return write_texts(input_files(inputs, directory), option)
