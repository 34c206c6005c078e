"""Structures as ASE's own JSON: with constraints, moments, charges, tags and momenta.

ASE's decoder trusts its input: ``__ndarray__`` allocates any shape, and ``__ase_objtype__`` builds
several kinds of objects. Requests are not trusted, so every node is checked before an object is
built.
"""

from __future__ import annotations

import contextlib
import json
import math
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from crystalmath.errors import InvalidJob
from crystalmath.recipes.json_text import array_from, array_items, dtype_text

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from ase import Atoms

#: More atoms than any recipe can handle; a larger number is a mistake or an attack.
MAX_ATOMS = 1_000_000
#: The longest length in a structure, in Å: a double cannot resolve bond lengths beyond a metre.
MAX_LENGTH = 1e10


def check_atoms(atoms: object) -> Atoms:
    """Return the structure itself if a job can take it.

    Raises `InvalidJob`: it has no atoms or too many, an unknown element, numbers that are not
    finite, or positions or cell vectors beyond `MAX_LENGTH`.
    """
    import numpy as np
    from ase import Atoms
    from ase.data import chemical_symbols

    if not isinstance(atoms, Atoms):
        raise InvalidJob(f"the structure must be an ase.Atoms, not {atoms!r:.80}")
    check_count(len(atoms))
    if not len(atoms):
        raise InvalidJob("the structure has no atoms")
    if not ((atoms.numbers >= 0) & (atoms.numbers < len(chemical_symbols))).all():
        raise InvalidJob("the structure has an atomic number that belongs to no element")
    named = dict(atoms.arrays) | {"cell": atoms.cell.array, "celldisp": atoms.get_celldisp()}
    for name, values in named.items():
        if values.dtype.kind in "fc" and not np.isfinite(values).all():
            raise InvalidJob(f"the structure's {name} hold numbers that are not finite")
        if name in {"positions", "cell"} and (largest := np.abs(values).max()) > MAX_LENGTH:
            raise InvalidJob(
                f"the structure's {name} hold a length of {largest:.3g} Å; {MAX_LENGTH:.0e} Å, a "
                "metre, is the limit"
            )
    return atoms


def check_count(count: int) -> None:
    """Refuse more than a million atoms, which no recipe can handle (`InvalidJob`)."""
    if count > MAX_ATOMS:
        raise InvalidJob(f"the structure has {count} atoms; {MAX_ATOMS} is the limit")


def prepare(atoms: Atoms) -> Atoms:
    """Return a structure as a job can take it: itself, or a changed copy.

    A job cannot take the calculator along. Computed magnetic moments become the initial ones if
    none are set: quacc's VASP calculator starts from them, and ASE's readers leave them in a
    ``SinglePointCalculator``. Texts that extended XYZ files bring as Python objects
    (``bulk_wyckoff`` of quacc's slabs) become arrays of numpy's own. Other arrays of objects have
    no JSON form and are left out with a warning.
    """
    objects = {name: values for name, values in atoms.arrays.items() if values.dtype.kind == "O"}
    computed = getattr(atoms.calc, "results", None) or {}
    magmoms = computed.get("magmoms") if isinstance(computed, Mapping) else None
    takes = magmoms is not None and not atoms.has("initial_magmoms")
    if not (objects or takes):
        return atoms
    copied = atoms.copy()
    for name, values in objects.items():
        del copied.arrays[name]
        if all(isinstance(value, str) for value in values.flat):
            copied.set_array(name, values, dtype=str)
        else:
            warnings.warn(
                f"the structure's array {name!r} is left out: it holds Python objects, which no "
                "job can take along",
                stacklevel=2,
            )
    if takes:
        copied.set_initial_magnetic_moments(magmoms)
    return copied


def constraint_class(name: object) -> type | None:
    """Return the class of one of ASE's constraints; ``None``: the name is none of theirs."""
    import ase.constraints
    from ase.constraints import FixConstraint

    known = ase.constraints.__all__
    kind = getattr(ase.constraints, name, None) if isinstance(name, str) and name in known else None
    return kind if isinstance(kind, type) and issubclass(kind, FixConstraint) else None


_MAX_DEPTH = 50
_NODE_PARTS = 3  # shape, type, items
_CORE_ARRAYS = ("numbers", "positions", "cell", "pbc")


def decode_atoms(data: str | Mapping[str, Any], *, finite: bool = True) -> Atoms:
    """Build a structure from ASE's JSON after checking all of it (`InvalidJob`)."""
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
    if not isinstance(node, (dict, Mapping)):  # isinstance of a dict is fast, of a Mapping slow
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
    except Exception as error:  # ASE raises many kinds for data that it did not write
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
    # ASE before 3.20 wrote plain lists; it still reads them.
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


_NO_ARRAYS = frozenset(("__ase_objtype__", "constraints", "info"))
# Types of arrays with a single spelling of each item.
_WRITTEN = {"float64": float, "int64": int, "bool": bool}


def encode_atoms(atoms: Atoms, *, info: bool = False) -> dict[str, Any]:
    """Return a structure, without its calculator, as a document for JSON.

    Raises `TypeError`: a constraint or an array has no JSON form. Without it the calculation would
    be another.
    """
    document: dict[str, Any] = {"__ase_objtype__": "atoms"}
    for name, values in atoms.arrays.items():
        document[name] = _array_node(values, name)
    document["cell"] = _array_node(atoms.cell.array, "cell")
    document["pbc"] = _array_node(atoms.pbc, "pbc")
    if atoms.get_celldisp().any():
        document["celldisp"] = _array_node(atoms.get_celldisp(), "celldisp")
    return document | _beside(atoms, info=info)


def is_as_written(data: object, atoms: Atoms) -> bool:
    """Return whether :func:`encode_atoms`, with ``info``, would write the same text.

    A structure that our client encoded is kept without encoding it again. Another spelling of the
    same structure (integers among the coordinates, a cell as an object) would make another job.
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
    """Return the constraints of a structure and, if wanted, its ``info``, as documents."""
    members: dict[str, Any] = {}
    if atoms.constraints:
        members["constraints"] = [_constraint_dict(item) for item in atoms.constraints]
    if info and (kept := _json_info(atoms)):
        members["info"] = kept
    return members


def _plain(value: Any, place: str) -> Any:
    import numpy as np

    if isinstance(value, np.ndarray):
        if value.dtype.kind in "fc" and not np.isfinite(value).all():
            raise TypeError(f"{place}: an array holds numbers that are not finite")
        return _array_node(value, place)
    if isinstance(value, np.generic):
        return _plain(value.item(), place)
    if isinstance(value, Mapping):
        return _table(value, place)
    if isinstance(value, (list, tuple)):
        return [_plain(item, place) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise TypeError(f"{place}: {value!r} is not finite")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return _plain_object(value, place)


def _array_node(values: np.ndarray, place: str) -> dict[str, Any]:
    try:
        items = array_items(values)
    except TypeError as error:
        raise TypeError(f"{place}: {error}") from error
    return {"__ndarray__": [list(values.shape), dtype_text(values.dtype), items]}


def _table(value: Mapping[Any, Any], place: str) -> dict[str, Any]:
    # A decoder would take "__ndarray__" and its like for a tag.
    if strange := [key for key in value if not isinstance(key, str) or key.startswith("__")]:
        raise TypeError(f"{place}: the key {strange[0]!r:.80} cannot be written as JSON")
    return {key: _plain(item, f"{place}.{key}") for key, item in value.items()}


def _plain_object(value: Any, place: str) -> Any:
    from ase import Atoms
    from ase.cell import Cell

    if isinstance(value, Atoms):  # FixSymmetry carries its reference structure
        return encode_atoms(value) | _table(value.arrays, place)
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


def _json_info(atoms: Atoms) -> dict[str, Any]:
    """Return the members of ``info`` that JSON can hold."""
    kept: dict[str, Any] = {}
    for key, value in atoms.info.items():
        with contextlib.suppress(TypeError, RecursionError):
            kept |= _table({key: value}, "info")
    return kept
