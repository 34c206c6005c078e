"""Fixtures of the tests that ask recipes: one warm child for all tests of a module."""

import os
import time
from pathlib import Path

import pytest

from crystalmath.preflight import inspector
from crystalmath.preflight.inspector import SupervisorClient
from vasp.potcars import library

LAB = Path(__file__).parents[1] / "lab"


@pytest.fixture(autouse=True)
def _lab(monkeypatch):
    monkeypatch.syspath_prepend(LAB)


@pytest.fixture(scope="module", autouse=True)
def _children_end():
    yield
    inspector.close()


@pytest.fixture
def questions(monkeypatch):
    """Return the recipes that children are asked about, a list that grows with each question."""
    asked, ask = [], SupervisorClient.ask

    def noted(child, question, limit_s):
        asked.append(question["recipe"])
        return ask(child, question, limit_s)

    monkeypatch.setattr(SupervisorClient, "ask", noted)
    return asked


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Return a good library of POTCARs."""
    root = library(tmp_path_factory.mktemp("potcars"), "Al", "Cu", "Si", "O", "Ba_sv")
    time.sleep(0.1)  # what was written just now might still change: no answer about it is kept
    return root


@pytest.fixture(scope="module")
def environment(tree):
    """Return the variables that a job would see, the same for all tests of a module."""
    return {
        "PATH": os.environ["PATH"],
        "VASP_PP_PATH": str(tree),
        "CRYSTALMATH_RECIPES": "asked_recipes,edited_recipes",
    }
