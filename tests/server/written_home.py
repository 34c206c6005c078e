"""A home with jobs that were never run: on record, and written down, by the test."""

import asyncio
import json
import time
import uuid

import jsonschema

from crystalmath import config
from crystalmath.jobs.changes import Change
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.quacc.runner import JobState
from crystalmath.quacc.store import JobStore, NewJob
from crystalmath.recipes import codec
from crystalmath.server.handlers import METHODS
from crystalmath.server.rpc import large
from crystalmath.service import JobService
from crystalmath.wire import messages
from crystalmath.wire.schemas import components

RELAX = "quacc.recipes.vasp.core.relax_job"
#: The files of a job: names, and sizes in bytes. The first three are heavy.
VASP = {"s/WAVECAR.gz": 5000, "s/CHGCAR": 700, "s/POTCAR.gz": 30, "s/OUTCAR.gz": 40, "s/CONTCAR": 9}
SPECIFICATION = '{}\n{"atoms": null, "parameters": {}}'


class Home:
    """A home, its service, and jobs in it that were never run."""

    def __init__(self, root):
        self.service = JobService(config.load({"CRYSTALMATH_HOME": str(root)}))
        self.jobs = root / "jobs"
        self.jobs.mkdir(exist_ok=True)
        self.store = JobStore(self.service.config.database_url)

    def make(self, files=(), *, state="completed", ended_s=0.0, recipe=RELAX, notes=(), **more):
        """Record a job that ended so long ago, with these files in its work directory."""
        job_id, now = str(uuid.uuid4()), time.time()
        ended_at = now - ended_s
        terms = {"engine": "local", "spec_hash": "0", "specification": SPECIFICATION}
        terms |= {"created_at": ended_at - 1} | more
        self.store.insert([NewJob(job_id=job_id, recipe=recipe, **terms)])
        directory = RunDirectory(self.jobs / job_id)
        directory.write_spec({"job_id": job_id, "attempt": 1}, "{}")
        summary = {"energy_ev": -1.5, "work_dir": f"{self.jobs}/{job_id}/1.work/s"}
        if state in ("completed", "failed"):
            result = {"energy": -1.5, "dir_name": summary["work_dir"], "notes": list(notes)}
            stored = codec.stored_result(result)
            directory.publish(1, {"state": state, **stored.sizes}, stored.data)
        for name, size in dict(files).items():
            path = self.jobs / job_id / "1.work" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes(size))
        if state != "pending":
            change = Change(job_id=job_id, state=JobState(state), at=ended_at)
            if state == "completed":
                change = Change(
                    job_id=job_id, state=JobState.COMPLETED, at=ended_at, summary=summary
                )
            self.store.apply([change])
        return job_id

    def close(self):
        self.service.close()
        self.store.close()

    def files_of(self, job_id):
        """Name the files below a job's work directory."""
        work = self.jobs / job_id / "1.work"
        found = (path for path in work.rglob("*") if path.is_symlink() or not path.is_dir())
        return sorted(str(path.relative_to(work)) for path in found)

    def call(self, method, /, **params):
        """Call a method as for a client of a server; what it answers fits its schema."""

        async def asked():
            large.present.set(large.Request(large.Memory(), asyncio.Lock(), 0))
            return await METHODS[method](self.service, params)

        document = json.loads(messages.dumps(asyncio.run(asked())))
        schema = {**METHODS[method].answer, "components": {"schemas": components()}}
        jsonschema.Draft7Validator(schema).validate(document)
        return document
