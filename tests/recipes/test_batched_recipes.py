"""Batched functions as the source of recipes and entry points show them."""

import importlib
import sys
import textwrap
from importlib.metadata import EntryPoint

import pytest
from ase.build import bulk
from attrs import evolve

from crystalmath import batch
from crystalmath.errors import PluginError
from crystalmath.models import JobSpec
from crystalmath.recipes import batched_recipes, codec
from crystalmath.recipes.batched_recipes import load, most_of, parted

MODULE = """
from crystalmath.batch import batched
import crystalmath.batch as batches

def relax(atoms): return {}
def static(atoms): return {}
def md(atoms): return {}
SIZE = 4

@batched(relax, most=12, atoms=100)
def relax_many(structures): return [{} for _ in structures]

@batches.batched(recipe=static)
def static_many(structures): return [{} for _ in structures]

@batched(md, most=SIZE)
def md_many(structures): return [{} for _ in structures]
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(batch, "_known", {})
    before = {*sys.modules}

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))

    yield write
    for name in {*sys.modules} - before:
        del sys.modules[name]


@pytest.fixture
def entry_points(monkeypatch):
    def declare(*pairs):
        entries = [EntryPoint(name, value, batched_recipes.GROUP) for name, value in pairs]
        monkeypatch.setattr(batched_recipes, "_entries", lambda: entries)

    return declare


@pytest.mark.parametrize(
    ("recipe", "most"),
    [
        ("mylab1.relax", 12),
        ("mylab1.static", batch.MOST),
        ("mylab1.md", batch.MOST),  # the source shows no number
        ("mylab1.relax_many", None),
        ("mylab1.absent", None),
        ("absent.relax", None),
        ("relax", None),
        ("quacc.recipes.emt.core.relax_job", None),
    ],
)
def test_the_source_shows_the_batched_function(write, recipe, most):
    write("mylab1", MODULE)
    assert most_of(recipe) == most
    assert "mylab1" not in sys.modules


def test_a_recipe_has_its_batch_under_each_of_its_names(write):
    write("mylab2", MODULE)
    write("mylab3", "from mylab2 import relax as relax_job")
    assert most_of("mylab3.relax_job") == 12
    assert load(importlib.import_module("mylab3").relax_job).most == 12


def test_jobs_of_one_call_have_all_but_their_structures_in_common():
    one, other = (
        JobSpec(
            job_id="j", recipe="r", parameters={"b": 2, "structures": [bulk(symbol)], "a": [1, 2]}
        )
        for symbol in ("Cu", "Al")
    )
    assert parted(codec.encode_spec(one)) == ("structures", '{"a": [1, 2], "b": 2}')
    assert parted(codec.encode_spec(one)) == parted(codec.encode_spec(other))
    single = evolve(other, atoms=bulk("Al"), parameters={"a": 1})
    assert parted(codec.encode_spec(single)) == (None, '{"a": 1}')
    # Beside a structure of the job, a list of structures is a parameter as others.
    assert parted(codec.encode_spec(evolve(one, atoms=bulk("Al"))))[0] is None


def test_an_entry_point_names_a_function_in_another_module(write, entry_points):
    write("mylab4", "def relax(atoms): return {}")
    write(
        "mylab5",
        """
        from crystalmath.batch import batched
        from mylab4 import relax

        @batched(relax, most=7)
        def many(structures): return []
        """,
    )
    entry_points(("mylab4.relax", "mylab5:many"))
    assert most_of("mylab4.relax") == 7
    assert load(importlib.import_module("mylab4").relax).most == 7


def test_an_entry_point_must_name_a_batched_function(write, entry_points):
    write("mylab6", "def relax(atoms): return {}\ndef many(structures): return []")
    entry_points(("mylab6.relax", "mylab6:many"))
    assert most_of("mylab6.relax") is None
    with pytest.raises(PluginError, match=r"mylab6:many, which is not decorated with @batched"):
        load(importlib.import_module("mylab6").relax)


def test_two_entry_points_for_a_recipe_are_refused(write, entry_points):
    write("mylab7", "def relax(atoms): return {}")
    entry_points(("mylab7.relax", "a:many"), ("mylab7.relax", "b:many"))
    with pytest.raises(PluginError):
        most_of("mylab7.relax")
    with pytest.raises(PluginError, match="two batched functions: a:many and b:many; remove one"):
        load(importlib.import_module("mylab7").relax)
