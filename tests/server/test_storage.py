"""What jobs take on the disk is measured, for jobs that are on record and written by the test."""

from __future__ import annotations

import asyncio
import json
import time
import uuid

import jsonschema
import pytest

from crystalmath import config
from crystalmath.jobs.changes import Change
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.quacc.runner import JobState
from crystalmath.quacc.store import JobStore, NewJob
from crystalmath.recipes import codec
from crystalmath.server.methods import METHODS
from crystalmath.server.rpc import wire
from crystalmath.server.rpc.shapes import COMPONENTS
from crystalmath.service import JobService

RELAX = "quacc.recipes.vasp.core.relax_job"
STATIC = "quacc.recipes.espresso.core.static_job"
#: The files of a job: names, and sizes in bytes. The first three are heavy.
VASP = {"s/WAVECAR.gz": 5000, "s/CHGCAR": 700, "s/POTCAR.gz": 30, "s/OUTCAR.gz": 40, "s/CONTCAR": 9}


class Home:
    """A home, its service, and jobs in it that were never run."""

    def __init__(self, root):
        self.service = JobService(config.load({"CRYSTALMATH_HOME": str(root)}))
        self.jobs = root / "jobs"
        self.jobs.mkdir()
        self.store = JobStore(self.service.config.database_url)

    def make(self, files=(), *, state="completed", ended_s=0.0, recipe=RELAX, **more):
        """Record a job that ended so long ago, with these files in its work directory."""
        job_id, now = str(uuid.uuid4()), time.time()
        ended_at = now - ended_s
        terms = {"engine": "local", "spec_hash": "0", "specification": "{}\n{}"}
        terms |= {"created_at": ended_at - 1} | more
        self.store.insert([NewJob(job_id=job_id, recipe=recipe, **terms)])
        directory = RunDirectory(self.jobs / job_id)
        directory.write_spec({"job_id": job_id, "attempt": 1}, "{}")
        summary = {"energy_ev": -1.5, "work_dir": f"{self.jobs}/{job_id}/1.work/s"}
        if state in ("completed", "failed"):
            value = codec.encode_result({"energy": -1.5, "dir_name": summary["work_dir"]})
            directory.publish(1, {"state": state}, value)
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

    def call(self, method, /, **params):
        """Call a method; what it answers fits its schema."""
        document = json.loads(wire.dumps(asyncio.run(METHODS[method](self.service, params))))
        schema = {**METHODS[method].answer, "components": {"schemas": COMPONENTS}}
        jsonschema.Draft7Validator(schema).validate(document)
        return document


@pytest.fixture
def here(home):
    here = Home(home)
    with here.service, here.store:
        yield here


def test_usage_is_told_in_all_and_by_state_recipe_and_label(here):
    one = here.make(VASP, labels={"project": "a", "k": "1"})
    here.make({"pw/pwscf.save/wfc1.dat": 2000, "pw/pwscf.wfc1": 80}, recipe=STATIC)
    here.make(VASP, state="failed", labels={"project": "a"})
    (here.jobs / one / "1.work" / "away").symlink_to("/usr")
    usage = here.call("jobs.usage")
    assert usage["total"]["jobs"] == 3
    assert usage["total"]["heavy_size"] == 2 * 5730 + 2080
    assert 2 * 5779 + 2080 < usage["total"]["size"] < 2 * 5779 + 2080 + 3000
    assert [(one["recipe"], one["jobs"]) for one in usage["recipes"]] == [(RELAX, 2), (STATIC, 1)]
    assert [(one["state"], one["jobs"]) for one in usage["states"]] == [
        ("completed", 2),
        ("failed", 1),
    ]
    assert [(one["label"], one["value"], one["jobs"]) for one in usage["labels"]] == [
        ("project", "a", 2),
        ("k", "1", 1),
    ]
    for groups in ("recipes", "states"):
        for key in ("jobs", "files", "size", "heavy_size"):
            assert sum(one[key] for one in usage[groups]) == usage["total"][key]
    assert here.call("jobs.usage", labels={"k": "1"})["total"]["jobs"] == 1
    assert here.call("jobs.usage", state="cancelled")["total"] == {
        "jobs": 0,
        "files": 0,
        "size": 0,
        "heavy_size": 0,
    }


def test_more_jobs_are_measured_than_are_asked_for_at_once(here, monkeypatch):
    monkeypatch.setattr("crystalmath.service.usage.PAGE", 2)
    for _ in range(5):
        here.make({"CHG": 1})
    assert here.call("jobs.usage")["total"]["heavy_size"] == 5


def test_du_is_a_table_of_recipes_labels_and_all(here, cli):
    here.make({"WAVECAR": 3 * 2**20, "vasprun.xml": 2**19}, labels={"project": "alloys"})
    here.make(state="failed")
    header, relax, project, everything = cli("du").lines
    assert header.split() == ["SIZE", "HEAVY", "FILES", "JOBS"]
    assert relax.split() == ["3.5", "MB", "3.0", "MB", "6", "2", "vasp.core.relax_job"]
    assert project.split()[-2:] == ["1", "project=alloys"]
    assert everything.split()[-2:] == ["2", "all"]
    document = cli("du", "--state", "failed", "--json").json
    assert (document["total"]["jobs"], document["total"]["heavy_size"]) == (1, 0)
    assert cli("du", "--state", "lost").code == 2
