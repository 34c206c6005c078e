"""Commands on the hosts of a Slurm cluster, with a home that all of them see."""

import json
import subprocess
import sys

from cluster.slurm_cluster import LOGIN
from conftest import AL, eventually

COMMAND = (sys.executable, "-m", "crystalmath")
#: A lease in which a heart beats twice, also where many share two cores, in seconds.
LEASE_S = 30
#: What the command lines of jobs, servers and pilot jobs have in them.
OURS = ("crystalmath", "interchange", "process_worker_pool")


class SharedHome:
    """A home with a configuration; a ``with`` statement ends its server and its jobs.

    Parameters
    ----------
    slurm : SlurmCluster
        The cluster.
    home : pathlib.Path
        The folder; it is the one of this process's environment.
    configuration : str
        The text of its `config.toml`.
    """

    def __init__(self, slurm, home, configuration=""):
        self.slurm, self.home = slurm, home
        self.configure(configuration)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.text("stop", "--cancel", check=False, timeout=600)

    def configure(self, configuration):
        (self.home / "config.toml").write_text(configuration, encoding="ascii")

    def text(self, *arguments, **more):
        """Run a command, and return its output."""
        return self.slurm.run(*COMMAND, *arguments, **more).stdout

    def run(self, *arguments, **more):
        """Run a command, and return its answer."""
        return json.loads(self.text(*arguments, "--json", **more))

    def start(self, *arguments, on=LOGIN, **more):
        """Start a command that is to be waited for later."""
        command = self.slurm.command(*COMMAND, *arguments, on=on)
        return subprocess.Popen(command, env=self.slurm.environment, text=True, **more)

    def submit(self, recipe, *options, cluster="slurm", on=LOGIN, **parameters):
        """Submit a recipe of `tests/lab`; return the job's id."""
        words = [f"--param={key}={json.dumps(value)}" for key, value in parameters.items()]
        asked = (f"lab_recipes.{recipe}", AL, f"--cluster={cluster}", *words, *options)
        return self.run("submit", *asked, on=on)["job_id"]

    def status(self, job_id, on=LOGIN):
        return self.run("status", job_id, on=on, check=False)

    def state(self, job_id, on=LOGIN):
        return self.status(job_id, on)["status"]

    def reached(self, job_id, *states, timeout=300):
        """Wait until a job is in one of some states, else until it has ended; return its status."""
        states = states or ("completed", "failed", "cancelled")
        eventually(lambda: self.state(job_id) in states, timeout)
        return self.status(job_id)

    def completed(self, job_id):
        """Wait until a job has completed; return its status."""
        status = self.reached(job_id, timeout=600)
        assert status["status"] == "completed", status
        return status

    def server(self):
        """Return which process serves the home; its name is being written for a moment."""
        return json.loads((self.home / "server" / "lock").read_text() or '{"host": null}')

    def kill_server(self):
        server = self.server()
        self.slurm.run("kill", "-KILL", server["pid"], on=server["host"])

    def left(self):
        """Name what is left of jobs, on any host."""
        found = [f"allocation {each}" for each in self.slurm.queue()]
        for host in self.slurm.hosts:
            commands = self.slurm.processes(host).values()
            found += [f"{host}: {each}" for each in commands if any(word in each for word in OURS)]
        return found
