"""What a client sends, and how it reads what comes back."""

import functools
import json

import pytest
from ase.build import bulk
from hypothesis import given
from hypothesis import strategies as st

from crystalmath import config
from crystalmath.client import Submission
from crystalmath.client.client_errors import answered_error
from crystalmath.client.request import document, recipe_name
from crystalmath.client.transport import split_last
from crystalmath.errors import (
    BadFile,
    CrystalMathError,
    InvalidJob,
    JobRefused,
    UnknownJob,
)
from crystalmath.wire.messages import Raw, WireError, dumps

pytestmark = pytest.mark.server


def test_a_cluster_says_itself_which_engine_it_is_of(home):
    (home / "config.toml").write_text('engine = "local"\n[clusters.big]\nengine = "there"\n')

    def sent(**more):
        asked = Submission(recipe="emt.core.relax_job", atoms=bulk("Al"), **more)
        return document(asked, config.load(), {}).get("engine")

    assert sent() == "local"
    assert sent(cluster="big") is None
    assert sent(cluster="big", engine="odd") == "odd"


# --- recipes -------------------------------------------------------------------------------------


def recipe(atoms):
    """Stand for a recipe that somebody imported from here."""


def decorated(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


def test_a_recipe_is_named():
    assert recipe_name("emt.core.relax_job") == "quacc.recipes.emt.core.relax_job"
    assert recipe_name("mylab.recipes.x", ("mylab.recipes",)) == "mylab.recipes.x"
    assert recipe_name(recipe) == f"{__name__}.recipe"
    assert recipe_name(decorated(recipe)) == f"{__name__}.recipe"


def test_one_that_nobody_else_can_import_is_refused():
    here = functools.wraps(recipe)(lambda atoms: None)
    del here.__wrapped__
    here.__module__ = "__main__"
    remedy = r"\[recipes\] allow = .* or CRYSTALMATH_RECIPES=mylab\.recipes"
    with pytest.raises(InvalidJob, match=rf"'recipe' is defined in this notebook.*{remedy}"):
        recipe_name(here)

    def inside(atoms):
        pass

    for local in (inside, lambda atoms: None):
        with pytest.raises(InvalidJob, match=rf"is defined inside {__name__}.*{remedy}"):
            recipe_name(local)
    for other in (functools.partial(recipe, 1), 3):
        with pytest.raises(InvalidJob, match="imported from its module, not"):
            recipe_name(other)


def test_what_was_not_said_is_not_sent(home):
    submission = Submission(recipe="emt.core.static_job", atoms=bulk("Cu"))
    sent = document(submission, config.load(), {"VASP_X": "y"})
    assert sent.pop("structure")["format"] == "ase-json"
    assert sent == {
        "recipe": "quacc.recipes.emt.core.static_job",
        "environment": {"VASP_X": "y"},
    }


def test_a_file_is_not_a_structure(home):
    submission = Submission(recipe="emt.core.static_job", atoms="Al.poscar")
    with pytest.raises(InvalidJob, match=r"not 'Al\.poscar'; a file is read by ase\.io\.read"):
        document(submission, config.load(), {})


def test_labels_are_a_dict(home):
    submission = Submission(recipe="emt.core.static_job", atoms=bulk("Cu"), labels=["alloys"])
    with pytest.raises(
        InvalidJob, match=r"'labels' must be an object of at most 64, not \['alloys'\]"
    ):
        document(submission, config.load(), {})


# --- answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [InvalidJob, UnknownJob, BadFile, CrystalMathError])
def test_an_error_comes_back_as_itself(kind):
    error = answered_error({"code": kind.code, "error": "what is wrong"})
    assert type(error) is kind
    assert str(error) == "what is wrong"


def test_an_error_nobody_knows_keeps_its_code():
    error = answered_error({"code": "new_one", "error": "what is wrong"})
    assert (str(error), error.code) == ("what is wrong", "new_one")


def test_a_refusal_brings_its_findings():
    finding = {"severity": "error", "code": "potcar", "message": "none", "remedy": "buy one"}
    error = answered_error({"code": "refused", "error": "none", "findings": [finding]})
    assert isinstance(error, JobRefused)
    assert error.findings[0].remedy == "buy one"
    assert str(error) == "none (buy one)"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
).filter(lambda value: value not in (float("inf"), float("-inf")))
names = st.text(st.characters(exclude_categories=["Cs"])).filter(lambda name: name != "result")


@given(st.dictionaries(names, st.integers() | st.text(max_size=9)), st.integers(), st.booleans())
def test_the_last_member_is_cut_out(members, number, spaced):
    large = json.dumps({"result": [number, "}", {"result": 1}]}, indent=1 if spaced else None)
    text = dumps({**members, "result": Raw(large.encode())})
    assert split_last(text, "result") == (members, large.encode())
    assert split_last(dumps(members), "result") == (members, None)


@pytest.mark.parametrize("text", [b"", b"[1]", b"{", b'{"a"', b'{"a":', b'{"a":1,', b"\xff"])
def test_what_is_no_object_is_said(text):
    with pytest.raises(WireError, match="no JSON object"):
        split_last(text, "result")
