"""Chains: steps that follow each other, each on the geometry of the one before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from attrs import evolve, frozen

from crystalmath.client.request import RecipeLike, recipe_name
from crystalmath.errors import CrystalMathError, InvalidJob, shown
from crystalmath.models import Submission
from crystalmath.recipes.job_structure import references_in, with_values

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from crystalmath.models import SubmissionOptions
    from crystalmath.models.reference import JobValue

#: A step: its recipe, or that and the recipe's parameters.
StepLike: TypeAlias = "RecipeLike | tuple[RecipeLike, Mapping[str, Any]]"

_Answer = TypeVar("_Answer")

#: The label that says which step of its chain a job is.
STEP = "step"


@frozen
class _Step:
    name: str
    recipe: RecipeLike
    parameters: Mapping[str, Any]
    takes_structure: bool


class Chain:
    """Steps that were read, by name in their order.

    Raises `InvalidJob`: there is no step, or one has no name, refers to a later one, or is none.
    """

    def __init__(self, steps: Mapping[str, StepLike], allow: tuple[str, ...]) -> None:
        if not steps:
            raise InvalidJob("a chain has one step at least: {'relax': 'emt.core.relax_job'}")
        self._steps = [_read(name, given, allow) for name, given in steps.items()]
        earlier: set[str] = set()
        for step in self._steps:
            for other in _named(step.parameters):
                if other in steps and other not in earlier:
                    raise InvalidJob(
                        f"the step {step.name!r} refers to {other!r}, which does not come before it"
                    )
            earlier.add(step.name)

    def submit(
        self,
        structures: Sequence[tuple[Any, SubmissionOptions]],
        send: Callable[[list[Submission | CrystalMathError]], Sequence[_Answer]],
        job_id: Callable[[_Answer], str | None],
    ) -> list[dict[str, _Answer]]:
        """Submit step by step, each of all structures at once; return the answers by step.

        What follows a step that was refused is refused, too. Each of `structures`, or why there is
        none, comes with the options of its jobs, whose key and name get the step's name at their
        ends. `job_id` returns the id in an answer of `send`; ``None`` if the job was refused.
        """
        answers: list[dict[str, _Answer]] = [{} for _ in structures]
        ids: list[dict[str, str]] = [{} for _ in structures]
        for number, step in enumerate(self._steps):
            asked = [
                self._asked(number, *one, known) for one, known in zip(structures, ids, strict=True)
            ]
            told = send(asked)
            for answer, all_of, known in zip(told, answers, ids, strict=True):
                all_of[step.name] = answer
                if (accepted := job_id(answer)) is not None:
                    known[step.name] = accepted
        return answers

    def _asked(
        self, number: int, structure: Any, options: SubmissionOptions, ids: Mapping[str, str]
    ) -> Submission | CrystalMathError:
        """Write one step of one structure, of whose earlier steps the ids are known."""
        if isinstance(structure, CrystalMathError):
            return structure
        step, before = self._steps[number], self._steps[:number]
        for one in before:
            if one.name not in ids:
                return InvalidJob(f"not submitted: the step {one.name!r} before it was refused")
        if not step.takes_structure:
            structure = None
        elif with_structure := [one.name for one in before if one.takes_structure]:
            structure = f"job:{ids[with_structure[-1]]}"
        each: SubmissionOptions = {**options}
        each["labels"] = {**(options.get("labels") or {}), STEP: step.name}
        if (key := options.get("key")) is not None:
            each["key"] = f"{key}/{step.name}"
        if (name := options.get("name")) is not None:
            each["name"] = f"{name} {step.name}"
        parameters = _resolved(step.parameters, ids)
        if before:
            # In the order of the steps, also where one works in the files of an earlier one.
            last = ids[before[-1].name]
            waits = structure == f"job:{last}" or last in _named(parameters)
            each["after"] = [] if waits else [last]
        return Submission(recipe=step.recipe, atoms=structure, parameters=parameters, **each)


def _read(name: str, given: StepLike, allow: tuple[str, ...]) -> _Step:
    recipe, parameters = given if isinstance(given, tuple) else (given, {})
    if not name or not name.isprintable():
        raise InvalidJob(f"{shown(name)} is no name of a step")
    return _Step(name, recipe, parameters, _takes_structure(recipe, allow))


def _takes_structure(recipe: RecipeLike, allow: tuple[str, ...]) -> bool:
    from crystalmath.recipes.arguments import structure_taken
    from crystalmath.recipes.lookup import look_up

    try:
        return structure_taken(look_up(recipe_name(recipe, allow), allow)) != "none"
    except InvalidJob:
        return True  # whoever checks the job says what is wrong with the recipe


def _named(parameters: Mapping[str, Any]) -> set[str]:
    """Return which jobs or steps are referred to by their names."""
    return {str(one.job_id) for one in references_in(parameters).values()}


def _resolved(parameters: Mapping[str, Any], ids: Mapping[str, str]) -> Any:
    """Write references to steps as references to their jobs."""

    def resolve(one: JobValue, _: object) -> JobValue:
        return evolve(one, job_id=ids.get(str(one.job_id), one.job_id))

    return with_values(dict(parameters), resolve)
