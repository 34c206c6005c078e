"""A recipe whose packages are not installed is refused, and none that has them."""

from importlib.util import find_spec

import pytest
from ase.build import bulk

from conftest import AL
from crystalmath.models import Submission
from crystalmath.preflight.required_packages import check_packages
from crystalmath.recipes.lookup import catalogue, look_up
from crystalmath.service import JobService


def missing(name, environment=(), *, certain=True):
    return check_packages(look_up(f"quacc.recipes.{name}"), dict(environment), certain=certain)


@pytest.mark.skipif(find_spec("psi4") is not None, reason="psi4 is installed")
def test_a_recipe_without_its_package_is_refused(cli):
    answer = cli("check", "psi4.core.static_job", AL)
    assert answer.code == 1
    assert "needs the package psi4, which is not installed" in answer.out
    refused = cli("submit", "psi4.core.static_job", AL, "--json")
    assert [finding["code"] for finding in refused.json["findings"]] == ["package_missing"]
    assert cli("list").out == ""
    assert cli("stop").code == 0  # which submit has started


@pytest.mark.skipif(find_spec("phonopy") is not None, reason="phonopy is installed")
def test_so_is_a_flow_that_calls_what_needs_it():
    (finding, *_) = missing("emt.phonons.phonon_flow")
    assert (finding.severity, finding.code) == ("error", "package_missing")
    assert "phonopy" in finding.message
    assert "pip install quacc[phonons]" in finding.remedy


@pytest.mark.skipif(find_spec("psi4") is not None, reason="psi4 is installed")
def test_where_the_job_runs_elsewhere_it_is_a_warning(tmp_path):
    (finding,) = missing("psi4.core.static_job", certain=False)
    assert finding.severity == "warning"
    # A folder of the job's own may have it.
    (tmp_path / "psi4").mkdir()
    assert missing("psi4.core.static_job", {"PYTHONPATH": f"/nowhere:{tmp_path}"}.items()) == []


GUEST = """
from attrs import evolve
from crystalmath.engines.local import LocalRunner
from crystalmath.hookspecs import hookimpl

class Guest(LocalRunner):
    capabilities = evolve(LocalRunner.capabilities, workers_inherit=False)

@hookimpl
def crystalmath_make_runner(settings):
    return Guest(settings)
"""


@pytest.mark.skipif(find_spec("psi4") is not None, reason="psi4 is installed")
@pytest.mark.parametrize(("engine", "severity"), [("local", "error"), ("guest", "warning")])
def test_where_workers_have_another_environment_it_is_a_warning(home, install, engine, severity):
    """Their PYTHONPATH, or their Python, may have the package."""
    install("engine-guest", "guest", GUEST)
    asked = Submission(recipe="quacc.recipes.psi4.core.static_job", atoms=bulk("Al"), engine=engine)
    with JobService() as service:
        severities = {each.code: each.severity for each in service.check(asked).findings}
    assert severities["package_missing"] == severity


def test_recipes_that_need_nothing_more_need_nothing():
    for name in ("emt.core.relax_job", "vasp.core.static_job", "espresso.core.relax_job"):
        assert missing(name) == []
    assert missing("emt.slabs.bulk_to_slabs_flow") == []


def test_what_is_told_of_all_of_quaccs_recipes_is_true():
    told = {
        recipe.name: {
            finding.message.split()[4] for finding in check_packages(recipe, {}, certain=True)
        }
        for recipe in catalogue()
    }
    assert len(told) > 100
    for name, packages in told.items():
        for package in packages:
            top = package.partition(".")[0]
            assert find_spec(top) is None or find_spec(package) is None, (name, package)
