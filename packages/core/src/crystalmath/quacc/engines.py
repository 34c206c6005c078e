"""Which engines are installed and configured, and this process's runner of each."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from typing import TYPE_CHECKING

from attrs import field, frozen

from crystalmath import config
from crystalmath.errors import PluginError
from crystalmath.models import EngineSettings, Finding
from crystalmath.plugins import ENGINES, distribution_of, plugins

if TYPE_CHECKING:
    from pathlib import Path

    from crystalmath.quacc.engine import EngineRunner

__all__ = [
    "EngineInfo",
    "close_all",
    "describe_engines",
    "get_installed_engines",
    "get_workflow_engine",
    "runner_for",
]


@frozen(kw_only=True)
class EngineInfo:
    """What is known of one installed engine.

    Parameters
    ----------
    name, distribution, version : str
        The engine and the package that brings it.
    loads : bool
        Whether its plugin can be used.
    error : str, optional
        Why it cannot.
    findings : list of Finding
        What the plugin itself says keeps it from serving.
    configured : bool
        Whether submissions that name no engine use it.
    """

    name: str
    distribution: str
    version: str
    loads: bool
    error: str | None = None
    findings: list[Finding] = field(factory=list)
    configured: bool = False


def get_installed_engines() -> list[str]:
    """List the names of the installed engines, without importing any."""
    return plugins().engine_names()


def get_workflow_engine() -> str | None:
    """Tell which engine is configured.

    Returns
    -------
    str or None
        ``CRYSTALMATH_ENGINE``, else ``engine`` of the configuration file, else quacc's own setting
        where an installed plugin has that name. It need not be installed; using it is an error
        then, never a silent change of engine.
    """
    configured = config.load().engine
    if configured:
        return configured
    theirs = _quacc_setting()
    return theirs if theirs in get_installed_engines() else None


def _quacc_setting() -> str | None:
    quacc = sys.modules.get("quacc")
    if quacc is not None and hasattr(quacc, "get_settings"):
        setting: str | None = quacc.get_settings().WORKFLOW_ENGINE
        return setting
    return os.environ.get("QUACC_WORKFLOW_ENGINE")


_runners: dict[tuple[int, Path, str], EngineRunner] = {}
_lock = threading.Lock()


def _renew_lock() -> None:
    # A lock that was held at the fork would stay held in the child for ever.
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


def runner_for(engine: str, configured: config.Config | None = None) -> EngineRunner:
    """Give the runner of an engine: one object for each engine, home and process.

    Parameters
    ----------
    engine : str
        The engine's name.
    configured : Config, optional
        The home's configuration, where the caller has it.

    Raises
    ------
    UnknownEngine
        No installed plugin provides it.
    ImportError
        The plugin cannot load; its own error is chained.
    PluginError
        The plugin breaks the rules.
    """
    settings = _settings(engine, configured or config.load())
    key = (os.getpid(), settings.home, engine)
    with _lock:
        runner = _runners.get(key)
        if runner is None or runner.closed:
            runner = _runners[key] = _make(settings)
        return runner


def _settings(engine: str, configured: config.Config) -> EngineSettings:
    options = configured.engines.get(engine, {})
    return EngineSettings(name=engine, home=configured.home, options=options)


def _make(settings: EngineSettings) -> EngineRunner:
    from crystalmath.quacc.engine import EngineRunner

    name = settings.name
    try:
        plugin = plugins().engine(name)
        runner = plugins().call_engine(plugin, "crystalmath_make_runner", settings=settings)
    except ImportError as error:
        raise ImportError(f"the engine {name!r} cannot be loaded: {error}") from error
    if not isinstance(runner, EngineRunner):
        raise PluginError(f"the plugin of the engine {name!r} gave {runner!r} and no EngineRunner")
    return runner


def close_all() -> None:
    """End all engines of this process, and their jobs with them."""
    for key, runner in list(_runners.items()):
        if key[0] == os.getpid():
            runner.close()
            # Only now: a close that was interrupted is tried again at the interpreter's exit.
            _runners.pop(key, None)


# At the interpreter's exit, before any other of ours.
atexit.register(close_all)


def describe_engines() -> list[EngineInfo]:
    """Describe all installed engines; each is loaded, none is started."""
    configured = config.load()
    chosen = get_workflow_engine() or "local"
    return [_describe(name, configured, chosen) for name in get_installed_engines()]


def _describe(name: str, configured: config.Config, chosen: str) -> EngineInfo:
    from importlib.metadata import entry_points

    entry = next(iter(entry_points(group=ENGINES, name=name)))
    error = None
    findings: list[Finding] = []
    try:
        plugin = plugins().engine(name)
        settings = _settings(name, configured)
        for answer in plugins().call_engine(
            plugin, "crystalmath_engine_findings", settings=settings
        ):
            findings += answer
    except Exception as caught:  # noqa: BLE001 - whatever a stranger's plugin raises is its reason
        error = f"{type(caught).__name__}: {caught}"
    return EngineInfo(
        name=name,
        distribution=distribution_of(entry),
        version=entry.dist.version if entry.dist else "unknown",
        loads=error is None,
        error=error,
        findings=findings,
        configured=name == chosen,
    )
