"""What `packaging/` repeats of the distributions is what they say."""

import re
import tomllib
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
CORE = tomllib.loads((ROOT / "packages/core/pyproject.toml").read_text())


def _split(requirement):
    name, bound = re.fullmatch(r"([\w.-]+)\s*(.*)", requirement).groups()
    return name.lower(), bound.replace(" ", "")


@pytest.fixture
def recipe():
    return YAML(typ="safe").load(ROOT / "packaging/conda/recipe.yaml")


def test_the_conda_recipe_has_the_requirements_of_core(recipe):
    python = f"python{CORE['project']['requires-python']}"
    wanted = {_split(each) for each in (python, *CORE["project"]["dependencies"])}
    assert {_split(each) for each in recipe["requirements"]["run"]} == wanted
    host = {_split(each) for each in (python, "pip", *CORE["build-system"]["requires"])}
    assert {_split(each) for each in recipe["requirements"]["host"]} == host


def test_one_version_is_named(recipe):
    fallback = CORE["tool"]["hatch"]["version"]["fallback-version"].partition(".dev")[0]
    assert recipe["context"]["version"] == fallback
    citation = YAML(typ="safe").load(ROOT / "CITATION.cff")
    assert citation["version"] == fallback


def test_the_container_takes_files_that_are_there():
    text = (ROOT / "packaging/Containerfile").read_text()
    copied = re.findall(r"^COPY (\S+) ", text, re.MULTILINE)
    # `nox -s release` makes dist/.
    assert copied == ["dist/*.whl", "examples/Al.poscar"]
    assert (ROOT / "examples/Al.poscar").exists()
