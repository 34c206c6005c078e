"""The owner of a flow in a few lines: it runs passes and steps in this process, one by one."""

import json
import random
import uuid

from quacc import change_settings

from crystalmath.jobs.rundir import RunDirectory
from crystalmath.models import JobSpec
from crystalmath.recipes import codec
from crystalmath.recipes.stored_result import unpacked
from crystalmath.submitting.predecessor_values import _member
from crystalmath.worker import runner
from digests import digests

ENDED = ("completed", "failed", "cancelled")


class FlowOwner:
    """Runs a flow to its end.

    With a `seed` steps run in any order, and passes begin while others have just been launched.
    """

    def __init__(self, home, recipe, atoms=None, *, allow=(), seed=None, most=5000, **parameters):
        self.home, self.allow = home, allow
        self.random = random.Random(seed) if seed is not None else None
        self.flow = {"pass": 0, "serial": False, "most": most, "steps": []}
        self.steps = {}
        #: The recipes that have run as steps, in their order.
        self.ran = []
        self.id, self.recipe = str(uuid.uuid4()), recipe
        spec = JobSpec(job_id=self.id, recipe=recipe, atoms=atoms, parameters=parameters)
        self.body = codec.encode_spec(spec)
        self.directory = RunDirectory(home / self.id)
        #: Work directory of each completed step -> what it held then.
        self.left = {}

    def in_one_job(self):
        """Run the flow as one job; return its outcome's header and result."""
        job_id = str(uuid.uuid4())
        header = self._run(job_id, 1, self.recipe, self.body)
        return header, codec.decode_result(RunDirectory(self.home / job_id).payload(1))

    def _run(self, job_id, attempt, recipe, body, **more):
        directory = self._launch(job_id, attempt, recipe, body, **more)
        (self.home / job_id / f"{attempt}.work").mkdir()
        prepared = runner._run(directory, attempt, self.allow, None, dict, small=False)
        assert directory.publish_prepared(attempt, prepared["outcome"])
        return directory.outcome(attempt)

    def _launch(self, job_id, attempt, recipe, body, **more):
        directory = RunDirectory(self.home / job_id)
        header = {"job_id": job_id, "attempt": attempt, "recipe": recipe, "walltime_s": None}
        directory.write_spec({**header, "environment": {}, "files": {}, **more}, body)
        return directory

    def one_pass(self):
        """Run a pass; return its outcome's header, and what it waits for or has returned."""
        number = self.flow["pass"] = self.flow["pass"] + 1
        self.flow["steps"] = [self._entry(step) for step in self.steps.values()]
        header = self._run(self.id, number, self.recipe, self.body, flow=self.flow)
        payload = self.directory.payload(number)
        if header["state"] == "waits":
            told = json.loads(unpacked(payload))
            self._record(told["calls"])
            return header, told
        return header, codec.decode_result(payload) if payload else None

    def run(self, passes=30):
        """Run the flow to its end; return its outcome's header and result."""
        while True:
            header, told = self.one_pass()
            if header["state"] != "waits":
                return header, told
            assert self.flow["pass"] < passes, told
            self.run_steps(told["needs"])

    def run_steps(self, needs):
        """Run steps until those have ended that the next pass needs."""
        while not all(self.steps[name]["state"] in ENDED for name in needs if name in self.steps):
            ready = [step for step in self.steps.values() if self._is_ready(step)]
            assert ready, self.steps
            if self.random is None:
                self._finish(ready[0])
                continue
            self.random.shuffle(ready)
            for step in ready:
                if self.random.random() < 0.5:
                    self._start(step)
            self._finish(ready[0])
            if self.random.random() < 0.2:
                return

    def _entry(self, step):
        entry = {name: step[name] for name in ("name", "job_id", "state", "attempt", "error")}
        if step["state"] == "waiting":
            entry["document"] = step["document"]
        return entry

    def _record(self, calls):
        called = {call["name"] for call in calls}
        for name, step in list(self.steps.items()):
            if step["state"] == "waiting" and name not in called:
                del self.steps[name]
        for call in calls:
            if call["known"]:
                assert call["known"] == self.steps[call["name"]]["job_id"]
                continue
            replaced = self.steps.pop(call["name"], None)
            assert call["replaces"] == (replaced and replaced["job_id"])
            assert replaced is None or replaced["state"] in {"failed", "waiting"}, replaced
            self.steps[call["name"]] = {
                "name": call["name"],
                "job_id": str(uuid.uuid4()),
                "state": "waiting",
                "attempt": 1,
                "error": None,
                "recipe": call["recipe"],
                "after": call["after"],
                "settings": call["settings"] or {},
            }
        for call in calls:
            if not call["known"]:
                named = _replaced(call["document"], "$step", self._job_of)
                self.steps[call["name"]]["document"] = named

    def _job_of(self, node):
        return {"$job": self.steps[node["$step"]]["job_id"], "path": node["path"]}

    def _needed(self, step):
        found = []
        _replaced(step["document"], "$job", lambda node: found.append(node["$job"]))
        by_id = {each["job_id"]: each for each in self.steps.values()}
        after = [self.steps[name] for name in step["after"]]
        return [by_id[job_id] for job_id in found], after

    def _parents(self, step):
        of_flow = {"job_id": self.id, "role": "flow"}
        needed = zip(("value", "after"), self._needed(step), strict=True)
        named = [(one["job_id"], role) for role, some in needed for one in some]
        return [of_flow, *({"job_id": job_id, "role": role} for job_id, role in named)]

    def _is_ready(self, step):
        if step["state"] in ENDED:
            return False
        return all(each["state"] in ENDED for some in self._needed(step) for each in some)

    def _start(self, step):
        """Launch a step that waits, or end it where what it needs has failed."""
        if step["state"] != "waiting":
            return
        if failed := [each for each in self._needed(step)[0] if each["state"] != "completed"]:
            step |= {"state": "failed", "error": f"it needs job {failed[0]['job_id']}"}
            return
        body = json.dumps(_replaced(step["document"], "$job", self._value))
        self._launch(step["job_id"], 1, step["recipe"], body, parents=self._parents(step))
        step |= {"state": "launched", "body": body}

    def _value(self, node):
        value = json.loads(unpacked(RunDirectory(self.home / node["$job"]).payload(1)))
        for key in node["path"]:
            value = _member(value, key)
        return value

    def _finish(self, step):
        self._start(step)
        if step["state"] == "launched":
            self.ran.append(step["recipe"])
            with change_settings({name[6:]: text for name, text in step["settings"].items()}):
                more = {"parents": self._parents(step)}
                header = self._run(step["job_id"], 1, step["recipe"], step["body"], **more)
            step |= {"state": header["state"], "error": header["error"]}
            if header["state"] == "completed":
                work = self.home / step["job_id"] / "1.work"
                self.left[work] = digests(work)


def _replaced(node, key, give):
    if isinstance(node, dict):
        if key in node:
            return give(node)
        return {name: _replaced(each, key, give) for name, each in node.items()}
    return [_replaced(each, key, give) for each in node] if isinstance(node, list) else node
