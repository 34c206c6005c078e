"""Examples of all methods for the OpenRPC document, made from their schemas and one job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crystalmath.models import Job, JobState
from crystalmath.models.fields import to_wire
from crystalmath.wire.schemas import components

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crystalmath.server.rpc.declare import Method

_ID = "bacc336c-380e-4e0d-86f1-af45b2681ea2"
_RECIPE = "quacc.recipes.emt.core.static_job"
_HOME = "/home/anna/.crystalmath"
_DIRECTORY = f"{_HOME}/jobs/{_ID}"
_LABELS = {"set": "metals"}
_JOB: dict[str, Any] = {
    **to_wire(
        Job(
            job_id=_ID,
            state=JobState.COMPLETED,
            summary={
                "energy_ev": -0.0015,
                "max_force_ev_ang": 0.0,
                "formula": "Al",
                "work_dir": f"{_DIRECTORY}/1.work",
                "natoms": 1,
            },
            labels=_LABELS,
            recipe=_RECIPE,
            engine="local",
            revision=2,
            formula="Al",
            created_at=1795695848.4,
            started_at=1795695849.2,
            finished_at=1795695849.3,
        )
    ),
    "work_dir": f"{_DIRECTORY}/1.work",
    "log": f"{_DIRECTORY}/1.log",
}

#: Values by name, for each schema that takes them; ``place.name`` goes before the name alone.
_VALUES: dict[str, Any] = {
    **{name: value for name, value in _JOB.items() if value is not None},
    "Submitted.status": "pending",
    "at": 1795695849.3,
    "backlog": {"local": 3},
    "bucket_s": 3600.0,
    "check.name": "cluster",
    "cluster.name": "slurm",
    "cluster": "slurm",
    "cursor": None,
    "distribution": "crystalmath",
    "docstring": "Carry out a static calculation.",
    "energy_ev": -0.0015,
    "engine.name": "local",
    "engines": {"local": "loaded", "parsl": "not loaded"},
    "environment": {"VASP_PP_PATH": "/sw/potcars"},
    "error": None,
    "file": "/home/anna/alloys.zip",
    "file.file": "opt.log.gz",
    "files": {"parameters.json": '{\n  "asap_cutoff": false\n}\n'},
    "findings": [],
    "from": "running",
    "Setting.file": "parameters.json",
    "Setting.name": "asap_cutoff",
    "Setting.value": "false",
    "heavy_size": 5_100_000_000,
    "home": _HOME,
    "host": "workstation",
    "jobs.logs.file": f"{_DIRECTORY}/1.log",
    "kind": "job",
    "label": "set",
    "launcher": "srun -N {nodes} -n {ranks}",
    "left": [],
    "left_out": [],
    "line": 26,
    "message": "slurm: engine parsl, scheduler slurm",
    "modified_at": 1795695849.3,
    "more": 0,
    "name": "Al",
    "offset": 290,
    "others": [],
    "parameters": {"type": "object", "properties": {}},
    "params": {"opt_params": {"fmax": 0.01}},
    "path": f"{_HOME}/jobs",
    "pid": 4711,
    "Preset.name": "BulkSet",
    "potcars": [],
    "program": "EMT",
    "recipe.name": _RECIPE,
    "recipes.describe.name": _RECIPE,
    "retry_of": _ID,
    "quiet_s": 0.0,
    "resources": {"ranks": 4},
    "result": {"results": {"energy": -0.0015}, "dir_name": f"{_DIRECTORY}/1.work"},
    "scheduler": "slurm",
    "script": "from ase import Atoms\n...\nresult = static_job(atoms, **parameters)\n",
    "settings": {"encut": 520, "ivdw": 12, "xc": "pbe"},
    "size": 5_400_000_000,
    "states": {"completed": 15, "failed": 1},
    "structure": {
        "symbols": "Al",
        "cell": [[0, 2.02, 2.02], [2.02, 0, 2.02], [2.02, 2.02, 0]],
        "pbc": True,
    },
    "summary": "Carry out a static calculation.",
    "text": f"INFO:quacc.runners.prep:Calculation results stored at {_DIRECTORY}/1.work\n",
    "totals": {"completed": 1},
    "ArchivedJobs.transfer": None,
    "transfer": "9f86d081884c7d659a2feaa0c55ad015",
    "updated_at": 1795695849.3,
    "value": "metals",
    "version": "1.0",
    "warnings": [],
    "worker_init": "module load vasp",
    "workers": {"local": 2},
}

_SUBMISSION = {"recipe": _RECIPE, "structure": _VALUES["structure"], "labels": _LABELS}
#: Parameters of a request beside the required ones.
_OPTIONAL: dict[str, dict[str, Any]] = {
    "clusters.check": {"job_id": _ID},
    "jobs.archive": {"file": "/home/anna/alloys.zip", "filters": {"labels": _LABELS}},
    "jobs.cancel_many": {"labels": _LABELS, "state": "pending"},
    "jobs.check": {**_SUBMISSION, "inputs": True},
    "jobs.counts": {"bucket_s": 3600, "start": 1795694400, "labels": _LABELS},
    "jobs.events": {"after": 2, "timeout_s": 10},
    "jobs.import": {"file": "/home/anna/alloys.zip"},
    "jobs.list": {
        "elements": ["Al"],
        "labels": _LABELS,
        "exclude": {"state": ["failed", "cancelled"]},
        "sort": "-energy_ev",
        "totals": True,
    },
    "jobs.logs": {"tail": 1},
    "jobs.pack": {"older_s": 604_800, "dry_run": True},
    "jobs.progress": {"history": True},
    "jobs.prune": {"older_s": 2_592_000, "keep_results": True, "dry_run": True},
    "jobs.reread": {"settings": {"CHECK_CONVERGENCE": "False"}},
    "jobs.retry": {
        "filters": {"error": "not converge"},
        "params": {"opt_params": {"max_steps": 500}},
    },
    "jobs.submit": _SUBMISSION,
    "jobs.submit_many": {"jobs": [_SUBMISSION]},
    "jobs.summary": {"labels": _LABELS},
    "jobs.usage": {"labels": _LABELS},
    "jobs.wait": {"job_ids": [_ID], "timeout_s": 60},
    "presets.list": {"name": "BulkSet"},
    "structures.read": {"text": "1\n\nAl 0.0 0.0 0.0\n", "name": "al.xyz"},
    "recipes.list": {"prefix": "quacc.recipes.emt.core.s"},
    "system.stop": {"cancel": False},
}


def example(method: Method) -> tuple[dict[str, Any], Any]:
    """Return the parameters of a request, and the answer to it."""
    params = {**_object(method.params, method.name), **_OPTIONAL.get(method.name, {})}
    return params, _value(method.result, method.name)


def _object(schema: Mapping[str, Any], place: str) -> dict[str, Any]:
    of_name = schema["properties"]
    return {name: _value(of_name[name], name, place) for name in schema.get("required", ())}


def _value(schema: Mapping[str, Any], name: str, place: str = "") -> Any:
    """Return an example of a value: that of its name, else one that its schema takes."""
    if "$ref" in schema:
        referred = schema["$ref"].rpartition("/")[2]
        return _JOB if referred == "Job" else _value(components()[referred], referred)
    kinds = [schema] if "anyOf" not in schema else list(schema["anyOf"])
    for named in (f"{place}.{name}", name):
        if named in _VALUES and any(_takes(kind, _VALUES[named]) for kind in kinds):
            return _VALUES[named]
    first = kinds[0]
    if "const" in first or "enum" in first:
        return first.get("const", first.get("enum", [None])[0])
    if first.get("type") == "array":
        return [_value(first["items"], name.removesuffix("s"))]
    if "$ref" in first or "properties" in first:
        return _value(first, name) if first is not schema else _object(schema, name)
    return _USUAL.get(str(first.get("type")))


#: Examples by JSON type; any other schema has null.
_USUAL = {"boolean": True, "integer": 1, "number": 1.0, "string": "...", "object": {}}
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "object": (dict,),
    "array": (list,),
    "null": (type(None),),
}


def _takes(schema: Mapping[str, Any], value: object) -> bool:
    """Return whether a schema takes a value; the members of objects are not checked."""
    if "properties" in schema or "$ref" in schema:
        return False
    if "enum" in schema:
        return value in schema["enum"]
    kinds = schema.get("type")
    named = [kinds] if isinstance(kinds, str) else kinds or [*_TYPES]
    return any(isinstance(value, _TYPES[one]) for one in named)
