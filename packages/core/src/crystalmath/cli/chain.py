"""``crystalmath chain``: submit a sequence of steps for each structure."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crystalmath.cli.shared import common_arguments, output
from crystalmath.cli.shared.parameter_options import of_option, parse_parameters
from crystalmath.cli.shared.structure_files import read_documents
from crystalmath.cli.shared.submission_options import submitted, tell_known, with_options
from crystalmath.errors import InvalidJob, NotSubmitted, did_you_mean
from crystalmath.models import Reference, SubmissionOptions
from crystalmath.models.job_keys import own_key
from crystalmath.recipes.job_structure import read_path

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

_STEP = re.compile(r"(?P<name>[\w.-]+)=(?P<recipe>[\w.]+)(?::(?P<parameters>.*))?", re.DOTALL)
#: The comma before the next parameter of a step.
_NEXT = re.compile(r",\s*(?=[A-Za-z_][\w.]*=)")
_OF_STEP = re.compile(r"([\w.]+)=@([\w.-]+)(?::(.*))?", re.DOTALL)


@with_options
def chain(
    structures: Annotated[
        list[str],
        typer.Argument(
            metavar="STRUCTURE...",
            help="Structures as in crystalmath submit: files with all their structures, patterns "
            "in quotes, job:ID. Each structure gets its own chain.",
        ),
    ],
    *,
    step: Annotated[
        list[str],
        typer.Option(
            "--step",
            metavar="NAME=RECIPE[:K=V,...]",
            help="A step with its recipe and parameters: md=emt.md.md_job:steps=100. Repeat it "
            "for each step, in order. K=@NAME passes the directory of the earlier step NAME, "
            "K=@NAME:results.energy a part of its result; quote text that begins with @.",
        ),
    ],
    options: SubmissionOptions,
    as_json: common_arguments.Json = False,
) -> int:
    """Submit steps that follow each other, for each structure.

    Prints the ids of the jobs and returns. A step begins when the step before it has completed,
    from its final geometry; its name is the job's label "step". With --key each job gets the key
    KEY/FINGERPRINT/STEP, with a fingerprint of its structure. Repeat the command, also with more
    structures, and only the missing jobs are submitted. If one job of a request is refused, none
    of the request is submitted, and the command exits 1. More than 1,000 jobs or 8 MiB take
    several requests; jobs of earlier requests stay submitted.
    """
    from crystalmath import config
    from crystalmath.client.chaining import STEP, Chain
    from crystalmath.client.request import document, present_writer

    if STEP in (options.get("labels") or {}):
        output.refuse(
            f"each job is labelled {STEP!r} with its step; choose another name", "--label"
        )
    with of_option("--step"):
        steps = parse_steps(step)
        try:
            sequence = Chain(steps, config.load().recipes_allow)
        except InvalidJob as error:
            output.refuse(str(error))
    own, key = options.get("name"), options.get("key")
    read = list(read_documents(structures))
    before: Counter[str] = Counter()
    each: list[tuple[Any, SubmissionOptions]] = [
        (
            structure,
            {
                **options,
                "name": name if own is None else own if len(read) == 1 else f"{own}/{name}",
                "key": None
                if key is None or isinstance(structure, InvalidJob)
                else own_key(key, structure, before),
            },
        )
        for name, structure in read
    ]
    of_home = present_writer().configured()
    written = sequence.written(each, lambda one: document(one, *of_home))
    places = [(structure, name) for structure, _ in read for name in sequence.names]
    names = [" ".join(place) for place in places]
    results = submitted(zip(names, written, strict=True), together=len(sequence.names))
    answers = [
        {**answer, "step": name, "structure": structure}
        for answer, (structure, name) in zip(results, places, strict=True)
    ]
    if as_json:
        output.write_json({"jobs": answers})
    else:
        for answer in answers:
            if answer["job_id"] is not None:
                output.write(answer["job_id"])
    # The cause comes first, then the jobs that were not submitted because of it.
    output.tell_alike(sorted(answers, key=lambda one: one.get("code") == NotSubmitted.code))
    tell_known(answers, options)
    return 1 if any(answer["job_id"] is None for answer in answers) else 0


def parse_steps(texts: Sequence[str]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Parse steps, ``NAME=RECIPE[:KEY=VALUE,...]`` each.

    A comma separates two parameters only if a name and ``=`` follow it.
    """
    steps: dict[str, tuple[str, dict[str, Any]]] = {}
    for text in texts:
        match = _STEP.fullmatch(text)
        if match is None:
            output.refuse(
                f"cannot read {text!r} as a step; write NAME=RECIPE or NAME=RECIPE:KEY=VALUE,..., "
                "for example md=emt.md.md_job:steps=100"
            )
        if match["name"] in steps:
            output.refuse(f"the step {match['name']!r} is given twice")
        assignments = _NEXT.split(match["parameters"]) if match["parameters"] else []
        parameters = parse_parameters(
            [_with_step(one, steps) for one in assignments], option="--step"
        )
        steps[match["name"]] = (match["recipe"], parameters)
    return steps


def _with_step(text: str, earlier: Collection[str]) -> str:
    """Return ``KEY=@NAME`` as a reference to an earlier step, and other text unchanged."""
    if (match := _OF_STEP.fullmatch(text)) is None:
        return text
    key, name, path = match.groups()
    if name not in earlier:
        output.refuse(
            f"{text!r} refers to a step that does not come before it; {did_you_mean(name, earlier)}"
        )
    where = ("dir_name",) if path is None else read_path(path)
    return f"{key}={json.dumps(Reference(name, where).document())}"
