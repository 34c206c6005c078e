"""Detection of changes that a job made in the libraries of a warm process.

Every module of ASE and quacc is recorded as soon as it has been imported: its functions, classes,
numbers, texts and tables, and those of its classes. Modules of an admitted namespace are recorded,
too, but for likely caches (private, empty, or of objects): a potential that is loaded once is no
change. For numpy and `math` only the objects behind their names are recorded.

A change is not undone: it may have come with the import of another module, which would not be
imported again. Instead the process is replaced by a fresh one.
"""

from __future__ import annotations

import copy
import ctypes
import functools
import gc
import operator
import sys
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: The recorded libraries.
LIBRARIES = ("ase", "quacc")
#: Larger arrays are data that a job loaded, in bytes.
_ARRAY = 1 << 16
#: The depth to which a table is compared.
_DEPTH = 8
#: Types of values that are rebound only to change a library's behaviour.
_FIXED = (
    *(float, complex, str, bytes, tuple, types.FunctionType, types.BuiltinFunctionType, type),
    *(property, staticmethod, classmethod, functools.cached_property),
)
_ATOMS = "ase.atoms.Atoms"
#: Modules whose functions are recorded once the process is warm, if they are imported.
_FUNCTIONS = ("math", "random", "numpy", "numpy.linalg", "numpy.fft", "numpy.random")

_TABLES = (dict, list, set)
_Read = Callable[[Any], Any]


class Pristine:
    """The libraries as they were imported."""

    def __init__(self) -> None:
        # By module or class: a function that reads all names at once, their dict, and their values.
        self._bound: dict[str, tuple[_Read, Mapping[str, Any] | type, tuple[Any, ...]]] = {}
        self._names: dict[str, list[str]] = {}
        # The version counters of these dicts, and their values after the last full comparison.
        self._versions: list[ctypes.c_uint64] = []
        self._seen: list[int] = []
        # Tables and arrays, once each: name, how to read it, the object, and its first content.
        self._held: dict[int, tuple[str, _Read, Any, Any]] = {}
        # The tables among them, and their copies: two lists are compared at once.
        self._tables: list[Any] = []
        self._copies: list[Any] = []
        # The arrays among them, and their joined contents; arrays with gaps are apart.
        self._arrays: list[Any] = []
        self._bytes = b""
        self._gaps: list[tuple[Any, bytes]] = []

    def add(self, module: types.ModuleType, *, own: bool = False) -> None:
        """Record a module that has just been imported.

        With `own` it belongs to an admitted namespace, and may keep data that it has loaded.
        """
        self._look(module.__name__, vars(module), in_class=False, own=own)
        for value in list(vars(module).values()):
            if isinstance(value, type) and value.__module__ == module.__name__:
                place = f"{module.__name__}.{value.__qualname__}"
                self._look(place, vars(value), in_class=True, own=own)
                if place == _ATOMS:
                    self._look_at_inherited(place, value)
        if module.__name__ == "ase.config":
            self._look_at_settings(vars(module).get("cfg"))

    def add_functions(self) -> None:
        """Record the functions of other libraries, which a job may rebind."""
        for place in _FUNCTIONS:
            module = sys.modules.get(place)
            if module is not None:
                self._bind(place, vars(module), [*filter(_is_function(module), vars(module))])

    def changed(self) -> str | None:
        """Return the name of something that has changed, if anything has."""
        versions = list(map(_number, self._versions))
        try:
            same = (_HAS_VERSIONS and versions == self._seen) or all(
                read(names) == values for read, names, values in self._bound.values()
            )
            same = same and self._tables == self._copies
            same = same and b"".join(self._arrays) == self._bytes
            if same and all(bytes(array) == content for array, content in self._gaps):
                self._seen = versions
                return None
        except (AttributeError, BufferError, KeyError, ValueError):  # deleted; an array instead
            pass
        return next(self._changes(), "something in ASE or quacc")

    def _changes(self) -> Iterator[str]:
        for place, (_, variables, values) in self._bound.items():
            for name, value in zip(self._names[place], values, strict=True):
                if isinstance(variables, type):
                    now = getattr(variables, name, None)
                else:
                    now = variables.get(name)
                if now is not value:
                    yield f"{place.partition(',')[0]}.{name}"
        for place, read, it, content in self._held.values():
            try:
                same = bool(read(it) == content)
            except ValueError:
                same = False
            if not same:
                yield place

    def _look(self, place: str, variables: Mapping[str, Any], *, in_class: bool, own: bool) -> None:
        fixed = []
        for name, value in list(variables.items()):
            if name.startswith("__"):
                continue
            content = _content(value)
            # A list of names alone may be a register that others add to.
            held = content is not None and (in_class or _has_number(value))
            if not held and not own and not name.startswith("_") and isinstance(value, _TABLES):
                content, held = copy.copy(value), True
            if content is not None or _is_fixed(name, value):
                fixed.append(name)
            if held:
                self._hold(f"{place}.{name}", value, content)
        self._bind(place, variables, fixed)

    def _look_at_inherited(self, place: str, kind: type) -> None:
        """Record the inherited members of a class: a member of its own would hide them."""
        names = [
            name
            for name in dir(kind)
            if not name.startswith("__")
            and name not in vars(kind)
            and isinstance(getattr(kind, name), _FIXED)
        ]
        if names:
            names = [*names, names[0]]
            read: _Read = operator.attrgetter(*names)
            self._bound[f"{place}, inherited"] = read, kind, read(kind)
            self._names[f"{place}, inherited"] = names
            self._versions += [_version(vars(each)) for each in kind.__mro__]

    def _look_at_settings(self, settings: Any) -> None:
        """Record ASE's configuration."""
        sections = getattr(getattr(settings, "parser", None), "_sections", None)
        if isinstance(sections, dict):
            self._hold("ase.config.cfg", sections, copy.deepcopy(sections))

    def _hold(self, place: str, value: Any, content: Any) -> None:
        if id(value) in self._held:
            return
        is_array = isinstance(content, bytes)
        self._held[id(value)] = place, bytes if is_array else _itself, value, content
        if is_array and value.flags.c_contiguous:
            self._arrays.append(value)
            self._bytes += content
        elif is_array:
            self._gaps.append((value, content))
        else:
            self._tables.append(value)
            self._copies.append(content)

    def _bind(self, place: str, variables: Mapping[str, Any], names: list[str]) -> None:
        if names:
            names = [*names, names[0]]  # itemgetter returns no tuple for a single name
            read: _Read = operator.itemgetter(*names)
            self._bound[place] = read, variables, read(variables)
            self._names[place] = names
            self._versions.append(_version(variables))


def _version(variables: Mapping[str, Any]) -> ctypes.c_uint64:
    """Return the counter of changes that CPython up to 3.13 keeps in a dict."""
    # A class has a read-only view of its dict.
    if isinstance(variables, types.MappingProxyType):
        (variables,) = gc.get_referents(variables)
    # It comes after the number of references, the type, and the number of entries.
    return ctypes.c_uint64.from_address(id(variables) + 3 * ctypes.sizeof(ctypes.c_ssize_t))


_number = operator.attrgetter("value")


def _has_versions() -> bool:
    """Return whether this interpreter keeps these counters."""

    class Changed:
        name = 0

    version = _version(vars(Changed))
    seen = [version.value]
    for number in (1, 2, 3):
        Changed.name = number
        seen.append(version.value)
    del Changed.name
    return len({*seen, version.value}) == len(seen) + 1


_HAS_VERSIONS = _has_versions()


def _is_function(module: types.ModuleType) -> Callable[[str], bool]:
    return lambda name: not name.startswith("_") and callable(vars(module)[name])


def _itself(table: Any) -> Any:
    return table


def _is_fixed(name: str, value: object) -> bool:
    # A private whole number may be a counter or a flag.
    return isinstance(value, _FIXED) or (isinstance(value, int) and not name.startswith("_"))


def _content(value: Any) -> Any:
    """Return a copy of a table of plain data; ``None`` for other values and empty tables."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.ndarray):
        is_small = value.dtype.kind in "biufc" and 0 < value.nbytes <= _ARRAY
        return value.tobytes() if is_small else None
    is_table = isinstance(value, _TABLES) and value and _is_plain(value, _DEPTH)
    return copy.deepcopy(value) if is_table else None


def _is_plain(value: object, depth: int) -> bool:
    if isinstance(value, dict):
        return _is_plain([*value, *value.values()], depth)
    if isinstance(value, (list, set, tuple)):
        return depth > 0 and all(_is_plain(each, depth - 1) for each in value)
    return value is None or isinstance(value, (int, float, complex, str))


def _has_number(value: Any) -> bool:
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, set, tuple)):
        return value is not None and not isinstance(value, str)
    return any(map(_has_number, value))
