"""The OpenRPC document: every method with its parameters and result, from their declarations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crystalmath import __version__
from crystalmath.models.fields import reference
from crystalmath.server.rpc.examples import example
from crystalmath.wire.messages import (
    CANCELLED,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    REFUSED,
)
from crystalmath.wire.schemas import components

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crystalmath.server.rpc.declare import Method

#: The version of the OpenRPC specification.
OPENRPC = "1.3.2"

#: The errors that may answer any method.
_ERRORS = {
    "InvalidParams": {"code": INVALID_PARAMS, "message": "the parameters are no object"},
    "InternalError": {"code": INTERNAL_ERROR, "message": "a fault of the server; its log has more"},
    "Cancelled": {"code": CANCELLED, "message": "$/cancelRequest came first"},
    "Refused": {
        "code": REFUSED,
        "message": "the server is busy or stopping; `code` in `data` says which",
    },
}


def document(methods: Mapping[str, Method]) -> dict[str, Any]:
    """Describe methods; see https://spec.open-rpc.org."""
    return {
        "openrpc": OPENRPC,
        "info": {
            "title": "CrystalMath jobs",
            "version": __version__,
            "description": "JSON-RPC 2.0 with LSP's Content-Length framing over the Unix socket of "
            "a home. Parameters go by their names. Answers may gain keys, and lose none.",
            "license": {"name": "Apache-2.0"},
        },
        "methods": [_method(methods[name]) for name in sorted(methods)],
        # The specification has no place for notifications of the server.
        "x-notifications": [
            {
                "name": "jobs.changed",
                "summary": "A change of a job, to a client that called jobs.subscribe.",
                "params": reference("Change"),
            },
            {
                "name": "jobs.progressed",
                "summary": "The progress of a job, to a client that named it in jobs.subscribe.",
                "params": reference("JobProgress"),
            },
        ],
        "components": {
            "schemas": {name: _titled(schema, name) for name, schema in components().items()},
            "errors": _ERRORS,
        },
    }


def _method(method: Method) -> dict[str, Any]:
    required = method.params["required"]
    # Required parameters come first, as the specification wants it.
    names = sorted(method.params["properties"], key=lambda name: name not in required)
    title = _camel(method.name)
    return {
        "name": method.name,
        "summary": method.summary,
        "description": method.description,
        "paramStructure": "by-name",
        "params": [
            _descriptor(name, method.params["properties"][name], title, required=name in required)
            for name in names
        ],
        "result": {
            "name": f"{method.name} result",
            "schema": _titled(method.answer, f"{title}Result"),
        },
        "errors": [{"$ref": f"#/components/errors/{name}"} for name in _ERRORS],
        "examples": [_example(method.name, *example(method))],
    }


def _descriptor(
    name: str, schema: Mapping[str, Any], title: str, *, required: bool
) -> dict[str, Any]:
    text = {"description": schema["description"]} if "description" in schema else {}
    titled = _titled(schema, title + _camel(name))
    return {"name": name, "required": required, "schema": titled, **text}


def _example(method: str, params: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": method,
        "params": [{"name": name, "value": value} for name, value in params.items()],
        "result": {"name": f"{method} result", "value": result},
    }


def _titled(schema: Mapping[str, Any], title: str) -> dict[str, Any]:
    """Add a title to a schema and all schemas in it; generators name their types by it."""
    if "$ref" in schema:
        return dict(schema)  # the schema that it refers to has a title
    titled = {"title": title, **schema}
    if "properties" in schema:
        titled["properties"] = {
            name: _titled(each, title + _camel(name)) for name, each in schema["properties"].items()
        }
    for key, ending in (("items", "Item"), ("additionalProperties", "Value")):
        if isinstance(schema.get(key), dict):
            titled[key] = _titled(schema[key], title + ending)
    if "anyOf" in schema:
        titled["anyOf"] = [
            _titled(each, f"{title}Or{number}") for number, each in enumerate(schema["anyOf"])
        ]
    return titled


def _camel(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in name.replace(".", "_").split("_"))
