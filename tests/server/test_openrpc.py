"""The published document is what the handlers take and give."""

import asyncio
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import jsonschema
import pytest

from crystalmath.models.checks import checked
from crystalmath.server import handlers
from crystalmath.server.handlers import METHODS
from crystalmath.server.rpc.openrpc import document

pytestmark = pytest.mark.server

DOCUMENT = document(METHODS)
BY_NAME = {method["name"]: method for method in DOCUMENT["methods"]}
PROTOCOL = Path(__file__).parents[2] / "docs/protocol.md"

#: The methods of the issue; none may go.
PROMISED = {
    *("system.ping", "system.version", "system.status", "system.stop", "rpc.discover"),
    *("jobs.submit", "jobs.submit_many", "jobs.check", "jobs.status", "jobs.status_many"),
    *(
        "jobs.list",
        "jobs.summary",
        "jobs.counts",
        "jobs.result",
        "jobs.cancel",
        "jobs.wait",
        "jobs.logs",
    ),
    *("jobs.events", "jobs.subscribe", "jobs.unsubscribe"),
    *("engines.list", "clusters.list", "clusters.check", "recipes.list", "recipes.describe"),
}


def test_the_server_gives_the_document():
    assert asyncio.run(METHODS["rpc.discover"](None, {})) == DOCUMENT


def test_every_promised_method_is_there():
    assert BY_NAME.keys() == METHODS.keys() >= PROMISED


def test_every_handler_is_registered():
    registered = {method.handler for method in METHODS.values()}
    for found in pkgutil.iter_modules(handlers.__path__):
        module = importlib.import_module(f"{handlers.__name__}.{found.name}")
        for name, value in vars(module).items():
            if name.startswith("handle_") and inspect.iscoroutinefunction(value):
                assert value in registered, f"{module.__name__}.{name}"


def schemas(node):
    """Yield all schemas in one, itself among them."""
    yield node
    for key in ("properties", "items", "additionalProperties", "anyOf"):
        found = node.get(key)
        below = found.values() if key == "properties" and found else found
        for each in [below] if isinstance(below, dict) else below or []:
            if isinstance(each, dict):
                yield from schemas(each)


def untitled(node):
    """Take the titles away."""
    if isinstance(node, list):
        return [untitled(each) for each in node]
    if not isinstance(node, dict):
        return node
    is_schema = isinstance(node.get("title"), str)
    return {k: untitled(v) for k, v in node.items() if not (k == "title" and is_schema)}


def test_every_schema_has_a_title_of_its_own():
    whole = [
        *DOCUMENT["components"]["schemas"].values(),
        *(p["schema"] for method in DOCUMENT["methods"] for p in method["params"]),
        *(method["result"]["schema"] for method in DOCUMENT["methods"]),
    ]
    found = [each for one in whole for each in schemas(one) if "$ref" not in each]
    titles = [each["title"] for each in found]
    assert len(set(titles)) == len(titles) > 200


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_errors_and_an_example_that_fits(name):
    method = BY_NAME[name]
    codes = {each["$ref"].rpartition("/")[2] for each in method["errors"]}
    assert codes == DOCUMENT["components"]["errors"].keys()
    (example,) = method["examples"]
    checked({each["name"]: each["value"] for each in example["params"]}, METHODS[name].params)
    schema = {**METHODS[name].result, "components": DOCUMENT["components"]}
    jsonschema.Draft7Validator(schema).validate(example["result"]["value"])


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_described_as_openrpc_wants_it(name):
    method = BY_NAME[name]
    assert method["summary"].endswith(".")
    assert method["description"].startswith(method["summary"][:-1])
    assert method["paramStructure"] == "by-name"
    needed = [parameter["required"] for parameter in method["params"]]
    assert needed == sorted(needed, reverse=True), "what must be given comes first"
    for schema in [*(p["schema"] for p in method["params"]), method["result"]["schema"]]:
        jsonschema.Draft7Validator.check_schema(schema)
        for referred in re.findall(r"#/components/schemas/(\w+)", str(schema)):
            assert referred in DOCUMENT["components"]["schemas"]


@pytest.mark.parametrize("name", METHODS)
def test_the_check_of_parameters_is_that_of_the_document(name):
    method = BY_NAME[name]
    schema = METHODS[name].params
    assert schema["properties"] == {p["name"]: untitled(p["schema"]) for p in method["params"]}
    assert set(schema["required"]) == {p["name"] for p in method["params"] if p["required"]}


VALUES = [
    *(None, True, 0, 1, -1, 2.5, 10**20, "", "a", "pending", [], ["a"], ["pending"], [1], {}),
    *({"a": "b"}, {"a": 1}),
]


@pytest.mark.parametrize("name", METHODS)
def test_what_the_check_lets_through_fits_the_schema(name):
    # Our own check has the better words; what it refuses must be what the schema refuses.
    for parameter, schema in METHODS[name].params["properties"].items():
        validator = jsonschema.Draft7Validator(schema)
        for value in VALUES[1:]:
            try:
                checked({parameter: value}, {"properties": {parameter: schema}})
            except (ValueError, KeyError):
                passed = False
            else:
                passed = True
            assert passed == validator.is_valid(value), (parameter, value)


def test_the_text_for_people_names_every_method():
    text = PROTOCOL.read_text(encoding="utf-8")
    assert {name for name in METHODS if f"`{name}`" not in text} == set()
    known = {*METHODS, *(each["name"] for each in DOCUMENT["x-notifications"])}
    named = set(re.findall(r"`((?:jobs|system|engines|recipes|rpc)\.\w+)`", text))
    assert named <= known


#: What JavaScript allows nobody to call a parameter (ECMAScript, reserved words, strict mode).
RESERVED = set(
    re.findall(
        r"\w+",
        """
        arguments await break case catch class const continue debugger default delete do else enum
        eval export extends false finally for function if implements import in instanceof interface
        let new null package private protected public return static super switch this throw true try
        typeof var void while with yield
        """,
    )
)


def test_no_parameter_has_a_name_that_generated_clients_cannot_use():
    for name, method in METHODS.items():
        assert not RESERVED & {*method.params["properties"]}, name
