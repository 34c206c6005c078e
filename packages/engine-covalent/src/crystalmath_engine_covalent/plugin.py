"""The hooks of the Covalent engine. Nothing here imports Covalent or asks its server."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING

from crystalmath.hookspecs import hookimpl
from crystalmath.models import Finding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystalmath.models import EngineSettings
    from crystalmath.quacc.engine import EngineRunner

_REMEDY = "pip install --force-reinstall crystalmath-engine-covalent"

_PYTHON_3_13 = "what `covalent start` starts on Python 3.13 or newer fails to run any task"
_AUTOSTART = "set `[engines.covalent] autostart = true`"


@hookimpl
def crystalmath_make_runner(settings: EngineSettings) -> EngineRunner:
    """Make the runner."""
    if importlib.util.find_spec("covalent") is None:
        raise ImportError(f"Covalent is not installed; try `{_REMEDY}`")
    from crystalmath_engine_covalent.runner import CovalentRunner

    return CovalentRunner(settings)


@hookimpl
def crystalmath_engine_findings(settings: EngineSettings) -> Sequence[Finding]:
    """Return the reasons why Covalent cannot serve."""
    from crystalmath_engine_covalent import client, config, private

    if importlib.util.find_spec("covalent") is None:
        message = "Covalent is not installed"
        return [Finding(severity="error", code="missing_library", message=message, remedy=_REMEDY)]
    try:
        options = config.read(settings)
    except ValueError as error:
        return [Finding(severity="error", code="config", message=str(error))]
    if options.autostart:
        reason = private.unusable(private.directory_of(settings))
        return [Finding(severity="error", code="home", message=reason)] if reason else []
    if not client.listens(options.address):
        message = f"no Covalent server listens at {options.address}"
        return [Finding(severity="error", code="server", message=message, remedy=config.REMEDY)]
    if sys.version_info >= (3, 13):
        return [Finding(severity="warning", code="python", message=_PYTHON_3_13, remedy=_AUTOSTART)]
    return []
