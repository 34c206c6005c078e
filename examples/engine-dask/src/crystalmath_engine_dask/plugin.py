"""The hooks of the Dask engine. Nothing here imports Dask before a runner is made."""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING

from crystalmath.errors import ConfigError
from crystalmath.hookspecs import hookimpl
from crystalmath.models import Finding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystalmath.models import EngineSettings
    from crystalmath.quacc.engine import EngineRunner


@hookimpl
def crystalmath_make_runner(settings: EngineSettings) -> EngineRunner:
    """Make the runner."""
    from crystalmath_engine_dask.runner import DaskRunner

    return DaskRunner(settings, count_workers(settings))


@hookimpl
def crystalmath_engine_findings(settings: EngineSettings) -> Sequence[Finding]:
    """Return the reasons why Dask cannot serve."""
    if importlib.util.find_spec("distributed") is None:
        message, remedy = "dask.distributed is not installed", "pip install distributed"
        return [Finding(severity="error", code="missing_library", message=message, remedy=remedy)]
    try:
        count_workers(settings)
    except ConfigError as error:
        return [Finding(severity="error", code="config", message=str(error))]
    return []


def count_workers(settings: EngineSettings) -> int:
    """Read ``workers`` in ``[engines.dask]``; without it, the cores that we may use."""
    settings.check_options("workers")
    workers = settings.options.get("workers", len(os.sched_getaffinity(0)))
    if type(workers) is not int or workers < 1:
        raise ConfigError(f"[engines.dask] workers must be a number from 1, not {workers!r}")
    return workers
