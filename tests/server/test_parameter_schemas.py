"""The schemas of recipes' parameters with what their programs read."""

import pytest

from crystalmath.recipes.lookup import look_up
from crystalmath.server.parameter_schemas import parameters_schema

pytest.importorskip("quacc")


def schema(recipe):
    return parameters_schema(look_up(f"quacc.recipes.{recipe}"), members=True)


def test_a_table_has_its_members_with_type_unit_default_and_description():
    of_relaxation = schema("emt.core.relax_job")
    members = of_relaxation["properties"]["opt_params"]["properties"]
    assert members["fmax"] == {
        "type": ["number", "null"],
        "x-annotation": "float | None",
        "default": 0.01,
        "description": "Tolerance for the force convergence (in eV/A).",
        "x-unit": "eV/Å",
    }
    assert members["max_steps"]["default"] == 1000
    # The recipe sets the one itself, and JSON has no function.
    assert not {"relax_cell", "fn_hook", "stop_condition"} & members.keys()
    assert of_relaxation["x-keywords"] == {"asap_cutoff": {"type": "boolean", "default": False}}


def test_a_flow_has_the_parameters_of_its_jobs():
    jobs = schema("emt.slabs.bulk_to_slabs_flow")["properties"]["job_params"]["properties"]
    assert jobs.keys() == {"relax_job", "static_job"}
    assert "fmax" in jobs["relax_job"]["properties"]["opt_params"]["properties"]


def test_keywords_of_a_program_have_its_units_and_notes():
    of_vasp = schema("vasp.core.static_job")
    assert of_vasp["properties"]["preset"]["x-program"] == "VASP"
    expected = {"type": "number", "description": "Planewave cutoff", "x-unit": "eV"}
    assert of_vasp["x-keywords"]["encut"] == expected
    assert of_vasp["x-keywords"]["ispin"]["type"] == "integer"
    of_espresso = schema("espresso.core.relax_job")["x-keywords"]
    system = of_espresso["input_data"]["properties"]["system"]["properties"]
    assert (system["ecutwfc"], system["nbnd"]) == ({"x-unit": "Ry"}, {})
    assert of_espresso["kspacing"]["x-unit"] == "1/Å"


@pytest.mark.parametrize("recipe", ["emt.core.relax_job", "vasp.core.static_job"])
def test_without_members_a_description_stays_small(recipe):
    plain = parameters_schema(look_up(f"quacc.recipes.{recipe}"))
    assert "x-keywords" not in plain
    assert all("properties" not in each for each in plain["properties"].values())
