"""Texts and arrays that are converted in pieces are what is made of them at one go."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from ase.build import bulk
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from crystalmath.recipes import codec, json_text
from crystalmath.recipes.json_text import array_from, array_items, array_of
from crystalmath.recipes.structures import parse_and_keep
from crystalmath.submitting.asked_job import spec_hash

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)
VALUES = st.recursive(
    SCALARS | st.text(),
    lambda inside: (
        st.lists(inside, max_size=9)
        | st.lists(inside, max_size=3).map(tuple)
        | st.dictionaries(st.text(), inside, max_size=4)
        | st.dictionaries(st.integers(), inside, max_size=2)
    ),
)
NUMBERS = st.integers(-(2**40), 2**40) | st.floats(allow_nan=False)
ROWS = st.lists(NUMBERS | st.booleans() | st.text(max_size=3) | st.none(), max_size=7) | st.lists(
    st.lists(NUMBERS, min_size=2, max_size=3), max_size=7
)


@pytest.fixture(scope="module", autouse=True)
def short_slices():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_text, "_SLICE", 2)
        patch.setattr(json_text, "_STRETCH", 2)
        patch.setattr(json_text, "_ARRAY_SLICE", 2)
        yield


@given(VALUES, st.booleans(), st.booleans())
def test_the_pieces_are_the_whole(value, compact, sort_keys):
    separators = (",", ":") if compact else None
    whole = json.dumps(value, separators=separators, sort_keys=sort_keys)
    assert json_text.json_text(value, compact=compact, sort_keys=sort_keys) == whole


@pytest.mark.parametrize("value", ["\N{GRINNING FACE}" * 99, {"a": ["x" * 99]}, [["x"] * 99]])
def test_no_piece_is_long(value):
    """While one is written nobody else has a turn."""
    assert max(map(len, json_text.json_pieces(value))) < 30


@given(st.text("ab", min_size=1, max_size=4), st.text("ab", max_size=9))
def test_a_part_is_found_wherever_it_stands(part, text):
    assert json_text.is_in(part, text) == (part in text)


def test_one_thread_at_a_time_copies_a_huge_text():
    def copy(size):
        with json_text.one_at_a_time(size):
            inside.append(size)
            most.append(len(inside))
            if size == huge and len(most) == 1:
                pool.submit(copy, 1).result()  # a short one waits for nobody
                other.append(pool.submit(copy, huge))
                with pytest.raises(TimeoutError):
                    other[0].result(0.2)
            inside.remove(size)

    huge, inside, most, other = json_text._HUGE, [], [], []
    with ThreadPoolExecutor(2) as pool:
        copy(huge)
    assert other[0].exception() is None
    assert most == [1, 2, 1]


@pytest.mark.parametrize(
    "value", [float("nan"), [1.0, [float("inf")]], {"a": [0, 0, float("nan")]}]
)
def test_numbers_are_finite(value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_text.json_text(value)


def test_a_specification_keeps_the_hash_of_earlier_releases():
    body = codec.body_of(parse_and_keep(bulk("Al", cubic=True))[1], {"b": 1, "a": {"d": 0.1}})
    read = json.loads(codec.body_text(body))
    before = json.dumps([{"recipe": "a.b"}, read], sort_keys=True)
    assert spec_hash({"recipe": "a.b"}, body) == hashlib.sha256(before.encode()).hexdigest()


def converted(function, rows):
    """Return the kind of array and its rows; ``None`` where it is no table of numbers."""
    try:
        array = function(rows)
    except ValueError:
        return None
    return (array.dtype.kind, array.tolist()) if array.dtype.kind in "biuf" else None


@given(ROWS)
def test_rows_become_the_array_that_numpy_makes_of_them(rows):
    assert converted(array_of, rows) == converted(np.asarray, rows)


@pytest.mark.parametrize("rows", [[[1.0, 2.0]] * 2 + [[1.0]] * 2, [1.0, 2.0, [1.0], [2.0]]])
def test_rows_that_are_ragged_only_beyond_a_slice_are_none(rows):
    assert converted(array_of, rows) is None


@given(
    arrays(
        st.sampled_from(["f8", "f4", "i8", "u2", "?", "c16", "<U3"]),
        st.tuples(st.integers(0, 3), st.integers(0, 5)),
    )
)
def test_an_array_survives_its_items(array):
    items = array_items(array)
    read = array_from(list(array.shape), array.dtype.str, items, finite=False)
    np.testing.assert_array_equal(read, array)
    assert read.dtype.kind == array.dtype.kind
