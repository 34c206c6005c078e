"""What a job may have changed in the libraries of a warm process: all of it is noticed."""

import configparser
import sys
import types
from typing import Any

import ase.calculators.calculator
import ase.config
import ase.io.formats
import numpy as np
import pytest
from ase import Atoms
from ase.formula import Formula

from crystalmath.worker import pristine as worker_pristine
from crystalmath.worker.pristine import Pristine

pytestmark = pytest.mark.processes

MODULES = ("ase.atoms", "ase.formula", "ase.config", "ase.io.formats", "ase.calculators.calculator")


@pytest.fixture(params=[True, False], ids=["versions", "contents"])
def pristine(request, monkeypatch):
    """The libraries, looked at by the versions of their dicts first, and without these."""
    kept = worker_pristine._HAS_VERSIONS
    assert kept or sys.version_info >= (3, 14)
    monkeypatch.setattr(worker_pristine, "_HAS_VERSIONS", kept and request.param)
    looked = Pristine()
    for name in MODULES:
        looked.add(sys.modules[name])
    looked.add_functions()
    assert looked.changed() is None
    return looked


def a_format(monkeypatch):
    monkeypatch.delitem(ase.io.formats.ioformats, "vasp")


def a_calculator(monkeypatch):
    table = ase.calculators.calculator.external_calculators
    monkeypatch.setitem(table, "mine", object)


def a_setting(monkeypatch):
    parser = ase.config.cfg.parser
    monkeypatch.setitem(parser._sections, "mine", {"command": "x"})
    assert isinstance(parser, configparser.ConfigParser)


def a_property(monkeypatch):
    monkeypatch.setattr(Atoms, "cell", property(lambda _: None))


def a_method(monkeypatch):
    monkeypatch.setattr(Formula, "reduce", property(lambda _: None))


def a_class_method(monkeypatch):
    monkeypatch.setattr(Formula, "from_dict", classmethod(lambda *_: None))


def a_function(monkeypatch):
    monkeypatch.setattr(np.linalg, "norm", lambda _: 0.0)


def a_ufunc(monkeypatch):
    monkeypatch.setattr(np, "sqrt", np.cbrt)


CHANGES = [
    (a_format, "ase.io.formats.ioformats"),
    (a_calculator, "ase.calculators.calculator.external_calculators"),
    (a_setting, "ase.config.cfg"),
    (a_property, "ase.atoms.Atoms.cell"),
    (a_method, "ase.formula.Formula.reduce"),
    (a_class_method, "ase.formula.Formula.from_dict"),
    (a_function, "numpy.linalg.norm"),
    (a_ufunc, "numpy.sqrt"),
]


@pytest.mark.parametrize(
    ("change", "name"), CHANGES, ids=[change.__name__ for change, _ in CHANGES]
)
def test_a_change_is_named(pristine, monkeypatch, change, name):
    change(monkeypatch)
    assert pristine.changed() == name
    monkeypatch.undo()
    assert pristine.changed() is None


def test_a_recipes_own_module_may_keep_what_it_has_loaded():
    module: Any = types.ModuleType("mylab")
    module.__dict__.update(
        {"FACTOR": 1.0, "TABLE": {"a": 1}, "MODELS": {}, "_seen": 0, "MODEL": None}
    )
    pristine = Pristine()
    pristine.add(module, own=True)
    module.MODELS["small"] = module.MODEL = object()
    module._seen += 1
    assert pristine.changed() is None
    module.TABLE["a"] = 2
    assert pristine.changed() == "mylab.TABLE"
    module.TABLE["a"] = 1
    module.FACTOR = 2.0
    assert pristine.changed() == "mylab.FACTOR"


@pytest.mark.parametrize("name", ["WHOLE", "GAPS", "TURNED"])
def test_an_array_that_was_changed_in_place_is_named(name):
    module: Any = types.ModuleType("ase.mine")
    module.WHOLE, table = np.arange(3.0), np.arange(12.0).reshape(3, 4)
    module.GAPS, module.TURNED = table[:, :2].copy()[::2], table.copy().T
    pristine = Pristine()
    pristine.add(module)
    assert pristine.changed() is None
    array = vars(module)[name]
    before, array[1] = array[1].copy(), -1.0
    assert pristine.changed() == f"ase.mine.{name}"
    array[1] = before
    assert pristine.changed() is None
