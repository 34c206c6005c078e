"""Which recipes are asked for their pseudopotentials; told from source, nothing is imported."""

import sys

import pytest

from crystalmath.preflight.programs_here import concerns

ALLOWED = {"CRYSTALMATH_RECIPES": "ours.recipes, single"}


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)

    def write(name, text):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    return write


@pytest.mark.parametrize(
    ("recipe", "asked"),
    [
        ("quacc.recipes.vasp.core.static_job", True),
        ("quacc.recipes.espresso.phonons.phonon_job", True),
        ("quacc.recipes.emt.core.static_job", False),
        ("quacc.recipes.vasp_like.core.job", False),
        ("quacc.calculators.vasp.Vasp", False),
    ],
)
def test_those_of_quacc(recipe, asked):
    assert concerns(recipe, {}) is asked


@pytest.mark.parametrize(
    ("source", "asked"),
    [
        ("from quacc.recipes.vasp.core import static_job as f", True),
        ("from quacc.recipes import vasp\ndef f(atoms): ...", True),
        ("import quacc.calculators.vasp as v\ndef f(atoms): ...", True),
        ("def f(atoms):\n    from quacc.calculators.espresso.espresso import Espresso", True),
        ("try:\n    from quacc.calculators.vasp import Vasp\nexcept ImportError: ...", True),
        ("from quacc.recipes.emt.core import relax_job\ndef f(atoms): ...", False),
        ("def f(atoms):\n    from ase.calculators.vasp import Vasp", True),
        ("import importlib as i\ndef f(a): i.import_module('quacc.recipes.vasp.core')", True),
        ("import vasp, quacc\ndef f(atoms): 'see quacc.recipes.vasp'", False),
        ("from quacc.recipes.vasp import (", False),
        ("from .... import nothing\ndef f(atoms): ...", False),
    ],
)
def test_those_of_a_user(write, source, asked):
    write("single.py", source)
    assert concerns("single.f", ALLOWED) is asked


def test_the_users_own_modules_are_followed(write):
    """Whatever way they import each other, round in a circle, too."""
    before = set(sys.modules)  # of the tests before this one, too
    write("ours/__init__.py", "")
    write("ours/recipes/__init__.py", "")
    write("ours/recipes/jobs.py", "from . import common\nfrom ours.recipes import jobs\n")
    write("ours/recipes/common.py", "from ..calculators import calculator\nimport numpy\n")
    write("ours/calculators.py", "import ours.recipes.jobs\n")
    assert not concerns("ours.recipes.jobs.relax", ALLOWED)
    write("ours/calculators.py", "from quacc.calculators.vasp.vasp import Vasp as calculator\n")
    assert concerns("ours.recipes.jobs.relax", ALLOWED)
    imported = sys.modules.keys() - before
    assert not any(name.startswith(("ours", "quacc.recipes")) for name in imported)


def test_modules_that_people_edit_are_followed_wherever_they_are(write):
    write("single.py", "import pymatgen.core, not_there\nfrom helpers import calculator\n")
    write("helpers/__init__.py", "from .inner import calculator\n")
    write("helpers/inner.py", "from ase.calculators.emt import EMT as calculator\n")
    assert not concerns("single.f", ALLOWED)
    write("helpers/inner.py", "from ase.calculators.vasp import Vasp as calculator\n")
    assert concerns("single.f", ALLOWED)


@pytest.mark.parametrize("recipe", ["ours.recipes.absent.f", "absent.f", "single.absent.f", "f"])
def test_what_is_not_there_is_somebody_elses_to_say(recipe):
    assert concerns(recipe, ALLOWED) is False


def test_a_source_that_was_mended_is_read_again_at_once(write):
    write("single.py", "import helpers")
    write("helpers.py", "")
    assert not concerns("single.f", ALLOWED)
    write("helpers.py", "from quacc.recipes.vasp.core import static_job")
    assert concerns("single.f", ALLOWED)
    write("single.py", "def f(atoms): ...")
    assert not concerns("single.f", ALLOWED)
