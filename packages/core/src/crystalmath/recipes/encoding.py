"""Turn Python objects into what JSON can hold, with the tags that ``codec`` lists."""

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
#: How much of what cannot be written is kept: characters of its text, and items of a sequence.
_MOST_TEXT = 10_000
_MOST_ITEMS = 100_000
_HELD = 2  # parts of the place of what a result holds directly
_PLAIN = frozenset((str, bool, type(None)))
#: The member of a dict that names those of its values that are numbers of numpy's, and their types.
NUMPY = "@numpy"
#: Those types; all others are written as arrays.
NUMPY_TYPES = frozenset(
    ("bool", "str_", "float16", "float32", "float64", "complex64", "complex128")
) | {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
#: Marks what stands for an object that has no form in JSON.
AS_TEXT = "@as_text"
#: What quacc's elastic flows return and monty cannot write, by the names that it has had.
DEFORMED = frozenset(
    (f"pymatgen.{part}.elasticity.strain", "DeformedStructureSet") for part in ("core", "analysis")
)


@frozen
class Sentinel:
    """Stands for ``quacc.Remove`` or ``quacc.QuaccDefault`` where quacc is not imported."""

    #: Its name in ``quacc``.
    name: str


class StrictEncoder:
    """Takes the permitted types only; everything else is an InvalidJob."""

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
        """Make the error that says what cannot be encoded, and where."""
        return InvalidJob(f"{place_name(place)}: {reason}")

    def atoms(self, value: Atoms, place: tuple[Any, ...]) -> Any:
        """Encode a structure."""
        try:
            document = encode_atoms(prepare(check_atoms(value)), info=True)
        except (InvalidJob, TypeError) as error:
            raise self.refusal(place, str(error)) from error
        return tagged_atoms(document)

    def not_finite(self, value: float, place: tuple[Any, ...]) -> Any:
        """Deal with a number that JSON cannot hold."""
        raise self.refusal(place, f"{value!r} is not finite")

    def is_plain(self, value: Mapping[Any, Any]) -> bool:
        """Return whether all keys are texts, and none could be taken for a tag."""
        return all(isinstance(key, str) and not key.startswith("@") for key in value)

    def strange_array(self, value: np.ndarray, place: tuple[Any, ...]) -> Any:
        """Deal with an array of other things than numbers and strings."""
        raise self.refusal(place, f"an array of {value.dtype} cannot be part of a job")

    def unknown(self, value: Any, place: tuple[Any, ...]) -> Any:
        """Deal with a type that is not on the list."""
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
        """Encode what is known by its name: classes, quacc's sentinels, generators."""
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
        # Long lists of one kind are common (k-points, densities of states): one look suffices.
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
    """Takes a dict with the key ``$job`` for plain data: references are `JobValue` by now."""

    def is_plain(self, value: Mapping[Any, Any]) -> bool:
        """Return whether no key could be taken for a tag or a reference, either."""
        return JOB not in value and super().is_plain(value)


class _TooDeepError(TypeError):
    """A result is nested too deeply, or in itself: what holds it all is written as text."""


class ResultEncoder(StrictEncoder):
    """Takes also what monty can write, and numbers that are not finite.

    What cannot be written is written as text: ``{"@as_text": true, "type": ..., "text": ...}``, of
    a sequence with its ``items``. A calculation is never lost for want of a form, and nothing that
    feeds another job takes this for the value (`formless`).
    """

    def __init__(self) -> None:
        #: Place and type of what was written so.
        self.as_text: list[str] = []
        # Within what monty wrote, which its own classes read.
        self._in_object = False

    def encode(self, value: Any, place: tuple[Any, ...]) -> Any:
        """Encode a value; ``place`` is where it stands, for messages."""
        try:
            return super().encode(value, place)
        except _TooDeepError:
            # Further down each of its members would be tried again.
            if len(place) > _HELD:
                raise
        except Exception:  # noqa: BLE001, S110 - whatever an object's own code raises
            pass
        return self._as_text(value, place)

    def _as_text(self, value: Any, place: tuple[Any, ...]) -> dict[str, Any]:
        name = f"{type(value).__module__}.{type(value).__qualname__}"
        self._note(name, place)
        try:
            text = repr(value)
        except Exception:  # noqa: BLE001 - as above
            text = object.__repr__(value)
        items: dict[str, Any] = {}
        if isinstance(value, Sequence) and not isinstance(value, (list, tuple)):
            with contextlib.suppress(Exception):
                if len(value) <= _MOST_ITEMS:
                    items = {"items": self.encode(list(value), (*place, "items"))}
        # Without halves of pairs, which are no text in UTF-8.
        shortened = text[:_MOST_TEXT].encode("utf-8", "replace").decode()
        return {AS_TEXT: True, "type": name, "text": shortened, **items}

    def _note(self, name: object, place: tuple[Any, ...]) -> None:
        self.as_text.append(f"{place_name(place)} ({name})")

    def refusal(self, place: tuple[Any, ...], reason: str) -> Exception:
        """As the base class, for a result."""
        kind = _TooDeepError if len(place) > MAX_DEPTH else TypeError
        return kind(f"{place_name(place)}: {reason}")

    def atoms(self, value: Atoms, place: tuple[Any, ...]) -> Any:
        """Encode a structure as quacc does; it patches Atoms, written out it needs no quacc."""
        try:
            text = json.dumps(encode_atoms(value), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise self.refusal(place, str(error)) from error
        info = self._dict(value.info, (*place, "info"))
        kind = {"msonable": True} if _is_msonable(value) else {}
        return _tag("pymatgen.io.ase", "MSONAtoms", atoms_json=text, atoms_info=info, **kind)

    def not_finite(self, value: float, place: tuple[Any, ...]) -> Any:  # noqa: ARG002
        """Spell it."""
        return _tag("builtins", "float", string=repr(float(value)))

    def is_plain(self, value: Mapping[Any, Any]) -> bool:
        """Results hold objects that monty wrote already; they stay what they are."""
        return NUMPY not in value and all(isinstance(key, str) for key in value)

    def _dict(self, value: Mapping[Any, Any], place: tuple[Any, ...]) -> Any:
        if value.get(AS_TEXT) is True:  # a flow returns what a step of it has returned
            self._note(value.get("type"), place)
        if "@module" in value and not self._in_object:
            self._in_object = True
            try:
                return super()._dict(value, place)
            finally:
                self._in_object = False
        found = {} if self._in_object else value
        types = {key: kind for key, each in found.items() if (kind := _numpy_type(each))}
        if not types or not self.is_plain(value):
            return super()._dict(value, place)
        # As plain numbers they are for every reader, and ours finds their types beside them.
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
        """Let monty write it."""
        from monty.json import MontyEncoder

        if isinstance(value, Enum) and isinstance(value, (str, int, float)):
            return self.encode(value.value, place)
        if (tagged := self.named(value, place)) is not None:
            return tagged
        if (type(value).__module__, type(value).__name__) in DEFORMED:
            parts = {name: self.encode(part, (*place, name)) for name, part in _parts(value)}
            return _tag(type(value).__module__, type(value).__name__, **parts)
        if "<" in getattr(value, "__qualname__", ""):
            raise self.refusal(place, "a function that no module has cannot be found again")
        try:
            document = MontyEncoder().default(value)
        except Exception as error:  # whatever an object's own as_dict says
            reason = f"{type(value).__name__} cannot be written as JSON ({error})"
            raise self.refusal(place, reason) from error
        return self.encode(document, place)


class ArgumentEncoder(ResultEncoder):
    """Takes the arguments of a flow's step: what results may hold, and references to other steps.

    `reference` returns what stands for a value, or ``None`` where it is no reference. A structure
    is written as in specifications, with the rest of its ``info`` beside it.
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
        """Return whether no key could be taken for a reference, either."""
        return super().is_plain(value) and not any(key.startswith("$") for key in value)


def formless(node: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Find what is kept as text in a stored result: the place, and the type of the object."""
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
    """Tag a scalar, or those in a list, as of numpy's, where the dict that holds it says so."""
    if isinstance(kind, list) and isinstance(node, list):
        return [with_numpy_types(each, kind[0]) for each in node]
    return _tag("numpy", kind, data=node) if isinstance(kind, str) else node


def tagged_atoms(document: Mapping[str, Any]) -> dict[str, Any]:
    """Tag what :func:`~crystalmath.recipes.ase_json.encode_atoms` wrote as a structure."""
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
    """Go through what a ``DeformedStructureSet`` is made of."""
    for name in ("undeformed_structure", "deformations", "deformed_structures"):
        yield name, getattr(deformed, name)
    mapping = getattr(deformed, "sym_dict", None)  # of those that symmetry has left out
    yield "symmetries", None if mapping is None else list(mapping.values())


def _numpy_type(value: Any) -> Any:
    """Name the type of a scalar of numpy's; within a list for a list of such of one type."""
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
    """Return whether a structure is of pymatgen's class, to which its adaptors convert."""
    return type(value).__module__ == "pymatgen.io.ase"


def _sentinel(value: Any) -> str | None:
    # By name: looking at a parameter must not import quacc.
    kind = value if isinstance(value, type) else type(value)
    name = _SENTINELS.get((kind.__module__, kind.__qualname__))
    return name if (name == "Remove") == isinstance(value, type) else None
