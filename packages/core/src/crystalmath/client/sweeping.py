"""Makes sweeps and equations of state of several jobs, for plots."""

from __future__ import annotations

import itertools
import json
import warnings
from collections import defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from crystalmath.client.job_values import JobValues, differing, suggestion
from crystalmath.errors import BadFile, FilesRemoved, InvalidJob
from crystalmath.models.fields import about, documented, optional
from crystalmath.recipes.formulas import composition

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from crystalmath.client.transport import Caller
    from crystalmath.models import Job

_TEXT = {"type": "string"}
_NUMBER = {"type": "number"}
_LIST = {"type": "array"}
_LEFT_OUT = about("jobs that give no point, by their ids, and why", {"type": "object"})


@documented
@frozen(kw_only=True)
class Series:
    """Points that belong together, sorted by x."""

    name: str | None = optional("what they share, kpts=[3,3,3]", _TEXT)
    x: Sequence[float | str] = field(
        metadata=about("numbers; texts where not all of them are numbers", _LIST)
    )
    y: Sequence[float] = field(metadata=about("the values", _LIST))
    job_ids: Sequence[str] = field(metadata=about("the job of each point", _LIST))


@documented
@frozen(kw_only=True)
class Sweep:
    """A value of jobs against one of their labels or parameters."""

    x: str = field(metadata=about("the label or parameter", _TEXT))
    y: str = field(metadata=about("the value: energy (eV), energy_per_atom (eV), ...", _TEXT))
    by: str | None = optional("what tells the series apart", _TEXT)
    series: Sequence[Series] = field(metadata=about("the points, sorted", _LIST))
    categories: Sequence[str] = field(
        metadata=about("the texts that are x, in their order; none where x are numbers", _LIST)
    )
    left_out: Mapping[str, str] = field(metadata=_LEFT_OUT)


@documented
@frozen(kw_only=True)
class EquationOfState:
    """Energies of a cell against its volume, with the Birch-Murnaghan fit."""

    name: str | None = optional("what they share, metal=Cu", _TEXT)
    formula: str = field(metadata=about("the atoms of the cell", _TEXT))
    volumes_ang3: Sequence[float] = field(
        metadata=about("the volumes of the cell in Å³, the smallest first", _LIST)
    )
    energies_ev: Sequence[float] = field(metadata=about("the energy at each, in eV", _LIST))
    job_ids: Sequence[str] = field(metadata=about("the job of each", _LIST))
    v0_ang3: float = field(metadata=about("the volume of the smallest energy, in Å³", _NUMBER))
    e0_ev: float = field(metadata=about("the smallest energy, in eV", _NUMBER))
    b_gpa: float = field(metadata=about("the bulk modulus there, in GPa", _NUMBER))
    b_prime: float = field(metadata=about("its derivative by the pressure", _NUMBER))
    differing: Sequence[str] = field(
        metadata=about("in what of recipe and parameters the jobs differ; all should be one", _LIST)
    )
    left_out: Mapping[str, str] = field(metadata=_LEFT_OUT)

    @property
    def is_bracketed(self) -> bool:
        """Whether there are smaller and larger volumes than that of the smallest energy."""
        return self.volumes_ang3[0] < self.v0_ang3 < self.volumes_ang3[-1]


@documented
@frozen(kw_only=True)
class EquationsOfState:
    """An equation of state for each value of a label or parameter."""

    by: str = field(metadata=about("what tells them apart", _TEXT))
    states: Sequence[EquationOfState] = field(metadata=about("one for each value", _LIST))
    left_out: Mapping[str, str] = field(metadata=_LEFT_OUT)


# --- made of jobs ---------------------------------------------------------------------------------

#: The fit has four unknowns.
_LEAST_VOLUMES = 5
#: Volumes that differ by less are the same, relatively.
_SAME = 1e-6
#: The largest changes of lengths, at equal volume, and of angles under compression.
_SAME_SHAPE, _SAME_ANGLE_DEG = 0.15, 10.0


def make_sweep(
    caller: Caller, jobs: Sequence[Job], x: str, y: str = "energy_per_atom", by: str | None = None
) -> Sweep:
    """Return a value of jobs against a label or parameter; see :meth:`.Client.sweep`."""
    every = JobValues.of(caller, jobs)
    for name in filter(None, (x, by)):
        _require(name, every)

    def point(values: JobValues) -> tuple[Any, float, Any]:
        value = values.computed(y)
        return values.submitted(x), value, None if by is None else values.submitted(by)

    points, left_out = _taken(every, point)
    # 3.0 and 3 are one point; [3, 3, 3] and "fine" have an order, and no distance.
    numbers = all(_is_number(at) for _, (at, _, _) in points)
    groups: dict[tuple[str, str], list[tuple[Any, float, str]]] = defaultdict(list)
    parted = _share_points(points)
    for job, (at, value, group) in sorted(points, key=lambda one: _order(one[1][2])):
        material = _material(job) if parted else ""
        groups[material, _text(group)].append((at, value, job.job_id))
    series = []
    for (material, group), members in sorted(groups.items(), key=lambda one: one[0][0]):
        names = [material, "" if by is None else f"{by}={group}"]
        members.sort(key=lambda one: _order(one[0]))
        ats, values, job_ids = zip(*members, strict=True)
        series.append(
            Series(
                name=", ".join(filter(None, names)) or None,
                x=[float(at) if numbers else _text(at) for at in ats],
                y=values,
                job_ids=job_ids,
            )
        )
    ordered = sorted((at for _, (at, _, _) in points), key=_order)
    return Sweep(
        x=x,
        y=y,
        by=by,
        series=series,
        categories=[] if numbers else list(dict.fromkeys(map(_text, ordered))),
        left_out=left_out,
    )


def make_equation_of_state(caller: Caller, jobs: Sequence[Job]) -> EquationOfState:
    """Fit an equation of state; see :meth:`.Client.equation_of_state`."""
    return _equation_of_state(JobValues.of(caller, jobs))


def make_equations_of_state(caller: Caller, jobs: Sequence[Job], by: str) -> EquationsOfState:
    """Fit an equation of state for each material; see :meth:`.Client.equations_of_state`."""
    every = JobValues.of(caller, jobs)
    if by != "formula":
        _require(by, every)
    groups: dict[str, list[JobValues]] = defaultdict(list)
    left_out: dict[str, str] = {}
    for values in every:
        try:
            groups[_text(values.submitted(by))].append(values)
        except InvalidJob as error:
            if by == "formula":
                groups[_material(values.job)].append(values)
            else:
                left_out[values.job.job_id] = str(error)
    states = []
    for name, of in sorted(groups.items()):
        try:
            states.append(_equation_of_state(of, f"{by}={name}"))
        except InvalidJob as error:
            left_out |= {values.job.job_id: str(error) for values in of}
        else:
            left_out |= states[-1].left_out
    if not states:
        raise InvalidJob(next(iter(left_out.values())))
    return EquationsOfState(by=by, states=states, left_out=left_out)


def _equation_of_state(every: Sequence[JobValues], name: str | None = None) -> EquationOfState:
    def point(values: JobValues) -> tuple[float, float, str]:
        energy, atoms = values.computed("energy"), values.atoms
        if atoms.cell.rank < len(atoms.cell):
            raise InvalidJob("its cell has no volume")
        return float(atoms.get_volume()), energy, str(atoms.get_chemical_formula())

    points, left_out = _taken(every, point)
    formulas: dict[str, list[Job]] = defaultdict(list)
    for job, (_, _, formula) in points:
        formulas[formula].append(job)
    if len(formulas) > 1:
        jobs_of_each = ", ".join(
            f"{formula} ({len(of)} jobs, {of[0].job_id[:8]})" for formula, of in formulas.items()
        )
        raise InvalidJob(
            f"an equation of state is of one cell, and these jobs are of several: {jobs_of_each}; "
            "choose those of one, or tell them apart with --by"
        )
    _require_one_shape([values for values in every if values.job.job_id not in left_out])
    points.sort(key=lambda one: one[1][:2])
    volumes = [volume for _, (volume, _, _) in points]
    energies = [energy for _, (_, energy, _) in points]
    v0, e0, b_gpa, b_prime = _fitted(volumes, energies)
    return EquationOfState(
        name=name,
        formula=next(iter(formulas)),
        volumes_ang3=volumes,
        energies_ev=energies,
        job_ids=[job.job_id for job, _ in points],
        v0_ang3=v0,
        e0_ev=e0,
        b_gpa=b_gpa,
        b_prime=b_prime,
        differing=differing([each for each in every if each.job.job_id not in left_out]),
        left_out=left_out,
    )


def _require_one_shape(every: Sequence[JobValues]) -> None:
    """Raise `InvalidJob` if the cells of one formula differ in more than their volume."""
    import numpy as np

    first = _shape(every[0])
    for other in every[1:]:
        change = np.abs(_shape(other) - first)
        if max(change[:3]) > _SAME_SHAPE or max(change[3:]) > _SAME_ANGLE_DEG:
            cells = [
                f"{each.job.job_id[:8]} ({' '.join(f'{n:.4g}' for n in each.atoms.cell.cellpar())})"
                for each in (every[0], other)
            ]
            raise InvalidJob(
                "an equation of state is of one cell, and the cells of these jobs differ in shape: "
                f"{' and '.join(cells)}, in Å and degrees; choose those of one"
            )


def _shape(values: JobValues) -> Any:
    shape = values.atoms.cell.cellpar()
    shape[:3] /= values.atoms.get_volume() ** (1 / 3)
    return shape


def _fitted(volumes: Sequence[float], energies: Sequence[float]) -> tuple[float, ...]:
    from ase.eos import EquationOfState as Fit
    from ase.units import GPa

    distinct = 1 + sum(
        after - before > _SAME * after for before, after in itertools.pairwise(volumes)
    )
    if distinct < _LEAST_VOLUMES:
        raise InvalidJob(
            f"an equation of state takes jobs at {_LEAST_VOLUMES} volumes or more, and these are "
            f"at {distinct}"
        )
    fit = Fit(volumes, energies, eos="birchmurnaghan")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scipy warns that the fit has no error bars
            v0, e0, b = fit.fit(warn=False)
    except (RuntimeError, ValueError) as error:
        raise InvalidJob(f"no equation of state fits these energies: {error}") from error
    if not (b > 0 and v0 > 0):
        raise InvalidJob(
            "no equation of state fits these energies: they have no minimum; take volumes on both "
            "sides of it"
        )
    return float(v0), float(e0), float(b / GPa), float(fit.eos_parameters[2])


# --- points ----------------------------------------------------------------------------------


def _taken(
    every: Sequence[JobValues], point: Callable[[JobValues], tuple[Any, ...]]
) -> tuple[list[tuple[Job, Any]], Mapping[str, str]]:
    """Return the points of jobs (`InvalidJob`: none has one), and why others have none."""
    points = []
    left_out: dict[str, str] = {}
    for values in every:
        try:
            points.append((values.job, point(values)))
        except (InvalidJob, BadFile, FilesRemoved) as error:
            left_out[values.job.job_id] = str(error)
    if not points:
        reasons = list(dict.fromkeys(left_out.values()))
        first = next((job for job, why in left_out.items() if why == reasons[0]), "")
        more = f" ({len(reasons) - 1} other reasons)" if len(reasons) > 1 else ""
        raise InvalidJob(
            f"there is nothing to plot: none of the jobs has a point; job {first[:8]}: {reasons[0]}"
            f"{more}"
        )
    return points, left_out


def _share_points(points: Sequence[tuple[Job, Any]]) -> bool:
    """Return whether several materials have values at one position of the axis."""
    there: dict[tuple[str, str], set[str]] = defaultdict(set)
    for job, (at, _, group) in points:
        there[_text(at), _text(group)].add(_material(job))
    return any(len(materials) > 1 for materials in there.values())


def _material(job: Job) -> str:
    parsed = composition(job.formula) if job.formula else None
    return parsed.reduced if parsed else job.formula or ""


def _require(name: str, every: Sequence[JobValues]) -> None:
    """Raise `InvalidJob` for the name of a label or parameter that no job has."""
    for values in every:
        with suppress(InvalidJob):
            values.submitted(name)
            return
    known = set[str]().union(*(values.submitted_names() for values in every))
    raise InvalidJob(
        f"none of these jobs has a label or a parameter {name!r}{suggestion(name, known)}"
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _order(value: Any) -> tuple[int, Any]:
    """Sort numbers, then lists of numbers, then the rest by their texts."""
    if _is_number(value):
        return 0, value
    if isinstance(value, list) and all(map(_is_number, value)):
        return 1, value
    return 2, _text(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
