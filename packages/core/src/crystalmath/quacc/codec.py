"""Write specifications and results as JSON, and read them back.

What JSON lacks is tagged in monty's way, ``{"@module": ..., "@class": ...}``:

===========================  ==========================================================
``numpy`` ``array``          ``dtype``, ``data`` (nested lists); ``shape`` if it is empty
``pymatgen.io.ase``          ``MSONAtoms``: ``atoms_json`` (text), ``atoms_info``
``pathlib`` ``Path``         ``string``
``datetime`` ``datetime``    ``string`` (ISO 8601); ``date`` likewise
``builtins``                 ``complex`` and ``tuple``, ``set``, ``frozenset``: ``data``;
                             ``bytes``: ``data`` (base64); ``float``: ``string``
                             (``nan``, ``inf``, ``-inf``); ``dict``: ``items`` (pairs)
``quacc``                    ``Remove`` and ``QuaccDefault``
===========================  ==========================================================

``builtins.dict`` carries what a JSON object cannot: keys that are no strings, and in specifications
also keys that begin with ``@``, so that no plain dict is ever taken for a tag.

Numbers that are not finite are refused in specifications. In results they are legal; as JSON has
no word for them they become the tag ``builtins.float``, and within an array's ``data`` the strings
``"nan"``, ``"inf"`` and ``"-inf"``.
"""

from __future__ import annotations

import base64
import datetime
import gzip
import json
import math
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from attrs import frozen

from crystalmath.errors import InvalidJob
from crystalmath.quacc.asejson import (
    array_from,
    array_items,
    check_atoms,
    decode_atoms,
    encode_atoms,
    prepare,
)

if TYPE_CHECKING:
    import numpy as np
    from ase import Atoms

    from crystalmath.models import JobSpec

__all__ = [
    "Sentinel",
    "decode_request",
    "decode_result",
    "decode_spec",
    "encode_request",
    "encode_result",
    "encode_spec",
    "result_json",
]

_MAX_DEPTH = 100
_MAX_BYTES = 64 * 2**20
_MAX_INT_BITS = 10_000  # Python refuses to read longer integers from text
# Of levels 1 to 9, 1 costs a third of the default's time and gives a tenth larger results.
_GZIP_LEVEL = 1

_TAGS = frozenset(("@module", "@class", "@callable", "@bound", "@object_reference", "@version"))
_SENTINELS = {
    ("quacc.utils.dicts", "Remove"): "Remove",
    ("quacc.types", "DefaultSetting"): "QuaccDefault",
}
_PLAIN = frozenset((str, bool, type(None)))


@frozen
class Sentinel:
    """Stands for ``quacc.Remove`` or ``quacc.QuaccDefault`` where quacc is not imported.

    Parameters
    ----------
    name : {"Remove", "QuaccDefault"}
        Its name in ``quacc``.
    """

    name: str


def encode_spec(spec: JobSpec) -> str:
    """Write a job's structure and parameters as one line of JSON (ASCII).

    Raises
    ------
    InvalidJob
        Something in the parameters cannot be written down, or all of it is larger than 64 MiB.
        The message names its place (``opt_params.optimizer``).
    """
    check_atoms(spec.atoms)
    document = {
        "atoms": _StrictEncoder().encode(spec.atoms, ("structure",)),
        "parameters": _parameters(spec.parameters),
    }
    text = json.dumps(document, allow_nan=False, separators=(",", ":"))
    if len(text) > _MAX_BYTES:
        raise InvalidJob(
            f"structure and parameters take {len(text) / 2**20:.0f} MiB; the limit is 64 MiB"
        )
    return text


def _parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    encoder = _StrictEncoder()
    for name in parameters:
        if not isinstance(name, str):
            raise InvalidJob(f"the parameter name {name!r} is no string")
    return {name: encoder.encode(value, (name,)) for name, value in parameters.items()}


def decode_spec(body: str) -> tuple[Atoms, dict[str, Any]]:
    """Read what :func:`encode_spec` wrote. quacc is imported only where a sentinel is in it.

    Returns
    -------
    tuple of (ase.Atoms, dict)
        The structure and the parameters.

    Raises
    ------
    InvalidJob
        The text is damaged.
    """
    try:
        document = json.loads(body)
        atoms, parameters = document["atoms"], document["parameters"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidJob(f"the job's specification is damaged: {error!r}") from error
    decoder = _Decoder()
    decoded = {name: decoder.decode(value, (name,)) for name, value in parameters.items()}
    return decoder.decode(atoms, ("structure",)), decoded


def encode_request(value: object, place: str = "params") -> Any:
    """Turn a parameter into what JSON can hold and :func:`decode_request` reads back.

    Raises
    ------
    InvalidJob
        It, or something in it, is none of the permitted types.
    """
    return _StrictEncoder().encode(value, (place,))


def decode_request(value: object, place: str = "params") -> Any:
    """Read parameters that came from outside, as JSON.

    Only the tags in this module's list become objects; quacc's sentinels become
    :class:`Sentinel`, so that nothing is imported. What is such an object already (a front end in
    the same process) is passed on.

    Raises
    ------
    InvalidJob
        A dict names any other module, a number is not finite, or it is nested too deeply.
    """
    return _RequestDecoder().decode(value, (place,))


def encode_result(result: object) -> bytes:
    """Write a recipe's result as gzipped JSON, the same bytes for the same result.

    Raises
    ------
    TypeError
        Something in it cannot be written down. The message names its place.
    """
    document = _ResultEncoder().encode(result, ("result",))
    text = json.dumps(document, allow_nan=False, separators=(",", ":"))
    return gzip.compress(text.encode("ascii"), _GZIP_LEVEL, mtime=0)


def decode_result(data: bytes) -> Any:
    """Read what :func:`encode_result` wrote; never anything that came from elsewhere.

    monty's decoder imports the modules that the data names.
    """
    from monty.json import MontyDecoder

    class Decoder(MontyDecoder):  # type: ignore[misc]
        def process_decoded(self, node: Any) -> Any:
            if isinstance(node, dict) and "@module" in node and "@class" in node:
                build = _RESULT_BUILDERS.get((node["@module"], node["@class"]))
                if build is not None:
                    return build(node, self.process_decoded)
            return super().process_decoded(node)

    return Decoder().process_decoded(json.loads(gzip.decompress(data)))


def result_json(data: bytes) -> bytes:
    """Give a stored result as JSON text, without decoding it."""
    return gzip.decompress(data)


class _StrictEncoder:
    """Takes the permitted types only; everything else is an InvalidJob."""

    def encode(self, value: Any, place: tuple[Any, ...]) -> Any:
        kind = type(value)
        if kind in _PLAIN:
            return value
        if len(place) > _MAX_DEPTH:
            raise self.refusal(place, f"it is nested deeper than {_MAX_DEPTH} levels, or in itself")
        if kind is float or kind is int:
            return self._number(value, place)
        if kind is dict:
            return self._dict(value, place)
        if kind is list:
            return self._list(value, place)
        return self._other(value, place)

    def refusal(self, place: tuple[Any, ...], reason: str) -> Exception:
        return InvalidJob(f"{_name(place)}: {reason}")

    def atoms(self, value: Atoms, place: tuple[Any, ...]) -> Any:
        try:
            document = encode_atoms(prepare(check_atoms(value)), info=True)
        except (InvalidJob, TypeError) as error:
            raise self.refusal(place, str(error)) from error
        return _tag("ase.atoms", "Atoms", data=document)

    def not_finite(self, value: float, place: tuple[Any, ...]) -> Any:
        raise self.refusal(place, f"{value!r} is not finite")

    def not_plain(self, key: str) -> bool:
        """Tell whether a dict with this key could be taken for a tag."""
        return key.startswith("@")

    def strange_array(self, value: np.ndarray, place: tuple[Any, ...]) -> Any:
        raise self.refusal(place, f"an array of {value.dtype} cannot be part of a job")

    def unknown(self, value: Any, place: tuple[Any, ...]) -> Any:
        if isinstance(value, Sentinel):
            return _tag("quacc", value.name)
        sentinel = _sentinel(value)
        if sentinel:
            return _tag("quacc", sentinel)
        what = (
            f"{value.__module__}.{value.__qualname__}" if isinstance(value, type) else repr(value)
        )
        raise self.refusal(
            place,
            f"{what[:80]} ({type(value).__name__}) cannot be part of a job; permitted are numbers, "
            "strings, lists, tuples, sets, dicts, bytes, dates, paths, numpy arrays and Atoms",
        )

    def _number(self, value: float, place: tuple[Any, ...]) -> Any:
        if isinstance(value, int):
            if value.bit_length() > _MAX_INT_BITS:
                raise self.refusal(place, "the integer is too long")
            return int(value)
        return float(value) if math.isfinite(value) else self.not_finite(value, place)

    def _list(self, value: Any, place: tuple[Any, ...]) -> list[Any]:
        kinds = set(map(type, value))
        # Long lists of one kind are common (k-points, densities of states): one look suffices.
        if kinds <= _PLAIN or (kinds == {float} and all(map(math.isfinite, value))):
            return list(value)
        return [self.encode(item, (*place, index)) for index, item in enumerate(value)]

    def _dict(self, value: Mapping[Any, Any], place: tuple[Any, ...]) -> Any:
        if all(isinstance(key, str) and not self.not_plain(key) for key in value):
            return {
                str.__str__(key): self.encode(item, (*place, key)) for key, item in value.items()
            }
        items = [
            [self.encode(key, (*place, key)), self.encode(item, (*place, key))]
            for key, item in value.items()
        ]
        return _tag("builtins", "dict", items=items)

    def _other(self, value: Any, place: tuple[Any, ...]) -> Any:  # noqa: C901, PLR0911, PLR0912
        # One type a line reads better than a table of one-line functions.
        import numpy as np

        if isinstance(value, np.ndarray):
            return self._array(value, place)
        if isinstance(value, np.generic):
            return self._numpy_scalar(value, place)
        if isinstance(value, Enum):
            return self.unknown(value, place)
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, (int, float)):
            return self._number(value, place)
        if isinstance(value, complex):
            return _tag("builtins", "complex", data=self._list([value.real, value.imag], place))
        if isinstance(value, Mapping):
            return self._dict(value, place)
        if isinstance(value, list):
            return self._list(value, place)
        if isinstance(value, tuple):
            return self._tuple(value, place)
        if isinstance(value, (set, frozenset)):
            name = "set" if isinstance(value, set) else "frozenset"
            # Sorted, as the order of a set changes from process to process.
            return _tag(
                "builtins", name, data=sorted(self._list(list(value), place), key=json.dumps)
            )
        if isinstance(value, (bytes, bytearray)):
            return _tag("builtins", "bytes", data=base64.b64encode(value).decode("ascii"))
        if isinstance(value, PurePath):
            return _tag("pathlib", "Path", string=str(value))
        if isinstance(value, datetime.datetime):
            return _tag("datetime", "datetime", string=str(value))
        if isinstance(value, datetime.date):
            return _tag("datetime", "date", string=value.isoformat())
        if _is_atoms(value):
            return self.atoms(value, place)
        return self.unknown(value, place)

    def _tuple(self, value: tuple[Any, ...], place: tuple[Any, ...]) -> Any:
        return _tag("builtins", "tuple", data=self._list(value, place))

    def _numpy_scalar(self, value: np.generic, place: tuple[Any, ...]) -> Any:
        item = value.item()
        if value.dtype.kind not in "biufcU" or type(item) is type(value):
            return self.strange_array(value.reshape(()), place)
        return self.encode(item, place)

    def _array(self, value: np.ndarray, place: tuple[Any, ...]) -> Any:
        import numpy as np

        if value.dtype.kind not in "biufcU":
            return self.strange_array(value, place)
        if value.dtype.kind in "fc" and not np.isfinite(value).all():
            self.not_finite(math.nan, place)
        parts = [value.real, value.imag] if value.dtype.kind == "c" else [value]
        data = [_nested(part) for part in parts]
        shape = {"shape": list(value.shape)} if not value.size else {}
        body = data if value.dtype.kind == "c" else data[0]
        return _tag("numpy", "array", dtype=str(value.dtype), data=body, **shape)


class _ResultEncoder(_StrictEncoder):
    """Takes also what monty can write, and numbers that are not finite."""

    def refusal(self, place: tuple[Any, ...], reason: str) -> Exception:
        return TypeError(f"{_name(place)}: {reason}")

    def atoms(self, value: Atoms, place: tuple[Any, ...]) -> Any:
        # What quacc makes of Atoms once it is imported; written out, it needs no quacc.
        try:
            text = json.dumps(encode_atoms(value), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise self.refusal(place, str(error)) from error
        info = self._dict(value.info, (*place, "info"))
        return _tag("pymatgen.io.ase", "MSONAtoms", atoms_json=text, atoms_info=info)

    def not_finite(self, value: float, place: tuple[Any, ...]) -> Any:  # noqa: ARG002
        return _tag("builtins", "float", string=repr(float(value)))

    def not_plain(self, key: str) -> bool:  # noqa: ARG002
        # Results hold objects that monty wrote already; they stay what they are.
        return False

    def strange_array(self, value: np.ndarray, place: tuple[Any, ...]) -> Any:
        if value.dtype.kind == "O":
            data = self.encode(value.tolist(), place)
        elif value.dtype.kind in "SMm":
            data = value.astype(str).tolist()
        else:
            raise self.refusal(place, f"an array of {value.dtype} cannot be written as JSON")
        return _tag("numpy", "array", dtype=str(value.dtype), data=data)

    def unknown(self, value: Any, place: tuple[Any, ...]) -> Any:
        from monty.json import MontyEncoder

        if isinstance(value, Enum) and isinstance(value, (str, int, float)):
            return self.encode(value.value, place)
        try:
            document = MontyEncoder().default(value)
        except Exception as error:  # whatever an object's own as_dict says
            reason = f"{type(value).__name__} cannot be written as JSON ({error})"
            raise self.refusal(place, reason) from error
        return self.encode(document, place)


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
    ("datetime", "datetime"): lambda node, _: datetime.datetime.fromisoformat(node["string"]),
    ("datetime", "date"): lambda node, _: datetime.date.fromisoformat(node["string"]),
    ("builtins", "complex"): _complex_from,
    ("builtins", "tuple"): lambda node, recurse: tuple(recurse(node["data"])),
    ("builtins", "set"): lambda node, recurse: set(recurse(node["data"])),
    ("builtins", "frozenset"): lambda node, recurse: frozenset(recurse(node["data"])),
    ("builtins", "bytes"): lambda node, _: base64.b64decode(node["data"], validate=True),
    ("builtins", "dict"): _dict_from,
    ("quacc", "Remove"): _quacc_from,
    ("quacc", "QuaccDefault"): _quacc_from,
}
_REQUEST_BUILDERS: dict[tuple[Any, Any], Builder] = _BUILDERS | {
    ("quacc", name): lambda node, _: Sentinel(node["@class"]) for name in ("Remove", "QuaccDefault")
}
# Our own worker's data: trusted, and it may hold what is not finite.
_RESULT_BUILDERS: dict[tuple[Any, Any], Builder] = _BUILDERS | {
    ("numpy", "array"): _result_array,
    ("pymatgen.io.ase", "MSONAtoms"): _result_atoms,
    ("builtins", "float"): lambda node, _: float(node["string"]),
}


class _Decoder:
    """Builds what the tags in the table above name, and nothing else."""

    builders: Mapping[tuple[Any, Any], Builder] = _BUILDERS

    def decode(self, value: Any, place: tuple[Any, ...]) -> Any:
        if len(place) > 2 * _MAX_DEPTH:
            raise InvalidJob(f"{_name(place)}: nested too deeply")
        if isinstance(value, dict):
            return self._dict(value, place)
        if isinstance(value, list):
            return [self.decode(item, (*place, index)) for index, item in enumerate(value)]
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidJob(f"{_name(place)}: {value!r} is not finite")
        return self.scalar(value, place)

    def scalar(self, value: Any, place: tuple[Any, ...]) -> Any:
        if value is None or isinstance(value, (str, bool, int, float)):
            return value
        raise InvalidJob(f"{_name(place)}: {type(value).__name__} is no JSON")

    def check_key(self, key: Any, place: tuple[Any, ...]) -> None:
        """Refuse a key of a plain dict."""

    def _dict(self, value: dict[Any, Any], place: tuple[Any, ...]) -> Any:
        if "@module" in value:
            return self._tagged(value, place)
        for key in value:
            self.check_key(key, place)
        return {key: self.decode(item, (*place, key)) for key, item in value.items()}

    def _tagged(self, node: dict[Any, Any], place: tuple[Any, ...]) -> Any:
        tag = (_hashable(node["@module"]), _hashable(node.get("@class")))
        build = self.builders.get(tag)
        strange = _TAGS & (node.keys() - {"@module", "@class", "@version"})
        if build is None or strange:
            raise InvalidJob(
                f"{_name(place)}: an object of {'.'.join(map(str, tag))} is not permitted here"
            )
        try:
            built = build(node, lambda inner: self.decode(inner, (*place, "")))
        except InvalidJob:
            raise
        except Exception as error:  # the node does not have the form of its tag
            reason = f"{'.'.join(tag)} cannot be read ({type(error).__name__}: {error})"
            raise InvalidJob(f"{_name(place)}: {reason}") from error
        if type(built) is dict:
            for key in built:
                self.check_key(key, place)
        return built


class _RequestDecoder(_Decoder):
    """Never imports anything, and lets no dict pass that monty would take for an object."""

    builders = _REQUEST_BUILDERS

    def scalar(self, value: Any, place: tuple[Any, ...]) -> Any:
        if value is None or isinstance(value, (str, bool, int, float)):
            return value
        if isinstance(value, tuple):
            return tuple(self.decode(list(value), place))
        _StrictEncoder().encode(value, place)  # refuses what is not permitted
        return value

    def check_key(self, key: Any, place: tuple[Any, ...]) -> None:
        if isinstance(key, str) and key in _TAGS:
            raise InvalidJob(f"{_name(place)}: a dict with the key {key!r} is not permitted here")


def _tag(module: str, kind: str, **fields: Any) -> dict[str, Any]:
    return {"@module": module, "@class": kind, **fields}


def _name(place: tuple[Any, ...]) -> str:
    text = ""
    for part in place[:10]:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if part != "" else ""
    return text.lstrip(".") + ("..." if len(place) > 10 else "")


def _hashable(value: Any) -> Any:
    return value if isinstance(value, str) else repr(value)


def _nested(part: np.ndarray) -> Any:
    import numpy as np

    items = array_items(part)
    if part.ndim == 1:
        return items
    return np.array([*items, None], dtype=object)[:-1].reshape(part.shape).tolist()


def _is_atoms(value: Any) -> bool:
    from ase import Atoms

    return isinstance(value, Atoms)


def _sentinel(value: Any) -> str | None:
    # By name: looking at a parameter must not import quacc.
    kind = value if isinstance(value, type) else type(value)
    name = _SENTINELS.get((kind.__module__, kind.__qualname__))
    return name if (name == "Remove") == isinstance(value, type) else None
