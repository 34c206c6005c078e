"""Formation energies of jobs, and their energies above the convex hull, in eV/atom."""

from __future__ import annotations

import warnings
from collections import defaultdict
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from crystalmath.client.client_errors import outside
from crystalmath.client.job_values import JobValues, differing
from crystalmath.client.transport import filters_document, pages
from crystalmath.errors import CrystalMathError, InvalidJob
from crystalmath.models import Job, JobState
from crystalmath.recipes.lookup import family_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from crystalmath.client.transport import Caller

#: Energies above the hull that are smaller are rounding errors, to pymatgen too; in eV/atom.
_ROUNDING_EV = 1e-8


def phase_energies(
    caller: Caller, jobs: Sequence[Job], references: Mapping[str, str] | None
) -> dict[str, dict[str, float]]:
    """Calculate formation energies and energies above the convex hull.

    Parameters
    ----------
    caller : Caller
        Answers which jobs are references, and what parameters jobs have.
    jobs : sequence of Job
        The jobs of the table. All with an energy and a composition are on the hull or above it.
    references : mapping of str to str, optional
        Labels of completed jobs, of which those of pure elements are the references of formation
        energies. All of these jobs count for the hull. Default: the pure elements among `jobs`.

    Returns
    -------
    dict
        ``formation_energy`` and ``e_above_hull`` in eV/atom, by the ids of jobs that have them.

    Raises
    ------
    InvalidJob
        An element has no reference, or the jobs are of several programs.
    CrystalMathError
        pymatgen is not installed.
    """
    if find_spec("pymatgen") is None:
        raise CrystalMathError(
            "formation energies need pymatgen, which is missing: pip install 'crystalmath[quacc]'"
        )
    labelled = _labelled(caller, references) if references else None
    by_id = {job.job_id: job for job in (*jobs, *(labelled or ()))}
    _check_comparable(caller, [job for job in by_id.values() if _has_energy(job)])
    labels = ", ".join(f"{name}={value}" for name, value in (references or {}).items())
    place = f"labelled {labels}" if labels else "among these jobs"
    with warnings.catch_warnings():
        # Noble gases have none, and pymatgen sorts by it.
        warnings.filterwarnings("ignore", "No Pauling electronegativity")
        return energies_of(jobs, labelled, place)


def energies_of(
    jobs: Sequence[Job], labelled: Sequence[Job] | None = None, place: str = "among these jobs"
) -> dict[str, dict[str, float]]:
    """Calculate what :func:`phase_energies` returns, from records alone.

    Without `labelled` jobs those of pure elements among `jobs` are the references; `place` says in
    an error which jobs these are.
    """
    by_id = {job.job_id: job for job in (*jobs, *(labelled or ()))}
    entries = {job_id: entry for job_id, job in by_id.items() if (entry := _entry(job))}
    rows = [entries[job.job_id] for job in jobs if job.job_id in entries]
    references = jobs if labelled is None else labelled
    pure = _pure(entries[job.job_id] for job in references if job.job_id in entries)
    missing = {element for entry in rows for element in entry.composition.elements} - pure.keys()
    if missing:
        elements = ", ".join(sorted(map(str, missing)))
        raise InvalidJob(
            f"there is no reference for {elements}: no completed job {place} is of the pure "
            "element; submit one there with the same recipe and parameters, or name the label of "
            "references with --references K=V (from Python references={'K': 'V'})"
        )
    hull = _hull(rows, [*entries.values()])
    values = {}
    for entry in rows:
        energy, shares = entry.energy_per_atom, entry.composition.fractional_composition
        apart = sum(share * pure[element] for element, share in shares.items())
        above = energy - hull[entry.composition.reduced_composition]
        values[entry.entry_id] = {
            "formation_energy": float(energy - apart),
            "e_above_hull": float(above) if above > _ROUNDING_EV else 0.0,
        }
    return values


def _labelled(caller: Caller, references: Mapping[str, str]) -> list[Job]:
    filters = filters_document({"labels": references, "state": "completed"})
    return [*map(Job.read, pages(caller.ask, None, filters))]


def _has_energy(job: Job) -> bool:
    # Without the number of atoms a formula may be that of a part of the cell.
    summary = job.summary or {}
    known = all(summary.get(name) is not None for name in ("energy_ev", "formula", "natoms"))
    return known and job.state is JobState.COMPLETED


def _entry(job: Job) -> Any:
    """Make an entry of pymatgen's; ``None`` if the job has no energy of a known composition."""
    from pymatgen.entries.computed_entries import ComputedEntry

    summary = job.summary
    if summary is None or not _has_energy(job):
        return None
    entry = ComputedEntry(summary["formula"], summary["energy_ev"], entry_id=job.job_id)
    return entry if entry.composition.valid else None  # ASE's X is no element


def _pure(entries: Iterable[Any]) -> dict[Any, float]:
    """Return the lowest energy of each pure element, in eV/atom."""
    pure: dict[Any, float] = {}
    for entry in entries:
        if entry.is_element:
            (element,) = entry.composition.elements
            pure[element] = min(entry.energy_per_atom, pure.get(element, entry.energy_per_atom))
    return pure


def _hull(rows: Iterable[Any], entries: Sequence[Any]) -> dict[Any, float]:
    """Return the energy of the hull at the compositions of rows, in eV/atom.

    Each set of elements has a diagram of its own: that of all elements together takes a time which
    grows exponentially with their number, and has the same energies.
    """
    from pymatgen.analysis.phase_diagram import PhaseDiagram

    compositions: dict[frozenset[Any], set[Any]] = defaultdict(set)
    for entry in rows:
        composition = entry.composition
        compositions[frozenset(composition.elements)].add(composition.reduced_composition)
    hull: dict[Any, float] = {}
    for system, of_system in compositions.items():
        diagram = PhaseDiagram([e for e in entries if system.issuperset(e.composition.elements)])
        hull |= {each: diagram.get_hull_energy_per_atom(each) for each in of_system}
    return hull


def _check_comparable(caller: Caller, jobs: Sequence[Job]) -> None:
    """Refuse jobs of several programs, and warn of other recipes or parameters."""
    families: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        if family := family_of(job.recipe):
            families[family].append(job)
    if len(families) > 1:
        of_each = ", ".join(
            f"{family} ({len(of)} job{'s' if len(of) != 1 else ''}, {of[0].job_id[:8]})"
            for family, of in families.items()
        )
        raise InvalidJob(
            "formation energies compare energies of one program, and these jobs are of several: "
            f"{of_each}; choose jobs and references of one, as by --recipe and another label"
        )
    if jobs and (names := differing(JobValues.of(caller, jobs))):
        warnings.warn(
            f"the jobs of these formation energies differ in {', '.join(names)}; they compare only "
            "if that changes no energy",
            stacklevel=outside(),
        )
