"""Checks answers of another machine, whose server may be of another build, or no server of ours."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast, get_args, get_type_hints

from crystalmath import build_version, server
from crystalmath.errors import ProtocolMismatch, shown
from crystalmath.wire.messages import WireError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crystalmath.remotes.remote_home import RemoteHome

#: The version of the protocol that remotes have to speak.
PROTOCOL = 1


#: The answers of ``system.version`` that came last, by remote.
versions: dict[RemoteHome, Mapping[str, Any]] = {}


def check_version(remote: RemoteHome, version: Mapping[str, Any]) -> None:
    """Refuse a server of another release than this process (`ProtocolMismatch`).

    Builds of one release speak the same protocol, and the cluster has its own.
    """
    theirs, mine = (str(one).partition("+")[0] for one in (version.get("version"), build_version()))
    if theirs != mine or version.get("protocol") != PROTOCOL:
        raise ProtocolMismatch(
            f"{remote} runs crystalmath {theirs} (protocol {version.get('protocol')}), and this is "
            f"{mine} ({PROTOCOL}): install the same release here and there; {_end(remote.name)}"
        )
    versions[remote] = version


def unusable(name: str, wrong: object) -> ProtocolMismatch:
    """Return the error of an answer of a remote that is not as our server writes it."""
    theirs = (version["version"] for remote, version in versions.items() if remote.name == name)
    return ProtocolMismatch(
        f"an answer of {name} cannot be used: {wrong}; crystalmath "
        f"{next(theirs, 'of another build')} runs there, and {build_version()} here: install the "
        f"same build here and there; {_end(name)}"
    )


def _end(name: str) -> str:
    return (
        f"if it is there already, `crystalmath --on {name} stop` ends the old server, and running "
        "jobs go on"
    )


@contextlib.contextmanager
def reading(remote: RemoteHome) -> Iterator[None]:
    """Raise `ProtocolMismatch` for a message that is none of our server's."""
    try:
        yield
    except WireError as error:
        raise unusable(remote.name, error) from error


def check_answer(
    remote: RemoteHome, method: str, params: Mapping[str, Any], answer: Mapping[str, Any]
) -> None:
    """Refuse an answer whose parts are not of their declared types (`ProtocolMismatch`)."""
    if wrong := wrong_part(method, params, answer):
        raise unusable(remote.name, f"in the answer to {method}, {wrong}")


def wrong_part(method: str, params: Mapping[str, Any], answer: Mapping[str, Any]) -> str | None:
    """Return which part of an answer is not of its declared type; ``None``: all are.

    An answer may have more than was declared, as those of later builds do.
    """
    from crystalmath.wire import answers, schemas

    known: dict[str, dict[str, Any]] = schemas.components()
    has_failed = answer.get("status") == "error" and method != server.JOBS_CHECK
    if has_failed or answer.get("code") is not None:
        refusal = {**known["Refusal"]["properties"], "status": {}}  # a failed job has another one
        schema: dict[str, Any] = {"properties": refusal, "required": ["error", "code"]}
    else:
        names = {"answers": answers, "Mapping": Mapping}
        hints = get_type_hints(server, localns=names, include_extras=True)
        declared = {getattr(server, name): get_args(hint) for name, hint in hints.items()}
        (kind,) = declared.get(cast("server.Method[Any]", method), (Any,))
        schema = schemas.schema_of(kind)
        if method == server.JOBS_LIST:
            jobs = {"type": "array", "items": _listed(known, params.get("fields"))}
            schema = {**schema, "properties": {**schema["properties"], "jobs": jobs}}
    wrong = _wrong(answer, schema, known, "")
    return wrong and " must be ".join(wrong)


def _listed(components: Mapping[str, Any], fields: list[str] | None) -> Mapping[str, Any]:
    """Return the schema of a job that has only some fields."""
    job: dict[str, Any] = components["Job"]
    if fields is None:
        return job
    summary = {**components["Summary"], "required": []}
    result = {"anyOf": [summary, {"type": "null"}]}
    required = ["job_id", *(name for name in fields if "." not in name)]
    return {**job, "properties": {**job["properties"], "result": result}, "required": required}


def _wrong(
    value: object, schema: Mapping[str, Any], components: Mapping[str, Any], place: str
) -> tuple[str, str] | None:
    """Return the first place that differs, and what must be there."""
    if "$ref" in schema:
        schema = components[schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        differ = [_wrong(value, one, components, place) for one in schema["anyOf"]]
        # The alternative that was meant is the one that fits furthest.
        return None if None in differ else max(cast("Any", differ), key=lambda one: len(one[0]))
    if (allowed := _allowed(value, schema)) is not None:
        return place or "it", f"{allowed}, not {shown(value)}"
    required: list[str] = []
    if isinstance(value, Mapping):
        known, others = schema.get("properties", {}), schema.get("additionalProperties") or {}
        items = [(f"{place}.{name}", item, known.get(name, others)) for name, item in value.items()]
        required = schema.get("required", [])
    elif isinstance(value, list):
        of_each = schema.get("items", {})
        items = [(f"{place}[{number}]", item, of_each) for number, item in enumerate(value)]
    else:
        return None
    each = (_wrong(item, one, components, where.lstrip(".")) for where, item, one in items if one)
    lacking = ((f"{place}.{name}".lstrip("."), "there") for name in required if name not in value)
    return next((wrong for wrong in itertools.chain(each, lacking) if wrong), None)


def _allowed(value: object, schema: Mapping[str, Any]) -> str | None:
    """Return the words for what a schema allows in place of a value; ``None``: it allows it."""
    if "const" in schema:
        return None if value == schema["const"] else repr(schema["const"])
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_TYPES[kind][0](value) for kind in kinds):
        return " or ".join(_TYPES[kind][1] for kind in kinds)
    options = schema.get("enum")
    if options is None or value is None or value in options:
        return None
    return f"one of {', '.join(map(str, options))}"


def _is_number(value: object, *kinds: type) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


#: The types of JSON: whether a value is of one, and its words in messages.
_TYPES: dict[str, tuple[Callable[[object], bool], str]] = {
    "array": (lambda value: isinstance(value, list), "a list"),
    "boolean": (lambda value: isinstance(value, bool), "true or false"),
    "integer": (lambda value: _is_number(value, int), "a whole number"),
    "null": (lambda value: value is None, "null"),
    "number": (lambda value: _is_number(value, int, float), "a number"),
    "object": (lambda value: isinstance(value, Mapping), "an object"),
    "string": (lambda value: isinstance(value, str), "a text"),
}
