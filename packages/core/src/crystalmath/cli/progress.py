"""``crystalmath progress``: how far calculations have come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crystalmath.cli.shared import output
from crystalmath.cli.shared.common_arguments import JobIds, Json, LabelFilter, any_client, select
from crystalmath.cli.shared.parameter_options import parse_labels
from crystalmath.models.fields import to_wire

if TYPE_CHECKING:
    from crystalmath.client import Job
    from crystalmath.models import Progress

_NUMBERS = ("CALC", "IONIC", "SCF", "ENERGY/eV", "FORCE/(eV/Å)", "AGE")
_HEADERS = ("ID", "NAME", "STATE", "PROGRAM", *_NUMBERS)
#: What is shortened where a line is too narrow.
_SHORTENED = ("NAME", "PROGRAM")


def progress(
    job_ids: JobIds = None,
    *,
    label: LabelFilter = None,
    as_json: Json = False,
) -> int:
    """Show how far the calculations of jobs have come.

    Without ids it is of all jobs that run. Steps, energies and forces are read from what the
    programs write: VASP, Quantum ESPRESSO's pw.x, ASE's optimizers and dynamics. CALC counts the
    calculations of a job, IONIC and SCF its ionic and electronic steps; AGE is the time since
    something was written. Of a job that has ended it is what was reached.
    """
    labels = parse_labels(label or ())
    with any_client() as client:
        if job_ids:
            jobs = select(client, job_ids, labels, None)
        else:
            jobs = list(client.list(labels=labels or None, state="running"))
        read = client.progress([job.job_id for job in jobs])
    if as_json:
        output.write_json(
            {"jobs": [_document(job, read[job.job_id]) for job in jobs], "error": None}
        )
    elif jobs:
        rows = zip(*(_row(job, read[job.job_id]) for job in jobs), strict=True)
        columns = dict(zip(_HEADERS, rows, strict=True))
        if set(columns["STATE"]) == {"running"}:  # as without ids
            del columns["STATE"]
        whole = [header for header in columns if header not in _SHORTENED]
        cells = zip(*columns.values(), strict=True)
        output.show(output.grid(list(columns), cells, right=_NUMBERS, whole=whole))
    else:
        output.note("no running jobs")
    return 0


def _document(job: Job, read: Progress | None) -> dict[str, object]:
    return {
        "job_id": job.job_id,
        "status": job.state.value,
        "error": job.error,
        "progress": None if read is None else to_wire(read),
    }


def _row(job: Job, read: Progress | None) -> list[str]:
    row = [job.job_id[:8], job.name or "", job.state.value]
    if read is None:
        return row + [""] * (1 + len(_NUMBERS))
    values = (read.calculation, read.ionic_step, read.electronic_step)
    return [
        *row,
        read.program,
        *("" if value is None else str(value) for value in values),
        "" if read.energy_ev is None else f"{read.energy_ev:.4f}",
        "" if read.max_force_ev_ang is None else f"{read.max_force_ev_ang:.4f}",
        output.age(read.updated_at),
    ]
