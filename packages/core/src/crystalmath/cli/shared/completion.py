"""What a shell offers when somebody presses the tab key.

Nothing is started or written for it, and nothing that goes wrong is told: it would stand in the
middle of the line that is being typed.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from typing import TYPE_CHECKING, Any

# Typer reads the annotations of what it calls.
import typer  # noqa: TC002

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: How long a server may take to answer, in seconds.
_ANSWER_S = 0.5
#: More than so many jobs are of no use in a list.
_MOST = 200


def engines(incomplete: str) -> list[str]:
    """Offer the installed engines."""
    from crystalmath.errors import CrystalMathError

    try:
        from crystalmath.quacc.engines import get_installed_engines

        names = get_installed_engines()
    except (CrystalMathError, ImportError):
        return []
    return _beginning(incomplete, names)


def recipes(incomplete: str) -> list[str]:
    """Offer the recipes there are; their full names where nothing else begins so."""
    from crystalmath.errors import CrystalMathError

    try:
        from crystalmath import config
        from crystalmath.cli.shared.output import short_recipe
        from crystalmath.recipes.lookup import catalogue

        names = [recipe.name for recipe in catalogue(config.load().recipes_allow)]
    except (CrystalMathError, ImportError):
        return []
    return _beginning(incomplete, map(short_recipe, names)) or _beginning(incomplete, names)


def clusters(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the clusters of the engine that stands in the line, or of the configured one."""
    try:
        from crystalmath.quacc.engines import get_workflow_engine, runner_for

        engine = ctx.params.get("engine") or get_workflow_engine() or "local"
        names = runner_for(engine).clusters()
    except Exception:  # noqa: BLE001 - whatever a stranger's plugin raises
        return []
    return _beginning(incomplete, names)


def states(incomplete: str) -> list[str]:
    """Offer the states a job may be in."""
    from crystalmath.models import JobState

    return _beginning(incomplete, [state.value for state in JobState])


def job_ids(incomplete: str) -> list[tuple[str, str]]:
    """Offer job ids; where a server runs, with what it knows of the jobs, the newest first."""
    return _ids(incomplete, _run_directories(incomplete))


def unfinished_ids(incomplete: str) -> list[tuple[str, str]]:
    """Offer the ids of jobs that have not ended, as `job_ids` does."""
    from crystalmath.models.job_notes import UNFINISHED

    left = (name for name in _run_directories(incomplete) if not _has_ended(name))
    return _ids(incomplete, left, state=[state.value for state in UNFINISHED])


def labels(incomplete: str) -> list[str]:
    """Offer the labels of the newest jobs, where a server runs."""
    jobs = _asked("jobs.list", {"limit": _MOST}).get("jobs", ())
    found = {f"{key}={value}" for job in jobs for key, value in job["labels"].items()}
    return _beginning(incomplete, found)


def _ids(
    incomplete: str, directories: Iterable[str], **filters: list[str]
) -> list[tuple[str, str]]:
    answer = _asked("jobs.list", {"prefix": incomplete, "limit": _MOST, **filters})
    if "jobs" in answer:
        return [(job["job_id"], _told(job)) for job in answer["jobs"]]
    # Opening the database would import SQLAlchemy, and write beside it. These are in no order, so
    # that a part of them has no longer beginning in common than all have.
    return [(name, "") for name in itertools.islice(directories, _MOST)]


def _told(job: dict[str, Any]) -> str:
    from crystalmath.cli.shared.output import printable, short_recipe

    return printable(f"{job['name'] or ''} {job['status']} {short_recipe(job['recipe'])}".strip())


def _run_directories(beginning: str) -> Iterator[str]:
    from crystalmath.config import home
    from crystalmath.errors import CrystalMathError

    try:
        with os.scandir(home() / "jobs") as entries:
            for entry in entries:
                if entry.name.startswith(beginning) and not entry.name.startswith("."):
                    yield entry.name
    except (CrystalMathError, OSError):
        return


def _has_ended(job_id: str) -> bool:
    from crystalmath.config import home

    return any((home() / "jobs" / job_id).glob("*.outcome"))


def _asked(method: str, params: dict[str, Any]) -> dict[str, Any]:
    """Ask the running server, if there is one that answers at once."""
    from crystalmath.client.remote import Connection
    from crystalmath.config import home
    from crystalmath.errors import CrystalMathError
    from crystalmath.server.endpoint import Place

    try:
        with contextlib.closing(Connection.to(Place.of(home()))) as connection:
            return connection.call(method, params, _ANSWER_S)
    except (CrystalMathError, OSError, EOFError):
        return {}


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if name.startswith(incomplete))
