"""The hooks of the Parsl engine. Nothing here imports Parsl before a runner is made."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from crystalmath.hookspecs import hookimpl
from crystalmath.models import Finding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystalmath.models import EngineSettings
    from crystalmath.quacc.engine import EngineRunner

_REMEDY = "pip install --force-reinstall crystalmath-engine-parsl"


@hookimpl
def crystalmath_make_runner(settings: EngineSettings) -> EngineRunner:
    """Make the runner."""
    if importlib.util.find_spec("parsl") is None:
        raise ImportError(f"Parsl is not installed; try `{_REMEDY}`")
    try:
        from crystalmath_engine_parsl.runner import ParslRunner
    except ImportError as error:
        raise ImportError(f"Parsl cannot be imported ({error}); try `{_REMEDY}`") from error
    return ParslRunner(settings)


@hookimpl
def crystalmath_engine_findings(settings: EngineSettings) -> Sequence[Finding]:
    """Return findings on what keeps this engine from running jobs."""
    from crystalmath_engine_parsl import config

    findings = []
    if importlib.util.find_spec("parsl") is None:
        findings.append(
            Finding(
                severity="error",
                code="missing_library",
                message="Parsl is not installed",
                remedy=_REMEDY,
            )
        )
    try:
        config.workers(settings)
        config.check_clusters(settings)
    except ValueError as error:
        findings.append(Finding(severity="error", code="config", message=str(error)))
    return findings
