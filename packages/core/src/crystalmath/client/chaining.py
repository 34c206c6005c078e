"""Writes chains: steps that follow each other, each on the geometry of the one before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, cast

from attrs import evolve, frozen

from crystalmath.client.request import RecipeLike, recipe_name, sent_size
from crystalmath.errors import CrystalMathError, InvalidJob, shown
from crystalmath.models import Submission
from crystalmath.models.submission import OF_FLOW
from crystalmath.recipes.job_structure import JobStructure, references_in, with_values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from crystalmath.client.request import Written
    from crystalmath.models import SubmissionOptions
    from crystalmath.models.reference import JobValue

#: A step: its recipe, or a pair of the recipe and its parameters.
StepLike: TypeAlias = "RecipeLike | tuple[RecipeLike, Mapping[str, Any]]"

#: The label with the name of the step.
STEP = "step"


@frozen
class _Step:
    name: str
    recipe: RecipeLike
    parameters: Mapping[str, Any]
    takes_structure: bool
    is_flow: bool


class Chain:
    """The steps of a chain, by name in their order.

    `InvalidJob`: there are no steps, or one has no name, or refers to a later one.
    """

    def __init__(self, steps: Mapping[str, StepLike], allow: tuple[str, ...]) -> None:
        if not steps:
            raise InvalidJob("a chain has one step at least: {'relax': 'emt.core.relax_job'}")
        self._steps = [_read(name, step, allow) for name, step in steps.items()]
        earlier: set[str] = set()
        for step in self._steps:
            for other in _named(step.parameters):
                if other in steps and other not in earlier:
                    raise InvalidJob(
                        f"the step {step.name!r} refers to {other!r}, which does not come before it"
                    )
            earlier.add(step.name)

    @property
    def names(self) -> list[str]:
        """The names of the steps."""
        return [step.name for step in self._steps]

    def written(
        self,
        structures: Iterable[tuple[Any, SubmissionOptions]],
        write: Callable[[Submission], dict[str, Any]],
    ) -> list[Written]:
        """Return the documents of all steps of each structure, to be sent together.

        If a step cannot be sent, every entry is an error. Each structure, or the error in its
        place, comes with the options of its jobs. The step's name is appended to key and name.
        """
        jobs: list[Written] = []
        for structure, options in structures:
            for at in range(len(self._steps)):
                try:
                    if isinstance(structure, CrystalMathError):
                        raise structure
                    document = write(self._submission(at, structure, options))
                    sent_size(document)
                    jobs.append(document)
                except CrystalMathError as error:
                    jobs.append(error)
        wrong = [at for at, job in enumerate(jobs) if isinstance(job, CrystalMathError)]
        if not wrong:
            return jobs
        number, at = divmod(wrong[0], len(self._steps))
        reason = f"not submitted: the step {self.names[at]!r} of structure {number} was refused"
        return [job if isinstance(job, CrystalMathError) else InvalidJob(reason) for job in jobs]

    def _submission(self, number: int, structure: Any, options: SubmissionOptions) -> Submission:
        """Return the submission of one step, which refers to earlier steps by their position."""
        step, before = self._steps[number], self._steps[:number]
        ids = {one.name: f"#{at - number}" for at, one in enumerate(before)}
        if not step.takes_structure:
            structure = None
        elif with_structure := [one.name for one in before if one.takes_structure]:
            structure = JobStructure(ids[with_structure[-1]])
        each: SubmissionOptions = {**options}
        if not step.is_flow and any(one.is_flow for one in self._steps):
            of_job = {one: value for one, value in options.items() if one not in OF_FLOW}
            each = cast("SubmissionOptions", of_job)
        each["labels"] = {**(options.get("labels") or {}), STEP: step.name}
        if (key := options.get("key")) is not None:
            each["key"] = f"{key}/{step.name}"
        if (name := options.get("name")) is not None:
            each["name"] = f"{name} {step.name}"
        parameters = _resolved(step.parameters, ids)
        if before:
            # A step always waits for the one before; it may work in its files without a reference.
            last = ids[before[-1].name]
            waits = structure == JobStructure(last) or last in _named(parameters)
            each["after"] = [] if waits else [last]
        atoms = structure.document() if isinstance(structure, JobStructure) else structure
        return Submission(recipe=step.recipe, atoms=atoms, parameters=parameters, **each)


def _read(name: str, step: StepLike, allow: tuple[str, ...]) -> _Step:
    recipe, parameters = step if isinstance(step, tuple) else (step, {})
    if not name or not name.isprintable():
        raise InvalidJob(f"{shown(name)} is no name of a step")
    from crystalmath.recipes.arguments import structure_taken
    from crystalmath.recipes.lookup import look_up

    try:
        source = look_up(recipe_name(recipe, allow), allow)
    except InvalidJob:
        # The server's check names what is wrong with the recipe.
        return _Step(name, recipe, parameters, takes_structure=True, is_flow=False)
    takes = structure_taken(source) != "none"
    return _Step(name, recipe, parameters, takes, is_flow=source.kind == "flow")


def _named(parameters: Mapping[str, Any]) -> set[str]:
    """Return the names of the jobs or steps to which parameters refer."""
    return {str(one.job_id) for one in references_in(parameters).values()}


def _resolved(parameters: Mapping[str, Any], ids: Mapping[str, str]) -> Any:
    """Write references to steps as references to their jobs."""

    def resolve(one: JobValue, _: object) -> JobValue:
        return evolve(one, job_id=ids.get(str(one.job_id), one.job_id))

    return with_values(dict(parameters), resolve)
