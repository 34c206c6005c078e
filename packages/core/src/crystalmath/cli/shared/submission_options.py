"""The options that describe a job, and the submissions that they make."""

from __future__ import annotations

import contextlib
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypedDict

import typer

from crystalmath import server
from crystalmath.cli.shared import completion, output
from crystalmath.cli.shared.common_arguments import connected, declared_option, option_of, taking
from crystalmath.cli.shared.parameter_options import (
    of_option,
    parse_after,
    parse_labels,
    parse_memory,
    parse_on_failure,
    parse_scheduler_options,
    parse_step_clusters,
    parse_step_resources,
    parse_walltime,
    source_of,
)
from crystalmath.cli.shared.structure_files import Document
from crystalmath.errors import CrystalMathError, InvalidJob
from crystalmath.models import Resources, Submission
from crystalmath.models.fields import About, Field, Option, declared
from crystalmath.models.job_notes import NO_RESULT
from crystalmath.models.retry import Retry
from crystalmath.models.submission import merged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from crystalmath.client import Client
    from crystalmath.models import SubmissionOptions
    from crystalmath.wire.answers import CheckedJob

Recipe = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="A recipe, such as emt.core.relax_job; quacc.recipes. may be left out.",
        autocompletion=completion.recipes,
    ),
]
Structure = Annotated[
    str | None,
    typer.Argument(
        metavar="STRUCTURE",
        help="A file that ASE reads. If it holds several structures, FILE@N takes the Nth, "
        "counted from 0, and FILE@-1 the last. job:ID is the final geometry of a job, job:ID@0 "
        "its first. Leave it out for a recipe that takes none.",
    ),
]
Params = Annotated[
    list[str] | None,
    typer.Option(
        "--param",
        metavar="K=V",
        help="A parameter of the recipe: kpts=[3,3,3]; the value is JSON, a Python literal, or "
        "text. A dotted name sets a value in a table: opt_params.fmax=0.01. May be repeated.",
    ),
]
ParamsFile = Annotated[
    Path | None,
    typer.Option(
        "--params",
        metavar="FILE",
        help="Read parameters from a JSON or TOML file; --param overrides them.",
    ),
]


class PlaceOptions(TypedDict, total=False):
    """The new engine and cluster of a job that runs again."""

    engine: str
    cluster: str


@contextlib.contextmanager
def asking(
    client: Client | None, recipes: Iterable[str], *, always: bool = False
) -> Iterator[None]:
    """Note a delay while recipes are inspected, and end the inspection on Ctrl-C."""
    if client is None or (not always and not any(map(is_asked, recipes))):
        yield
        return
    cold = "; quacc is imported first, which takes some seconds" if client.is_cold else ""
    with output.note_of_delay(f"finding the files that the recipe reads{cold} ..."):
        try:
            yield
            client.is_cold = False
        except (KeyboardInterrupt, SystemExit):
            # An inspection in this process runs in a thread, for which the exit would wait.
            from crystalmath.preflight.inspector import close

            close(for_good=True)
            raise


def checked(client: Client, submission: Submission, *, inputs: bool = False) -> CheckedJob:
    """Return the check of a submission, with the files that the job reads."""
    from crystalmath.client.request import present_writer

    sent = present_writer().document(submission)
    recipe = str(submission.recipe)
    # A flow is inspected for its jobs.
    with asking(client, [recipe], always=inputs or recipe.endswith("_flow")):
        return client.ask(server.JOBS_CHECK, inputs=inputs or None, **sent)


def is_asked(recipe: str) -> bool:
    """Return whether a submission inspects the recipe for the files that it reads."""
    from crystalmath.config import load
    from crystalmath.preflight.programs_here import concerns
    from crystalmath.recipes.lookup import full_name

    allow = load().recipes_allow
    return concerns(full_name(recipe, allow), {"CRYSTALMATH_RECIPES": ",".join(allow)})


def with_options(function: Callable[..., int]) -> Callable[..., int]:
    """Replace a command's parameter ``options`` by the options of a submission."""
    return _with(function, _OPTIONAL)


def with_changes(function: Callable[..., int]) -> Callable[..., int]:
    """Replace ``options`` by those of :class:`~crystalmath.models.retry.Retry`."""
    return _with(function, _CHANGES)


def with_place(function: Callable[..., int]) -> Callable[..., int]:
    """Replace ``options`` by --engine and --cluster, those of a retry."""
    return _with(function, _PLACE, ())


def _with(
    function: Callable[..., int],
    optional: Sequence[Field],
    resources: Sequence[Field] | None = None,
) -> Callable[..., int]:
    resources = _RESOURCES if resources is None else resources
    own = inspect.signature(function, eval_str=True).parameters.values()
    *first, last = (one for one in own if one.name != "options")  # the last is --json

    def read(arguments: dict[str, Any]) -> dict[str, Any]:
        of_resources = _take(resources, arguments)
        options = _take(optional, arguments) | ({"resources": of_resources} if of_resources else {})
        by_step: dict[str, Any] = {}
        for one in _BY_STEP:
            by_step = merged(by_step, options.pop(one.name, {}))
        if by_step:
            options["by_step"] = by_step
        return {"options": options, **arguments}

    return taking(function, [*first, *map(_parameter, [*optional, *resources]), last], read)


def _take(fields: Iterable[Field], arguments: dict[str, Any]) -> dict[str, Any]:
    """Remove the values of some fields from the arguments, and return them parsed."""
    values = [(one, arguments.pop(one.name)) for one in fields]
    return {one.name: _read(one, value) for one, value in values if value is not None}


def _read(one: Field, value: Any) -> Any:
    if one.name not in _READ:
        return value
    with of_option(declared_option(one).name):
        return _READ[one.name](value)


def _parameter(one: Field) -> inspect.Parameter:
    schema = one.about.schema
    kind = _TYPES["string" if one.name in _TEXTS else schema["type"]]
    return option_of(one, kind, schema.get("minimum"), schema.get("maximum"))


#: The terms of a flow's steps, which have two options.
_BY_STEP = [
    Field(name, name, About("", {"type": "array"}, option=option), required=False, default=None)
    for name, option in {
        "step_cluster": Option(
            "--step-cluster",
            "STEP=C",
            "Run these steps of a flow on another cluster: relax_job=big. STEP is the name of a "
            "function, or a pattern. May be repeated.",
        ),
        "step_resources": Option(
            "--step-resources",
            "STEP=K=V,...",
            "Set resources (nodes, ranks, cores, gpus, memory) and walltime for these steps of a "
            "flow: static_job=ranks=16,walltime=2h. May be repeated.",
        ),
    }.items()
]
#: The fields of a submission that have an option.
_OPTIONAL = [*(one for one in declared(Submission) if one.about.option is not None), *_BY_STEP]
#: The fields of a retry that have an option.
_CHANGES = [*(one for one in declared(Retry) if one.about.option is not None), *_BY_STEP]
#: The fields of a retry for its engine and cluster.
_PLACE = [one for one in _CHANGES if one.name in PlaceOptions.__annotations__]
#: The fields of resources; each has an option.
_RESOURCES = declared(Resources)
#: The type of an option by the JSON type of its field; mappings are repeated pairs.
_TYPES: dict[str, Any] = {
    "string": str | None,
    "boolean": bool | None,
    "integer": int | None,
    "number": float | None,
    "object": list[str] | None,
    "array": list[str] | None,
}
#: Numbers that users write with units.
_TEXTS = ("walltime_s", "walltime_total_s", "memory_mb")
#: The parsers of fields whose options have a syntax of their own.
_READ: dict[str, Callable[[Any], object]] = {
    "walltime_s": parse_walltime,
    "walltime_total_s": parse_walltime,
    "step_cluster": parse_step_clusters,
    "step_resources": parse_step_resources,
    "labels": parse_labels,
    "after": parse_after,
    "on_failure": parse_on_failure,
    "memory_mb": parse_memory,
    "options": parse_scheduler_options,
}


def require_none(recipe: str) -> None:
    """Refuse a command without a structure if its recipe needs one (`typer.BadParameter`)."""
    from crystalmath.config import remote_name
    from crystalmath.recipes.arguments import check_structure

    if remote_name():
        return  # its server knows its recipes
    try:
        known_recipe = source_of(recipe)
    except InvalidJob:
        return  # the check of the job reports problems of the recipe
    try:
        check_structure(known_recipe, has_structure=False)
    except InvalidJob as error:
        output.refuse(str(error), "STRUCTURE")


#: The name of a structure, and the structure, several, or an error.
Read: TypeAlias = tuple[str, Document | list[Document] | InvalidJob]


def make_submission(
    recipe: str, read: Read | None, parameters: Mapping[str, Any], options: SubmissionOptions
) -> Submission:
    """Return the submission of one structure, or of none; raise the error of the structure."""
    if read is None:
        require_none(recipe)
        return Submission(recipe=recipe, parameters=parameters, **options)
    name, structure = read
    if isinstance(structure, InvalidJob):
        raise structure
    named: SubmissionOptions = {"name": name, **options}
    return Submission(recipe=recipe, atoms=structure, parameters=parameters, **named)


# --- sending ---------------------------------------------------------------------------------

#: A job's name, and the parameters of `jobs.submit` or an error.
Request: TypeAlias = tuple[str, dict[str, Any] | CrystalMathError]
Answer: TypeAlias = dict[str, Any]


def submitted(requests: Iterable[Request], together: int | None = None) -> Iterator[Answer]:
    """Submit batch by batch, and yield the answers; a server starts with the first valid job.

    With `together`, batches keep groups of this size whole, and each batch is submitted entirely
    or not at all.
    """
    from crystalmath.client.request import batched

    with contextlib.ExitStack() as stack:
        client: Client | None = None
        for number, batch in enumerate(batched(requests, together or 1)):
            if client is None and any(isinstance(job, dict) for _, job in batch):
                client = stack.enter_context(connected())
            recipes = {job["recipe"] for _, job in batch if isinstance(job, dict)}
            with asking(client, () if number else recipes):
                answers = list(_send(client, batch, all_or_none=together is not None))
            yield from answers
            sys.stdout.flush()


def _send(
    client: Client | None, batch: Sequence[Request], *, all_or_none: bool
) -> Iterator[Answer]:
    """Submit a batch, and yield the answers in order, with the names."""
    jobs = [job for _, job in batch if isinstance(job, dict)]
    answers = iter(_answers(client, jobs, all_or_none=all_or_none) if client else ())
    for name, job in batch:
        answer = next(answers) if isinstance(job, dict) else output.error_document(job, job.code)
        yield {**answer, "name": name}


def _answers(client: Client, jobs: list[dict[str, Any]], *, all_or_none: bool) -> list[Answer]:
    from crystalmath.client.client_errors import raise_answered

    try:
        if len(jobs) == 1:  # does not queue behind large batches of other clients
            answers = [client.call("jobs.submit", jobs[0])]
        else:
            answer = client.call("jobs.submit_many", {"jobs": jobs, "all_or_none": all_or_none})
            raise_answered(answer)
            answers = answer["jobs"]
    except CrystalMathError as error:
        # Keep the answers of earlier batches.
        return [output.error_document(error, error.code)] * len(jobs)
    return answers


def tell_known(answers: Sequence[Answer], options: SubmissionOptions) -> None:
    """Report how many jobs were known already, and which of them will not run again."""
    known = [answer["status"] for answer in answers if answer.get("known")]
    if not known:
        return
    new = sum(answer["job_id"] is not None for answer in answers) - len(known)
    ended = [f"{known.count(state)} {state.value}" for state in NO_RESULT if state in known]
    stay = f" ({', '.join(ended)}: they stay as they are; another --key runs them again)"
    ignored = options.keys() & {"name", "labels"}
    named = ", whose names and labels stay as they are" if ignored else ""
    output.note(f"{new} new, {len(known)} there already{named}{stay if ended else ''}")
