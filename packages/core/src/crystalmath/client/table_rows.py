"""Jobs as lines of a table: what was asked for, and what came of it."""

from __future__ import annotations

import json
from itertools import islice
from typing import TYPE_CHECKING, Any

from attrs import frozen

from crystalmath import server
from crystalmath.client.job_values import parameters_of
from crystalmath.errors import CrystalMathError
from crystalmath.jobs.documents import cleaned
from crystalmath.models import JobState
from crystalmath.models.columns import JOB_COLUMNS
from crystalmath.models.written import label_cell
from crystalmath.recipes.lookup import family_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ase import Atoms

    from crystalmath.client.transport import Caller
    from crystalmath.models import Job

#: Jobs whose results are in memory at once.
_PAGE = 100


@frozen
class Line:
    """One job of a table: the values that it has by their columns, and its final geometry."""

    job: Job
    values: dict[str, Any]
    atoms: Atoms | None


def lines(caller: Caller, jobs: Iterable[Job]) -> Iterator[Line]:
    """Make a line of each job, in their order; no more than a page of results is in memory."""
    rest = iter(jobs)
    while page := list(islice(rest, _PAGE)):
        asked = parameters_of(caller, [job.job_id for job in page])
        completed = [job.job_id for job in page if job.state is JobState.COMPLETED]
        results = _results(caller, completed)
        for job in page:
            has_result = job.state is JobState.COMPLETED
            result = next(results) if has_result else None
            yield _line(job, asked.get(job.job_id) or {}, result)


def _line(job: Job, params: Mapping[str, Any], result: Any) -> Line:
    from crystalmath.recipes.summary import (
        final_atoms,
        geometry_values,
        last_step,
        result_values,
    )

    values = {name: value(job) for name, value in JOB_COLUMNS.items()}
    values |= {f"labels.{name}": label_cell(value) for name, value in job.labels.items()}
    values |= dict(_flat(params, "params."))
    atoms = None
    if result is not None:
        # The record goes first: what recipes call name is that of a method.
        # No step's values are those of a flow whose steps are jobs: each has its own row.
        has_rows = job.stage is not None
        given = result_values(result, of_last=not has_rows).items()
        values |= {f"result.{n}" if n in values else n: value for n, value in given}
        atoms = None if has_rows and last_step(result) is not result else final_atoms(result)
    if atoms is not None:
        values |= geometry_values(atoms)
        values["natoms"] = len(atoms)
        if atoms.calc is not None and (calculator := _calculator(job.recipe, params)):
            atoms.calc.name = calculator  # by which ASE's databases select
        if values["energy_ev"] is not None:
            values["energy_per_atom_ev"] = values["energy_ev"] / len(atoms)
    known = {name: value for name, value in values.items() if value is not None}
    return Line(job, known, atoms)


def _calculator(recipe: str, params: Mapping[str, Any]) -> str | None:
    """Name the calculator of one of quacc's recipes as ASE does; a user's own is not known."""
    if not (family := family_of(recipe)):
        return None
    library = params.get("library")  # of a machine-learned potential
    return library.lower() if isinstance(library, str) else family


def _flat(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        if isinstance(value, dict) and "@module" not in value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _results(caller: Caller, job_ids: Sequence[str]) -> Iterator[Any]:
    """Yield results as plain JSON, in order; ``None`` where the files are gone."""
    left = list(job_ids)
    while left:
        answer = caller.ask(server.JOBS_RESULTS, job_ids=left)
        for each in answer["results"]:
            yield cleaned(each["result"])
        if not answer["results"]:
            yield _large(caller, left[0])
        left = left[max(1, len(answer["results"])) :]


def _large(caller: Caller, job_id: str) -> Any:
    try:
        text = caller.result_text(job_id, brief=True)
    except CrystalMathError:
        return None
    return None if text is None else cleaned(json.loads(text))
