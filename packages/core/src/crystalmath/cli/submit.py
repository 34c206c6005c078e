"""``crystalmath submit``: submit one job or many, and print their ids."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer
from attrs import evolve

from crystalmath import server
from crystalmath.cli.shared import output
from crystalmath.cli.shared.common_arguments import Json, connected
from crystalmath.cli.shared.parameter_options import parse_sweep, read_resource, source_of
from crystalmath.cli.shared.structure_files import (
    PAIRS,
    Document,
    fit,
    names_one,
    put_together,
    read_documents,
)
from crystalmath.cli.shared.submission_options import (
    Params,
    ParamsFile,
    Recipe,
    require_none,
    submitted,
    tell_known,
    with_options,
)
from crystalmath.errors import CrystalMathError, InvalidJob
from crystalmath.models import Resources, Submission, SubmissionOptions
from crystalmath.models.fields import declared
from crystalmath.models.job_keys import own_key
from crystalmath.models.resources import RESOURCE_NAMES, as_resources
from crystalmath.models.written import label_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from crystalmath.cli.shared.submission_options import Request
    from crystalmath.client import Client


#: The most characters of a label's name.
_LABEL = 255

# The name of a structure and the structure, or its error; ``None`` for a recipe without one.
_NamedDocument = tuple[str | None, Document | InvalidJob | None]
_Read = _NamedDocument | tuple[str | None, list[Document]]
# Labels, the recipe's parameters, and resources.
_Combination = tuple[dict[str, str], "Mapping[str, Any]", dict[str, Any]]


@with_options
def submit(
    recipe: Recipe,
    structures: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="STRUCTURE...",
            help="Files that ASE reads, with all their structures; FILE@N takes only the Nth, "
            "counted from 0. A pattern in quotes takes all matching files: 'runs/*/POSCAR'. "
            "job:ID is the final geometry of a job, job:ID@0 its first. "
            "Leave it out for a recipe that takes no structure.",
        ),
    ] = None,
    *,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            "--sweep",
            metavar="K=[...]",
            help="Submit a job for each value of a parameter (encut=[400,500]) or a resource "
            "(ranks=16,32), with the value as a label. Repeat it for all combinations. Overrides "
            "--params.",
        ),
    ] = None,
    label_info: Annotated[
        bool,
        typer.Option(
            "--label-info",
            help="Label each job with the info of its frame in an extxyz file, or with the "
            "key-value pairs of its row in an ASE database: texts, numbers, true and false. "
            "--label and --sweep override it.",
        ),
    ] = False,
    together: Annotated[
        bool,
        typer.Option(
            "--together",
            help="Pass all structures to one job, whose recipe takes a list: "
            "crystalmath submit torchsim.core.static_job 'cells/*.cif' --together ...",
        ),
    ] = False,
    param: Params = None,
    params: ParamsFile = None,
    options: SubmissionOptions,
    as_json: Json = False,
) -> int:
    """Submit jobs, print their ids, and return at once.

    Jobs are accepted or refused one by one. Exits 1 if one was refused. With --key a single job
    gets the key KEY, and each of many gets KEY/FINGERPRINT, with a fingerprint of its structure
    and swept values. Repeat the command, also with more structures or values, and only the
    missing jobs are submitted.
    """
    all_have = as_resources(options.get("resources")).given()
    of_resources, of_parameters = split_sweeps(sweep or (), recipe)
    combinations = _combined(
        [parse_resource_sweep(one, all_have) for one in of_resources],
        parse_sweep(of_parameters, param or (), params),
    )
    _refuse_twice(options.get("labels") or {}, combinations)
    if not structures:
        require_none(recipe)
    documents: list[_NamedDocument] = (
        list(read_documents(structures, pairs=label_info)) if structures else [(None, None)]
    )
    read: list[_Read] = [_one(documents, label_info=label_info)] if together else [*documents]
    one = together or ((not structures or names_one(structures)) and len(read) == 1)
    many = bool(sweep) or not one
    requests = _requests(recipe, read, combinations, options, label_info=label_info)
    if (key := options.get("key")) is not None:
        requests = _recognised(requests, key, many=many)
    answers = []
    for answer in submitted(requests):
        answers.append(answer)
        if not as_json and answer["job_id"] is not None:
            output.write(answer["job_id"])
    output.tell_alike(answers)
    tell_known(answers, options)
    if as_json:
        output.write_json({"jobs": answers} if many else answers[0])
    return 1 if any(answer["job_id"] is None for answer in answers) else 0


def _one(read: Sequence[_NamedDocument], *, label_info: bool) -> tuple[str | None, list[Document]]:
    """Return all structures together, for one job."""
    if label_info:
        output.refuse(
            "a job of several frames gets the labels of none; leave out --label-info or --together",
            "--label-info",
        )
    return put_together([(name, one) for name, one in read if name is not None and one is not None])


def _combined(
    of_resources: Sequence[Sequence[tuple[str, str, str, Any]]],
    of_parameters: Sequence[tuple[Mapping[str, str], Mapping[str, Any]]],
) -> list[_Combination]:
    """Combine swept resources, which vary slowest, with swept parameters."""
    return [
        (
            {**{label: text for label, _, text, _ in chosen}, **labels},
            parameters,
            {name: value for _, name, _, value in chosen},
        )
        for chosen in itertools.product(*of_resources)
        for labels, parameters in of_parameters
    ]


def _refuse_twice(labels: Mapping[str, str], combinations: Sequence[_Combination]) -> None:
    for key in labels.keys() & combinations[0][0].keys():
        output.refuse(
            f"the swept value is the label {key!r} of the jobs; choose another name", "--label"
        )


def _requests(
    recipe: str,
    read: Sequence[_Read],
    combinations: Sequence[_Combination],
    options: SubmissionOptions,
    *,
    label_info: bool = False,
) -> Iterator[Request]:
    from crystalmath.client.request import document, present_writer

    of_home = present_writer().configured()
    name, key, labels = options.get("name"), options.get("key"), options.get("labels") or {}
    before: Counter[str] = Counter()
    for file_name, structure in read:
        own = file_name if name is None else name if len(read) == 1 else f"{name}/{file_name}"
        of_info = _info_labels(structure) if label_info else {}
        for swept, parameters, resources in combinations:
            of_sweep = [f"{label}={value}" for label, value in swept.items()]
            full = " ".join(of_sweep if own is None else [own, *of_sweep])
            if own is None and not full:  # nothing names the one job of a recipe
                full = output.short_recipe(recipe)
            full = full if name is not None else fit(full)
            if isinstance(structure, InvalidJob):
                yield full, structure
                continue
            every = {**of_info, **labels, **swept}
            each: SubmissionOptions = {**options, "name": full, "labels": every}
            if resources:
                own_resources = as_resources(options.get("resources"))
                each["resources"] = evolve(own_resources, **resources)
            if key is not None:
                each["key"] = own_key(key, [structure, swept], before)
            try:
                submission = Submission(
                    recipe=recipe, atoms=structure, parameters=parameters, **each
                )
                yield full, document(submission, *of_home)
            except CrystalMathError as error:
                yield full, error


def _recognised(requests: Iterable[Request], key: str, *, many: bool) -> Iterator[Request]:
    """Yield jobs with the keys of earlier submissions, which were of one job or of many.

    A single job gets the plain key, unless it was submitted as one of many before.
    """
    taken: bool | None = None
    with contextlib.ExitStack() as stack:
        for name, job in requests:
            if isinstance(job, dict) and taken is None:
                client = stack.enter_context(connected())
                taken = any(client.list(key=key if many else job["key"], limit=1))
                if not many and not taken:
                    job["key"] = key
            if isinstance(job, dict) and many and taken and _is_known(client, {**job, "key": key}):
                job["key"], taken = key, False
            yield name, job


def _is_known(client: Client, job: dict[str, Any]) -> bool:
    try:
        findings = client.ask(server.JOBS_CHECK, **job)["findings"]
    except CrystalMathError:
        return False  # the submission reports it
    return any(one["code"] == "key_known" for one in findings)


def _info_labels(structure: object) -> dict[str, str]:
    """Return a frame's info as labels, without values that cannot be labels.

    The pairs of a database are removed from the info, so that they do not change the job's
    fingerprint.
    """
    data = structure.get("data") if isinstance(structure, dict) else None
    info = data.get("info", {}) if isinstance(data, dict) else {}
    values = {**info, **(info.pop(PAIRS) if isinstance(info.get(PAIRS), dict) else {})}
    texts = {
        name: label_of(value)
        for name, value in values.items()
        if isinstance(value, (str, int, float))
    }
    return {
        name: text
        for name, text in texts.items()
        if name.isprintable() and 0 < len(name) <= _LABEL and text.isprintable()
    }


_PREFIX = "resources."
_FIELDS = {one.name: one for one in declared(Resources) if one.name in RESOURCE_NAMES}


def split_sweeps(sweeps: Iterable[str], recipe: str) -> tuple[list[str], list[str]]:
    """Return the sweeps of resources, and those of a recipe's parameters.

    A parameter of the recipe hides a resource of the same name; ``resources.ranks`` always means
    the resource.
    """
    resources: list[str] = []
    parameters: list[str] = []
    own: frozenset[str] | None = None
    for text in sweeps:
        name = text.partition("=")[0].strip()
        is_resource = name.startswith(_PREFIX)
        if name in RESOURCE_NAMES:
            own = _parameters_of(recipe) if own is None else own
            is_resource = name not in own
        (resources if is_resource else parameters).append(text)
    return resources, parameters


def parse_resource_sweep(text: str, fixed: Iterable[str]) -> list[tuple[str, str, str, Any]]:
    """Return the label, the resource, the text and the parsed value for each value of a sweep."""
    label, _, values = text.partition("=")
    label = label.strip().removeprefix(_PREFIX)
    if label not in RESOURCE_NAMES:
        known = ", ".join(_FIELDS)
        output.refuse(f"there is no resource {label!r} to sweep; there are {known}")
    name = RESOURCE_NAMES[label]
    if name in set(fixed):
        output.refuse(f"{label!r} is swept, and also set for all jobs by an option")
    texts = [value.strip().strip("\"'") for value in values.strip().strip("[]").split(",")]
    if "" in texts or len(set(texts)) < len(texts):
        output.refuse(f"--sweep {label}=16,32 takes values, each once, not {text!r}")
    return [(label, name, value, read_resource(name, value, text)) for value in texts]


def _parameters_of(recipe: str) -> frozenset[str]:
    try:
        signature = source_of(recipe).signature
    except InvalidJob:
        return frozenset()  # the check of the job reports problems of the recipe
    return frozenset(signature.parameters if signature else ())
