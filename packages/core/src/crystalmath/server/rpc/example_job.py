"""The job of which the examples of the OpenRPC document tell."""

from __future__ import annotations

from typing import Any

from crystalmath.models import Job, JobState, Terms
from crystalmath.models.fields import to_wire

ID = "bacc336c-380e-4e0d-86f1-af45b2681ea2"
RECIPE = "quacc.recipes.emt.core.static_job"
HOME = "/home/anna/.crystalmath"
DIRECTORY = f"{HOME}/jobs/{ID}"
STRUCTURE = {"symbols": "Al", "cell": [[0, 2.02, 2.02], [2.02, 0, 2.02], [2.02, 2.02, 0]]}
ASKED = {"recipe": RECIPE, "structure": {**STRUCTURE, "pbc": True}, "labels": {"set": "metals"}}
_LABELS = {"set": "metals"}
#: What a submission may say of its terms, as it is by default; the key stands with the job alone.
TERMS: dict[str, Any] = to_wire(Terms(labels=_LABELS))
del TERMS["key"]
JOB: dict[str, Any] = {
    **to_wire(
        Job(
            job_id=ID,
            state=JobState.COMPLETED,
            summary={
                "energy_ev": -0.0015,
                "max_force_ev_ang": 0.0,
                "formula": "Al",
                "work_dir": f"{DIRECTORY}/1.work",
                "natoms": 1,
            },
            labels=_LABELS,
            recipe=RECIPE,
            engine="local",
            revision=2,
            formula="Al",
            created_at=1795695848.4,
            started_at=1795695849.2,
            finished_at=1795695849.3,
        )
    ),
    "work_dir": f"{DIRECTORY}/1.work",
    "log": f"{DIRECTORY}/1.log",
}
EVENT = {
    "seq": 3,
    "job_id": ID,
    "at": 1795695849.3,
    "from": "running",
    "to": "completed",
    "reason": None,
}
RESULT = {
    "job_id": ID,
    "status": "completed",
    "error": None,
    "result": {"results": {"energy": -0.0015}, "dir_name": f"{DIRECTORY}/1.work"},
}

USE = {"jobs": 12, "files": 180, "size": 5_400_000_000, "heavy_size": 5_100_000_000}
INPUTS: dict[str, Any] = {
    "steps": [
        {
            "program": "EMT",
            "formula": "Al",
            "preset": None,
            "files": {"parameters.json": '{\n  "asap_cutoff": false\n}\n'},
            "settings": [
                {
                    "file": "parameters.json",
                    "name": "asap_cutoff",
                    "value": "false",
                    "origin": "default",
                    "instead_of": None,
                    "certain": True,
                }
            ],
            "certain": True,
        }
    ],
    "rest": None,
    "source": "recipe",
}
