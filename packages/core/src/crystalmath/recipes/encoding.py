"""Turn Python objects into JSON data, with the tags that ``codec`` lists."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import json
import math
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from attrs import frozen

from crystalmath.errors import InvalidJob
from crystalmath.models.reference import JOB, JobValue
from crystalmath.recipes.ase_classes import class_named, is_named_here
from crystalmath.recipes.ase_json import check_atoms, encode_atoms, prepare
from crystalmath.recipes.json_text import array_items, dtype_text, place_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from ase import Atoms

#: How deeply parameters and results may be nested.
MAX_DEPTH = 100

_MAX_INT_BITS = 10_000  # Python refuses to read longer integers from text
_SENTINELS = {
    ("quacc.utils.dicts", "Remove"): "Remove",
    ("quacc.types", "DefaultSetting"): "QuaccDefault",
}
#: The limits of an object that is kept as text: its characters, and the items of a sequence.
_MOST_TEXT = 10_000
_MOST_ITEMS = 100_000
_HELD = 2  # parts in the place of a member of the result itself
_PLAIN = frozenset((str, bool, type(None)))
#: The member of a dict that holds the types of its values that are numpy's scalars.
NUMPY = "@numpy"
#: The types of these scalars; those of other types are written as arrays.
NUMPY_TYPES = frozenset(
    ("bool", "str_", "float16", "float32", "float64", "complex64", "complex128")
) | {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
#: Marks the stand-in for an object that has no form in JSON.
AS_TEXT = "@as_text"
#: A class that quacc's elastic flows return and monty cannot write, by its two names.
DEFORMED = frozenset(
    (f"pymatgen.{part}.elasticity.strain", "DeformedStructureSet") for part in ("core", "analysis")
)


@frozen
class Sentinel:
    """A stand-in for ``quacc.Remove`` or ``quacc.QuaccDefault`` if quacc is not imported."""

    #: Its name in ``quacc``.
    name: str


class StrictEncoder:
    """Encoder of the permitted types; any other raises `InvalidJob`."""

    def encode(self, value: Any, place: tuple[Any, ...]) -> Any:
        """Encode a value; ``place`` is where it stands, for messages."""
        kind = type(value)
        if kind in _PLAIN:
            return value
        if len(place) > MAX_DEPTH:
            raise self.refusal(place, f"it is nested deeper than {MAX_DEPTH} levels, or in itself")
        if kind is float or kind is int:
            return self._number(value, place)
        if kind is dict:
            return self._dict(value, place)
        if kind is list:
            return self._list(value, place)
        return self._other(value, place)

    def refusal(self, place: tuple[Any, ...], reason: str) -> Exception:
        """Return the error about a value that cannot be encoded, with its place."""
        return InvalidJob(f"{place_name(place)}: {reason}")

    def atoms(self, value: Atoms, place: tuple[Any, ...]) -> Any:
        """Encode a structure."""
        try:
            document = encode_atoms(prepare(check_atoms(value)), info=True)
        except (InvalidJob, TypeError) as error:
            raise self.refusal(place, str(error)) from error
        return tagged_atoms(document)

    def not_finite(self, value: float, place: tuple[Any, ...]) -> Any:
        """Encode a number that is not finite, or raise."""
        raise self.refusal(place, f"{value!r} is not finite")

    def is_plain(self, value: Mapping[Any, Any]) -> bool:
        """Return whether all keys are texts, and none begins as a tag's does."""
        return all(isinstance(key, str) and not key.startswith("@") for key in value)

    def strange_array(self, value: np.ndarray, place: tuple[Any, ...]) -> Any:
        """Encode an array whose items are neither numbers nor strings, or raise."""
        raise self.refusal(place, f"an array of {value.dtype} cannot be part of a job")

    def unknown(self, value: Any, place: tuple[Any, ...]) -> Any:
        """Encode a value of a type that is not on the list, or raise."""
        if (tagged := self.named(value, place)) is not None:
            return tagged
        if isinstance(value, JobValue):
            return value.document()
        if isinstance(job_id := getattr(value, "job_id", None), str):  # a job, or its future
            return JobValue(job_id).document()
        what = (
            f"{value.__module__}.{value.__qualname__}" if isinstance(value, type) else repr(value)
        )
        raise self.refusal(
            place,
            f"{what[:80]} ({type(value).__name__}) cannot be part of a job; permitted are numbers, "
            "strings, lists, tuples, sets, dicts, bytes, dates, paths, numpy arrays and random "
            "generators, Atoms, the optimizers and dynamics of ase.optimize and ase.md, and parts "
            'of the results of other jobs, future["atoms"]',
        )

    def named(self, value: Any, place: tuple[Any, ...]) -> dict[str, Any] | None:
        """Encode a class, one of quacc's sentinels or a generator; ``None`` for another value."""
        if isinstance(value, Sentinel):
            return _tag("quacc", value.name)
        if sentinel := _sentinel(value):
            return _tag("quacc", sentinel)
        if isinstance(value, type):
            name = f"{value.__module__}.{value.__qualname__}"
            return (
                {"@module": value.__module__, "@callable": value.__name__}
                if (is_named_here(name) and class_named(name) is value)
                else None
            )
        if type(value).__module__.startswith("numpy.random") and hasattr(value, "bit_generator"):
            return _tag(
                "numpy.random", "Generator", state=self.encode(value.bit_generator.state, place)
            )
        return None

    def _number(self, value: float, place: tuple[Any, ...]) -> Any:
        if isinstance(value, int):
            if value.bit_length() > _MAX_INT_BITS:
                raise self.refusal(place, "the integer is too long")
            return int(value)
        return float(value) if math.isfinite(value) else self.not_finite(value, place)

    def _list(self, value: Any, place: tuple[Any, ...]) -> list[Any]:
        kinds = set(map(type, value))
        # Long lists of one kind (k-points, densities of states) are common: one look suffices.
        if kinds <= _PLAIN or (kinds == {float} and all(map(math.isfinite, value))):
            return list(value)
        return [self.encode(item, (*place, index)) for index, item in enumerate(value)]

    def _dict(self, value: Mapping[Any, Any], place: tuple[Any, ...]) -> Any:
        if self.is_plain(value):
            return {
                str.__str__(key): item if type(item) in _PLAIN else self.encode(item, (*place, key))
                for key, item in value.items()
            }
        items = [
            [self.encode(key, (*place, key)), self.encode(item, (*place, key))]
            for key, item in value.items()
        ]
        return _tag("builtins", "dict", items=items)

    def _other(self, value: Any, place: tuple[Any, ...]) -> Any:  # noqa: C901, PLR0911, PLR0912 - a type a line
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
            # Sorted, as the order of a set differs between processes.
            return _tag(
                "builtins", name, data=sorted(self._list(list(value), place), key=json.dumps)
            )
        if isinstance(value, (bytes, bytearray)):
            return _tag("builtins", "bytes", data=base64.b64encode(value).decode("ascii"))
        if isinstance(value, PurePath):
            return _tag("pathlib", "Path", string=str(value))
        if isinstance(value, dt.datetime):
            return _tag("datetime", "datetime", string=str(value))
        if isinstance(value, dt.date):
            return _tag("datetime", "date", string=value.isoformat())
        if _is_atoms(value):
            return self.atoms(value, place)
        return self.unknown(value, place)

    def _tuple(self, value: tuple[Any, ...], place: tuple[Any, ...]) -> Any:
        return _tag("builtins", "tuple", data=self._list(value, place))

    def _numpy_scalar(self, value: np.generic, place: tuple[Any, ...]) -> Any:
        import numpy as np

        item = value.item()
        if value.dtype.kind not in "biufcU" or type(item) is type(value):
            return self.strange_array(np.asarray(value), place)
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
        return _tag("numpy", "array", dtype=dtype_text(value.dtype), data=body, **shape)


class ParameterEncoder(StrictEncoder):
    """Encoder that takes a dict with the key ``$job`` for data: references are `JobValue`."""

    def is_plain(self, value: Mapping[Any, Any]) -> bool:
        """Return whether all keys are texts, and none is that of a tag or a reference."""
        return JOB not in value and super().is_plain(value)


class _TooDeepError(TypeError):
    """A result is nested too deeply, or in itself: the object around it is written as text."""


class ResultEncoder(StrictEncoder):
    """Encoder that also takes objects that monty can write, and numbers that are not finite.

    Any other object is kept as text, ``{"@as_text": true, "type": ..., "text": ...}``, a sequence
    with its ``items`` too, so that no calculation is lost. `formless` finds these stand-ins: no
    other job takes one for the value.
    """

    def __init__(self) -> None:
        #: Place and type of each object that was written as text.
        self.as_text: list[str] = []
        # Within an object that monty wrote: its own class reads the members.
        self._in_object = False

    def encode(self, value: Any, place: tuple[Any, ...]) -> Any:
        """Encode a value; ``place`` is where it stands, for messages."""
        try:
            return super().encode(value, place)
        except Exception as error:  # an object's own code may raise any kind
            # A member of the result becomes text as a whole: each level would try its own again.
            if isinstance(error, _TooDeepError) and len(place) > _HELD:
                raise
        return self._as_text(value, place)

    def _as_text(self, value: Any, place: tuple[Any, ...]) -> dict[str, Any]:
        name = f"{type(value).__module__}.{type(value).__qualname__}"
        self._note(name, place)
        text = object.__repr__(value)
        with contextlib.suppress(Exception):  # its own code, again
            text = repr(value)
        items: dict[str, Any] = {}
        if isinstance(value, Sequence) and not isinstance(value, (list, tuple)):
            with contextlib.suppress(Exception):
                if len(value) <= _MOST_ITEMS:
                    items = {"items": self.encode(list(value), (*place, "items"))}
        # Without lone surrogates, which have no form in UTF-8.
        shortened = text[:_MOST_TEXT].encode("utf-8", "replace").decode()
        return {AS_TEXT: True, "type": name, "text": shortened, **items}

    def _note(self, name: object, place: tuple[Any, ...]) -> None:
        self.as_text.append(f"{place_name(place)} ({name})")

    def refusal(self, place: tuple[Any, ...], reason: str) -> Exception:
        """Return the error about a value that cannot be encoded; a place too deep has its own."""
        kind = _TooDeepError if len(place) > MAX_DEPTH else TypeError
        return kind(f"{place_name(place)}: {reason}")

    def atoms(self, value: Atoms, place: tuple[Any, ...]) -> Any:
        """Encode a structure in the form that quacc's patched ``Atoms`` has, without quacc."""
        try:
            text = json.dumps(encode_atoms(value), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise self.refusal(place, str(error)) from error
        info = self._dict(value.info, (*place, "info"))
        kind = {"msonable": True} if _is_msonable(value) else {}
        return _tag("pymatgen.io.ase", "MSONAtoms", atoms_json=text, atoms_info=info, **kind)

    def not_finite(self, value: float, place: tuple[Any, ...]) -> Any:  # noqa: ARG002 - as in the base class
        """Spell the number."""
        return _tag("builtins", "float", string=repr(float(value)))

    def is_plain(self, value: Mapping[Any, Any]) -> bool:
        """Return whether all keys are texts; those of tags come from monty's own documents."""
        return NUMPY not in value and all(isinstance(key, str) for key in value)

    def _dict(self, value: Mapping[Any, Any], place: tuple[Any, ...]) -> Any:
        if value.get(AS_TEXT) is True:  # the stand-in comes from a step of this flow
            self._note(value.get("type"), place)
        if "@module" in value and not self._in_object:
            self._in_object = True
            try:
                return super()._dict(value, place)
            finally:
                self._in_object = False
        scalars = {} if self._in_object else value
        types = {key: kind for key, each in scalars.items() if (kind := _numpy_type(each))}
        if not types or not self.is_plain(value):
            return super()._dict(value, place)
        # Every reader understands plain numbers; ours finds their types beside them.
        plain = {key: _plain(each) if key in types else each for key, each in value.items()}
        return {**super()._dict(plain, place), NUMPY: types}

    def _numpy_scalar(self, value: np.generic, place: tuple[Any, ...]) -> Any:
        kind = None if self._in_object else _numpy_type(value)
        if kind is None:
            return super()._numpy_scalar(value, place)
        return _tag("numpy", kind, data=self.encode(value.item(), place))

    def strange_array(self, value: np.ndarray, place: tuple[Any, ...]) -> Any:
        """Write its items one by one."""
        if value.dtype.kind == "O":
            data = self.encode(value.tolist(), place)
        elif value.dtype.kind in "SMm":
            data = value.astype(str).tolist()
        else:
            raise self.refusal(place, f"an array of {value.dtype} cannot be written as JSON")
        return _tag("numpy", "array", dtype=dtype_text(value.dtype), data=data)

    def unknown(self, value: Any, place: tuple[Any, ...]) -> Any:
        """Encode the document that monty makes of a value, or raise."""
        from monty.json import MontyEncoder

        if isinstance(value, Enum) and isinstance(value, (str, int, float)):
            return self.encode(value.value, place)
        if (tagged := self.named(value, place)) is not None:
            return tagged
        if (type(value).__module__, type(value).__name__) in DEFORMED:
            parts = {name: self.encode(part, (*place, name)) for name, part in _parts(value)}
            return _tag(type(value).__module__, type(value).__name__, **parts)
        if "<" in getattr(value, "__qualname__", ""):
            raise self.refusal(place, "a local function cannot be found again by its name")
        try:
            document = MontyEncoder().default(value)
        except Exception as error:  # an object's own as_dict may raise any kind
            reason = f"{type(value).__name__} cannot be written as JSON ({error})"
            raise self.refusal(place, reason) from error
        return self.encode(document, place)


class ArgumentEncoder(ResultEncoder):
    """Encoder of the arguments of a flow's step: the types of results, and references.

    `reference` returns the document of a reference to another step, and ``None`` for other values.
    A structure is written as in specifications, with the rest of its ``info`` beside it.
    """

    def __init__(self, reference: Callable[[Any], dict[str, Any] | None]) -> None:
        super().__init__()
        self._reference = reference

    def encode(self, value: Any, place: tuple[Any, ...]) -> Any:
        """Encode a value; ``place`` is where it stands, for messages."""
        reference = self._reference(value)
        return super().encode(value, place) if reference is None else reference

    def atoms(self, value: Atoms, place: tuple[Any, ...]) -> Any:
        """Encode a structure."""
        document = encode_atoms(prepare(check_atoms(value)), info=True)
        node = tagged_atoms(document)
        info = self._dict(value.info, (*place, "info"))
        if info != document.get("info", {}):
            node["info"] = info
        return node | ({"msonable": True} if _is_msonable(value) else {})

    def is_plain(self, value: Mapping[Any, Any]) -> bool:
        """Return whether all keys are texts, and none begins with ``$``."""
        return super().is_plain(value) and not any(key.startswith("$") for key in value)


def formless(node: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Yield place and type of each object that a stored result keeps as text."""
    if isinstance(node, list):
        for index, each in enumerate(node):
            yield from formless(each, (*place, index))
    elif isinstance(node, dict):
        if node.get(AS_TEXT) is True:
            yield place, str(node.get("type"))
        else:
            for key, each in node.items():
                yield from formless(each, (*place, key))


def with_numpy_types(node: Any, kind: Any) -> Any:
    """Tag a scalar, or those in a list, by the type that its dict holds for it."""
    if isinstance(kind, list) and isinstance(node, list):
        return [with_numpy_types(each, kind[0]) for each in node]
    return _tag("numpy", kind, data=node) if isinstance(kind, str) else node


def tagged_atoms(document: Mapping[str, Any]) -> dict[str, Any]:
    """Tag a document of :func:`~crystalmath.recipes.ase_json.encode_atoms` as a structure."""
    return _tag("ase.atoms", "Atoms", data=document)


def _tag(module: str, kind: str, **fields: Any) -> dict[str, Any]:
    return {"@module": module, "@class": kind, **fields}


def _nested(part: np.ndarray) -> Any:
    import numpy as np

    items = array_items(part)
    if part.ndim == 1:
        return items
    return np.array([*items, None], dtype=object)[:-1].reshape(part.shape).tolist()


def _is_atoms(value: Any) -> bool:
    from ase import Atoms

    return isinstance(value, Atoms)


def _parts(deformed: Any) -> Iterator[tuple[str, Any]]:
    """Yield the parts of a ``DeformedStructureSet`` with their names."""
    for name in ("undeformed_structure", "deformations", "deformed_structures"):
        yield name, getattr(deformed, name)
    mapping = getattr(deformed, "sym_dict", None)  # deformations that symmetry leaves out
    yield "symmetries", None if mapping is None else list(mapping.values())


def _numpy_type(value: Any) -> Any:
    """Return the name of a numpy scalar's type; ``[name]`` for a list of scalars of one type."""
    if type(value) is list:
        inner = _numpy_type(value[0]) if value else None
        same = inner is not None and all(_numpy_type(each) == inner for each in value)
        return [inner] if same else None
    if type(value).__module__ != "numpy":
        return None
    import numpy as np

    if not isinstance(value, np.generic):
        return None
    name = "str_" if isinstance(value, str) else dtype_text(value.dtype)
    return name if name in NUMPY_TYPES else None


def _plain(value: Any) -> Any:
    return [_plain(each) for each in value] if isinstance(value, list) else value.item()


def _is_msonable(value: Any) -> bool:
    """Return whether a structure is of the class that pymatgen's adaptors return."""
    return type(value).__module__ == "pymatgen.io.ase"


def _sentinel(value: Any) -> str | None:
    # By name: looking at a parameter must not import quacc.
    kind = value if isinstance(value, type) else type(value)
    name = _SENTINELS.get((kind.__module__, kind.__qualname__))
    return name if (name == "Remove") == isinstance(value, type) else None
