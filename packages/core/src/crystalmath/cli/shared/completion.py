"""Completions that a shell offers after the tab key.

A completion starts nothing here, writes nothing, and hides errors: a message would appear in the
middle of the line that the user types.
"""

from __future__ import annotations

import contextlib
import warnings
from typing import TYPE_CHECKING, Any

import typer  # noqa: TC002 - Typer reads the annotations of what it calls

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crystalmath.client.home_reader import HomeReader
    from crystalmath.wire.answers import JobDocument

#: How long a server may take to answer, and one on another machine, in seconds.
_ANSWER_S, _REMOTE_S = 0.5, 2.0
#: The most jobs that are offered.
_MOST = 200
#: The fields that are offered or shown, and the two that the jobs of several remotes need.
_FIELDS = ["name", "status", "recipe", "labels", "engine", "created_at"]


def engines(incomplete: str) -> list[str]:
    """Offer the installed engines."""
    from crystalmath.errors import CrystalMathError

    with contextlib.suppress(CrystalMathError, ImportError):
        from crystalmath.quacc.engines import get_installed_engines

        return _beginning(incomplete, get_installed_engines())
    return []


def recipes(incomplete: str) -> list[str]:
    """Offer short names of recipes, or full names if no short name matches."""
    from crystalmath.errors import CrystalMathError

    with contextlib.suppress(CrystalMathError, ImportError):
        from crystalmath import config
        from crystalmath.cli.shared.output import short_recipe
        from crystalmath.recipes.lookup import catalogue

        names = [recipe.name for recipe in catalogue(config.load().recipes_allow)]
        return _beginning(incomplete, map(short_recipe, names)) or _beginning(incomplete, names)
    return []


def clusters(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the clusters of the engine on the command line, or of the configured one."""
    with contextlib.suppress(Exception):  # a plugin may raise anything
        from crystalmath.quacc.engines import get_workflow_engine, runner_for

        engine = ctx.params.get("engine") or get_workflow_engine() or "local"
        return _beginning(incomplete, runner_for(engine).clusters())
    return []


def states(incomplete: str) -> list[str]:
    """Offer the states of jobs."""
    from crystalmath.models import JobState

    return _beginning(incomplete, [state.value for state in JobState])


def job_ids(incomplete: str) -> list[tuple[str, str]]:
    """Offer the ids of jobs, the newest first, with name, state and recipe."""
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
    """Return matching jobs, the newest first; none if the server does not answer in time."""
    from crystalmath.errors import CrystalMathError

    try:
        with warnings.catch_warnings(action="ignore"), _reader() as home:
            return list(home.jobs(_MOST, fields=_FIELDS, **filters))
    except (CrystalMathError, OSError):
        return []


def _reader() -> HomeReader:
    from crystalmath.config import remote_name

    if name := remote_name():
        from crystalmath.client.remote_reader import reader_of

        return reader_of(name, _REMOTE_S)
    from crystalmath.client.home_reader import HomeReader

    return HomeReader(_ANSWER_S)


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if name.startswith(incomplete))
