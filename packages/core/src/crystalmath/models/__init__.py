"""Records that cross the boundaries between core, engines, plugins and front ends.

================  =========================================================================
``submission``    the request for a job, and its specification
``resources``     the resources of a job
``job``           a job on record
``reference``     a part of another job's result
``job_notes``     its state, findings and parents
``progress``      the progress of a job's calculation
``notebook``      jobs and findings as notebooks show them
``columns``       the columns of lists and tables, and their order
``filters``       the filters of lists
``inputs``        the inputs of programs, step by step
``cluster``       a target of an engine, as the configuration file describes it
``written``       spans of time, amounts of memory and labels as people write them
``capabilities``  the records that core and engines exchange
``fields``        declarations of fields, their names on the wire and JSON Schemas
``checks``        the check of values against their schemas
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
    record = globals()[name] = getattr(import_module(f"crystalmath.{_PLACES[name]}"), name)
    return record
