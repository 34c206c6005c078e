"""The options that describe a job, and the submission they make."""

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
        help="A recipe's name; quacc.recipes. may be left out.",
        autocompletion=completion.recipes,
    ),
]
Structure = Annotated[
    str | None,
    typer.Argument(
        metavar="STRUCTURE",
        help="Any file ASE reads. Of one with several structures, FILE@N takes the Nth, "
        "counted from 0; FILE@-1 the last. job:ID is the final geometry of a job, job:ID@0 what "
        "it was given. Left out for a recipe that takes none.",
    ),
]
Params = Annotated[
    list[str] | None,
    typer.Option(
        "--param",
        metavar="K=V",
        help="A parameter of the recipe: JSON, a Python literal, or text; may be repeated. "
        "A dotted K reaches into a table: opt_params.fmax=0.01.",
    ),
]
ParamsFile = Annotated[
    Path | None,
    typer.Option(
        "--params",
        metavar="FILE",
        help="Parameters from JSON or TOML; --param goes before what it says.",
    ),
]


class PlaceOptions(TypedDict, total=False):
    """Where a job runs, if elsewhere than before."""

    engine: str
    cluster: str


@contextlib.contextmanager
def asking(
    client: Client | None, recipes: Iterable[str], *, always: bool = False
) -> Iterator[None]:
    """Say what a submission or a check waits for, and let the user leave meanwhile."""
    if client is None or (not always and not any(map(is_asked, recipes))):
        yield
        return
    cold = "; quacc is imported first, which takes some seconds" if client.is_cold else ""
    with output.note_of_delay(f"asking the recipe which files it reads{cold} ..."):
        try:
            yield
            client.is_cold = False
        except (KeyboardInterrupt, SystemExit):
            # If it is asked in this process, a thread waits for the answer, or is about to ask; and
            # the end waits for the thread.
            from crystalmath.preflight.inspector import close

            close(for_good=True)
            raise


def checked(client: Client, submission: Submission, *, inputs: bool = False) -> CheckedJob:
    """Return what is found of a submission, with the files that the job reads."""
    from crystalmath.client.request import Writer

    sent = Writer().document(submission)
    recipe = str(submission.recipe)
    # A flow is asked for its jobs.
    with asking(client, [recipe], always=inputs or recipe.endswith("_flow")):
        return client.ask(server.JOBS_CHECK, inputs=inputs or None, **sent)


def is_asked(recipe: str) -> bool:
    """Return whether a recipe is asked which files it reads before it becomes a job."""
    from crystalmath.config import load
    from crystalmath.preflight.programs_here import concerns
    from crystalmath.recipes.lookup import full_name

    allow = load().recipes_allow
    return concerns(full_name(recipe, allow), {"CRYSTALMATH_RECIPES": ",".join(allow)})


def with_options(function: Callable[..., int]) -> Callable[..., int]:
    """Add to a command the options that the fields of a submission declare.

    They stand in the place of its parameter ``options``, which takes what was given.
    """
    return _with(function, _OPTIONAL)


def with_changes(function: Callable[..., int]) -> Callable[..., int]:
    """Add likewise the options of :class:`~crystalmath.models.retry.Retry`."""
    return _with(function, _CHANGES)


def with_place(function: Callable[..., int]) -> Callable[..., int]:
    """Add those of them that say where a job runs."""
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
    """Take what was given of some fields, and read it."""
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


#: What is said by step of a flow, in two options.
_BY_STEP = [
    Field(name, name, About("", {"type": "array"}, option=option), required=False, default=None)
    for name, option in {
        "step_cluster": Option(
            "--step-cluster",
            "STEP=C",
            "Run those steps of a flow on another cluster: relax_job=big; STEP is the name of a "
            "function, or a pattern. May be repeated.",
        ),
        "step_resources": Option(
            "--step-resources",
            "STEP=K=V,...",
            "Other resources for those steps of a flow, as nodes, ranks, cores, gpus, memory, or "
            "walltime: static_job=ranks=16,walltime=2h. May be repeated.",
        ),
    }.items()
]
#: The fields of a submission that have an option.
_OPTIONAL = [*(one for one in declared(Submission) if one.about.option is not None), *_BY_STEP]
#: Those of a retry.
_CHANGES = [*(one for one in declared(Retry) if one.about.option is not None), *_BY_STEP]
#: Those of them that say where it runs.
_PLACE = [one for one in _CHANGES if one.name in PlaceOptions.__annotations__]
#: Those of its resources, each with one.
_RESOURCES = declared(Resources)
#: What an option takes, by the type of its field in JSON; labels are pairs, and may be repeated.
_TYPES: dict[str, Any] = {
    "string": str | None,
    "boolean": bool | None,
    "integer": int | None,
    "number": float | None,
    "object": list[str] | None,
    "array": list[str] | None,
}
#: Numbers that people write as texts.
_TEXTS = ("walltime_s", "walltime_total_s", "memory_mb")
#: What is written otherwise than it is kept, and how it is read.
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
    """Refuse a command without a structure whose recipe needs one (`typer.BadParameter`)."""
    from crystalmath.config import load
    from crystalmath.recipes.arguments import check_structure
    from crystalmath.recipes.lookup import full_name, look_up

    allow = load().recipes_allow
    try:
        known_recipe = look_up(full_name(recipe, allow), allow)
    except InvalidJob:
        return  # whoever checks the job says what is wrong with the recipe
    try:
        check_structure(known_recipe, given=False)
    except InvalidJob as error:
        output.refuse(str(error), "STRUCTURE")


#: The name of a structure, and what was read.
Read: TypeAlias = tuple[str, Document | list[Document] | InvalidJob]


def make_submission(
    recipe: str, read: Read | None, parameters: Mapping[str, Any], options: SubmissionOptions
) -> Submission:
    """Make the submission of one structure, or of none; raise what is wrong with it."""
    if read is None:
        require_none(recipe)
        return Submission(recipe=recipe, parameters=parameters, **options)
    name, structure = read
    if isinstance(structure, InvalidJob):
        raise structure
    named: SubmissionOptions = {"name": name, **options}
    return Submission(recipe=recipe, atoms=structure, parameters=parameters, **named)


# --- sending ---------------------------------------------------------------------------------

#: A job's name, and the parameters of `jobs.submit`, or why there are none.
Request: TypeAlias = tuple[str, dict[str, Any] | CrystalMathError]
Answer: TypeAlias = dict[str, Any]


def submitted(requests: Iterable[Request], together: int | None = None) -> Iterator[Answer]:
    """Submit batch by batch; a server is started only where there is something to submit.

    Of each batch all or none are submitted where so many stay `together`.
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
    """Submit a batch; give the answers in order, with the names."""
    jobs = [job for _, job in batch if isinstance(job, dict)]
    answers = iter(_answers(client, jobs, all_or_none=all_or_none) if client else ())
    for name, job in batch:
        answer = next(answers) if isinstance(job, dict) else output.error_document(job, job.code)
        yield {**answer, "name": name}


def _answers(client: Client, jobs: list[dict[str, Any]], *, all_or_none: bool) -> list[Answer]:
    from crystalmath.client.client_errors import raise_answered

    try:
        if len(jobs) == 1:  # does not wait for somebody's thousands
            answers = [client.call("jobs.submit", jobs[0])]
        else:
            answer = client.call("jobs.submit_many", {"jobs": jobs, "all_or_none": all_or_none})
            raise_answered(answer)
            answers = answer["jobs"]
    except CrystalMathError as error:
        # What earlier batches were answered must not be lost with this one.
        return [output.error_document(error, error.code)] * len(jobs)
    return answers


def tell_known(answers: Sequence[Answer], options: SubmissionOptions) -> None:
    """Say how many jobs were known already, and which of these will not run again."""
    known = [answer["status"] for answer in answers if answer.get("known")]
    if not known:
        return
    new = sum(answer["job_id"] is not None for answer in answers) - len(known)
    ended = [f"{known.count(state)} {state.value}" for state in NO_RESULT if state in known]
    stay = f" ({', '.join(ended)}: they stay as they are; another --key runs them again)"
    ignored = options.keys() & {"name", "labels"}
    named = ", whose names and labels stay as they are" if ignored else ""
    output.note(f"{new} new, {len(known)} there already{named}{stay if ended else ''}")
