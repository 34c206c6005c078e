"""Rows and run directories as an owner writes them, for tests that need no engine."""

import time
import uuid

from ase.build import bulk

from crystalmath.jobs.rundir import RunDirectory
from crystalmath.models import JobSpec
from crystalmath.quacc.store import NewJob
from crystalmath.recipes import codec


def new_job(job_id=None, **more):
    """Return the row of a job that nobody has launched."""
    told = {"recipe": "lab_recipes.value", "engine": "local", "spec_hash": "0"}
    told |= {"specification": "{}", "created_at": time.time(), **more}
    return NewJob(job_id=job_id or str(uuid.uuid4()), **told)


def write_job(home, recipe, /, environment=None, walltime_s=None, files=(), **parameters):
    """Write down a job on an aluminium cell; give its run directory."""
    atoms = bulk("Al")
    spec = JobSpec(job_id=str(uuid.uuid4()), recipe=recipe, atoms=atoms, parameters=parameters)
    directory = RunDirectory(home / "jobs" / spec.job_id)
    (home / "jobs").mkdir(exist_ok=True)
    header = {
        "job_id": spec.job_id,
        "attempt": 1,
        "recipe": recipe,
        "cluster": "local",
        "walltime_s": walltime_s,
        "environment": {"CRYSTALMATH_RECIPES": "lab_recipes,edited", **(environment or {})},
        "files": dict(files),
    }
    directory.write_spec(header, codec.encode_spec(spec))
    return directory
