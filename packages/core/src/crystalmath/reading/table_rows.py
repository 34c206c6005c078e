"""Jobs as lines of a table: their parameters, labels and results."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

from attrs import frozen

from crystalmath.errors import BadFile, CrystalMathError, UnknownJob
from crystalmath.jobs.documents import cleaned
from crystalmath.models import Job, JobState
from crystalmath.models.columns import JOB_COLUMNS, label_values
from crystalmath.models.written import label_cell
from crystalmath.reading.job_answers import PAGE, job_document
from crystalmath.recipes.lookup import family_of
from crystalmath.recipes.summary import (
    GEOMETRY,
    final_atoms,
    geometry_values,
    last_step,
    result_values,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

    from ase import Atoms

    from crystalmath.quacc.store import JobMetadata
    from crystalmath.reading.home_jobs import HomeJobs


@frozen
class Line:
    """A job in a table: its values by their columns, and its final geometry."""

    job: Job
    values: dict[str, Any]
    atoms: Atoms | None


def table(
    service: HomeJobs, job_ids: Sequence[str], columns: Sequence[str] | None, most: int
) -> Generator[None, None, tuple[list[bytes], dict[str, str]]]:
    """Return lines of the first jobs as JSON, in at most `most` bytes, but at least one line.

    The second value has the reasons why results cannot be read, by the ids of their jobs. A large
    result is never decoded: its worker has stored the values for tables apart.
    """
    left_out = () if columns else GEOMETRY[1:]
    lines: list[bytes] = []
    unreadable: dict[str, str] = {}
    for start in range(0, len(job_ids), PAGE):
        page = job_ids[start : start + PAGE]
        jobs = {job.job_id: job for job in service.with_steps(service.some_jobs(page))}
        for job_id in page:
            if job_id not in jobs:
                raise UnknownJob(job_id)
            values, wrong = _stored(service, jobs[job_id])
            names = [name for name in columns or values if name in values and name not in left_out]
            text = json.dumps({"job_id": job_id} | {name: values[name] for name in names}).encode()
            most -= len(text)
            if lines and most < 0:
                return lines, unreadable
            lines.append(text)
            if wrong is not None:
                unreadable[job_id] = wrong
            yield
    return lines, unreadable


def _stored(service: HomeJobs, job: JobMetadata) -> tuple[dict[str, Any], str | None]:
    """Return a job's values, and why its result cannot be read, if so."""
    params, result, wrong = {}, None, None
    with contextlib.suppress(CrystalMathError):
        params = json.loads(service.specification(job.job_id).partition("\n")[2])["parameters"]
    if job.state is JobState.COMPLETED:
        try:
            result = cleaned(json.loads(service.results.brief(job)[0]))
        except (BadFile, OSError) as error:
            wrong = str(error)
        except CrystalMathError:  # its files are gone
            pass
    return line_of(Job.read(job_document(service, job)), params, result).values, wrong


def line_of(job: Job, params: Mapping[str, Any], result: Any) -> Line:
    """Make a line of a job, its parameters, and its result as plain JSON."""
    values = {name: value(job) for name, value in JOB_COLUMNS.items()}
    values |= {name: label_cell(value) for name, value in label_values(job.labels).items()}
    values |= dict(_flat(params, "params."))
    atoms = None
    if result is not None:
        # The record goes first: a recipe's `name` is the name of a method. A flow whose steps are
        # jobs has no values of theirs, as each step has a row.
        has_rows = job.stage is not None
        of_result = result_values(result, of_last=not has_rows).items()
        values |= {f"result.{n}" if n in values else n: value for n, value in of_result}
        if not has_rows or last_step(result) is result:
            atoms = final_atoms(result, values["energy_ev"])
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
    """Return ASE's name of a quacc recipe's calculator; ``None`` for recipes of users."""
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
