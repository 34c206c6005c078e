"""Records that cross the boundaries between core, engines, plugins and front ends.

================  =========================================================================
``submission``    what is asked for, and what an engine gets of it
``resources``     what a job asks of a machine
``job``           what is on record of a job
``reference``     a part of another job's result
``job_notes``     its state, findings, and what it came of
``progress``      how far a job's calculation has come
``notebook``      what a notebook shows of jobs and findings
``columns``       what of a job stands in lists and tables, and sorts them
``filters``       which jobs are meant
``inputs``        what programs get, step by step
``cluster``       a target of an engine, as the configuration file describes it, and checks
``written``       spans of time, amounts of memory and labels as people write them
``capabilities``  what core and an engine tell each other
``fields``        how a record declares its fields; names on the wire and JSON Schemas
``checks``        what holds values to their schemas
================  =========================================================================
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crystalmath.errors import Finding
    from crystalmath.models.capabilities import Attempt, Capabilities, EngineSettings, Sighting
    from crystalmath.models.cluster import Cluster
    from crystalmath.models.filters import Filters, JobFilter
    from crystalmath.models.inputs import (
        Difference,
        FlowCheck,
        Inputs,
        JobCheck,
        Preset,
        Setting,
        StepCheck,
        StepInputs,
    )
    from crystalmath.models.job import Job, JobChange, NewJob, Pseudopotential
    from crystalmath.models.job_notes import JobState
    from crystalmath.models.progress import IonicStep, Progress
    from crystalmath.models.reference import Reference
    from crystalmath.models.resources import Resources, ResourcesGiven
    from crystalmath.models.submission import (
        HasJobId,
        JobSpec,
        MapOptions,
        Submission,
        SubmissionOptions,
        Terms,
    )

__all__ = [
    "Attempt",
    "Capabilities",
    "Cluster",
    "Difference",
    "EngineSettings",
    "Filters",
    "Finding",
    "FlowCheck",
    "HasJobId",
    "Inputs",
    "IonicStep",
    "Job",
    "JobChange",
    "JobCheck",
    "JobFilter",
    "JobSpec",
    "JobState",
    "MapOptions",
    "NewJob",
    "Preset",
    "Progress",
    "Pseudopotential",
    "Reference",
    "Resources",
    "ResourcesGiven",
    "Setting",
    "Sighting",
    "StepCheck",
    "StepInputs",
    "Submission",
    "SubmissionOptions",
    "Terms",
]

_PLACES = {
    name: module
    for module, names in {
        "errors": ("Finding",),
        "models.capabilities": ("Attempt", "Capabilities", "EngineSettings", "Sighting"),
        "models.cluster": ("Cluster",),
        "models.filters": ("Filters", "JobFilter"),
        "models.inputs": (
            "Difference",
            "FlowCheck",
            "Inputs",
            "JobCheck",
            "Preset",
            "Setting",
            "StepCheck",
            "StepInputs",
        ),
        "models.job": ("Job", "JobChange", "NewJob", "Pseudopotential"),
        "models.job_notes": ("JobState",),
        "models.progress": ("IonicStep", "Progress"),
        "models.resources": ("Resources", "ResourcesGiven"),
        "models.reference": ("Reference",),
        "models.submission": (
            "HasJobId",
            "JobSpec",
            "MapOptions",
            "Submission",
            "SubmissionOptions",
            "Terms",
        ),
    }.items()
    for name in names
}


def __getattr__(name: str) -> Any:
    # A command that shows jobs imports no more than their record.
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"crystalmath.{_PLACES[name]}"), name)
    return found
