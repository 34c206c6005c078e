"""Arrays that are converted in slices are what numpy converts at one go."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from crystalmath.recipes import json_text
from crystalmath.recipes.json_text import array_from, array_items, array_of

NUMBERS = st.integers(-(2**40), 2**40) | st.floats(allow_nan=False)
ROWS = st.lists(NUMBERS | st.booleans() | st.text(max_size=3) | st.none(), max_size=7) | st.lists(
    st.lists(NUMBERS, min_size=2, max_size=3), max_size=7
)


@pytest.fixture(scope="module", autouse=True)
def short_slices():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_text, "_ARRAY_SLICE", 2)
        yield


def converted(function, rows):
    """Give the kind of array and its rows; ``None`` where it is no table of numbers."""
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
