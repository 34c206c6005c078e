"""The wire: framing and strict JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystalmath.wire import messages
from crystalmath.wire.messages import MAX_DEPTH, MAX_MESSAGE, Raw, WireError

pytestmark = pytest.mark.server

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=20,
)  # fmt: skip


@given(JSON)
def test_what_is_written_is_read_again(document):
    body = messages.dumps(document)
    assert messages.loads(body) == document
    assert json.loads(body) == document


@pytest.mark.parametrize(
    ("document", "at_once"),
    [
        ({"result": {"job_id": "a", "labels": {"b": "c"}, "warnings": [1.5, None, True]}}, True),
        ({"result": {"text": "a" * 40_000}}, False),
        ({"result": {"jobs": [{"number": number} for number in range(600)]}}, False),
        ({"result": {"result": Raw(b"1")}}, False),
    ],
)
def test_a_small_message_is_written_at_once_and_others_in_pieces(document, at_once):
    pieces = list(messages.pieces(document))
    assert (len(pieces) == 1) is at_once
    whole = json.dumps(document, separators=(",", ":"), default=lambda raw: int(raw.text))
    assert b"".join(pieces).decode() == whole


def test_a_frame_is_what_language_servers_send():
    assert messages.frame(b"{}") == b"Content-Length: 2\r\n\r\n{}"


@pytest.mark.parametrize(
    "header",
    [
        b"Content-Length: 12\r\n\r\n",
        b"Content-Length: 12\r\n",
        b"content-length:12\r\n\r\n",
        b"Content-Length: 12\r\nContent-Type: application/vscode-jsonrpc; charset=utf-8\r\n\r\n",
        b'Content-Type: application/json; charset="UTF8"\r\nContent-Length:  12 \r\n\r\n',
        b"X-Other: a:b\r\nContent-Length: 12\r\n\r\n",
    ],
)
def test_the_length_stands_in_the_header(header):
    assert messages.read_length(header) == 12


@pytest.mark.parametrize(
    ("header", "told"),
    [
        (b"", "no 'Content-Length'"),
        (b"Content-Type: application/json\r\n\r\n", "no 'Content-Length'"),
        (b"Content-Length: 1\r\nContent-Length: 1\r\n\r\n", "has 'Content-Length' twice"),
        (b"Content-Length: -1\r\n\r\n", "must be a number of bytes, not '-1'"),
        (b"Content-Length: +1\r\n\r\n", "must be a number of bytes"),
        (b"Content-Length: 1_0\r\n\r\n", "must be a number of bytes"),
        (b"Content-Length: 0x10\r\n\r\n", "must be a number of bytes"),
        (b"Content-Length: \xd9\xa1\r\n\r\n", "must be a number of bytes"),
        (b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", "must be a number of bytes"),
        (b"Content-Length: 2000000000\r\n\r\n", f"at most {MAX_MESSAGE} are taken"),
        (b'{"jsonrpc": "2.0"}', "no header line; a message begins with"),
        (b"GET / HTTP/1.1\r\n\r\n", "no header line"),
        (b"Content-Type: text/json; charset=latin-1\r\n\r\n", "must be utf-8, not 'latin-1'"),
    ],
)
def test_a_broken_header_is_refused(header, told):
    with pytest.raises(WireError, match=told):
        messages.read_length(header)


def test_a_client_takes_answers_of_any_length():
    assert messages.read_length(b"Content-Length: 2000000000\r\n\r\n", most=None) == 2_000_000_000


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "is no JSON"),
        (b'{"a":', "is no JSON: .* at character 5"),
        (b"{'a': 1}", "is no JSON"),
        (b"[1,]", "is no JSON"),
        (b"\xef\xbb\xbf{}", "is no JSON"),
        (b'"\xff"', "is no UTF-8: .* at byte 1"),
        (b'"\xed\xa0\x80"', "is no UTF-8"),  # a surrogate, as CESU-8 has it
        ('{"a": 1}'.encode("utf-16"), "is no UTF-8"),
        (b"[NaN]", "NaN is no JSON"),
        (b"[-Infinity]", "-Infinity is no JSON"),
        (b"[1e999]", "the number 1e999 is too large"),
        (b"[" + b"1" * 5000 + b"]", "too many digits"),
        (b'{"a": 1, "b": 0, "a": 2}', "the member 'a' twice"),
        (b'["\\ud800"]', "half a surrogate pair"),
        (b'{"\\uDFFF": 1}', "half a surrogate pair"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), f"deeper than {MAX_DEPTH} levels"),
        (b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1), "deeper than"),
        (b"[" * 1_000_000, "deeper than"),
        (b"[" + b"[]," * messages.MAX_VALUES + b"0]", "more than .* values; send it in parts"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_is_no_strict_json_is_refused(body, told):
    with pytest.raises(WireError, match=told):
        messages.loads(body)


def test_what_is_allowed_is_allowed():
    deep = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert messages.loads(deep) == json.loads(deep)
    wide = b"[" + b"[]," * 1000 + b"0]"
    assert messages.loads(wide) == json.loads(wide)
    assert messages.loads(b'"\\ud83d\\ude00"') == "\U0001f600"
    assert messages.loads(b'"\\\\ud800"') == "\\ud800"


def test_a_clients_answers_may_be_deep():
    deep = b"[" * 200 + b"]" * 200
    assert messages.loads(deep, limited=False) == json.loads(deep)
    with pytest.raises(WireError, match="NaN is no JSON"):
        messages.loads(b"[NaN]", limited=False)
    with pytest.raises(WireError, match="deeper"):
        messages.loads(b"[" * 1_000_000, limited=False)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (float("nan"), "cannot be sent as JSON"),
        ({"a": float("inf")}, "cannot be sent as JSON"),
        ({1: 2}, "must be a string, not 1"),
        ({"a": {1, 2}}, "set is not JSON serializable"),
        ({"a": ["\ud800"]}, "cannot be sent as UTF-8"),
    ],
)
def test_what_has_no_place_in_json_is_not_sent(value, told):
    with pytest.raises(WireError, match=told):
        messages.dumps(value)


def test_what_is_nested_for_ever_is_not_sent():
    value: list = []
    value.append(value)
    with pytest.raises(WireError):
        messages.dumps(value)


def test_encoded_text_is_put_in_its_place_as_it_is():
    text = b'{ "energy": 1.0E-1, "\xc3\xa9": [1, 2 ] }'
    answer = {
        "id": 1,
        "result": {"job_id": "a", "result": Raw(text), "all": [Raw(b"1"), Raw(b"2")]},
    }
    body = messages.dumps(answer)
    assert text in body
    assert messages.loads(body)["result"] == {
        "job_id": "a", "result": json.loads(text), "all": [1, 2]
    }  # fmt: skip
