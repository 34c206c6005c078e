"""List the installed engines, name the configured one, and keep this process's runners."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import weakref
from concurrent.futures import Future
from typing import TYPE_CHECKING

from attrs import field, frozen

import crystalmath.jobs.identities  # noqa: F401 - registers an exit handler, which must come first
from crystalmath import config
from crystalmath.engines.registry import distribution_of, plugins
from crystalmath.errors import ConfigError, PluginError
from crystalmath.models import EngineSettings, Finding
from crystalmath.models.capabilities import OF_CORE
from crystalmath.models.submission import MOST_PARCEL

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from crystalmath.quacc.engine import EngineRunner

__all__ = [
    "EngineInfo",
    "close_all",
    "describe_engines",
    "get_installed_engines",
    "get_workflow_engine",
    "made_with",
    "runner_for",
    "settings_of",
]


@frozen(kw_only=True)
class EngineInfo:
    """An installed engine.

    Parameters
    ----------
    name, distribution, version : str
        The engine and the package that brings it.
    loads : bool
        Whether its plugin can be used.
    error : str, optional
        Why it cannot.
    findings : list of Finding
        The plugin's own reasons why the engine cannot serve.
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


def get_workflow_engine(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return which engine is configured.

    Parameters
    ----------
    environ : mapping of str to str
        The environment to read, for example a submitter's.

    Returns
    -------
    str or None
        ``CRYSTALMATH_ENGINE``, else ``engine`` of the configuration file, else quacc's own setting
        if an installed plugin has that name. The engine need not be installed: its use is then an
        error, never a silent change of engine.
    """
    configured = config.load().engine
    if configured:
        return configured
    theirs = _quacc_setting(environ)
    return theirs if theirs in get_installed_engines() else None


def _quacc_setting(environ: Mapping[str, str]) -> str | None:
    quacc = sys.modules.get("quacc")
    if quacc is not None and hasattr(quacc, "get_settings"):
        # If quacc refuses a setting, the code that needs it reports that, with the setting's name.
        with contextlib.suppress(Exception):
            setting: str | None = quacc.get_settings().WORKFLOW_ENGINE
            return setting
    return environ.get("QUACC_WORKFLOW_ENGINE")


_runners: dict[tuple[int, Path, str], EngineRunner] = {}
#: The settings that core passed to the plugin, which may have changed them for the runner.
_settings: weakref.WeakKeyDictionary[EngineRunner, EngineSettings] = weakref.WeakKeyDictionary()
#: How long a plugin may take to describe itself, in seconds.
DESCRIBE_S = 15.0
#: The engines whose description is under way, by process and name.
_describing: dict[tuple[int, str], Future[EngineInfo]] = {}
#: A lock for each engine, so that a slow import delays no other engine; setdefault() is atomic.
_locks: dict[tuple[int, Path, str], threading.Lock] = {}


def runner_for(engine: str, configured: config.Config | None = None) -> EngineRunner:
    """Return the runner of an engine: one object for each engine, home and process.

    Raises `UnknownEngine`: no installed plugin provides it. `ImportError`: the plugin cannot load;
    its own error is chained. `PluginError`: the plugin breaks the rules.
    """
    settings = settings_of(engine, configured or config.load())
    plugins().require(engine)
    key = (os.getpid(), settings.home, engine)
    # The process is part of the key: a lock that was held at a fork is not the child's.
    with _locks.setdefault(key, threading.Lock()):
        runner = _runners.get(key)
        if runner is None or runner.closed:
            runner = _runners[key] = _make(settings)
        return runner


def made_with(runner: EngineRunner) -> EngineSettings:
    """Return the settings that a runner was made with, as the configuration file had them."""
    return _settings.get(runner, runner.settings)


def settings_of(engine: str, configured: config.Config) -> EngineSettings:
    """Return the settings of an engine from the configuration; `ConfigError` if one is unusable."""
    table = configured.engines.get(engine, {})
    parcel = table.get("parcel")
    if parcel is not None and (type(parcel) is not int or not 1 <= parcel <= MOST_PARCEL):
        raise ConfigError(
            f"[engines.{engine}] parcel must be a whole number from 1 to {MOST_PARCEL}, not "
            f"{parcel!r}"
        )
    clusters = configured.clusters_of(engine)
    return EngineSettings(
        name=engine,
        home=configured.home,
        options={name: value for name, value in table.items() if name not in OF_CORE},
        clusters=clusters,
        parcel=parcel,
    )


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
    _require_clusters(runner)
    _settings[runner] = settings
    return runner


def _require_clusters(runner: EngineRunner) -> None:
    """Refuse configured clusters for an engine that only has its own."""
    if unknown := sorted(set(runner.settings.clusters) - set(runner.clusters())):
        raise ConfigError(
            f"[clusters.{unknown[0]}] the engine {runner.settings.name!r} takes no clusters from "
            'the configuration file; an engine for batch systems does, as "parsl"'
        )


def close_all() -> None:
    """End all engines of this process, and their jobs with them."""
    for key, runner in list(_runners.items()):
        if key[0] == os.getpid():
            runner.close()
            # Only now: a close that was interrupted is tried again at the interpreter's exit.
            _runners.pop(key, None)


# Exit handlers run in reverse order. A closing engine claims attempts that no worker has claimed,
# in the name of this process's identity. The import above has registered the identity's removal,
# which therefore runs after this.
atexit.register(close_all)


def describe_engines() -> list[EngineInfo]:
    """Describe all installed engines; each is loaded, none is started.

    An engine whose plugin takes longer than `DESCRIBE_S` is described as still loading.
    """
    configured = config.load()
    chosen = get_workflow_engine() or "local"
    return [_describe_in_time(name, configured, chosen) for name in get_installed_engines()]


def _describe_in_time(name: str, configured: config.Config, chosen: str) -> EngineInfo:
    pending = _describing.get((os.getpid(), name))
    if pending is None:
        pending = _describing[os.getpid(), name] = Future()
        thread = threading.Thread(
            target=_answer, args=(pending, name, configured, chosen), daemon=True
        )
        thread.start()
    try:
        info = pending.result(DESCRIBE_S)
    except TimeoutError:
        late = f"it is still being loaded after {DESCRIBE_S:g} s"
        return _info(name, chosen, error=late, findings=[])
    _describing.pop((os.getpid(), name), None)
    return info


def _answer(pending: Future[EngineInfo], name: str, configured: config.Config, chosen: str) -> None:
    pending.set_result(_describe(name, configured, chosen))


def _describe(name: str, configured: config.Config, chosen: str) -> EngineInfo:
    error = None
    findings: list[Finding] = []
    try:
        plugin = plugins().engine(name)
        settings = settings_of(name, configured)
        for answer in plugins().call_engine(
            plugin, "crystalmath_engine_findings", settings=settings
        ):
            findings += answer
    except BaseException as caught:  # noqa: BLE001 - a stranger's plugin may raise anything
        error = f"{type(caught).__name__}: {caught}"
    return _info(name, chosen, error=error, findings=findings)


def _info(name: str, chosen: str, *, error: str | None, findings: list[Finding]) -> EngineInfo:
    entry = plugins().engine_entry(name)
    return EngineInfo(
        name=name,
        distribution=distribution_of(entry),
        version=entry.dist.version if entry.dist else "unknown",
        loads=error is None,
        error=error,
        findings=findings,
        configured=name == chosen,
    )
