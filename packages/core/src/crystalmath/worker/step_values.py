"""Step values: what stands in a flow for the result of a step before the result exists.

The call of a step that has not ended returns a `StepValue`, which the flow's body can hand on to
further calls. Every other use needs the value itself and ends the pass. In the result of a step
that has ended, a `FormlessValue` stands for each object that has no form in JSON.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from crystalmath.models.reference import STEP
from crystalmath.recipes.decoding import NotListedError, ResultDecoder
from crystalmath.recipes.json_text import place_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class EndsPass(Protocol):
    """The two ways in which a value that is used too early ends the pass."""

    def need(self, names: list[str]) -> NoReturn:
        """End the pass until these steps have ended."""

    def stop(self, reason: str) -> NoReturn:
        """End the pass and fail the flow."""


def _need(value: StepValue, *_: Any, **__: Any) -> NoReturn:
    """End the pass, as its body uses a value that it cannot have."""
    flow: EndsPass = object.__getattribute__(value, "_flow")
    if type(value) is FormlessValue:
        flow.stop(
            f"{name_of(value)}, which has no form in JSON: the flow needs the object, and its "
            "text alone is kept; have the step return numbers, texts, arrays, structures or dicts "
            "of such, or submit the flow with --in-one-job"
        )
    flow.need([name_of(value)])


class StepValue:
    """A part of the result of a step that has not ended.

    It can be indexed by texts and whole numbers, copied, and put into containers. Every other use
    needs the value and ends the pass.
    """

    __slots__ = ("_flow", "_name", "_path")
    #: `isinstance` reads it.
    __class__ = property(_need)

    def __init__(self, flow: EndsPass, name: str, path: tuple[str | int, ...] = ()) -> None:
        for slot, value in (("_flow", flow), ("_name", name), ("_path", path)):
            object.__setattr__(self, slot, value)

    def __getitem__(self, key: Any) -> Any:
        if type(key) not in {str, int}:
            _need(self)
        return StepValue(self._flow, self._name, (*self._path, key))

    def __copy__(self) -> StepValue:
        return self

    def __deepcopy__(self, memo: Any) -> StepValue:
        return self

    def __getattr__(self, name: str) -> NoReturn:
        _need(self)


class FormlessValue(StepValue):
    """An object in a step's result that has no form in JSON.

    It can be copied, put into containers and returned by the flow. Every other use needs the object
    and fails the flow, as another value in its place would be wrong.
    """

    __slots__ = ("_node",)

    def __init__(self, flow: EndsPass, description: str, node: Mapping[str, Any]) -> None:
        super().__init__(flow, description)
        object.__setattr__(self, "_node", node)

    def __getitem__(self, key: Any) -> NoReturn:
        _need(self)


#: Methods that Python looks up on the type, past `__getattr__`.
_METHODS_OF_TYPES = [
    *("setattr", "delattr", "setitem", "delitem", "iter", "len", "bool", "contains", "call"),
    *("eq", "ne", "lt", "le", "gt", "ge", "hash", "str", "repr", "format", "bytes", "int"),
    *("float", "complex", "index", "round", "trunc", "floor", "ceil", "neg", "pos", "abs"),
    *("invert", "enter", "exit", "reversed", "fspath", "reduce", "reduce_ex", "dir", "sizeof"),
    *("await", "aiter", "anext", "aenter", "aexit", "next", "length_hint"),
    *("array", "array_ufunc", "array_function"),
    *(
        f"{kind}{name}"
        for kind in ("", "r", "i")
        for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul")
    ),
    *(f"{kind}{name}" for kind in ("", "r", "i") for name in ("and", "or", "xor")),
    *(f"{kind}{name}" for kind in ("", "r", "i") for name in ("lshift", "rshift")),
    *("divmod", "rdivmod"),
]
for _method in _METHODS_OF_TYPES:
    setattr(StepValue, f"__{_method}__", _need)


def name_of(value: StepValue) -> str:
    """Return the name of the step that a value comes from."""
    return str(object.__getattribute__(value, "_name"))


def step_reference(value: Any) -> dict[str, Any] | None:
    """Return how a step value is written among a call's arguments; ``None`` for other values."""
    if type(value) is FormlessValue:
        _need(value)
    if type(value) is not StepValue:
        return None
    return {STEP: name_of(value), "path": list(object.__getattribute__(value, "_path"))}


def steps_in(value: Any) -> Iterator[str]:
    """Yield the names of the steps whose values stand in the containers of a call's arguments."""
    kind = type(value)
    if kind is StepValue:
        yield name_of(value)
    elif kind in {list, tuple}:
        for item in value:
            yield from steps_in(item)
    elif kind is dict:
        for item in value.values():
            yield from steps_in(item)


def as_stored(value: Any) -> Any:
    """Return a flow's result with each `FormlessValue` replaced by its stored node."""
    kind = type(value)
    if kind is FormlessValue:
        return object.__getattribute__(value, "_node")
    if kind is dict:
        return {key: as_stored(each) for key, each in value.items()}
    return kind(map(as_stored, value)) if kind in {list, tuple} else value


class StepArgumentDecoder(ResultDecoder):
    """Decoder of recorded arguments that may contain step values."""

    def decode(self, value: Any, place: tuple[Any, ...]) -> Any:
        """Leave step values as they are."""
        return value if type(value) is StepValue else super().decode(value, place)


class StepResultDecoder(ResultDecoder):
    """Decoder of a step's result: a `FormlessValue` replaces each object it cannot rebuild."""

    def __init__(self, flow: EndsPass, step: str) -> None:
        self._flow, self._step = flow, step
        #: The places of such values, each with the object's class.
        self.formless_places: list[str] = []

    def formless(self, node: dict[Any, Any], place: tuple[Any, ...]) -> Any:
        """Return a `FormlessValue` and note its place."""
        kind = node.get("type") or f"{node.get('@module')}.{node.get('@class')}"
        self.formless_places.append(f"{place_name(place)} ({kind})")
        description = f"{self._step} has returned {kind} as {place_name(place)}"
        return FormlessValue(self._flow, description, node)

    def text_in_object(self, node: dict[Any, Any]) -> NoReturn:
        """Refuse the whole object: one part without a form leaves the object without one."""
        raise NotListedError(node.get("type"))
