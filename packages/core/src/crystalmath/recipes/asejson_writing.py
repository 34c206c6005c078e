"""Write structures as ASE's own JSON: with constraints, moments, charges, tags and momenta."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from crystalmath.recipes.checked_atoms import constraint_class
from crystalmath.recipes.json_arrays import array_items

if TYPE_CHECKING:
    from collections.abc import Callable

    from ase import Atoms

_NO_ARRAYS = frozenset(("__ase_objtype__", "constraints", "info"))
# The arrays whose items are spelled in one way only.
_WRITTEN = {"float64": float, "int64": int, "bool": bool}


def encode_atoms(atoms: Atoms, *, info: bool = False) -> dict[str, Any]:
    """Turn a structure, without its calculator, into what JSON can hold.

    Parameters
    ----------
    atoms : ase.Atoms
        The structure.
    info : bool
        Write ``atoms.info`` too: what JSON can hold of it.

    Returns
    -------
    dict
        What ``ase.io.jsonio.decode`` reads, as plain lists and dicts. Numbers that are not finite
        are spelled as strings, which numpy reads back.

    Raises
    ------
    TypeError
        A constraint or an array has no JSON form. Dropping it would change what is computed.
    """
    document: dict[str, Any] = {"__ase_objtype__": "atoms"}
    for name, values in atoms.arrays.items():
        document[name] = _plain(values, name)
    document["cell"] = _plain(atoms.cell.array, "cell")
    document["pbc"] = _plain(atoms.pbc, "pbc")
    if atoms.get_celldisp().any():
        document["celldisp"] = _plain(atoms.get_celldisp(), "celldisp")
    return document | _beside(atoms, info=info)


def is_as_written(data: object, atoms: Atoms) -> bool:
    """Return whether :func:`encode_atoms`, with ``info``, would write the same text.

    What a client of ours has encoded need not be encoded again where it is kept: another spelling
    of the same structure (integers among the coordinates, a cell as an object) would make another
    job of it.

    Parameters
    ----------
    data : object
        What `atoms` was decoded from, and is free of what cannot be decoded.
    atoms : ase.Atoms
        The structure, without a calculator.
    """
    if not isinstance(data, Mapping):
        return False
    arrays = {name: node for name, node in data.items() if name not in _NO_ARRAYS}
    beside = {name: data[name] for name in ("constraints", "info") if name in data}
    count = len(atoms)
    core = {
        "numbers": [[count], "int64"],
        "positions": [[count, 3], "float64"],
        "cell": [[3, 3], "float64"],
        "pbc": [[3], "bool"],
    }
    return (
        arrays.keys() == {*atoms.arrays, "cell", "pbc"}
        and all(map(_is_written_array, arrays.values()))
        and all(arrays[name]["__ndarray__"][:2] == core[name] for name in core)
        and json.dumps(beside, sort_keys=True)
        == json.dumps(_beside(atoms, info=True), sort_keys=True)
    )


def _is_written_array(node: object) -> bool:
    if not isinstance(node, Mapping) or node.keys() != {"__ndarray__"}:
        return False
    _, dtype, items = node["__ndarray__"]
    return dtype in _WRITTEN and set(map(type, items)) <= {_WRITTEN[dtype]}


def _beside(atoms: Atoms, *, info: bool) -> dict[str, Any]:
    """Write what of a structure is no array."""
    found: dict[str, Any] = {}
    if atoms.constraints:
        found["constraints"] = [_constraint_dict(item) for item in atoms.constraints]
    if info and (kept := _json_info(atoms)):
        found["info"] = kept
    return found


def _plain(value: Any, place: str) -> Any:  # noqa: PLR0911
    import numpy as np

    if isinstance(value, np.ndarray):
        try:
            items = array_items(value)
        except TypeError as error:
            raise TypeError(f"{place}: {error}") from error
        return {"__ndarray__": [list(value.shape), str(value.dtype), items]}
    if isinstance(value, np.generic):
        return _plain(value.item(), place)
    if isinstance(value, complex):
        return {"__complex__": [value.real, value.imag]}
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{place}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, place) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise TypeError(f"{place}: {value!r} is not finite")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return _plain_object(value, place)


def _plain_object(value: Any, place: str) -> Any:
    from ase import Atoms
    from ase.cell import Cell

    if isinstance(value, Atoms):  # FixSymmetry carries its reference structure
        return encode_atoms(value)
    if isinstance(value, Cell):
        return {"__ase_objtype__": "cell", "array": _plain(value.array, place)}
    raise TypeError(f"{place}: {type(value).__name__} cannot be written as JSON")


def _constraint_dict(constraint: Any) -> Any:
    name = type(constraint).__name__
    todict: Callable[[], Any] | None = getattr(constraint, "todict", None)
    document = todict() if todict else None
    if not isinstance(document, Mapping) or constraint_class(document.get("name")) is None:
        raise TypeError(f"the constraint {name} is none of ASE's own and cannot be written as JSON")
    return _plain(document, name)


_DROPPED = object()


def _json_info(atoms: Atoms) -> dict[str, Any]:
    values = {
        key: _json_value(value)
        for key, value in atoms.info.items()
        if isinstance(key, str) and not key.startswith("__")
    }
    return {key: value for key, value in values.items() if value is not _DROPPED}


def _json_value(value: Any) -> Any:  # noqa: PLR0911
    import numpy as np

    if isinstance(value, np.ndarray):
        try:
            items = array_items(value)
            json.dumps(items, allow_nan=False)
        except (TypeError, ValueError):
            return _DROPPED
        finite = value.dtype.kind not in "fc" or bool(np.isfinite(value).all())
        node = {"__ndarray__": [list(value.shape), str(value.dtype), items]}
        return node if finite else _DROPPED
    if isinstance(value, np.generic):
        return _json_value(value.item())
    if isinstance(value, Mapping):
        return _json_mapping(value)
    if isinstance(value, (list, tuple)):
        items = [_json_value(item) for item in value]
        return _DROPPED if _DROPPED in items else items
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return _DROPPED
    return value


def _json_mapping(value: Mapping[Any, Any]) -> Any:
    # "__ndarray__" and its like would come back as something else.
    if not all(isinstance(key, str) and not key.startswith("__") for key in value):
        return _DROPPED
    items = {key: _json_value(item) for key, item in value.items()}
    return _DROPPED if any(item is _DROPPED for item in items.values()) else items
