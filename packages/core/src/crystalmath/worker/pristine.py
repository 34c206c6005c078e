"""What a job may have changed in the libraries of a warm process, noticed after it.

Every module of ASE and quacc is looked at as soon as it has been imported: its functions, classes,
numbers and texts, its tables of plain data, and those of its classes. What differs after a job is
not put back: the change may have come with the import of another module, which would not be
imported again. The process is replaced instead, and the next job finds what a fresh one has.
"""

from __future__ import annotations

import copy
import operator
import sys
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["LIBRARIES", "Pristine"]

#: The libraries that are looked at.
LIBRARIES = ("ase", "quacc")
#: Larger arrays are data that somebody loaded, in bytes.
_ARRAY = 1 << 16
#: So deep a table is looked into.
_DEPTH = 4
#: What nobody binds anew but to change what a library does.
_FIXED = (float, complex, str, bytes, tuple, types.FunctionType, types.BuiltinFunctionType, type)

_Read = Callable[[Any], Any]


class Pristine:
    """The libraries as they were imported."""

    def __init__(self) -> None:
        # By module or class: how to read its names at one go, from where, and what they were.
        self._bound: dict[str, tuple[_Read, Mapping[str, Any], tuple[Any, ...]]] = {}
        self._names: dict[str, list[str]] = {}
        # Once each, whatever its names: what it is, how to read it, and what it held.
        self._held: dict[int, tuple[str, _Read, Any, Any]] = {}

    def add(self, module: types.ModuleType) -> None:
        """Look at a module that has just been imported."""
        self._look(module.__name__, vars(module), in_class=False)
        for value in list(vars(module).values()):
            if isinstance(value, type) and value.__module__ == module.__name__:
                self._look(f"{module.__name__}.{value.__qualname__}", vars(value), in_class=True)

    def changed(self) -> str | None:
        """Name something that is not as it was, if anything is."""
        try:
            same = all(read(names) == values for read, names, values in self._bound.values())
            if same and all(read(it) == content for _, read, it, content in self._held.values()):
                return None
        except (KeyError, ValueError):  # deleted; an array instead
            pass
        return next(self._changes(), "something in ASE or quacc")

    def _changes(self) -> Iterator[str]:
        for place, (_, variables, values) in self._bound.items():
            for name, value in zip(self._names[place], values, strict=True):
                if variables.get(name) is not value:
                    yield f"{place}.{name}"
        for place, read, it, content in self._held.values():
            try:
                same = bool(read(it) == content)
            except ValueError:
                same = False
            if not same:
                yield place

    def _look(self, place: str, variables: Mapping[str, Any], *, in_class: bool) -> None:
        fixed = []
        for name, value in list(variables.items()):
            if name.startswith("__"):
                continue
            content = _content(value)
            if content is not None or _is_fixed(name, value):
                fixed.append(name)
            # A list of names alone may be one that others are entered into.
            if content is not None and (in_class or _has_number(value)):
                self._held.setdefault(
                    id(value), (f"{place}.{name}", _reader(content), value, content)
                )
        if fixed:
            fixed.append(fixed[0])  # of one name alone, itemgetter gives no tuple
            read: _Read = operator.itemgetter(*fixed)
            self._bound[place] = read, variables, read(variables)
            self._names[place] = fixed


def _reader(content: Any) -> _Read:
    return bytes if isinstance(content, bytes) else _itself


def _itself(table: Any) -> Any:
    return table


def _is_fixed(name: str, value: object) -> bool:
    # A private whole number may be one that counts, or says that something was done.
    return isinstance(value, _FIXED) or (isinstance(value, int) and not name.startswith("_"))


def _content(value: Any) -> Any:
    """Copy a table of plain data; ``None`` for all else, and for what is empty."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.ndarray):
        is_small = value.dtype.kind in "biufc" and 0 < value.nbytes <= _ARRAY
        return value.tobytes() if is_small else None
    is_table = isinstance(value, (dict, list, set)) and value and _is_plain(value, _DEPTH)
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
