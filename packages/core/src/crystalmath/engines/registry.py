"""Who is here: the plugins that are installed, loaded one at a time and only when needed."""

from __future__ import annotations

import difflib
import functools
import threading
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

import pluggy

from crystalmath import hookspecs
from crystalmath.errors import PluginError, UnknownEngine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crystalmath.models import Finding, Pseudopotential

__all__ = ["ENGINES", "PLUGINS", "Plugins", "distribution_of", "how_to_install", "plugins"]

#: Entry-point group of the engines: name of the engine, its plugin.
ENGINES = "crystalmath.engines"
#: Entry-point group of all other plugins.
PLUGINS = "crystalmath.plugins"
#: The engines that are published with core, each in a package of its own.
_PUBLISHED = ("covalent", "parsl")


class Plugins:
    """The plugins of this environment.

    Listing them imports none; a plugin that cannot load is kept in `broken` with its reason and
    hinders nothing else.
    """

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._entries: dict[str, Mapping[str, list[EntryPoint]]] = {}
        self._loaded: dict[tuple[str, str], Any] = {}
        # One for each entry: while one is imported, others are loaded and used.
        self._loading: dict[tuple[str, str], threading.Lock] = {}
        self._registering = threading.Lock()
        #: Plugins of the group ``crystalmath.plugins`` that could not be loaded, and why.
        self.broken: dict[str, Exception] = {}

    def engine_names(self) -> list[str]:
        """List the names of the installed engines."""
        return sorted(self._installed(ENGINES))

    def engine(self, name: str) -> Any:
        """Load the plugin of one engine.

        Raises
        ------
        UnknownEngine
            Nobody provides it.
        ImportError
            A module that it needs is missing.
        PluginError
            Two distributions provide it, its import raises, or it breaks the rules of hooks.
        """
        self.require(name)
        return self._load(ENGINES, self._installed(ENGINES)[name])

    def require(self, name: str) -> None:
        """See that an engine is installed, without loading it.

        Raises
        ------
        UnknownEngine
            Nobody provides it.
        """
        if name in self._installed(ENGINES):
            return
        names = ", ".join(self.engine_names())
        name = str(name)[:80]
        near = difflib.get_close_matches(name, self.engine_names(), 1)
        hint = f"Did you mean {near[0]!r}?" if near else how_to_install(name)
        raise UnknownEngine(
            f"no installed plugin provides the engine {name!r}; installed are: {names}. {hint}"
        )

    def call_engine(self, plugin: Any, hook: str, **arguments: Any) -> Any:
        """Call a hook of one engine's plugin and of no other."""
        others = [other for other in self._manager.get_plugins() if other is not plugin]
        return self._manager.subset_hook_caller(hook, others)(**arguments)

    def preflight(self, **arguments: Any) -> list[Finding]:
        """Ask all preflight checks; the engines' own that are loaded, too."""
        return self._ask_all("crystalmath_preflight", arguments)

    def pseudopotentials(self, **arguments: Any) -> list[Pseudopotential]:
        """Ask which pseudopotential files a job reads."""
        return self._ask_all("crystalmath_pseudopotentials", arguments)

    def _ask_all(self, hook: str, arguments: Mapping[str, Any]) -> list[Any]:
        for name, candidates in self._installed(PLUGINS).items():
            if name not in self.broken:
                try:
                    self._load(PLUGINS, candidates)
                except Exception as error:  # noqa: BLE001 - whatever a stranger's import raises
                    self.broken[name] = error
        answers = getattr(self._manager.hook, hook)(**arguments)
        return [item for answer in answers for item in answer]

    def _installed(self, group: str) -> Mapping[str, list[EntryPoint]]:
        # Reading the metadata of all distributions takes milliseconds: once, not once a job.
        if group not in self._entries:
            found: dict[str, dict[str, EntryPoint]] = {}
            for entry in entry_points(group=group):
                # The same distribution may be found twice along sys.path.
                found.setdefault(entry.name, {}).setdefault(distribution_of(entry), entry)
            self._entries[group] = {name: list(each.values()) for name, each in found.items()}
        return self._entries[group]

    def _load(self, group: str, candidates: list[EntryPoint]) -> Any:
        entry = candidates[0]
        if len(candidates) > 1:
            owners = " and ".join(repr(distribution_of(other)) for other in candidates)
            raise PluginError(
                f"the name {entry.name!r} of {group} is provided by {owners}; uninstall one"
            )
        key = (group, entry.name)
        if key in self._loaded:
            return self._loaded[key]
        with self._loading.setdefault(key, threading.Lock()):  # setdefault() is atomic
            if key not in self._loaded:
                plugin = _import(entry)
                with self._registering:
                    if not self._manager.is_registered(plugin):
                        self._register(plugin, entry)
                self._loaded[key] = plugin
        return self._loaded[key]

    def _register(self, plugin: Any, entry: EntryPoint) -> None:
        try:
            self._manager.register(plugin, name=f"{entry.group}:{entry.name}")
            self._manager.check_pending()
        except pluggy.PluginValidationError as error:
            if self._manager.is_registered(plugin):
                self._manager.unregister(plugin)
            raise PluginError(
                f"the plugin {entry.name!r} of {distribution_of(entry)!r} breaks the rules: {error}"
            ) from error


def _import(entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except ImportError:
        raise
    except Exception as error:
        raise PluginError(
            f"the plugin {entry.name!r} of {distribution_of(entry)!r} cannot be imported: "
            f"{type(error).__name__}: {error}"
        ) from error


def how_to_install(name: str) -> str:
    """Say how an engine comes to be there.

    A package is named only where it is one of ours: anybody could register the name of another.
    """
    if name in _PUBLISHED:
        return f"It is a package of its own: `pip install crystalmath-engine-{name}`"
    return "An engine is a package of its own; `crystalmath engines` lists those that are installed"


def distribution_of(entry: EntryPoint) -> str:
    """Name the distribution that registered an entry point."""
    return entry.dist.name if entry.dist else entry.value


@functools.cache
def plugins() -> Plugins:
    """Give this process's plugins."""
    return Plugins()
