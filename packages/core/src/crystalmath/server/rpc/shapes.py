"""The JSON Schemas that several methods share, and the types of parameters."""

from __future__ import annotations

from typing import Any, TypedDict

from crystalmath.models import Job, JobState, Submission
from crystalmath.models.fields import array, declared, nullable, properties, reference

#: So many jobs in one request at most.
MOST_JOBS = 10_000

_Schema = dict[str, Any]


def record(properties: _Schema, optional: _Schema | None = None) -> _Schema:
    """Make the schema of an answer; it may gain keys in later releases, and loses none."""
    return {
        "type": "object",
        "properties": {**properties, **(optional or {})},
        "required": list(properties),
    }


class NoParams(TypedDict):
    """The parameters of a method that takes none."""


class JobIdParams(TypedDict):
    """The parameters of a method that is about one job."""

    job_id: str


class JobIdsParams(TypedDict):
    """The parameters of a method that is about the jobs which are named."""

    job_ids: list[str]


_TEXT = {"type": "string"}
_NUMBER = {"type": "number"}
_TIME = {"type": "number", "description": "seconds since the epoch"}

NAME: _Schema = {"type": "string", "minLength": 1}
JOB_ID: _Schema = {"type": "string", "format": "job-id", "description": "a job's id, a UUID"}
JOB_IDS: _Schema = array(JOB_ID, maxItems=MOST_JOBS)
LABELS: _Schema = {
    "type": "object",
    "additionalProperties": {"type": "string"},
    "description": "names and values of labels; all must agree",
}
STATE: _Schema = {"type": "string", "enum": [state.value for state in JobState]}
ERROR: _Schema = {"type": ["string", "null"], "description": "what is wrong, for people"}
TIMEOUT: _Schema = {
    "type": "number",
    "minimum": 0,
    "maximum": 600,
    "description": "how long to wait for something to tell, in seconds",
}

#: What ``jobs.submit`` and ``jobs.check`` take, and what of it must be given.
SUBMISSION = properties(Submission)
REQUIRED = tuple(one.wire for one in declared(Submission) if one.required)

_SUMMARY = record(
    {
        "energy_ev": {"type": ["number", "null"], "description": "energy in eV"},
        "max_force_ev_ang": {
            "type": ["number", "null"],
            "description": "the largest force on an atom in eV/Å",
        },
        "formula": {**nullable(_TEXT), "description": "of all atoms that the energy is of"},
        "work_dir": nullable(_TEXT),
    },
    {
        "natoms": {"type": "integer", "description": "the number of atoms, where there are any"},
        "steps": {"type": "integer", "description": "the number of results of a flow"},
        "as_text": {
            **array(_TEXT),
            "description": "what of the result JSON has no form for and is stored as text: place "
            "and type; the first hundred",
        },
        "asked_to_stop": {
            "type": "boolean",
            "description": "the walltime, or its allocation's, was nearly over, and the program "
            "was asked to stop: it may have been before all was done",
        },
        "changed_files": {
            **array(_TEXT),
            "description": "pseudopotentials that were not, when the job ran, what they were at "
            "submission",
        },
    },
)

_FINDING = record(
    {
        "severity": {"type": "string", "enum": ["error", "warning"]},
        "code": {"type": "string", "description": "stays the same when the wording changes"},
        "message": _TEXT,
        "path": nullable(_TEXT),
        "source": nullable(_TEXT),
        "remedy": nullable(_TEXT),
    }
)

_POTCAR = record(
    {
        "symbol": {**_TEXT, "description": "chemical symbol"},
        "setup": {**_TEXT, "description": "the POTCAR's folder (Ba_sv), or the UPF file's name"},
        "path": _TEXT,
        "titel": nullable(_TEXT),
        "sha256": {**_TEXT, "description": "of the whole file, in hexadecimal"},
        "lexch": nullable(_TEXT),
        "zval": {**nullable(_NUMBER), "description": "number of valence electrons"},
    }
)

_PARENT = record(
    {
        "job_id": _TEXT,
        "role": {
            "type": "string",
            "enum": ["structure", "retry", "reread"],
            "description": "its geometry was taken, or it was done again",
        },
    },
    {
        "frame": {
            "type": "integer",
            "description": "which of its geometries, counted from 0; default: its final one",
        },
        "file": {**_TEXT, "description": "the file of its run directory that it was read from"},
    },
)

_SETTING = record(
    {
        "file": {**_TEXT, "description": "the input file in which it stands"},
        "name": {**_TEXT, "description": "a tag, a variable, a card, a parameter; or the file's"},
        "value": {**nullable(_TEXT), "description": "null where a preset's was left out"},
        "origin": {
            "anyOf": [
                {
                    "type": "string",
                    "enum": ["asked", "preset", "recipe", "quacc", "structure", "default"],
                },
                {"type": "null"},
            ],
            "description": "who has set it; null where that is not known",
        },
        "instead_of": {
            **nullable(_TEXT),
            "description": "what it stands in the place of, and whose that was",
        },
        "certain": {"type": "boolean", "description": "no earlier step's result changes it"},
    }
)

_STEP_INPUTS = record(
    {
        "program": {**_TEXT, "description": "what people call it, or the calculator's class"},
        "formula": {**_TEXT, "description": "of the structure that is calculated"},
        "preset": nullable(_TEXT),
        "files": {
            "type": "object",
            "additionalProperties": _TEXT,
            "description": "the input files by name; POTCAR.titel has the titles of the POTCARs",
        },
        "settings": array(reference("Setting")),
        "certain": {"type": "boolean", "description": "no earlier step's result changes any of it"},
    }
)

_PRESET = record(
    {
        "name": {**_TEXT, "description": "as the parameter preset of a recipe has it"},
        "program": {**_TEXT, "description": "whose recipes take it"},
        "file": _TEXT,
        "settings": {"type": "object", "description": "what it sets, with what it inherits"},
    }
)

_INPUTS = record(
    {
        "steps": array(reference("StepInputs")),
        "rest": {**nullable(_TEXT), "description": "why there may be more steps"},
        "source": {
            **_TEXT,
            "enum": ["recipe", "files"],
            "description": "the recipe was asked, or these are the files that the job has written",
        },
    }
)

_JOB = record(properties(Job, answer=True))

_REFUSAL = record(
    {
        "status": {"const": "error"},
        "error": _TEXT,
        "code": {"type": "string", "description": "stays the same when the wording changes"},
    },
    {"findings": array(reference("Finding"))},
)

_SUBMITTED = record(
    {
        "job_id": nullable(_TEXT),
        "status": {"type": "string", "enum": [*STATE["enum"], "error"]},
        "error": ERROR,
    },
    {
        "code": _TEXT,
        "findings": array(reference("Finding")),
        "warnings": array(reference("Finding")),
        "known": {"type": "boolean", "description": "with a key: whether it gave the job before"},
    },
)

_EVENT = record(
    {
        "seq": {"type": "integer", "description": "grows; a gap means nothing"},
        "job_id": _TEXT,
        "at": _TIME,
        "from": nullable(STATE),
        "to": {**STATE, "description": "the same as `from` where something was only noted"},
        "reason": nullable(_TEXT),
    },
    {"job": {**reference("Job"), "description": "as it is by then, where that was asked for"}},
)

_CHANGE = record(
    {
        **{name: _EVENT["properties"][name] for name in ("seq", "job_id", "at", "from", "reason")},
        "status": _EVENT["properties"]["to"],
    },
    {"job": _EVENT["properties"]["job"]},
)

#: What the schemas refer to.
COMPONENTS: dict[str, _Schema] = {
    "Change": _CHANGE,
    "Event": _EVENT,
    "Finding": _FINDING,
    "Inputs": _INPUTS,
    "Job": _JOB,
    "Parent": _PARENT,
    "Potcar": _POTCAR,
    "Preset": _PRESET,
    "Refusal": _REFUSAL,
    "Setting": _SETTING,
    "StepInputs": _STEP_INPUTS,
    "Submitted": _SUBMITTED,
    "Summary": _SUMMARY,
}

#: The shape of one job, of ``jobs.status``, ``jobs.list`` and all others alike.
JOB: _Schema = reference("Job")
