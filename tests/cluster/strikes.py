"""Jobs on the Slurm cluster under which, by seed, hosts, processes and allocations are struck.

``python tests/cluster/strikes.py ENGINE SEED [STRIKES [JOBS]]`` runs one life and tells what was
wrong with it; `run` does so on a cluster, and in a home, of a test's own.
"""

import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).parents[1]
COMMAND = (sys.executable, "-m", "crystalmath")
CONFIGURATIONS = {
    "parsl": """
[jobs]
lease_s = 30

[clusters.slurm]
engine = "parsl"
scheduler = "slurm"
walltime = "00:10:00"
workers_per_node = 2
max_blocks = 2
""",
    "psij": """
[jobs]
lease_s = 30

[clusters.slurm]
engine = "psij"
scheduler = "slurm"
walltime = "00:05:00"
""",
}
#: How long all jobs may take to end after the last strike, in seconds.
END_S = 900
#: How long what is left of them may take to go once the server has been stopped, in seconds.
LEAVE_S = 300
#: Submits jobs that note in files of their own what they do: a folder, and a time in s for each.
SUBMIT = """
import json, sys
from pathlib import Path
from ase.build import bulk
from crystalmath.client import Submission, connect
folder, seconds = Path(sys.argv[1]), json.loads(sys.argv[2])
jobs = []
for number, each in seconds.items():
    (folder / number).touch()
    told = {"path": str(folder / number), "seconds": each}
    what = {"recipe": "lab_recipes.alone", "atoms": bulk("Al"), "parameters": told}
    jobs.append(Submission(**what, cluster="slurm", key=number))
with connect() as client:
    print(json.dumps([job.job_id for job in client.submit_many(jobs)]))
"""


class Strikes:
    """One life.

    Parameters
    ----------
    slurm : SlurmCluster
        Where it is lived.
    home : pathlib.Path
        A home that all hosts see.
    engine : {"parsl", "psij"}
        What hands the jobs to Slurm.
    seed : int
        Decides what is struck.
    """

    def __init__(self, slurm, home, engine, seed):
        self._slurm, self._home = slurm, home
        self._chance = random.Random(seed)
        self._environment = {
            "CRYSTALMATH_HOME": str(home),
            "CRYSTALMATH_RECIPES": "lab_recipes",
            "PYTHONPATH": os.pathsep.join([str(TESTS / "light"), str(TESTS / "lab")]),
        }
        (home / "config.toml").write_text(CONFIGURATIONS[engine])
        self._notes = home / "notes"
        self._notes.mkdir()
        self._jobs = []
        self.struck = []

    def live(self, strikes, jobs):
        """Submit jobs, strike, and give what is wrong with what became of them."""
        batches = 4
        for batch in range(batches):
            self._submit(jobs // batches)
            for _ in range(strikes // batches + (batch < strikes % batches)):
                time.sleep(self._chance.uniform(0.5, 4))
                self._strike()
        self._heal()
        told = self._end()
        notes = {path.name: path.read_text().split() for path in self._notes.iterdir()}
        return wrong(told, notes) | self._left()

    def _run(self, *command, check=True, timeout=300):
        done = self._slurm.run(*command, env=self._environment, check=check, timeout=timeout)
        return done.stdout

    def _submit(self, count):
        seconds = {
            f"job-{len(self._jobs) + number}": round(self._chance.uniform(0, 3), 2)
            for number in range(count)
        }
        told = self._run(sys.executable, "-c", SUBMIT, self._notes, json.dumps(seconds))
        self._jobs += json.loads(told)

    def _strike(self):
        kinds = [name for name in dir(self) if name.startswith("strike_")]
        kind = self._chance.choice(kinds)
        hit = getattr(self, kind)()
        self.struck.append(f"{kind.removeprefix('strike_')}{'' if hit else ' (nothing there)'}")

    def strike_server(self):
        """Kill the server; the next command that needs one starts another."""
        return self._kill("login", "-m crystalmath.server")

    def strike_interchange(self):
        """Kill Parsl's interchange on the login node."""
        return self._kill("login", "interchange")

    def strike_worker(self):
        """Kill a worker, or what runs them, on a node."""
        return self._kill(self._node(), "process_worker_pool", "multiprocessing.spawn", "psij")

    def strike_supervisor(self):
        """Kill a supervisor on a node."""
        return self._kill(self._node(), "worker.supervisor")

    def strike_runner(self):
        """Kill the process in which a recipe runs."""
        return self._kill(self._node(), "worker.runner")

    def strike_power(self):
        """Have a node lose its power, and start again."""
        node = self._node()
        self._slurm.power_off(node)
        time.sleep(self._chance.uniform(0, 3))
        self._slurm.power_on(node)
        return True

    def strike_cable(self):
        """Cut a node off for some seconds."""
        node = self._node()
        self._slurm.pull_cable(node)
        time.sleep(self._chance.uniform(1, 8))
        self._slurm.plug_cable(node)
        return True

    def strike_scancel(self):
        """End an allocation."""
        return self._on_an_allocation("scancel")

    def strike_requeue(self):
        """Have an allocation started again."""
        return self._on_an_allocation("scontrol", "requeue")

    def strike_drain(self):
        """Have a node take no more work for some seconds."""
        node = f"nodename={self._node()}"
        self._run("scontrol", "update", node, "state=drain", "reason=struck", check=False)
        time.sleep(self._chance.uniform(0, 3))
        self._run("scontrol", "update", node, "state=resume", check=False)
        return True

    def _node(self):
        return self._chance.choice(["node1", "node2"])

    def _kill(self, host, *telling):
        found = [
            pid
            for pid, command in sorted(self._slurm.processes(host).items())
            if any(words in command for words in telling)
        ]
        if found:
            self._slurm.run("kill", "-9", self._chance.choice(found), on=host, check=False)
        return bool(found)

    def _on_an_allocation(self, *command):
        queue = self._slurm.queue()
        if queue:
            self._run(*command, self._chance.choice(queue), check=False)
        return bool(queue)

    def _heal(self):
        """Have all nodes take work again."""
        for name in ("node1", "node2"):
            self._slurm.plug_cable(name)
            node = f"nodename={name}"
            self._run("scontrol", "update", node, "state=resume", check=False)

    def _end(self):
        """Wait for the ends of all jobs, and tell them; who waits has a killed server replaced."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._run(*COMMAND, "wait", *self._jobs, check=False, timeout=END_S)
        told = json.loads(self._run(*COMMAND, "list", "--json", "--limit=1000"))["jobs"]
        return {
            job["key"]: [job["status"], str(job.get("error") or ""), job["attempt"]] for job in told
        }

    def _left(self):
        """Name what is left of the jobs once the server has been stopped."""
        self._run(*COMMAND, "stop", check=False)
        deadline = time.monotonic() + LEAVE_S
        while (left := self._alive()) and time.monotonic() < deadline:
            time.sleep(0.5)
        return {"left over": left} if left else {}

    def _alive(self):
        found = [f"allocation {job}" for job in self._slurm.queue()]
        for host in ("login", "node1", "node2"):
            found += [
                f"{host}: {command}"
                for command in self._slurm.processes(host).values()
                if "crystalmath" in command or "interchange" in command
            ]
        return found


def wrong(jobs, notes):
    """Name the jobs with which something is wrong, by what it is.

    One fails only if both of its attempts were struck, and comes to its end twice only if the first
    was struck between that and its outcome.

    Parameters
    ----------
    jobs : mapping of str to list
        State, error and number of attempts of each.
    notes : mapping of str to list of str
        What each has noted: ``overlap`` when it began, ``end`` at its end.
    """
    found = {
        "lost": sorted(set(notes) - set(jobs)),
        "stuck": {job: told for job, told in jobs.items() if told[0] in {"pending", "running"}},
        "failed": {job: told for job, told in jobs.items() if told[0] == "failed" and told[2] < 2},
        "not run": [job for job, told in jobs.items() if told[0] == "completed" and not notes[job]],
        "twice": [
            job for job, said in notes.items() if job in jobs and said.count("end") > jobs[job][2]
        ],
        "overlapping": [job for job, said in notes.items() if "overlap" in said],
    }
    return {what: which for what, which in found.items() if which}


def main():
    """Run what the command line names."""
    sys.path.insert(0, str(TESTS))
    from cluster.slurm_cluster import SlurmCluster

    engine, seed, *numbers = sys.argv[1:]
    strikes, jobs = [*map(int, numbers), *(30, 60)[len(numbers) :]]
    home = Path(tempfile.mkdtemp(prefix="strikes-"))
    with SlurmCluster(tempfile.mkdtemp(prefix="slurm-")) as slurm:
        life = Strikes(slurm, home, engine, int(seed))
        try:
            found = life.live(strikes, jobs)
        finally:
            with contextlib.suppress(subprocess.SubprocessError):
                slurm.run(*COMMAND, "stop", "--cancel", env=life._environment, check=False)
    print(f"{home}: {engine}, seed {seed}: {', '.join(life.struck)}")
    print(json.dumps(found or "nothing wrong", indent=1))
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
