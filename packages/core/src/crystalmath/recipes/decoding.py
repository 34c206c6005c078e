"""Build the objects that the tags of ``codec`` name, and no others."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import functools
import importlib
import math
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn

from crystalmath import config
from crystalmath.errors import CrystalMathError, InvalidJob
from crystalmath.models.reference import JOB, read_reference
from crystalmath.recipes.ase_classes import class_named, is_named_here
from crystalmath.recipes.ase_json import decode_atoms
from crystalmath.recipes.encoding import (
    AS_TEXT,
    DEFORMED,
    MAX_DEPTH,
    NUMPY,
    NUMPY_TYPES,
    Sentinel,
    StrictEncoder,
)
from crystalmath.recipes.json_text import array_from, place_name, text_width

_TAGS = frozenset(("@module", "@class", "@callable", "@bound", "@object_reference", "@version"))

Recurse = Callable[[Any], Any]


def _array_from(node: Mapping[str, Any], _: Recurse, *, finite: bool = True) -> Any:
    dtype, data = node["dtype"], node["data"]
    if not isinstance(dtype, str):
        raise TypeError("the type of an array must be a string")
    if not dtype.startswith("complex"):
        shape, items = _flat(data)
        return array_from(node.get("shape", shape), dtype, items, finite=finite)
    (shape, real), (other, imaginary) = map(_flat, data)
    if shape != other:
        raise ValueError("real and imaginary part of an array differ in shape")
    items = [part for pair in zip(real, imaginary, strict=True) for part in pair]
    return array_from(node.get("shape", shape), dtype, items, finite=finite)


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

    dtype, data = np.dtype(_string(node["dtype"])), node["data"]
    if dtype.kind == "O":
        array = np.array(recurse(data), dtype=object)
    elif dtype.kind in "SMm":
        shape, items = _flat(data)
        width = text_width([_string(item) for item in items])
        array = np.array(items, dtype=f"S{width}" if dtype.kind == "S" else dtype).reshape(shape)
    else:
        return _array_from(node, recurse, finite=False)
    return array if "shape" not in node else array.reshape(node["shape"])


def _atoms_from(node: Mapping[str, Any], recurse: Recurse, *, finite: bool = True) -> Any:
    data, info = node.get("data"), node.get("info")
    if data is None:
        data, info = _string(node["atoms_json"]), node.get("atoms_info", {})
    atoms = decode_atoms(data, finite=finite)
    if info is not None:
        atoms.info = dict(recurse(info))
    if node.get("msonable") is True:
        with contextlib.suppress(ImportError):  # a reader without pymatgen gets the plain class
            from pymatgen.io.ase import MSONAtoms

            atoms.__class__ = MSONAtoms
    return atoms


def _complex_from(node: Mapping[str, Any], recurse: Recurse) -> complex:
    real, imaginary = recurse(node["data"])
    return complex(real, imaginary)


def _dict_from(node: Mapping[str, Any], recurse: Recurse) -> dict[Any, Any]:
    return {recurse(key): recurse(item) for key, item in node["items"]}


def _quacc_from(node: Mapping[str, Any], _: Recurse) -> Any:
    import quacc

    return getattr(quacc, node["@class"])


def _deformed_from(node: Mapping[str, Any], recurse: Recurse) -> Any:
    strain = importlib.import_module(node["@module"])
    tensors = importlib.import_module("pymatgen.core.tensors")
    made = strain.DeformedStructureSet.__new__(strain.DeformedStructureSet)
    made.undeformed_structure = recurse(node["undeformed_structure"])
    made.deformations = [strain.Deformation(each) for each in recurse(node["deformations"])]
    made.def_structs = []
    made.deformed_structures = recurse(node["deformed_structures"])
    if node["symmetries"] is not None:
        made.sym_dict = tensors.TensorMapping(made.deformations, recurse(node["symmetries"]))
    return made


#: The bit generators of numpy's documentation; the state of any other is refused.
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
    **{
        ("numpy", kind): lambda node, recurse: _numpy_scalar(
            recurse(node["data"]), node["@class"], ()
        )
        for kind in NUMPY_TYPES
    },
    ("quacc", "Remove"): _quacc_from,
    ("quacc", "QuaccDefault"): _quacc_from,
}
_REQUEST_BUILDERS: dict[tuple[Any, Any], Builder] = _BUILDERS | {
    ("quacc", name): lambda node, _: Sentinel(node["@class"]) for name in ("Remove", "QuaccDefault")
}
# Results may also hold numbers that are not finite.
RESULT_BUILDERS: dict[tuple[Any, Any], Builder] = _BUILDERS | {
    ("numpy", "array"): _result_array,
    ("pymatgen.io.ase", "MSONAtoms"): functools.partial(_atoms_from, finite=False),
    ("builtins", "float"): lambda node, _: float(node["string"]),
    **dict.fromkeys(DEFORMED, _deformed_from),
}

_SCALARS = frozenset((str, bool, int, float, type(None)))
_ENTRIES = (
    "ComputedEntry ComputedStructureEntry ConstantEnergyAdjustment CompositionEnergyAdjustment "
    "TemperatureEnergyAdjustment ManualEnergyAdjustment"
)
#: The classes of the objects that quacc's recipes return. All of them are data: making one runs no
#: program and opens no file, unlike pymatgen's Vasprun or Potcar.
_DATA_CLASSES = {
    "pymatgen.core.structure": "Structure Molecule IStructure IMolecule",
    "pymatgen.core.lattice": "Lattice",
    "pymatgen.core.composition": "Composition",
    "pymatgen.core.periodic_table": "Element Species DummySpecies",
    "pymatgen.core.sites": "Site PeriodicSite",
    "pymatgen.core.surface": "Slab",
    "pymatgen.core.operations": "SymmOp",
    "pymatgen.core.trajectory": "Trajectory",
    "pymatgen.core.entries": _ENTRIES,
    "pymatgen.entries.computed_entries": _ENTRIES,
    "pymatgen.core.graphs": "StructureGraph MoleculeGraph",
    "pymatgen.analysis.graphs": "StructureGraph MoleculeGraph",
    "pymatgen.analysis.defects.core": "Vacancy Substitution Interstitial",
    "pymatgen.io.vasp.inputs": "Incar Kpoints KpointsSupportedModes Poscar",
    "pymatgen.electronic_structure.core": "Magmom Orbital OrbitalType Spin",
    "pymatgen.electronic_structure.dos": "Dos CompleteDos",
    "pymatgen.electronic_structure.bandstructure": "BandStructure BandStructureSymmLine Kpoint",
    "pymatgen.phonon.dos": "PhononDos CompletePhononDos",
    "pymatgen.phonon.bandstructure": "PhononBandStructure PhononBandStructureSymmLine",
    "custodian.vasp.jobs": "VaspJob",
    "custodian.qchem.jobs": "QCJob",
    "emmet.core.elasticity": "ElasticityDoc",
    "emmet.core.symmetry": "CrystalSystem",
    "emmet.core.types.enums": "DeprecationMessage TaskState VaspObject",
    "emmet.core.vasp.calc_types.enums": "CalcType RunType TaskType",
    "emmet.core.qchem.calc_types.enums": "CalcType LevelOfTheory TaskType",
    "emmet.core.qchem.task": "QChemStatus",
}


class Decoder:
    """Decoder of specifications and results, which builds the objects of `builders` only."""

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
        """Return a value that is neither dict nor list."""
        if value is None or isinstance(value, (str, bool, int, float)):
            return value
        raise InvalidJob(f"{place_name(place)}: {type(value).__name__} is no JSON")

    def check_key(self, key: Any, place: tuple[Any, ...]) -> None:
        """Raise `InvalidJob` for a key that no plain dict may have."""

    def _dict(self, value: dict[Any, Any], place: tuple[Any, ...]) -> Any:
        if "@module" in value:
            return self._tagged(value, place)
        types = value.get(NUMPY)
        if isinstance(types, dict):
            value = {key: item for key, item in value.items() if key != NUMPY}
        for key in value:
            self.check_key(key, place)
        built = {key: self.decode(item, (*place, key)) for key, item in value.items()}
        if isinstance(types, dict):
            for key in types.keys() & built.keys():
                built[key] = _numpy_scalar(built[key], types[key], (*place, key))
        return built

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
        # monty also writes the object that a method is bound to.
        if not is_named_here(full) or rest not in ({}, {"@bound": None}):
            raise InvalidJob(f"{place_name(place)}: the function {full} is not permitted here")
        try:
            return class_named(full)
        except InvalidJob as error:
            raise InvalidJob(f"{place_name(place)}: {error}") from error


class ResultDecoder(Decoder):
    """Decoder of results, which imports listed classes only: an archive may hold any others.

    An object of another class stays a table, and the members of that table are decoded.
    """

    builders = RESULT_BUILDERS

    def decode(self, value: Any, place: tuple[Any, ...]) -> Any:
        """Decode a value, which need not be finite."""
        # Long lists of numbers are common, and need no look at each item.
        if isinstance(value, float) or (
            isinstance(value, list) and _SCALARS.issuperset(map(type, value))
        ):
            return value
        return super().decode(value, place)

    def _dict(self, value: dict[Any, Any], place: tuple[Any, ...]) -> Any:
        if value.get(AS_TEXT) is True:
            return self.formless(value, place)
        return super()._dict(value, place)

    def formless(self, node: dict[Any, Any], place: tuple[Any, ...]) -> Any:
        """Return the stored table in place of an object that cannot be made again."""
        return {
            key: self.decode(each, (*place, key)) for key, each in node.items() if key != AS_TEXT
        }

    def _tagged(self, node: dict[Any, Any], place: tuple[Any, ...]) -> Any:
        tag = (_hashable(node["@module"]), _hashable(node.get("@class")))
        if tag in self.builders:
            return super()._tagged(node, place)
        if isinstance(name := node.get("@callable"), str):
            with contextlib.suppress(InvalidJob):
                return self._class(node, name, place)
        elif self._is_listed(*tag):
            with contextlib.suppress(NotListedError):
                return self._object(node, place)
        return self._unlisted(node, place)

    def _unlisted(self, node: dict[Any, Any], place: tuple[Any, ...]) -> Any:
        return self.formless(node, place)

    def _object(self, node: dict[Any, Any], place: tuple[Any, ...]) -> Any:
        from monty.json import MontyDecoder

        try:
            return MontyDecoder().process_decoded(self._for_monty(node))
        except NotListedError:
            raise
        except Exception as error:  # classes raise many kinds for data that they did not write
            reason = f"{node['@module']}.{node['@class']} cannot be read"
            message = f"{place_name(place)}: {reason} ({type(error).__name__}: {str(error)[:200]})"
            raise InvalidJob(message) from error

    def _for_monty(self, value: Any) -> Any:
        """Return a checked copy of an object of a listed class, for its own code to read.

        That code lets monty import the class of any tag, so all classes in it must be listed.
        Tuples become lists.
        """
        if isinstance(value, list):
            return [self._for_monty(item) for item in value]
        if not isinstance(value, dict):
            return value
        if value.get(AS_TEXT) is True:
            value = self.text_in_object(value)
        if not ("@module" in value and value.keys() & {"@class", "@callable"}):
            return {key: self._for_monty(item) for key, item in value.items() if key != NUMPY}
        tag = (_hashable(value["@module"]), _hashable(value.get("@class")))
        if tag in RESULT_BUILDERS:
            return self._built_for_monty(tag, value)
        if not self._is_listed(*tag) or (tag[1] == "Incar" and _repeats(value)):
            raise NotListedError
        return {key: self._for_monty(item) for key, item in value.items()}

    def text_in_object(self, node: dict[Any, Any]) -> dict[Any, Any]:
        """Return the stand-in, within an object of a listed class, for a member kept as text."""
        return {key: each for key, each in node.items() if key != AS_TEXT}

    def _built_for_monty(self, tag: tuple[str, str], value: dict[Any, Any]) -> Any:
        built = RESULT_BUILDERS[tag](value, self._for_monty)
        if tag == ("numpy", "array") and built.dtype.kind != "O":
            return {**value, "dtype": str(built.dtype)}  # the smallest type that its items need
        if tag in {("datetime", "datetime"), ("pathlib", "Path")}:
            return value
        # monty would take such a dict for a tag.
        if tag[0] != "builtins" or (isinstance(built, dict) and not _TAGS.isdisjoint(built)):
            raise NotListedError
        return list(built) if isinstance(built, tuple) else built

    def _is_listed(self, module: str, name: str) -> bool:
        """Return whether a class may be imported because a result names it."""
        if name in _DATA_CLASSES.get(module, "").split():
            return True
        if not any(f"{module}.".startswith(f"{own}.") for own in self._admitted):
            return False
        if (module, name) not in self._own:
            self._own[module, name] = _is_data(module, name)
        return self._own[module, name]

    @functools.cached_property
    def _admitted(self) -> tuple[str, ...]:
        """The namespaces of the user's own recipes, which may return objects of their classes."""
        try:
            return config.load().recipes_allow
        except CrystalMathError:
            return config.admitted()

    @functools.cached_property
    def _own(self) -> dict[tuple[str, str], bool]:
        return {}


def _numpy_scalar(value: Any, kind: Any, place: tuple[Any, ...]) -> Any:
    """Return numpy's scalar for a plain value, or a list of them for a list."""
    import numpy as np

    if isinstance(kind, list) and isinstance(value, list) and len(kind) == 1:
        return [_numpy_scalar(each, kind[0], place) for each in value]
    plain = value is not None and not isinstance(value, (list, dict))
    if plain and isinstance(kind, str) and kind in NUMPY_TYPES:
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            return np.str_(value) if kind == "str_" else np.dtype(kind).type(value)
    raise InvalidJob(f"{place_name(place)}: {value!r:.80} is no {kind!r:.40} of numpy's")


class NotListedError(Exception):
    """An object holds one of a class that is not listed."""


def _repeats(incar: Mapping[str, Any]) -> bool:
    """Return whether a tag would be multiplied out (``1000000000*0.6``), which takes memory."""
    return any(isinstance(text, str) and "*" in text for text in incar.values())


def _is_data(module: str, name: str) -> bool:
    """Return whether a class of an admitted namespace is one that monty writes and reads."""
    from monty.json import MSONable

    kind = None
    with contextlib.suppress(Exception):  # the user's own module may raise any
        kind = getattr(importlib.import_module(module), name)
    return (
        isinstance(kind, type)
        and issubclass(kind, (MSONable, Enum))
        and kind.__module__ == module  # not imported from elsewhere
    )


class SpecDecoder(ResultDecoder):
    """Decoder of specifications; the arguments of a flow's step hold the types of results."""

    def formless(self, node: dict[Any, Any], place: tuple[Any, ...]) -> NoReturn:
        """Raise `InvalidJob`: no worker can make such an object again."""
        name = node.get("type") or f"{node['@module']}.{node.get('@class', node.get('@callable'))}"
        raise InvalidJob(f"{place_name(place)}: an object of {name} has no form in JSON")


class RequestDecoder(Decoder):
    """Decoder of requests, which imports nothing and refuses dicts that monty would decode."""

    builders = _REQUEST_BUILDERS

    def scalar(self, value: Any, place: tuple[Any, ...]) -> Any:
        """Return a value that is neither dict nor list."""
        if value is None or isinstance(value, (str, bool, int, float)):
            return value
        if isinstance(value, tuple):
            return tuple(self.decode(list(value), place))
        StrictEncoder().encode(value, place)  # raises for types that are not permitted
        return value

    def _dict(self, value: dict[Any, Any], place: tuple[Any, ...]) -> Any:
        if JOB in value:
            return read_reference(value, place_name(place))
        return super()._dict(value, place)

    def check_key(self, key: Any, place: tuple[Any, ...]) -> None:
        """Raise `InvalidJob` for a key of monty's tags."""
        if isinstance(key, str) and (key in _TAGS or key == AS_TEXT):
            raise InvalidJob(
                f"{place_name(place)}: a dict with the key {key!r} is not permitted here"
            )


def _hashable(value: Any) -> Any:
    return value if isinstance(value, str) else repr(value)
