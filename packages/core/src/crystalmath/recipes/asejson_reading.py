"""Read structures from ASE's own JSON.

ASE's decoder trusts its input: ``__ndarray__`` allocates whatever shape it names, and
``__ase_objtype__`` builds several kinds of objects. What is decoded here may come from a request,
so every node is checked before anything is built.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from crystalmath.errors import InvalidJob
from crystalmath.recipes.checked_atoms import constraint_class
from crystalmath.recipes.json_arrays import array_from

if TYPE_CHECKING:
    from ase import Atoms

_MAX_DEPTH = 50
_NODE_PARTS = 3  # shape, type, items
_CORE_ARRAYS = ("numbers", "positions", "cell", "pbc")


def decode_atoms(data: str | Mapping[str, Any], *, finite: bool = True) -> Atoms:
    """Build a structure from ASE's JSON, checking all of it first.

    Parameters
    ----------
    data : str or mapping
        What ``ase.io.jsonio.encode(atoms)`` or
        :func:`~crystalmath.recipes.asejson_writing.encode_atoms` gave. ``info`` may be in it.
    finite : bool
        Refuse numbers that are not finite. Results may hold them.

    Raises
    ------
    InvalidJob
        It is anything else.
    """
    if isinstance(data, str):
        try:
            data = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise InvalidJob(f"the ase-json structure is no JSON: {error}") from error
    if not isinstance(data, Mapping) or data.get("__ase_objtype__") != "atoms":
        raise InvalidJob(
            "the ase-json structure is no encoded Atoms object; make it with "
            "ase.io.jsonio.encode(atoms)"
        )
    atoms = _decode(data, "structure", 0, finite=finite)
    return cast("Atoms", atoms)


def _decode(node: Any, place: str, depth: int, *, finite: bool) -> Any:
    if depth > _MAX_DEPTH:
        raise InvalidJob(f"{place}: nested deeper than {_MAX_DEPTH} levels")
    if isinstance(node, (list, tuple)):
        return [_decode(item, place, depth + 1, finite=finite) for item in node]
    if not isinstance(node, Mapping):
        return _scalar(node, place, finite=finite)
    for tag, build in (("__ndarray__", _array), ("__complex__", _complex)):
        if tag in node:
            return build(node[tag], place, finite=finite)
    if "__datetime__" in node or "__complex_ndarray__" in node:
        raise InvalidJob(f"{place}: dates and old complex arrays do not belong into a structure")
    fields = {
        str(key): _decode(item, f"{place}.{key}", depth + 1, finite=finite)
        for key, item in node.items()
        if key != "__ase_objtype__"
    }
    return (
        _ase_object(node["__ase_objtype__"], fields, place) if "__ase_objtype__" in node else fields
    )


def _scalar(value: Any, place: str, *, finite: bool) -> Any:
    if value is not None and type(value) not in {bool, int, float, str}:
        raise InvalidJob(
            f"{place}: {type(value).__name__} does not belong into an ase-json structure"
        )
    if finite and isinstance(value, float) and not math.isfinite(value):
        raise InvalidJob(f"{place}: {value!r} is not finite")
    return value


def _array(node: Any, place: str, *, finite: bool) -> Any:
    if not isinstance(node, (list, tuple)) or len(node) != _NODE_PARTS:
        raise InvalidJob(f"{place}: __ndarray__ needs a shape, a type and the items")
    try:
        return array_from(*node, finite=finite)
    except ValueError as error:
        raise InvalidJob(f"{place}: {error}") from error


def _complex(node: Any, place: str, *, finite: bool) -> complex:
    parts = node if isinstance(node, (list, tuple)) else []
    if [type(part) in {int, float} for part in parts] != [True, True]:
        raise InvalidJob(f"{place}: __complex__ needs two numbers")
    return complex(*(_scalar(part, place, finite=finite) for part in parts))


def _ase_object(kind: object, fields: dict[str, Any], place: str) -> Any:
    try:
        if kind == "cell":
            from ase.cell import Cell

            return Cell.new(fields["array"])
        if kind == "atoms":
            return _atoms(fields)
    except InvalidJob as error:
        raise InvalidJob(f"{place}: {error}") from error
    except Exception as error:  # whatever ASE says of data that it did not write
        reason = f"{type(error).__name__}: {error}"
        raise InvalidJob(f"{place}: ASE cannot build it ({reason})") from error
    raise InvalidJob(f"{place}: {kind!r} is not permitted in a structure, only atoms and cell are")


def _atoms(fields: dict[str, Any]) -> Atoms:
    import numpy as np
    from ase import Atoms

    missing = [name for name in _CORE_ARRAYS if name not in fields]
    if missing:
        raise InvalidJob(f"{missing[0]!r} is missing")
    info = fields.pop("info", None) or {}
    constraints = [_constraint(item) for item in fields.pop("constraints", None) or []]
    # ASE before 3.20 wrote plain lists, and still reads them.
    arrays = {name: np.asarray(values) for name, values in fields.items()}
    core = {name: arrays.pop(name) for name in _CORE_ARRAYS}
    if core["numbers"].dtype.kind not in "iu" or core["numbers"].ndim != 1:
        raise InvalidJob("'numbers' must be a flat list of integers")
    if core["positions"].shape != (len(core["numbers"]), 3):
        raise InvalidJob(f"there are {len(core['numbers'])} atoms, but 'positions' is not as long")
    atoms = Atoms(**core, celldisp=arrays.pop("celldisp", None), info=info, constraint=constraints)
    for name, values in arrays.items():
        if values.ndim < 1 or len(values) != len(atoms) or values.dtype == object:
            raise InvalidJob(f"{name!r} must have one item for each of the {len(atoms)} atoms")
        atoms.arrays[name] = values
    return atoms


def _constraint(document: Any) -> Any:
    from ase.constraints import dict2constraint

    if not isinstance(document, Mapping) or constraint_class(document.get("name")) is None:
        name = document.get("name") if isinstance(document, Mapping) else document
        raise InvalidJob(f"{name!r} is none of ASE's constraints")
    if not isinstance(document.get("kwargs"), Mapping):
        raise InvalidJob(f"the constraint {document['name']} has no 'kwargs'")
    return dict2constraint({"name": document["name"], "kwargs": dict(document["kwargs"])})
