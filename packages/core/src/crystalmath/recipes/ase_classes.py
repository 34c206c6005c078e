"""Optimizers and dynamics of ASE that parameters name; no other class is taken."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from crystalmath.errors import InvalidJob
from crystalmath.recipes.lookup import is_quaccs, nearest
from crystalmath.recipes.source import find_spec, locate, read_module

if TYPE_CHECKING:
    from collections.abc import Iterator

_HOMES = ("ase.optimize", "ase.md")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)*", re.ASCII)
#: A class, by its own name; quacc's names of ensembles (``nvt_langevin``) are in lower case.
_CLASS = re.compile(r"(ase\..*|[A-Z]\w*)", re.ASCII)


def class_named(name: str) -> type:
    """Return the optimizer or dynamics of ASE with a name; `InvalidJob`: there is none."""
    module, _, last = name.rpartition(".")
    if _NAME.fullmatch(name) and (not module or is_named_here(name)):
        for home in [module] if module else _HOMES:
            if (home in _HOMES or locate(home)) and (kind := _class(home, last)):
                return kind
        for home in () if module else _modules_with(last):
            if kind := _class(home, last):
                return kind
    known = [each for home in _HOMES for each in _exported(home)]
    raise InvalidJob(
        f"{name!r:.80} is no optimizer or dynamics of ase.optimize or ase.md{nearest(last, known)}"
    )


def is_named_here(name: str) -> bool:
    """Return whether a dotted name lies below ``ase.optimize`` or ``ase.md``, and in no test."""
    return name.startswith(tuple(f"{home}." for home in _HOMES)) and ".test" not in name


def with_classes(recipe: str, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return parameters of quacc's recipes with classes in the place of their names.

    ``optimizer`` in ``opt_params``, and ``dynamics``, name classes.

    Raises `InvalidJob`: there is no such class.
    """
    if not is_quaccs(recipe) or not _names_any(parameters):
        return parameters
    return {key: _value(value, str(key)) for key, value in parameters.items()}


def _names_any(parameters: Mapping[Any, Any]) -> bool:
    # Most jobs name no class; their parameters are not copied.
    return any(
        (key in {"optimizer", "dynamics"} and isinstance(value, str))
        or (isinstance(value, Mapping) and _names_any(value))
        for key, value in parameters.items()
    )


def _value(value: Any, place: str) -> Any:
    if isinstance(value, str) and _is_class(place, value):
        try:
            return class_named(value)
        except InvalidJob as error:
            raise InvalidJob(f"{place}: {error}") from error
    if isinstance(value, Mapping):
        return {inner: _value(item, f"{place}.{inner}") for inner, item in value.items()}
    return value


def _is_class(place: str, text: str) -> bool:
    *above, key = place.split(".")
    if key == "optimizer":
        return above[-1:] == ["opt_params"]
    return key == "dynamics" and bool(_CLASS.fullmatch(text))


def _class(module: str, name: str) -> type | None:
    from ase.optimize.optimize import BaseDynamics

    kind = getattr(importlib.import_module(module), name, None)
    return kind if isinstance(kind, type) and issubclass(kind, BaseDynamics) else None


def _modules_with(name: str) -> Iterator[str]:
    """Yield the modules whose source binds a name; their package may not import them."""
    for home in _HOMES:
        path = importlib.import_module(home).__path__
        for each in pkgutil.iter_modules(path, f"{home}."):
            spec = find_spec(each.name, path)
            if spec is not None and is_named_here(each.name) and name in read_module(spec).bindings:
                yield each.name


def _exported(home: str) -> list[str]:
    package = importlib.import_module(home)
    return [name for name in package.__all__ if _class(home, name)]
