"""Errors go from one process to another as they are."""

import inspect
import pickle

import pytest

from crystalmath import errors
from crystalmath.client import client_errors
from crystalmath.client.client_errors import JobFailed
from crystalmath.errors import CrystalMathError, Finding, JobRefused, KeyConflict, UnknownJob

FINDING = Finding(severity="error", code="c", message="no POTCAR")
MADE = [
    JobRefused([FINDING]),
    UnknownJob("abc"),
    UnknownJob(3),
    KeyConflict.of("k", "abc"),
    JobFailed("abc", "why", "where"),
    *(
        kind("told")
        for module in (errors, client_errors)
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, CrystalMathError) and "__init__" not in vars(kind)
    ),
]


@pytest.mark.parametrize("error", MADE, ids=lambda error: type(error).__name__)
def test_an_error_comes_out_of_a_pool_as_it_is(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), again.args, vars(again)) == (str(error), error.args, vars(error))
