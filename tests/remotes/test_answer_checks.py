"""Answers that are not of their declared types, and the errors that users see."""

import copy
import json
import re
import sys
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystalmath import build_version
from crystalmath.client import ProtocolMismatch, connect
from crystalmath.remotes.answer_checks import wrong_part
from crystalmath.server.handlers import METHODS
from crystalmath.server.rpc.openrpc import document
from crystalmath.wire.schemas import components

pytestmark = pytest.mark.server

EXAMPLES = {
    method["name"]: method["examples"][0]["result"]["value"]
    for method in document(METHODS)["methods"]
}
#: The parts of a schema that are about types, and not about limits.
TYPES = {"$ref", "anyOf", "const", "enum", "items", "properties", "required", "type"}
# JSON Schema takes 1.0 for a whole number, and our server writes none.
FRACTIONS = st.floats(allow_nan=False).filter(lambda number: not number.is_integer())
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | FRACTIONS | st.text(max_size=3),
    lambda each: (
        st.lists(each, max_size=2) | st.dictionaries(st.text(max_size=3), each, max_size=2)
    ),
    max_leaves=4,
)


def of_types(schema):
    """Return a schema without its limits."""
    if isinstance(schema, list):
        return [of_types(one) if isinstance(one, dict) else one for one in schema]
    kept = {key: value for key, value in schema.items() if key in TYPES}
    kept |= {key: of_types(schema[key]) for key in ("anyOf", "items") if key in schema}
    if "properties" in schema:
        kept["properties"] = {key: of_types(one) for key, one in schema["properties"].items()}
    if isinstance(schema.get("additionalProperties"), dict):
        kept["additionalProperties"] = of_types(schema["additionalProperties"])
    if None in kept.get("enum", [None]) or "null" not in kept.get("type", ""):
        return kept
    return {**kept, "enum": [*kept["enum"], None]}


def places(value, before=()):
    """Yield the places in an answer."""
    items = value.items() if isinstance(value, dict) else ()
    for key, item in enumerate(value) if isinstance(value, list) else items:
        yield (*before, key)
        yield from places(item, (*before, key))


@pytest.mark.parametrize("method", METHODS)
def test_an_answer_of_ours_is_taken(method):
    assert wrong_part(method, {}, EXAMPLES[method]) is None
    refused = {"status": "error", "error": "no", "code": "x", "job_id": None}
    assert wrong_part(method, {}, refused) is None


def test_a_check_with_faults_is_no_refusal():
    faulty = {**EXAMPLES["jobs.check"], "ok": False, "status": "error", "error": "no such thing"}
    assert wrong_part("jobs.check", {}, faulty) is None
    assert (
        wrong_part("jobs.check", {}, {**faulty, "findings": 1}) == "findings must be a list, not 1"
    )


@given(data=st.data())
def test_what_is_refused_is_not_of_the_schema(data):
    method = data.draw(st.sampled_from([name for name in METHODS if EXAMPLES[name]]))
    answer = copy.deepcopy(EXAMPLES[method])
    *way, last = data.draw(st.sampled_from(list(places(answer))))
    node = answer
    for key in way:
        node = node[key]
    if isinstance(node, dict) and data.draw(st.booleans()):
        del node[last]
    else:
        node[last] = data.draw(VALUES)
    if answer.get("code") is not None:
        return
    if answer.get("status") == "error" and method != "jobs.check":
        return
    whole = {name: of_types(schema) for name, schema in components().items()}
    result = METHODS[method].result
    if method == "jobs.list":  # without `fields` each job is whole
        jobs = {"type": "array", "items": {"$ref": "#/components/schemas/Job"}}
        result = {**result, "properties": {**result["properties"], "jobs": jobs}}
    schema = {**of_types(result), "components": {"schemas": whole}}
    wrong = wrong_part(method, {}, answer)
    assert (wrong is None) == jsonschema.Draft7Validator(schema).is_valid(answer), wrong


JOB = EXAMPLES["jobs.list"]["jobs"][0]


def test_a_list_of_some_fields_needs_those_alone():
    some = {"jobs": [{"job_id": "x", "name": None}], "cursor": None, "totals": None, "error": None}
    assert wrong_part("jobs.list", {"fields": ["name"]}, some) is None
    assert (
        wrong_part("jobs.list", {"fields": ["name", "status"]}, some)
        == "jobs[0].status must be there"
    )
    assert "jobs[0]" in wrong_part("jobs.list", {}, some)


@pytest.fixture
def answers(hawk, home, tmp_path):
    """Return a function that sets the answers of the machine."""
    file = tmp_path / "answers"
    command = f"{sys.executable} {Path(__file__).with_name('liar.py')} {file}"
    (home / "config.toml").write_text(hawk.table(command=command))

    def answers(**methods):
        file.write_text(
            json.dumps({name.replace("_", ".", 1): one for name, one in methods.items()})
        )

    return answers


@pytest.mark.parametrize(
    ("command", "methods", "said"),
    [
        ("list", {"jobs_list": {"result": {"jobs": 5}}}, "jobs.list, jobs must be a list, not 5"),
        ("list", {"jobs_list": {"result": {}}}, "error must be there"),
        ("counts", {"jobs_counts": {"result": {"error": 1}}}, "error must be a text or null"),
        ("list", {"jobs_list": {"error": {"code": 1}}}, "neither a result nor an error"),
        ("list", {"jobs_list": {"error": 5}}, 'it is .*"error":5'),
        ("list", {"jobs_list": {"result": []}}, r'it is .*"result":\[\]'),
        (
            "show x",
            {
                "jobs_list": {
                    "result": {**EXAMPLES["jobs.list"], "jobs": [{**JOB, "status": "odd"}]}
                }
            },
            "status must be one of pending, running",
        ),
        (
            f"result {JOB['job_id']} --json",
            {
                "jobs_status": {"result": JOB},
                "jobs_result": {"result": {"job_id": 5, "error": None, "status": "completed"}},
            },
            "job_id must be a text, not 5",
        ),
        (
            f"files {JOB['job_id']} --get x",
            {"jobs_files": {"result": {**EXAMPLES["jobs.files"], "files": [{"file": 7}]}}},
            r"files\[0\]",
        ),
        (
            f"cancel {JOB['job_id']}",
            {"jobs_cancel_many": {"result": {"error": None, "jobs": [None]}}},
            r"jobs\[0\]",
        ),
        (
            "list",
            {"jobs_list": {"result": {"status": "error", "error": "x", "code": 1}}},
            "code must be a text, not 1",
        ),
    ],
)
def test_a_wrong_answer_is_named_with_both_versions(there, answers, command, methods, said):
    answers(**methods)
    answer = there(*command.split())
    assert answer.code == 1
    whole = rf"an answer of hawk cannot be used: .*{said}.*; crystalmath \S+ runs there, and "
    assert answer.err.startswith("error: ")
    assert re.search(whole + re.escape(build_version()), answer.err), answer.err
    assert "install the same build here and there" in answer.err


def test_a_client_raises_one_error_for_wrong_answers(answers):
    answers(jobs_list={"result": {"jobs": [{}]}}, jobs_submit={"result": []})
    with connect(on="hawk") as client:
        for call in (client.list, lambda: client.call("jobs.submit", {"recipe": "x"})):
            with pytest.raises(ProtocolMismatch, match=r"an answer of hawk cannot be used"):
                list(call())
