"""Recipes of VASP read the folders of other jobs, and write nothing there; with the stand-in."""

import pytest
from ase.build import bulk

from crystalmath.errors import JobRefused
from crystalmath.models.reference import JobValue
from crystalmath.recipes.lookup import catalogue, look_up
from digests import digests
from ends import completed, finish, submit
from vasp import potcars

pytestmark = pytest.mark.vasp

AL = bulk("Al", a=4.1, cubic=True)
#: Those that take the folder of another job, or files from it.
RECIPES = [
    (recipe.name.removeprefix("quacc.recipes."), name)
    for recipe in catalogue()
    if recipe.name.startswith("quacc.recipes.vasp.")
    for name in ("prev_dir", "copy_files")
    if name in look_up(recipe.name).signature.parameters
]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    root = tmp_path_factory.mktemp("vasp")
    # Custodian looks after a running VASP every ten seconds, if it has handlers.
    more = {"QUACC_VASP_PARALLEL_CMD": "", "QUACC_VASP_CUSTODIAN_HANDLERS": "[]"}
    return potcars.beside_vasp(root, "Al", versions=["52", "54", "64", "original"], **more)


@pytest.fixture(scope="module")
def static(service, environment):
    job_id = submit(service, "vasp.core.static_job", AL, environment)
    return job_id, completed(service, finish(service, job_id))["dir_name"].parent


@pytest.mark.filterwarnings("default")  # quacc's own are no concern of ours
@pytest.mark.parametrize(("recipe", "name"), RECIPES)
def test_a_completed_job_keeps_its_files(service, environment, static, recipe, name):
    job_id, work = static
    left = digests(work)
    folder = JobValue(job_id, ("dir_name",))
    given = folder if name == "prev_dir" else [{"source": folder, "filenames": ["*"]}]
    takes = look_up(f"quacc.recipes.{recipe}").signature.parameters
    needed = {"level": "PBE"} if "level" in takes else {}
    try:
        job = finish(service, submit(service, recipe, AL, environment, **{**needed, name: given}))
    except JobRefused as refused:
        pytest.skip(f"it does not run here: {refused}")
    assert digests(work) == left, "another job has changed what this one left"
    completed(service, job)
