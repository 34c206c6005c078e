"""Find the installed plugins, and load each only when it is needed."""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import re
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from crystalmath import entry_points_of, hookspecs
from crystalmath.errors import InvalidJob, PluginError, UnknownEngine
from crystalmath.models import Finding, Pseudopotential

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from importlib.metadata import EntryPoint

    from crystalmath.plugins.program import Program
    from crystalmath.plugins.progress_reader import ProgressReader

#: Entry-point group of the engines: name of the engine, its plugin.
ENGINES = "crystalmath.engines"
#: Entry-point group of all other plugins.
PLUGINS = "crystalmath.plugins"
#: An engine's name from which its package's name follows.
_ENGINE_NAME = re.compile(r"[a-z0-9]+([-_][a-z0-9]+)*", re.ASCII)


class Plugins:
    """The plugins of this environment.

    Listing them imports none. A plugin that cannot load is kept in `broken` with its error; the
    others work without it.
    """

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._entries: dict[str, Mapping[str, list[EntryPoint]]] = {}
        # The folders of sys.path with their times when engines were sought last.
        self._sought_in: list[tuple[str, int]] = []
        # The engines that were installed while this process ran.
        self._late: set[str] = set()
        self._loaded: dict[tuple[str, str], Any] = {}
        # A lock for each entry: while one is imported, others are loaded and used.
        self._loading: dict[tuple[str, str], threading.Lock] = {}
        self._registering = threading.Lock()
        #: Callers by group, plugin and hook; ``None`` if the plugin has no such hook.
        self._hooks: dict[tuple[str, str, str], pluggy.HookCaller | None] = {}
        self._programs: tuple[Program, ...] | None = None
        self._readers: Mapping[str, ProgressReader] | None = None
        #: The errors of plugins in the group ``crystalmath.plugins`` that could not be loaded.
        self.broken: dict[str, Exception] = {}

    def known_engine_names(self) -> list[str]:
        """List the names of the engines that were installed at the last look."""
        return sorted(self._installed(ENGINES))

    def engine_names(self) -> list[str]:
        """List the names of the installed engines, and those that are installed meanwhile."""
        if (now := _folder_times()) != self._sought_in:
            known = self._entries.get(ENGINES)
            importlib.invalidate_caches()
            found = _entries(ENGINES)
            if known is not None:
                self._late |= found.keys() - known.keys()
            # An engine that is being upgraded is away for a moment.
            self._entries[ENGINES] = {**found, **(known or {})}
            self._sought_in = now
        return sorted(self._entries[ENGINES])

    def engine(self, name: str) -> Any:
        """Load the plugin of one engine.

        `UnknownEngine`: no plugin provides it; `ImportError`: a module that it needs is missing.
        `PluginError`: two distributions provide it, its import raises, or its hooks are invalid.
        """
        self.require(name)
        return self._load(ENGINES, self._installed(ENGINES)[name])

    def engine_entry(self, name: str) -> EntryPoint:
        """Return the entry point of an installed engine."""
        return self._installed(ENGINES)[name][0]

    def plugin(self, name: str) -> Any:
        """Load a plugin of `PLUGINS`; it raises as `engine` does, and `PluginError` if unknown."""
        installed = self._installed(PLUGINS)
        if name not in installed:
            known = ", ".join(sorted(installed))
            raise PluginError(f"there is no plugin {name!r} in {PLUGINS}; installed are: {known}")
        return self._load(PLUGINS, installed[name])

    def require(self, name: str) -> None:
        """Raise `UnknownEngine` if an engine is not installed, without loading it."""
        if name in self._installed(ENGINES) or name in self.engine_names():
            return
        names = ", ".join(self.engine_names())
        name = str(name)[:80]
        near = difflib.get_close_matches(name, self.engine_names(), 1)
        hint = f"Did you mean {near[0]!r}?" if near else how_to_install(name)
        raise UnknownEngine(
            f"no installed plugin provides the engine {name!r}; installed are: {names}. {hint}"
        )

    def call_engine(self, plugin: Any, hook: str, **arguments: Any) -> Any:
        """Call a hook of one engine's plugin only."""
        return self._only(plugin, hook)(**arguments)

    def preflight(self, **arguments: Any) -> list[Finding]:
        """Run the checks of all plugins but the engines.

        A plugin that cannot load, or fails, is named in a warning, and the others go on. If a check
        raises `InvalidJob`, the job is refused with its message.
        """
        findings = self.unusable()
        for name in self._usable():
            findings += self._ask(PLUGINS, name, "crystalmath_preflight", Finding, arguments)
        return findings

    def engine_preflight(self, engine: str, **arguments: Any) -> list[Finding]:
        """Run the checks of a job's engine; it raises as `engine` does."""
        self.engine(engine)
        return list(self._ask(ENGINES, engine, "crystalmath_preflight", Finding, arguments))

    def pseudopotentials(self, **arguments: Any) -> list[Pseudopotential | Finding]:
        """Return the pseudopotential files that a job reads; a warning for a plugin that fails."""
        files: list[Pseudopotential | Finding] = []
        hook = "crystalmath_pseudopotentials"
        for name in self._usable():
            files += self._ask(PLUGINS, name, hook, Pseudopotential, arguments)
        return files

    def programs(self) -> tuple[Program, ...]:
        """Return the programs that plugins know and recipes run; each name has one."""
        if self._programs is None:
            by_name: dict[str, Program] = {}
            self._gather("crystalmath_programs", lambda programs: _take_programs(programs, by_name))
            self._programs = tuple(by_name.values())
        return self._programs

    def progress_readers(self) -> Mapping[str, ProgressReader]:
        """Return the progress readers by their files' names; of two for a file the first."""
        if self._readers is None:
            by_file: dict[str, ProgressReader] = {}
            self._gather(
                "crystalmath_progress_readers", lambda readers: _take_readers(readers, by_file)
            )
            self._readers = by_file
        return self._readers

    def _gather(self, hook: str, take: Callable[[list[Any]], None]) -> None:
        """Pass the answers of each plugin to `take`; a plugin is broken if either raises."""
        for name in self._usable():
            self._call(name, functools.partial(self._take_from, name, hook, take))

    def _take_from(self, name: str, hook: str, take: Callable[[list[Any]], None]) -> None:
        answers = self._only(self._loaded[PLUGINS, name], hook)()
        take([each for answer in answers for each in answer])

    def _call(self, name: str, function: Callable[[], object]) -> None:
        """Call a stranger's code for a plugin, which is broken if that raises."""
        if (error := _error_of(function)) is not None:
            self.broken[name] = _exits(error) if isinstance(error, SystemExit) else error

    def unusable(self) -> list[Finding]:
        """Load all plugins but the engines, and return a finding for each that is broken."""
        self._usable()
        return [self._unusable(name, error) for name, error in self.broken.items()]

    def _usable(self) -> list[str]:
        for name, candidates in self._installed(PLUGINS).items():
            if name not in self.broken:
                self._call(name, functools.partial(self._load, PLUGINS, candidates))
        return [name for name in self._installed(PLUGINS) if name not in self.broken]

    def _ask(
        self, group: str, name: str, hook: str, kind: type[Any], arguments: Mapping[str, Any]
    ) -> Iterator[Any]:
        """Call a hook of one plugin, if it has it, and check the type of each answer."""
        call = self._hook_of(group, name, hook)
        if call is None:
            return
        items: list[Any] = []

        def collect() -> None:
            items.extend(item for answer in call(**arguments) for item in answer)

        error = _error_of(collect)
        if error is None and (odd := [item for item in items if not isinstance(item, kind)]):
            error = TypeError(f"{hook} returned {odd[0]!r:.80}, and not a {kind.__name__}")
        if isinstance(error, InvalidJob):
            raise error
        if error is not None:
            owner = self._owner(group, name)
            what = f"the plugin {name!r} of {owner!r} failed in {hook}"
            yield _not_checked("plugin_failed", what, error, f"mend or uninstall {owner}")
            return
        yield from items

    def _hook_of(self, group: str, name: str, hook: str) -> pluggy.HookCaller | None:
        """Return a hook of a loaded plugin, or ``None``. Each job asks for nine hooks."""
        key = (group, name, hook)
        known = self._hooks
        if key not in known:
            plugin = self._loaded[group, name]
            implemented = getattr(self._manager.hook, hook).get_hookimpls()
            has = any(each.plugin is plugin for each in implemented)
            known[key] = self._only(plugin, hook) if has else None
        return known[key]

    def _only(self, plugin: Any, hook: str) -> pluggy.HookCaller:
        others = [other for other in self._manager.get_plugins() if other is not plugin]
        return self._manager.subset_hook_caller(hook, others)

    def _unusable(self, name: str, error: Exception) -> Finding:
        owner = self._owner(PLUGINS, name)
        what = f"the plugin {name!r} of {owner!r} cannot be used"
        return _not_checked("plugin_unusable", what, error, f"mend or uninstall {owner}")

    def _owner(self, group: str, name: str) -> str:
        return distribution_of(self._installed(group)[name][0])

    def _installed(self, group: str) -> Mapping[str, list[EntryPoint]]:
        # Kept, as reading the metadata of all distributions takes milliseconds.
        if group not in self._entries:
            self._entries[group] = _entries(group)
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
                plugin = _import(entry, is_late=entry.name in self._late)
                with self._registering:
                    if not self._manager.is_registered(plugin):
                        self._register(plugin, entry)
                self._loaded[key] = plugin
        return self._loaded[key]

    def _register(self, plugin: Any, entry: EntryPoint) -> None:
        try:
            self._manager.register(plugin, name=f"{entry.group}:{entry.name}")
            self._manager.check_pending()
            # Callers of single plugins that were made before would call this plugin, too.
            self._hooks = {}
        except pluggy.PluginValidationError as error:
            if self._manager.is_registered(plugin):
                self._manager.unregister(plugin)
            raise PluginError(
                f"the plugin {entry.name!r} of {distribution_of(entry)!r} breaks the rules: {error}"
            ) from error


def _entries(group: str) -> Mapping[str, list[EntryPoint]]:
    entries: dict[str, dict[str, EntryPoint]] = {}
    for entry in entry_points_of(group):
        # The same distribution may be found twice along sys.path.
        entries.setdefault(entry.name, {}).setdefault(distribution_of(entry), entry)
    return {name: list(each.values()) for name, each in entries.items()}


def _folder_times() -> list[tuple[str, int]]:
    times = []
    for folder in sys.path:
        with contextlib.suppress(OSError):
            times.append((folder, Path(folder).stat().st_mtime_ns))
    return times


def _import(entry: EntryPoint, *, is_late: bool) -> Any:
    try:
        return entry.load()
    except ImportError as error:
        if is_late:
            raise ImportError(
                f"{error}; it was installed while this process ran: `crystalmath stop` ends the "
                "server, and the next command starts one that has it"
            ) from error
        raise
    except Exception as error:
        raise PluginError(
            f"the plugin {entry.name!r} of {distribution_of(entry)!r} cannot be imported: "
            f"{type(error).__name__}: {error}"
        ) from error


def _error_of(function: Callable[[], object]) -> Exception | SystemExit | None:
    """Call a stranger's code, and return its error."""
    try:
        function()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the other plugins go on
        return error
    return None


def _exits(error: SystemExit) -> PluginError:
    return PluginError(f"it ends the program when it is imported: SystemExit({error.code!r})")


def _take_programs(programs: Iterable[Program], by_name: dict[str, Program]) -> None:
    for program in programs:
        if program.name in by_name:
            other = type(by_name[program.name]).__module__
            raise PluginError(f"the program {program.name!r} is known by {other} already")
        by_name[program.name] = program


def _take_readers(readers: Iterable[ProgressReader], by_file: dict[str, ProgressReader]) -> None:
    for reader in readers:
        by_file.setdefault(reader.file, reader)


def _not_checked(code: str, what: str, error: BaseException, remedy: str) -> Finding:
    why = " ".join(f"{type(error).__name__}: {error}".split())
    return Finding(
        severity="warning",
        code=code,
        message=f"{what}, so that its checks were not made: {why[:500]}",
        remedy=remedy,
    )


def is_engine_name(name: str) -> bool:
    """Return whether an engine could have this name: lower-case words with dashes between them."""
    return _ENGINE_NAME.fullmatch(name) is not None


def how_to_install(name: str) -> str:
    """Return a sentence with the package that an engine of ours would have.

    It is no command to be copied: anybody could register the name of an engine that is not ours.
    """
    listed = "`crystalmath engines` lists the installed ones"
    if name.lower() in {"slurm", "pbs", "lsf", "flux"}:
        return (
            f"{name} is a batch system. Jobs reach it by `--cluster NAME` of config.toml; "
            f"`crystalmath clusters init {name.lower()}` writes one"
        )
    if not is_engine_name(name):
        return f"An engine is a package of its own; {listed}"
    package = f"crystalmath-engine-{name.replace('_', '-')}"
    return f"If it is one of CrystalMath's own, the package {package} brings it; {listed}"


def distribution_of(entry: EntryPoint) -> str:
    """Name the distribution that registered an entry point."""
    return entry.dist.name if entry.dist else entry.value


@functools.cache
def plugins() -> Plugins:
    """Return this process's plugins."""
    return Plugins()
