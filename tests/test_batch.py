"""What `batched` takes and refuses."""

import pytest

from crystalmath import batch
from crystalmath.batch import batched, batched_for


def relax(atoms):
    return {}


def static(atoms):
    return {}


class Recipe:
    def relax(self, atoms):
        return {}


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr(batch, "_known", {})


def test_a_recipe_knows_its_batched_function():
    @batched(relax, most=8, atoms=100)
    def many(structures):
        return [{} for _ in structures]

    known = batched_for(relax)
    assert known.recipe == f"{__name__}.relax"
    assert (known.function, known.most, known.atoms) == (many, 8, 100)
    assert many([1, 2]) == [{}, {}]
    assert batched_for(static) is None


@pytest.mark.parametrize(
    "recipe", [None, "quacc.recipes.emt.core.relax_job", lambda atoms: {}, Recipe, 3]
)
def test_what_is_no_recipe_is_refused(recipe):
    with pytest.raises(TypeError, match="takes a recipe, a function at the top level of a module"):
        batched(recipe)


@pytest.mark.parametrize(
    ("limits", "error", "words"),
    [
        ({"most": 0}, ValueError, "most must be 1 or more, not 0"),
        ({"most": -5}, ValueError, "most must be 1 or more, not -5"),
        ({"most": 2.5}, TypeError, "most must be a whole number, not 2.5"),
        ({"most": True}, TypeError, "most must be a whole number, not True"),
        ({"atoms": 0}, ValueError, "atoms must be 1 or more, not 0"),
        ({"atoms": "9"}, TypeError, "atoms must be a whole number, not '9'"),
    ],
)
def test_wrong_limits_are_refused(limits, error, words):
    with pytest.raises(error, match=rf"@batched\({__name__}.relax\) {words}"):
        batched(relax, **limits)


def test_what_is_no_function_cannot_be_batched():
    with pytest.raises(TypeError, match="which is no function"):
        batched(relax)(7)


def test_a_second_function_for_a_recipe_is_refused():
    def one(structures):
        return []

    def other(structures):
        return []

    batched(relax)(one)
    batched(relax, most=3)(one)  # its module was loaded again
    assert batched_for(relax).most == 3
    with pytest.raises(ValueError, match=r"two batched functions, .*\.one and .*\.other; remove"):
        batched(relax)(other)
    batched(static)(other)
