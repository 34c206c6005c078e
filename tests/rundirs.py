"""Run directories as an owner writes them, for tests that drive a worker without an engine."""

import uuid

from ase.build import bulk

from crystalmath.jobs.rundir import RunDirectory
from crystalmath.models import JobSpec
from crystalmath.recipes import codec


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
