"""Jobs from end to end: a service for each engine, and what must come of a job on it."""

import os
import re

import pytest
from ase.build import bulk

from crystalmath import config
from crystalmath.models import JobState, Submission
from crystalmath.service import JobService

ENGINES = ("local", "parsl")
AL = bulk("Al", a=4.0, cubic=True)


def opened(home, engine):
    """Open a service in a home of its own, whose default is that engine."""
    if engine == "parsl":
        pytest.importorskip("crystalmath_engine_parsl", reason="the Parsl engine is not installed")
    return JobService(config.load({"CRYSTALMATH_HOME": str(home), "CRYSTALMATH_ENGINE": engine}))


def submit(
    service, recipe, /, atoms, environment, *, resources=None, in_one_job=None, **parameters
):
    """Submit a recipe of quacc's, a flow as one job; give the job's id."""
    asked = Submission(
        recipe=f"quacc.recipes.{recipe}",
        atoms=atoms,
        parameters=parameters,
        environment=environment,
        engine=service.config.engine,
        resources=resources,
        in_one_job=recipe.endswith("_flow") if in_one_job is None else in_one_job,
    )
    return service.submit(asked).job_id


def lab_job(recipe, /, **more):
    """Ask for a recipe of `tests/lab/lab_recipes.py`, on aluminium unless told otherwise."""
    return Submission(**{"recipe": f"lab_recipes.{recipe}", "atoms": AL, **more})


def finish(service, job_id, timeout=600):
    """Wait until it is over."""
    *_, job = service.wait([job_id], timeout)
    assert job.state.is_terminal(), f"the job did not finish: {job}"
    return job


def completed(service, job):
    """It completed; give its result."""
    assert job.state is JobState.COMPLETED, job.error
    return service.result(job.job_id)


def failed(service, job, *words):
    """It failed, with these words; give the names of the files that its error points at."""
    assert job.state is JobState.FAILED
    for word in words:
        assert word in job.error, job.error
    place = re.search(r"\nthe calculation's files are in (/\S+)\n", job.error)[1]
    # No name of the directory that quacc had before it renamed it, either.
    named = re.findall(r"/\S*quacc-[\d-]+", job.error)
    assert all(map(os.path.isdir, [place, *named])), job.error
    assert service.result(job.job_id)["error"] == job.error
    assert len(job.error) < 5000
    return sorted(os.listdir(place))
