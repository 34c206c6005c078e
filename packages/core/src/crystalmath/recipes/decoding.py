"""Build the objects that the tags in ``codec`` name, and no others."""

from __future__ import annotations

import base64
import datetime as dt
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from crystalmath.errors import InvalidJob
from crystalmath.recipes.ase_classes import class_named, is_named_here
from crystalmath.recipes.asejson_reading import decode_atoms
from crystalmath.recipes.encoding import MAX_DEPTH, Sentinel, StrictEncoder, place_name
from crystalmath.recipes.json_arrays import array_from

_TAGS = frozenset(("@module", "@class", "@callable", "@bound", "@object_reference", "@version"))

Recurse = Callable[[Any], Any]


def _array_from(node: Mapping[str, Any], _: Recurse) -> Any:
    dtype, data = node["dtype"], node["data"]
    if not isinstance(dtype, str):
        raise TypeError("the type of an array must be a string")
    if not dtype.startswith("complex"):
        shape, items = _flat(data)
        return array_from(node.get("shape", shape), dtype, items)
    (shape, real), (other, imaginary) = map(_flat, data)
    if shape != other:
        raise ValueError("real and imaginary part of an array differ in shape")
    items = [part for pair in zip(real, imaginary, strict=True) for part in pair]
    return array_from(node.get("shape", shape), dtype, items)


def _flat(data: Any) -> tuple[list[int], list[Any]]:
    shape: list[int] = []
    items = data if isinstance(data, list) else [data]
    inner = data
    while isinstance(inner, list):
        shape.append(len(inner))
        inner = inner[0] if inner else None
    for length in shape[1:]:
        if not all(isinstance(row, list) and len(row) == length for row in items):
            raise ValueError("the rows of an array differ in length")
        items = [item for row in items for item in row]
    return shape, items


def _result_array(node: Mapping[str, Any], recurse: Recurse) -> Any:
    import numpy as np

    dtype, shape = np.dtype(node["dtype"]), node.get("shape")
    if dtype.kind == "c":
        real, imaginary = (np.array(part, dtype=float) for part in node["data"])
        array = np.empty(real.shape, dtype)
        array.real, array.imag = real, imaginary
    else:
        data = recurse(node["data"]) if dtype.kind == "O" else node["data"]
        array = np.array(data, dtype=dtype)
    return array if shape is None else array.reshape(shape)


def _atoms_from(node: Mapping[str, Any], recurse: Recurse) -> Any:
    if "data" in node:
        return decode_atoms(node["data"])
    atoms = decode_atoms(_string(node["atoms_json"]))
    atoms.info = dict(recurse(node.get("atoms_info", {})))
    return atoms


def _result_atoms(node: Mapping[str, Any], recurse: Recurse) -> Any:
    atoms = decode_atoms(node["atoms_json"], finite=False)
    atoms.info = recurse(node["atoms_info"])
    return atoms


def _complex_from(node: Mapping[str, Any], recurse: Recurse) -> complex:
    real, imaginary = recurse(node["data"])
    return complex(real, imaginary)


def _dict_from(node: Mapping[str, Any], recurse: Recurse) -> dict[Any, Any]:
    return {recurse(key): recurse(item) for key, item in node["items"]}


def _quacc_from(node: Mapping[str, Any], _: Recurse) -> Any:
    import quacc

    return getattr(quacc, node["@class"])


#: Those that numpy's own documentation names; a state of any other is refused.
_BIT_GENERATORS = frozenset(("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"))


def _generator_from(node: Mapping[str, Any], recurse: Recurse) -> Any:
    import numpy as np

    state = recurse(node["state"])
    name = state["bit_generator"]
    if name not in _BIT_GENERATORS:
        raise ValueError(f"numpy has no bit generator {name!r:.80}")
    bits = getattr(np.random, name)()
    bits.state = state
    return np.random.Generator(bits)


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no string")
    return value


Builder = Callable[[Mapping[str, Any], Recurse], Any]
_BUILDERS: dict[tuple[Any, Any], Builder] = {
    ("numpy", "array"): _array_from,
    ("pymatgen.io.ase", "MSONAtoms"): _atoms_from,
    ("ase.atoms", "Atoms"): _atoms_from,
    ("pathlib", "Path"): lambda node, _: Path(_string(node["string"])),
    ("datetime", "datetime"): lambda node, _: dt.datetime.fromisoformat(node["string"]),
    ("datetime", "date"): lambda node, _: dt.date.fromisoformat(node["string"]),
    ("builtins", "complex"): _complex_from,
    ("builtins", "tuple"): lambda node, recurse: tuple(recurse(node["data"])),
    ("builtins", "set"): lambda node, recurse: set(recurse(node["data"])),
    ("builtins", "frozenset"): lambda node, recurse: frozenset(recurse(node["data"])),
    ("builtins", "bytes"): lambda node, _: base64.b64decode(node["data"], validate=True),
    ("builtins", "dict"): _dict_from,
    ("numpy.random", "Generator"): _generator_from,
    ("quacc", "Remove"): _quacc_from,
    ("quacc", "QuaccDefault"): _quacc_from,
}
_REQUEST_BUILDERS: dict[tuple[Any, Any], Builder] = _BUILDERS | {
    ("quacc", name): lambda node, _: Sentinel(node["@class"]) for name in ("Remove", "QuaccDefault")
}
# Our own worker's data: trusted, and it may hold what is not finite.
RESULT_BUILDERS: dict[tuple[Any, Any], Builder] = _BUILDERS | {
    ("numpy", "array"): _result_array,
    ("pymatgen.io.ase", "MSONAtoms"): _result_atoms,
    ("builtins", "float"): lambda node, _: float(node["string"]),
}


def as_monty_writes(value: Any) -> Any:
    """Build what is tagged as ``builtins``: an object's own ``from_dict`` knows monty's tags alone.

    What is a tuple in the object becomes a list, as in monty's JSON.
    """
    if isinstance(value, list):
        return [as_monty_writes(item) for item in value]
    if not isinstance(value, dict):
        return value
    tag = (value.get("@module"), value.get("@class"))
    if tag[0] == "builtins" and tag in RESULT_BUILDERS:
        build = RESULT_BUILDERS[tag]
        built = build(value, as_monty_writes)
        return list(built) if isinstance(built, tuple) else built
    return {key: as_monty_writes(item) for key, item in value.items()}


class Decoder:
    """Builds what the tags in the table above name, and nothing else."""

    builders: Mapping[tuple[Any, Any], Builder] = _BUILDERS

    def decode(self, value: Any, place: tuple[Any, ...]) -> Any:
        """Decode a value; ``place`` is where it stands, for messages."""
        if len(place) > 2 * MAX_DEPTH:
            raise InvalidJob(f"{place_name(place)}: nested too deeply")
        if isinstance(value, dict):
            return self._dict(value, place)
        if isinstance(value, list):
            return [self.decode(item, (*place, index)) for index, item in enumerate(value)]
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidJob(f"{place_name(place)}: {value!r} is not finite")
        return self.scalar(value, place)

    def scalar(self, value: Any, place: tuple[Any, ...]) -> Any:
        """Take what is neither dict nor list."""
        if value is None or isinstance(value, (str, bool, int, float)):
            return value
        raise InvalidJob(f"{place_name(place)}: {type(value).__name__} is no JSON")

    def check_key(self, key: Any, place: tuple[Any, ...]) -> None:
        """Refuse a key of a plain dict."""

    def _dict(self, value: dict[Any, Any], place: tuple[Any, ...]) -> Any:
        if "@module" in value:
            return self._tagged(value, place)
        for key in value:
            self.check_key(key, place)
        return {key: self.decode(item, (*place, key)) for key, item in value.items()}

    def _tagged(self, node: dict[Any, Any], place: tuple[Any, ...]) -> Any:
        if isinstance(name := node.get("@callable"), str):
            return self._class(node, name, place)
        tag = (_hashable(node["@module"]), _hashable(node.get("@class")))
        build = self.builders.get(tag)
        strange = _TAGS & (node.keys() - {"@module", "@class", "@version"})
        if build is None or strange:
            raise InvalidJob(
                f"{place_name(place)}: an object of {'.'.join(map(str, tag))} is not permitted here"
            )
        try:
            built = build(node, lambda inner: self.decode(inner, (*place, "")))
        except InvalidJob:
            raise
        except Exception as error:  # the node does not have the form of its tag
            reason = f"{'.'.join(tag)} cannot be read ({type(error).__name__}: {error})"
            raise InvalidJob(f"{place_name(place)}: {reason}") from error
        if type(built) is dict:
            for key in built:
                self.check_key(key, place)
        return built

    def _class(self, node: dict[Any, Any], name: str, place: tuple[Any, ...]) -> type:
        full = f"{_hashable(node['@module'])}.{name}"
        rest = {key: item for key, item in node.items() if key not in {"@module", "@callable"}}
        # monty writes also what a method is bound to.
        if not is_named_here(full) or rest not in ({}, {"@bound": None}):
            raise InvalidJob(f"{place_name(place)}: the function {full} is not permitted here")
        try:
            return class_named(full)
        except InvalidJob as error:
            raise InvalidJob(f"{place_name(place)}: {error}") from error


class RequestDecoder(Decoder):
    """Never imports anything, and lets no dict pass that monty would take for an object."""

    builders = _REQUEST_BUILDERS

    def scalar(self, value: Any, place: tuple[Any, ...]) -> Any:
        """Take what is neither dict nor list."""
        if value is None or isinstance(value, (str, bool, int, float)):
            return value
        if isinstance(value, tuple):
            return tuple(self.decode(list(value), place))
        StrictEncoder().encode(value, place)  # refuses what is not permitted
        return value

    def check_key(self, key: Any, place: tuple[Any, ...]) -> None:
        """Refuse what monty would take for an object."""
        if isinstance(key, str) and key in _TAGS:
            raise InvalidJob(
                f"{place_name(place)}: a dict with the key {key!r} is not permitted here"
            )


def _hashable(value: Any) -> Any:
    return value if isinstance(value, str) else repr(value)
