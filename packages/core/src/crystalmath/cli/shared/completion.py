"""What a shell offers when somebody presses the tab key.

Nothing is started or written for it, and nothing that goes wrong is told: it would stand in the
middle of the line that is being typed.
"""

from __future__ import annotations

import contextlib
import warnings
from typing import TYPE_CHECKING, Any

import typer  # noqa: TC002 - Typer reads the annotations of what it calls

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crystalmath.wire.answers import JobDocument

#: How long a server may take to answer, in seconds.
_ANSWER_S = 0.5
#: More than so many jobs are of no use in a list.
_MOST = 200
#: What is offered of jobs, or shown beside it.
_FIELDS = ["name", "status", "recipe", "labels"]


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
    with contextlib.suppress(Exception):  # a plugin may raise anything
        from crystalmath.quacc.engines import get_workflow_engine, runner_for

        engine = ctx.params.get("engine") or get_workflow_engine() or "local"
        return _beginning(incomplete, runner_for(engine).clusters())
    return []


def states(incomplete: str) -> list[str]:
    """Offer the states a job may be in."""
    from crystalmath.models import JobState

    return _beginning(incomplete, [state.value for state in JobState])


def job_ids(incomplete: str) -> list[tuple[str, str]]:
    """Offer the ids of jobs, the newest first, with what is known of them."""
    return _ids(prefix=incomplete)


def _ids(**filters: Any) -> list[tuple[str, str]]:
    from crystalmath.cli.shared.output import printable, short_recipe

    return [
        (
            job["job_id"],
            printable(f"{job['name'] or ''} {job['status']} {short_recipe(job['recipe'])}".strip()),
        )
        for job in _jobs(**filters)
    ]


def unfinished_ids(incomplete: str) -> list[tuple[str, str]]:
    """Offer the ids of jobs that have not ended, as `job_ids` does."""
    from crystalmath.models.job_notes import UNFINISHED

    return _ids(prefix=incomplete, state=[state.value for state in UNFINISHED])


def labels(incomplete: str) -> list[str]:
    """Offer the labels of the newest jobs."""
    pairs = {f"{key}={value}" for job in _jobs() for key, value in job["labels"].items()}
    return _beginning(incomplete, pairs)


def _jobs(**filters: Any) -> list[JobDocument]:
    """Return jobs that fit, the newest first; none where the server does not answer at once."""
    from crystalmath.client.home_reader import HomeReader
    from crystalmath.errors import CrystalMathError

    try:
        with warnings.catch_warnings(action="ignore"), HomeReader(_ANSWER_S) as home:
            return list(home.jobs(_MOST, fields=_FIELDS, **filters))
    except (CrystalMathError, OSError):
        return []


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if name.startswith(incomplete))
