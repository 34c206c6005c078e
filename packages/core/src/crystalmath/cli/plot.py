"""``crystalmath plot``: draw ionic steps, a sweep, or an equation of state."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - Typer reads annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crystalmath.cli.shared import output
from crystalmath.cli.shared.common_arguments import (
    JobIds,
    Json,
    any_client,
    chosen_jobs,
    require_choice,
)
from crystalmath.cli.shared.job_filters import with_filters
from crystalmath.errors import InvalidJob
from crystalmath.models.fields import to_wire

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from crystalmath.cli.shared.figure import Curve, Panel
    from crystalmath.client import Client
    from crystalmath.client.sweeping import EquationOfState, EquationsOfState, Sweep
    from crystalmath.models import Job, Progress

#: The most jobs whose steps share a frame.
_MOST_JOBS = 8
_Y = "energy_per_atom"
#: The lines of a frame in a terminal, without its axes, by the number of frames.
_HEIGHTS = {1: 18, 2: 11}
#: The number of points of a fitted curve.
_FINE = 100
#: The most left-out jobs that are named one by one.
_SHOWN = 3
_UNITS = {
    "energy": "eV",
    "energy_ev": "eV",
    "energy_per_atom": "eV/atom",
    "energy_per_atom_ev": "eV/atom",
    "max_force": "eV/Å",
    "max_force_ev_ang": "eV/Å",
}


@with_filters
def plot(
    job_ids: JobIds = None,
    *,
    filters: dict[str, Any],
    x: Annotated[
        str | None,
        typer.Option(
            "--x", metavar="NAME", help="Draw a sweep against this label or parameter: encut."
        ),
    ] = None,
    y: Annotated[
        str | None,
        typer.Option(
            "--y",
            metavar="VALUE",
            help="The value of a sweep: energy, energy_per_atom (the default), max_force, or a "
            "field of the result such as results.free_energy.",
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Draw a curve for each value of this label or parameter; with --eos also formula.",
        ),
    ] = None,
    eos: Annotated[
        bool,
        typer.Option(
            "--eos", help="Draw an equation of state: energies against volumes, with a fit."
        ),
    ] = False,
    file: Annotated[
        Path | None,
        typer.Option(
            "--output", metavar="FILE", help="Write the figure to this .png or .svg file."
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """Draw ionic steps, a sweep, or an equation of state.

    Without --x and --eos it draws the energy and the largest force after each ionic step, also
    for running jobs.

    A sweep (--x) draws the completed jobs against a label or a parameter: crystalmath plot --label
    project=al --x encut --by kpts. Lists such as kpts=[3,3,3] become equally spaced marks, and
    each material gets its own curve.

    --eos fits the equation of state of Birch and Murnaghan.
    """
    require_choice(job_ids, filters)
    _check({"--x": x, "--y": y, "--by": by}, eos=eos)
    if file is not None:
        from crystalmath.cli.shared.figure import FORMATS

        if file.suffix.lower() not in FORMATS:
            output.refuse(f"{str(file)!r} must end in {' or '.join(FORMATS)}", "--output")
    from crystalmath.models import Job

    with any_client() as client:
        jobs = [*map(Job.read, chosen_jobs(client, job_ids, filters))]
        ids = [job.job_id for job in jobs]
        if eos and by is not None:
            equations = client.equations_of_state(ids, by)
            states, panels, left_out = equations.states, _of_states(equations), equations.left_out
            document = {**to_wire(equations), "states": [to_wire(one) for one in states]}
        elif eos:
            state = client.equation_of_state(ids)
            document, panels, left_out = to_wire(state), _of_state(state), state.left_out
            states = [state]
        elif x is not None:
            sweep = client.sweep(ids, x, y or _Y, by)
            series = [to_wire(one) for one in sweep.series]
            document = {**to_wire(sweep), "series": series}
            panels, left_out = _of_sweep(sweep), sweep.left_out
        else:
            document, panels, left_out = _of_steps(client, jobs)
    if file is not None:
        from crystalmath.cli.shared.figure import save

        save(panels, file)
    if as_json:
        output.write_json(document)
    elif file is None:
        _show(panels)
    else:
        output.note(f"written to {file}")
    if eos and not as_json:
        output.write("\n\n".join(map(_state_text, states)))
    _say_what_is_missing(jobs, left_out)
    return 0


def _check(options: Mapping[str, str | None], *, eos: bool) -> None:
    for name, value in options.items():
        if value is not None and eos and name != "--by":
            output.refuse("does not go with --eos", name)
        if value == "":
            output.refuse("must not be empty", name)
        if value is not None and options["--x"] is None and not eos:
            output.refuse("needs a sweep: name a label or a parameter with --x", name)


def _show(panels: Sequence[Panel]) -> None:
    from crystalmath.cli.shared.figure import draw

    console = output.console()
    for panel in panels:
        for line in draw(panel, console.width, _HEIGHTS[len(panels)]):
            console.print(line, no_wrap=True, overflow="crop")


def _say_what_is_missing(jobs: Sequence[Job], left_out: Mapping[str, str]) -> None:
    names = {job.job_id: job.name for job in jobs}
    for job_id, why in list(left_out.items())[:_SHOWN]:
        name = f" ({names[job_id]})" if names[job_id] else ""
        output.note(f"not drawn: job {job_id[:8]}{name}: {why}")
    if (more := len(left_out) - _SHOWN) > 0:
        output.note(f"not drawn: {more} more; --json tells all (left_out)")


# --- steps -----------------------------------------------------------------------------------


def _of_steps(
    client: Client, jobs: Sequence[Job]
) -> tuple[dict[str, Any], list[Panel], dict[str, str]]:
    if len(jobs) > _MOST_JOBS:
        raise InvalidJob(
            f"the steps of {len(jobs)} jobs would be drawn over each other; name {_MOST_JOBS} at "
            "most, or draw a sweep with --x"
        )
    read = client.progress([job.job_id for job in jobs], history=True)
    progress = {job.job_id: read[job.job_id] for job in jobs}
    left_out = {
        job.job_id: job.without_files() or "it has written no ionic step yet that can be read"
        for job in jobs
        if not _steps(progress[job.job_id])
    }
    drawn = [job for job in jobs if job.job_id not in left_out]
    if not drawn:
        if all(without := [job.without_files() for job in jobs]):
            raise InvalidJob(f"there is nothing to plot: {without[0]}")
        raise InvalidJob(
            "there is nothing to plot: "
            + ("the job has" if len(jobs) == 1 else "the jobs have")
            + " written no ionic step that can be read; "
            + (
                "crystalmath plot --parent ID draws those of a flow's steps"
                if any(job.steps for job in jobs)
                else "crystalmath files ID lists what there is"
            )
        )
    document = {
        "jobs": [
            {
                "job_id": job.job_id,
                "status": job.state.value,
                "name": job.name,
                "history": [to_wire(step) for step in _steps(progress[job.job_id])],
            }
            for job in jobs
        ]
    }
    return document, _step_panels(drawn, progress), left_out


def _steps(read: Progress | None) -> Sequence[Any]:
    return (read and read.history) or ()


def _step_panels(jobs: Sequence[Job], progress: Mapping[str, Progress | None]) -> list[Panel]:
    from crystalmath.cli.shared.figure import Curve, Panel
    from crystalmath.models.progress import step_numbers

    energies: list[Curve] = []
    forces: list[Curve] = []
    for job in jobs:
        name = output.printable(job.name or job.job_id[:8]) if len(jobs) > 1 else ""
        read = _steps(progress[job.job_id])
        steps = list(zip(step_numbers(read), read, strict=True))
        for curves, field in ((energies, "energy_ev"), (forces, "max_force_ev_ang")):
            points = [(at, getattr(step, field)) for at, step in steps]
            known = [(at, value) for at, value in points if value is not None]
            if known:
                curves.append(Curve(name, [at for at, _ in known], [value for _, value in known]))
    x = "ionic step"
    panels = [Panel(x, "energy / eV", energies)] if energies else []
    if any(y > 0 for curve in forces for y in curve.y):
        panels.append(Panel(x, "largest force / (eV/Å)", forces, log_y=True))
    return panels


# --- several jobs ----------------------------------------------------------------------------


def _of_sweep(sweep: Sweep) -> list[Panel]:
    from crystalmath.cli.shared.figure import Curve, Panel

    names = list(sweep.categories)
    curves = [
        Curve(
            output.printable(series.name or ""),
            [names.index(x) if isinstance(x, str) else x for x in series.x],
            series.y,
            # Several points at one name, as of a flow's steps, make no curve.
            line=not names or len(set(series.x)) == len(series.x),
        )
        for series in sweep.series
    ]
    unit = _UNITS.get(sweep.y)
    y_label = f"{sweep.y} / {f'({unit})' if '/' in unit else unit}" if unit else sweep.y
    return [Panel(sweep.x, y_label, curves, x_names=[output.printable(name) for name in names])]


def _of_state(state: EquationOfState) -> list[Panel]:
    from crystalmath.cli.shared.figure import Curve, Panel

    curves = [
        Curve("computed", state.volumes_ang3, state.energies_ev, line=False),
        Curve("Birch-Murnaghan", *_fitted(state), points=False),
    ]
    return [Panel("volume / Å³", "energy / eV", curves, title=state.formula)]


def _of_states(equations: EquationsOfState) -> list[Panel]:
    """Return one panel of several materials: per atom, with energies above each minimum."""
    from crystalmath.cli.shared.figure import Curve, Panel
    from crystalmath.recipes.formulas import composition

    computed: list[Curve] = []
    fitted: list[Curve] = []
    for number, state in enumerate(equations.states):
        cell = composition(state.formula)
        natoms = cell.natoms if cell else 1
        name = output.printable(state.name or state.formula)
        points = _of_an_atom(state.volumes_ang3, state.energies_ev, state.e0_ev, natoms)
        computed.append(Curve(name, *points, line=False))
        points = _of_an_atom(*_fitted(state), state.e0_ev, natoms)
        fitted.append(Curve("", *points, points=False, of=number))
    return [Panel("volume / (Å³/atom)", "energy above the minimum / (eV/atom)", computed + fitted)]


def _of_an_atom(
    volumes: Sequence[float], energies: Sequence[float], e0_ev: float, natoms: int
) -> tuple[list[float], list[float]]:
    """Return volumes, and energies above the minimum, per atom."""
    return [each / natoms for each in volumes], [(each - e0_ev) / natoms for each in energies]


def _fitted(state: EquationOfState) -> tuple[list[float], list[float]]:
    """Return the volumes in Å³ and energies in eV of the fitted curve."""
    from ase.eos import birchmurnaghan
    from ase.units import GPa

    low = min(state.volumes_ang3[0], state.v0_ang3)
    high = max(state.volumes_ang3[-1], state.v0_ang3)
    fine = [low + (high - low) * number / _FINE for number in range(_FINE + 1)]
    b = state.b_gpa * GPa
    return fine, [
        float(birchmurnaghan(volume, state.e0_ev, b, state.b_prime, state.v0_ang3))
        for volume in fine
    ]


def _state_text(state: EquationOfState) -> str:
    from crystalmath.recipes.formulas import composition

    which = f" of {state.name}" if state.name else ""
    if not state.is_bracketed:
        output.note(
            f"warning: the smallest energy{which} lies outside of the volumes; compute some beyond "
            f"{state.v0_ang3:.2f} Å³"
        )
    if state.differing:
        output.note(
            f"warning: these jobs{which} differ in "
            f"{', '.join(state.differing)}; their energies make one curve "
            "only if that changes none of them"
        )
    pairs = [
        ("V0", f"{state.v0_ang3:.4f} Å³"),
        ("E0", f"{state.e0_ev:.6f} eV"),
        ("B", f"{state.b_gpa:.2f} GPa"),
        ("B'", f"{state.b_prime:.2f}"),
    ]
    if (cell := composition(state.formula)) and cell.natoms > 1:
        pairs.insert(0, ("cell", state.formula))  # since figures of several materials are per atom
    return f"{state.name}\n{output.fields(pairs)}" if state.name else output.fields(pairs)
