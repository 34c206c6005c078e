"""``crystalmath check`` and ``inputs``: problems of a job, and its input files."""

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
from crystalmath.config import remote_name
from crystalmath.errors import InvalidJob, ServerNotRunning, fault
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
        help="Show the differences from the inputs of another job instead of the files.",
        autocompletion=completion.job_ids,
    ),
]

#: The value of ``--inputs`` without a folder.
SHOWN = "-"
#: The most lines of a file that are shown, since structures may be large.
_LINES = 60
#: The most steps of a flow that are shown.
_MOST_STEPS = 60
#: The column of a mark beside a line; longer lines push it to the right.
_COLUMN = 44
#: The most characters shown of a replaced value: a preset's table of pseudopotentials has 20 kB.
_INSTEAD = 100
_NAME = re.compile(r"[\s\"]*([A-Za-z][\w%]*(?:\([\d, ]+\))?)")


def with_value(arguments: list[str]) -> list[str]:
    """Add a value to ``--inputs`` if it is the last word, or comes before another option."""
    words = []
    for word, after in zip(arguments, [*arguments, "--"][1:], strict=True):
        alone = word == "--inputs" and after.startswith("-") and after != SHOWN
        words.append(f"{word}={SHOWN}" if alone else word)
    return words


def show(inputs: Inputs) -> None:
    """Print all files, with the origin of each setting beside its line."""
    # The first step cannot depend on a result, so it depends on the machine.
    elsewhere = any(not step.certain for step in inputs.steps[:1])
    for number, step in enumerate(inputs.steps, 1):
        lines = _step(step, number, len(inputs.steps), elsewhere=elsewhere)
        output.write("\n".join(lines))
    if inputs.rest or not inputs.steps:
        none = "the recipe begins no calculation that could be seen"
        output.write(inputs.rest or none)


def show_differences(inputs: Inputs, other: Inputs) -> None:
    """Print each setting that differs, with both values."""
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
        # Drop the two header lines, which name files.
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
    """Return the JSON document of inputs, with the differences from another job."""
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
    """Write the files of all steps into a folder; see :mod:`crystalmath.models.inputs`."""
    from crystalmath.models.inputs import input_files, write_texts

    return write_texts(input_files(inputs, directory), option)


def inputs(
    job_id: JobId,
    *,
    directory: Annotated[
        str | None, typer.Option("--dir", metavar="DIR", help="Write the files into this folder.")
    ] = None,
    diff: Diff = None,
    as_json: Json = False,
) -> int:
    """Show the input files of a job, before or after it ran.

    Shows the files that the job has written. Before it has run, and for calculators that write
    none, shows the settings that its recipe makes. Beside each line stands its origin, computed
    from the recipe with today's presets. POTCARs are shown by their titles.
    """
    with any_client() as client:
        job_inputs = client.inputs(client.find(job_id))
        other = None if diff is None else client.inputs(client.find(diff))
    paths = write(job_inputs, directory, "--dir") if directory else []
    if as_json:
        return output.write_json(document(job_inputs, other))
    _show_inputs(job_inputs, other, paths)
    return 0


@with_options
def check(
    recipe: Recipe,
    structures: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[STRUCTURE...]",
            help="Structures as in crystalmath submit: files, FILE@N, 'runs/*/POSCAR', job:ID. "
            "Leave it out for a recipe that takes none.",
        ),
    ] = None,
    *,
    together: Annotated[
        bool, typer.Option("--together", help="Pass all structures to one job, as in submit.")
    ] = False,
    param: Params = None,
    params: ParamsFile = None,
    options: SubmissionOptions,
    inputs: Annotated[
        str | None,
        typer.Option(
            "--inputs",
            metavar="[DIR]",
            help="Also show the input files of each known step, or write them into a folder. "
            "Without a folder, put it last or before another option.",
        ),
    ] = None,
    diff: Diff = None,
    as_json: Json = False,
) -> int:
    """Check jobs without submitting them, and list problems.

    Takes the options of submit, and finds the same problems, but submits nothing. A flow is
    checked job by job, as far as its jobs are known before they run. With several structures (a
    job each), equal problems are shown once. Problems that only a cluster's nodes could show are
    warnings; `crystalmath clusters check NAME` runs a test job there. Recipes of VASP or Quantum
    ESPRESSO are run up to their first calculation, to find the files that they read. This takes
    some seconds without a running server; submit and serve start one. Exits 1 if a job would be
    refused.

    --inputs also shows the input files, for any recipe. Each line has its origin: asked (you), the
    preset, the recipe, quacc, the structure, or the program's default. --diff JOB shows the
    differences from the inputs of another job.
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
    except ServerNotRunning:  # the server left just now; this process can check, too
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
    """Check a job for each structure; print equal problems once."""
    answers: list[dict[str, Any]] = []
    with any_client() as client:
        for each in read:
            try:
                answer = {**checked(client, make_submission(recipe, each, parameters, options))}
            except InvalidJob as error:
                answer = {
                    "ok": False,
                    "status": "error",
                    "error": str(error),
                    "findings": written_findings([fault(error)]),
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
        output.write(
            f"runs in a copy of {output.there(copy['folder'])} ({output.size(copy['size'])})"
        )
    for severity in ("error", "warning"):
        for finding in answer["findings"]:
            if finding["severity"] == severity:
                output.write(f"{severity}: {output.sentence(finding)}")
    if answer["environment"]:
        seen = ", ".join(answer["environment"])
        whose = f"the environment of {name}" if (name := remote_name()) else "your environment"
        output.write(f"checked with these variables of {whose}: {seen}")
    if answer["ok"]:
        output.write("this job would be accepted")


def _show_steps(flow: FlowCheck, below: Sequence[str]) -> None:
    """Print the jobs that a flow would call as a tree, each below its subflow.

    `below` are the messages about the whole flow, which are printed later.
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
        output.write(f"reads, below {output.there(folder)}:")
        paths = [os.path.relpath(path, folder) for path in paths]
    rows = [
        (file["symbol"], file["setup"], file["titel"] or "", path)
        for file, path in zip(files, paths, strict=True)
    ]
    output.table(("SYMBOL", "SETUP", "TITEL", "FILE"), rows, whole=("FILE",))
    output.write("")


def _shared_folder(paths: Sequence[str]) -> str:
    """Return the folder of the pseudopotential library that all files share."""
    try:
        # Leave out the folder of the POTCAR itself: it names the setup.
        return os.path.commonpath([Path(path).parent.parent for path in paths])
    except ValueError:  # relative paths among them
        return ""
