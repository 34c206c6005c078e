"""The hooks of the PSI/J engine. Nothing here imports PSI/J, which takes 0.4 s."""

from __future__ import annotations

import importlib.util
import shutil
from typing import TYPE_CHECKING

from crystalmath.errors import ConfigError
from crystalmath.hookspecs import hookimpl
from crystalmath.models import Finding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystalmath.models import Cluster, EngineSettings
    from crystalmath.quacc.engine import EngineRunner

_REMEDY = "pip install --force-reinstall crystalmath-engine-psij"


@hookimpl
def crystalmath_make_runner(settings: EngineSettings) -> EngineRunner:
    """Make the runner."""
    if importlib.util.find_spec("psij") is None:
        raise ImportError(f"PSI/J is not installed; try `{_REMEDY}`")
    from crystalmath_engine_psij.runner import PsijRunner

    return PsijRunner(settings)


@hookimpl
def crystalmath_engine_findings(settings: EngineSettings) -> Sequence[Finding]:
    """Return findings on what keeps this engine from running jobs."""
    from crystalmath_engine_psij import options

    if importlib.util.find_spec("psij") is None:
        message = "PSI/J is not installed"
        return [Finding(severity="error", code="missing_library", message=message, remedy=_REMEDY)]
    try:
        options.workers(settings)
        configured = options.clusters(settings).values()
    except ConfigError as error:
        return [Finding(severity="error", code="config", message=str(error))]
    return [finding for cluster in configured for finding in _commands(cluster)]


def _commands(cluster: Cluster) -> Sequence[Finding]:
    """Return a finding if this host lacks the commands of a cluster's batch system."""
    from crystalmath_engine_psij.directives import COMMANDS

    command = COMMANDS[cluster.scheduler]
    if shutil.which(command):
        return []
    message = f"[clusters.{cluster.name}] {command} is not in PATH"
    remedy = "run the server where the batch system's commands are, on a login node"
    return [Finding(severity="warning", code="command", message=message, remedy=remedy)]
