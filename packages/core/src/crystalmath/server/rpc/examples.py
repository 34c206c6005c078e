"""An example of each method, for the OpenRPC document: what is asked, and what is answered.

A test holds each against the schemas of its method.
"""

from __future__ import annotations

from typing import Any

from crystalmath.server.rpc.example_job import (
    ASKED,
    DIRECTORY,
    EVENT,
    HOME,
    ID,
    INPUTS,
    JOB,
    RECIPE,
    RESULT,
    TERMS,
    USE,
)

#: Method -> parameters and result.
EXAMPLES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "clusters.check": (
        {"cluster": "slurm", "job_id": ID},
        {
            "job_id": ID,
            "status": "completed",
            "checks": [
                {
                    "name": "cluster",
                    "state": "ok",
                    "message": "slurm: engine parsl, scheduler slurm",
                    "remedy": None,
                },
                {
                    "name": "clock",
                    "state": "warning",
                    "message": "the node's is at least 60 s behind this host's",
                    "remedy": "ask the administrator to synchronize the clocks",
                },
            ],
            "error": None,
        },
    ),
    "clusters.list": (
        {},
        {
            "clusters": [
                {
                    "name": "slurm",
                    "engine": "parsl",
                    "scheduler": "slurm",
                    "walltime_s": 3600.0,
                    "worker_init": "module load vasp",
                    "environment": {"VASP_PP_PATH": "/sw/potcars"},
                    "launcher": "srun -N {nodes} -n {ranks}",
                    "continue_lost": True,
                    "resources": {"nodes": 4, "queue": "compute", "account": "chem"},
                    "engine_options": {},
                    "error": None,
                    "trouble": "squeue: Protocol authentication error",
                }
            ],
            "error": None,
        },
    ),
    "engines.list": (
        {},
        {
            "engines": [
                {
                    "name": "local",
                    "distribution": "crystalmath",
                    "version": "1.0",
                    "loads": True,
                    "error": None,
                    "findings": [],
                    "configured": True,
                }
            ],
            "error": None,
        },
    ),
    "jobs.archive": (
        {"file": "/home/ann/alloys.zip", "filters": {"labels": {"set": "metals"}}},
        {"jobs": 12, "files": 180, "left_out": [], "error": None},
    ),
    "jobs.cancel": ({"job_id": ID}, {"job_id": ID, "cancelled": True, "error": None}),
    "jobs.cancel_many": (
        {"labels": {"set": "metals"}, "state": "pending"},
        {"jobs": [{"job_id": ID, "cancelled": True, "error": None}], "error": None},
    ),
    "jobs.check": (
        {**ASKED, "inputs": True},
        {
            "ok": True,
            "status": "ok",
            "error": None,
            "findings": [],
            "potcars": [],
            "environment": ["PATH"],
            "inputs": INPUTS,
        },
    ),
    "jobs.counts": (
        {"bucket_s": 3600, "start": 1795694400, "end": 1795699000, "labels": {"set": "metals"}},
        {
            "bucket_s": 3600.0,
            "buckets": [
                {"at": 1795694400.0, "states": {"completed": 12, "failed": 1, "cancelled": 0}},
                {"at": 1795698000.0, "states": {"completed": 3, "failed": 0, "cancelled": 0}},
            ],
            "states": {"completed": 15, "failed": 1, "cancelled": 0},
            "error": None,
        },
    ),
    "jobs.import": (
        {"file": "/home/ann/alloys.zip"},
        {"job_ids": [ID], "known": [], "error": None},
    ),
    "jobs.inputs": ({"job_id": ID}, {"job_id": ID, "inputs": INPUTS, "error": None}),
    "jobs.events": (
        {"after": 2, "timeout_s": 10},
        {"events": [EVENT], "last": 3, "error": None},
    ),
    "jobs.files": (
        {"job_id": ID},
        {
            "job_id": ID,
            "attempt": 1,
            "work_dir": f"{DIRECTORY}/1.work",
            "files": [
                {
                    "file": "opt.log.gz",
                    "size": 191,
                    "modified_at": 1795695849.3,
                    "is_link": False,
                }
            ],
            "more": 0,
            "error": None,
        },
    ),
    "jobs.list": (
        {
            "elements": ["Al"],
            "labels": {"set": "metals"},
            "exclude": {"state": ["failed", "cancelled"]},
            "sort": "-energy_ev",
            "totals": True,
        },
        {"jobs": [JOB], "cursor": None, "totals": {"completed": 1}, "error": None},
    ),
    "jobs.logs": (
        {"job_id": ID, "tail": 1},
        {
            "job_id": ID,
            "file": f"{DIRECTORY}/1.log",
            "others": [],
            "text": f"INFO:quacc.runners.prep:Calculation results stored at {DIRECTORY}/1.work\n",
            "offset": 290,
            "size": 290,
            "finished": True,
            "error": None,
        },
    ),
    "jobs.progress": (
        {"job_ids": [ID], "history": True},
        {
            "jobs": [
                {
                    "job_id": ID,
                    "status": "running",
                    "error": None,
                    "progress": {
                        "program": "VASP",
                        "calculation": 1,
                        "file": "tmp-quacc-2026-11-26-15-08-34-854536-41974/OSZICAR",
                        "updated_at": 1795695849.3,
                        "ionic_step": 4,
                        "electronic_step": 7,
                        "energy_ev": -14.889012,
                        "max_force_ev_ang": 0.0213,
                        "history": [
                            {
                                "calculation": 1,
                                "ionic_step": 3,
                                "energy_ev": -14.889012,
                                "max_force_ev_ang": 0.0213,
                            }
                        ],
                    },
                }
            ],
            "error": None,
        },
    ),
    "jobs.prune": (
        {"older_s": 2_592_000, "keep_results": True, "dry_run": True},
        {
            "jobs": [
                {
                    "job_id": ID,
                    "name": "Al",
                    "status": "completed",
                    "recipe": RECIPE,
                    "finished_at": 1795695849.3,
                    "size": 430_000_000,
                }
            ],
            "left": [],
            "cursor": None,
            "error": None,
        },
    ),
    "jobs.parameters": (
        {"job_ids": [ID]},
        {
            "parameters": [{"job_id": ID, "params": {"calc_kwargs": {}}, "error": None}],
            "error": None,
        },
    ),
    "jobs.result": ({"job_id": ID}, RESULT),
    "jobs.results": ({"job_ids": [ID]}, {"results": [RESULT], "error": None}),
    "jobs.reread": (
        {"job_id": ID, "settings": {"CHECK_CONVERGENCE": "False"}},
        {"job_id": "5f0cf2b1-94b3-4cd5-96d4-6a3b7f8f5a0e", "status": "pending", "error": None},
    ),
    "jobs.retry": (
        {"filters": {"error": "not converge"}, "params": {"opt_params": {"max_steps": 500}}},
        {
            "jobs": [
                {
                    "retry_of": ID,
                    "name": "Al",
                    "labels": {"set": "metals"},
                    "job_id": "5f0cf2b1-94b3-4cd5-96d4-6a3b7f8f5a0e",
                    "status": "pending",
                    "error": None,
                }
            ],
            "error": None,
        },
    ),
    "jobs.script": (
        {"job_id": ID},
        {
            "job_id": ID,
            "script": "from ase import Atoms\n...\nresult = relax_job(atoms, **parameters)\n",
            "shell": None,
            "error": None,
        },
    ),
    "jobs.show": (
        {"job_id": ID},
        {
            "job": JOB,
            "params": {},
            "potcars": [],
            "parents": [],
            "children": [
                {
                    "job_id": "5f0cf2b1-94b3-4cd5-96d4-6a3b7f8f5a0e",
                    "role": "structure",
                    "name": "Al",
                    "recipe": RECIPE,
                    "status": "pending",
                }
            ],
            "attempts": [
                {
                    "attempt": 1,
                    "host": "workstation",
                    "pid": 4712,
                    "outcome": "completed",
                    "error": None,
                    "begun_from": None,
                    "work_dir": f"{DIRECTORY}/1.work",
                }
            ],
            "events": [EVENT],
            "error": None,
        },
    ),
    "jobs.specification": (
        {"job_id": ID},
        {
            "job_id": ID,
            **TERMS,
            **ASKED,
            "params": {},
            "engine": "local",
            "potcars": [],
            "parents": [],
            "error": None,
        },
    ),
    "jobs.status": ({"job_id": ID}, JOB),
    "jobs.status_many": ({"job_ids": [ID]}, {"jobs": [JOB], "error": None}),
    "jobs.submit": (ASKED, {"job_id": ID, "status": "pending", "error": None}),
    "jobs.submit_many": (
        {"jobs": [ASKED]},
        {"jobs": [{"job_id": ID, "status": "pending", "error": None}], "error": None},
    ),
    "jobs.subscribe": ({"after": 2}, {"seq": 2, "error": None}),
    "jobs.summary": (
        {"labels": {"set": "metals"}},
        {"states": {"completed": 12}, "errors": [], "error": None},
    ),
    "jobs.unsubscribe": ({}, {"error": None}),
    "jobs.usage": (
        {"labels": {"set": "metals"}},
        {
            "total": USE,
            "states": [{"state": "completed", **USE}],
            "recipes": [{"recipe": RECIPE, **USE}],
            "labels": [{"label": "set", "value": "metals", **USE}],
            "error": None,
        },
    ),
    "jobs.wait": (
        {"job_ids": [ID], "timeout_s": 60},
        {"jobs": [JOB], "done": True, "error": None},
    ),
    "presets.list": (
        {"name": "DefaultSetGGA"},
        {
            "presets": [
                {
                    "name": "DefaultSetGGA",
                    "program": "VASP",
                    "file": "/usr/lib/python3/dist-packages/quacc/calculators/vasp/presets/"
                    "DefaultSetGGA.yaml",
                    "settings": {"encut": 520, "ivdw": 12, "xc": "pbe"},
                }
            ],
            "error": None,
        },
    ),
    "recipes.describe": (
        {"recipe": RECIPE},
        {
            "name": RECIPE,
            "kind": "job",
            "file": "/usr/lib/python3/dist-packages/quacc/recipes/emt/core.py",
            "line": 26,
            "docstring": "Carry out a static calculation.",
            "structure": "required",
            "parameters": {"type": "object", "properties": {}},
            "error": None,
        },
    ),
    "recipes.list": (
        {"prefix": "quacc.recipes.emt.core.s"},
        {
            "recipes": [
                {"name": RECIPE, "kind": "job", "summary": "Carry out a static calculation."}
            ],
            "error": None,
        },
    ),
    "rpc.discover": ({}, {"openrpc": "1.3.2", "methods": []}),
    "system.ping": ({}, {"ok": True}),
    "system.status": (
        {},
        {
            "jobs": {"pending": 3, "running": 2},
            "connections": 1,
            "quiet_s": 0.0,
            "engines": {"local": "loaded", "parsl": "not loaded"},
            "workers": {"local": 2},
            "backlog": {"local": 3},
            "disk": {
                "path": f"{HOME}/jobs",
                "free": 48_000_000_000,
                "size": 500_000_000_000,
                "full": False,
                "looked_at": 1795695849.3,
            },
            "failures": [
                {
                    "job_id": ID,
                    "name": "Fe",
                    "recipe": RECIPE,
                    "at": 1795695849.3,
                    "error": "NotImplementedError: No EMT-potential for Fe",
                }
            ],
        },
    ),
    "system.stop": ({"cancel": False}, {"pending": 3, "running": 2, "cancel": False}),
    "system.version": (
        {},
        {"version": "1.0", "protocol": 1, "pid": 4711, "host": "workstation", "home": HOME},
    ),
}
