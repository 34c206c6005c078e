"""``crystalmath check`` and ``inputs``: what is wrong with a job, and what its programs get."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crystalmath.cli.shared import completion, output
from crystalmath.cli.shared.common_arguments import JobId, Json, any_client
from crystalmath.cli.shared.parameter_options import parse_parameters
from crystalmath.cli.shared.structure_files import names_one, put_together, read_documents
from crystalmath.cli.shared.submission_options import (
    Params,
    ParamsFile,
    Recipe,
    checked,
    make_submission,
    with_options,
)
from crystalmath.errors import Finding, InvalidJob, ServerNotRunning
from crystalmath.models import FlowCheck, Inputs, Submission, SubmissionOptions
from crystalmath.models.job_notes import in_tree, written_findings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from crystalmath.cli.shared.submission_options import Read
    from crystalmath.models.inputs import Difference, Setting, StepInputs
    from crystalmath.models.job_notes import FindingDocument
    from crystalmath.wire.answers import CheckedJob


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
#: So many steps of a flow are shown.
_MOST_STEPS = 60
#: Where a mark stands, if the line leaves room for it.
_COLUMN = 44
#: So much of what a setting stands in the place of is shown: a preset's table of all
#: pseudopotentials has 20 kB.
_INSTEAD = 100
_NAME = re.compile(r"[\s\"]*([A-Za-z][\w%]*(?:\([\d, ]+\))?)")


def with_value(arguments: list[str]) -> list[str]:
    """Let ``--inputs`` stand without a folder: the last word, or before another option."""
    words = []
    for word, after in zip(arguments, [*arguments, "--"][1:], strict=True):
        alone = word == "--inputs" and after.startswith("-") and after != SHOWN
        words.append(f"{word}={SHOWN}" if alone else word)
    return words


def show(inputs: Inputs) -> None:
    """Write all files to standard output, each line with who has set what stands in it."""
    # Before the first step there is no result.
    elsewhere = any(not step.certain for step in inputs.steps[:1])
    for number, step in enumerate(inputs.steps, 1):
        lines = _step(step, number, len(inputs.steps), elsewhere=elsewhere)
        output.write("\n".join(lines))
    if inputs.rest or not inputs.steps:
        none = "the recipe begins no calculation that could be seen"
        output.write(inputs.rest or none)


def show_differences(inputs: Inputs, other: Inputs) -> None:
    """Write what differs to standard output: of each setting what the one and the other has."""
    differences = inputs.differences(other)
    before = None
    for one in differences:
        place = (one.step, one.file)
        if place != before:
            output.write(f"step {one.step}, {one.file}:")
            before = place
        output.write("\n".join(_difference(one)))
    if not differences:
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

    answer: dict[str, Any] = {"inputs": inputs.document()}
    if other is not None:
        answer["differences"] = [asdict(each) for each in inputs.differences(other)]
    return answer


def _step(step: StepInputs, number: int, count: int, *, elsewhere: bool) -> Iterator[str]:
    preset = f"preset {step.preset}" if step.preset else None
    what = [each for each in (step.program, step.formula, preset, step.step) if each]
    yield f"step {number} of {count}: {', '.join(what)}"
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
        match = _NAME.match(line)
        yield _with_mark(line.rstrip(), known.get(match[1].lower()) if match else None)
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
    mark: str = setting.origin
    if instead := setting.instead_of:
        mark += f" ({instead[:_INSTEAD]}{'...' * (len(instead) > _INSTEAD)})"
    return f"{line:{_COLUMN}}  {mark}{'' if setting.certain else ' ?'}"


def write(inputs: Inputs, directory: str, option: str = "--inputs") -> list[Path]:
    """Write the files into a folder; see :mod:`crystalmath.models.inputs`."""
    from crystalmath.models.inputs import input_files, write_texts

    return write_texts(input_files(inputs, directory), option)


def inputs(
    job_id: JobId,
    *,
    directory: Annotated[
        str | None,
        typer.Option("--dir", metavar="DIR", help="Write the files into this folder."),
    ] = None,
    diff: Diff = None,
    as_json: Json = False,
) -> int:
    """Show what a job's programs get, before and after it ran.

    Once the job has written input files, these are shown; before, and of calculators that write
    none, what its recipe tells. Beside each line stands who has set it, as the recipe says with the
    presets of now. Of POTCARs the titles are shown.
    """
    with any_client() as client:
        job_inputs = client.inputs(client.find(job_id))
        other = None if diff is None else client.inputs(client.find(diff))
    paths = write(job_inputs, directory, "--dir") if directory else []
    if as_json:
        output.write_json(document(job_inputs, other))
        return 0
    if other is not None:
        show_differences(job_inputs, other)
    elif not directory:
        show(job_inputs)
    for path in paths:
        output.write(f"wrote {path}")
    return 0


@with_options
def check(
    recipe: Recipe,
    structures: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[STRUCTURE...]",
            help="As of crystalmath submit: files, FILE@N, 'runs/*/POSCAR', job:ID. Left out for a "
            "recipe that takes none.",
        ),
    ] = None,
    *,
    together: Annotated[
        bool,
        typer.Option("--together", help="All structures are those of one job, as of submit."),
    ] = False,
    param: Params = None,
    params: ParamsFile = None,
    options: SubmissionOptions,
    inputs: Annotated[
        str | None,
        typer.Option(
            "--inputs",
            metavar="[DIR]",
            help="Also show what the program gets in each step that is known, or write it into a "
            "folder; stands last, or before another option, where no folder is named.",
        ),
    ] = None,
    diff: Diff = None,
    as_json: Json = False,
) -> int:
    """Say whether a job would be accepted, or what is wrong.

    All that is wrong is told at once, of a flow by the jobs that it would call, as far as that is
    known before they have run. Of several structures, a job each, what is alike is told once.
    Nothing is recorded or started. With --cluster, --ranks and
    so on the answer is submit's: with the cluster's environment, and what it can honour; what is
    known on its nodes alone is a warning, and `crystalmath clusters check NAME` runs a job there to
    see. A recipe of VASP or Quantum ESPRESSO is asked which files it reads: without a running
    server that takes some seconds each time; submit, or serve, starts one that stays warm. Exits 1
    where a job would be refused.

    With --inputs any recipe is asked. Beside each line stands who has set it: asked (you), the
    preset, the recipe, quacc, the structure, or the program's default. --diff JOB shows what
    differs from the inputs of another job.
    """
    names = structures or []
    parameters = parse_parameters(param or (), params)
    documents = [*read_documents(names)]
    read: list[Read] = [put_together(documents)] if together else [*documents]
    if names and not (together or (names_one(names) and len(read) == 1)):
        if inputs is not None or diff is not None:
            option = "--diff" if inputs is None else "--inputs"
            output.refuse(f"it shows one job, and {len(read)} structures are given", option)
        return _check_each(recipe, read, parameters, options, as_json=as_json)
    submission = make_submission(recipe, read[0] if read else None, parameters, options)
    try:
        answer, other = _check_one(submission, diff, inputs=inputs is not None)
    except ServerNotRunning:  # it was there a moment ago, and none is needed
        answer, other = _check_one(submission, diff, inputs=inputs is not None)
    inputs_document = answer.get("inputs")
    job_inputs = Inputs.read(inputs_document) if inputs_document else None
    folder = None if inputs in {None, SHOWN} else inputs
    paths = write(job_inputs, folder) if job_inputs and folder else []
    if as_json:
        output.write_json({**answer, **(document(job_inputs, other) if job_inputs else {})})
    else:
        if job_inputs:
            _show_inputs(job_inputs, other, paths)
        _show(answer)
    return 0 if answer["ok"] else 1


def _check_each(
    recipe: str,
    read: Sequence[Read],
    parameters: Mapping[str, Any],
    options: SubmissionOptions,
    *,
    as_json: bool,
) -> int:
    """Check a job for each structure; tell what is alike once."""
    answers: list[dict[str, Any]] = []
    with any_client() as client:
        for each in read:
            try:
                answer = {**checked(client, make_submission(recipe, each, parameters, options))}
            except InvalidJob as error:
                finding = Finding(severity="error", code=error.code, message=str(error))
                answer = {
                    "ok": False,
                    "status": "error",
                    "error": str(error),
                    "findings": written_findings([finding]),
                    "potcars": [],
                    "environment": [],
                    "copies": [],
                }
            answers.append({"name": each[0], **answer})
    refused = sum(not each["ok"] for each in answers)
    if as_json:
        output.write_json({"jobs": answers})
        return 1 if refused else 0
    findings = [
        (each["name"], finding["severity"], output.sentence(finding))
        for each in answers
        for finding in each["findings"]
    ]
    for line in output.alike(findings, len(answers)):
        output.write(line)
    output.write(f"{len(answers) - refused} of {len(answers)} jobs would be accepted")
    return 1 if refused else 0


def _check_one(
    submission: Submission, diff: str | None, *, inputs: bool
) -> tuple[CheckedJob, Inputs | None]:
    with any_client() as client:
        other = None if diff is None else client.inputs(client.find(diff))
        return checked(client, submission, inputs=inputs or other is not None), other


def _show_inputs(inputs: Inputs, other: Inputs | None, paths: Sequence[Path]) -> None:
    if other is not None:
        show_differences(inputs, other)
    elif not paths:
        show(inputs)
    for path in paths:
        output.write(f"wrote {path}")
    if paths and inputs.rest:
        output.write(inputs.rest)


def _show(answer: CheckedJob) -> None:
    if answer["potcars"]:
        _show_potcars(answer["potcars"])
    if "flow" in answer:
        _show_steps(
            FlowCheck.read(answer["flow"]), [each["message"] for each in answer["findings"]]
        )
    for copy in answer["copies"]:
        output.write(f"runs in a copy of {copy['folder']} ({output.size(copy['size'])})")
    for severity in ("error", "warning"):
        for finding in answer["findings"]:
            if finding["severity"] == severity:
                output.write(f"{severity}: {output.sentence(finding)}")
    if answer["environment"]:
        seen = ", ".join(answer["environment"])
        output.write(f"checked with your environment, as forwarded: {seen}")
    if answer["ok"]:
        output.write("this job would be accepted")


def _show_steps(flow: FlowCheck, below: Sequence[str]) -> None:
    """Write the jobs that a flow would call, below the subflows that call them.

    `below` are the messages that follow for the flow as a whole.
    """
    rows: list[tuple[str, str, str]] = []
    steps = flow.steps[:_MOST_STEPS]
    for step, (*above, own) in zip(steps, in_tree(step.name for step in steps), strict=True):
        rows += [(subflow, "", "") for subflow in above]
        verdict = "; ".join(_verdict(step.findings, below))
        open_ = "" if step.known else ", if results lead there"
        rows.append((own, step.formula or "", f"{verdict or 'ok'}{open_}"))
    if rows:
        output.table(("STEP", "FORMULA", "VERDICT"), rows, whole=("STEP", "VERDICT"))
    if (more := len(flow.steps) - _MOST_STEPS) > 0:
        output.write(f"... and {more} more")
    if flow.rest:
        output.write(flow.rest)
    output.write("")


def _verdict(findings: Sequence[FindingDocument], below: Sequence[str]) -> Iterator[str]:
    seen = set()
    for each in findings:
        follows = any(message.startswith(each["message"]) for message in below)
        text = "see below" if follows else output.sentence(each)
        if text not in seen:
            seen.add(text)
            yield f"{each['severity']}: {text}"


def _show_potcars(files: Sequence[Mapping[str, Any]]) -> None:
    paths = [file["path"] for file in files]
    folder = _shared_folder(paths)
    if folder:
        output.write(f"reads, below {folder}:")
        paths = [os.path.relpath(path, folder) for path in paths]
    rows = [
        (file["symbol"], file["setup"], file["titel"] or "", path)
        for file, path in zip(files, paths, strict=True)
    ]
    output.table(("SYMBOL", "SETUP", "TITEL", "FILE"), rows, whole=("FILE",))
    output.write("")


def _shared_folder(paths: Sequence[str]) -> str:
    """Return the library in which all files are, which would not fit beside the rest."""
    try:
        # A POTCAR is named by its folder.
        return os.path.commonpath([Path(path).parent.parent for path in paths])
    except ValueError:  # relative paths among them
        return ""
