"""The columns of lists and tables that a job's record fills, and the order of lists by them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from crystalmath.errors import InvalidJob, did_you_mean, shown
from crystalmath.models.fields import plain
from crystalmath.models.job_notes import step_of, told_steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from crystalmath.models.job import Job

#: Moments, in seconds since the epoch on the wire, in ISO 8601 (UTC) in tables.
TIMES = ("created_at", "started_at", "finished_at")


def _of_summary(name: str) -> Callable[[Job], Any]:
    return lambda job: (job.summary or {}).get(name)


def _per_atom(job: Job) -> float | None:
    summary = job.summary or {}
    energy, natoms = summary.get("energy_ev"), summary.get("natoms")
    return None if energy is None or not natoms else energy / natoms


def _runtime(job: Job) -> float | None:
    if job.started_at is None or job.finished_at is None:
        return None
    return job.finished_at - job.started_at


def _time(name: str) -> Callable[[Job], str | None]:
    def iso_time(job: Job) -> str | None:
        seconds = getattr(job, name)
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()

    return iso_time


def _field(name: str) -> Callable[[Job], Any]:
    return lambda job: plain(getattr(job, name))


#: The value of each column in a job's record.
JOB_COLUMNS: dict[str, Callable[[Job], Any]] = {
    **{name: _field(name) for name in ("job_id", "name", "state", "recipe", "engine", "cluster")},
    "formula": lambda job: (job.summary or {}).get("formula") or job.formula,
    "natoms": _of_summary("natoms"),
    "energy_ev": _of_summary("energy_ev"),
    "energy_per_atom_ev": _per_atom,
    "max_force_ev_ang": _of_summary("max_force_ev_ang"),
    **{name: _time(name) for name in TIMES},
    "runtime_s": _runtime,
    **{name: _field(name) for name in ("priority", "walltime_s", "attempt", "key")},
    **{name: _field(name) for name in ("error", "reason", "work_dir")},
    "superseded_by": _field("superseded_by"),
    "steps": lambda job: job.steps and told_steps(job.steps),
    "flow": lambda job: (step_of(job.parents) or (None, None))[0],
    "step": lambda job: (step_of(job.parents) or (None, None))[1],
}

#: The columns of tables, in eV/atom, in which a job's value depends on all jobs of the table.
PHASE_COLUMNS = ("formation_energy", "e_above_hull")

#: The columns by which lists are sorted, each with whether every job has a value in it.
SORTED_BY = {
    **dict.fromkeys(("created_at", "state", "recipe", "engine", "cluster", "priority"), True),
    **dict.fromkeys(("started_at", "finished_at", "runtime_s", "name", "formula", "natoms"), False),
    **dict.fromkeys(("energy_ev", "energy_per_atom_ev", "max_force_ev_ang"), False),
}


#: The names of some columns in other commands.
_CALLED = {"took": "runtime_s", "submitted": "created_at", "age": "created_at", "id": "job_id"}


def no_column(name: str, known: Iterable[str], otherwise: str | None = None) -> str:
    """Return the hint for an unknown column, for the end of a message."""
    return did_you_mean(_CALLED.get(name.lower(), name), known, otherwise)


def label_column(name: str) -> str:
    """Return the column of a label: letters and digits, as ASE's databases and SQL take no dots."""
    return "labels_" + "".join(c if c.isalnum() and c.isascii() else "_" for c in name)


def label_values(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the values of labels by their columns."""
    values: dict[str, str] = {}
    for name, value in labels.items():
        column = label_column(name)
        while column in values:  # of another label: a-b and a_b
            column += "_"
        values[column] = value
    return values


def job_values(job: Job, names: Iterable[str]) -> list[Any]:
    """Return a job's values in columns that :func:`read_columns` knows, ``None`` if unset."""
    return [
        label_values(job.labels).get(name) if name.startswith("labels_") else JOB_COLUMNS[name](job)
        for name in names
    ]


def read_columns(text: str) -> list[str]:
    """Read names of columns, separated by commas; raise `InvalidJob` for an unknown one."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name in PHASE_COLUMNS:
            raise InvalidJob(
                f"{name} is a column of tables alone, as it depends on all jobs of one; use "
                f"crystalmath export FILE --columns {name}, or client.table()"
            )
        if name not in JOB_COLUMNS and not (name.startswith("labels_") and name != "labels_"):
            known = f"known are {', '.join(JOB_COLUMNS)}, and labels_NAME for each label"
            of_label = [label_column(name[7:])] if name.startswith("labels.") else []
            hint = no_column(name, [*JOB_COLUMNS, *of_label], known)
            raise InvalidJob(f"there is no column {shown(name)}; {hint}")
    return names
