"""The servers of a home of their own, always ended, with no process left; and how to ask one."""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from conftest import LIGHT, eventually
from crystalmath import processes
from crystalmath.server.endpoint import Place
from crystalmath.server.launch import answers
from crystalmath.wire import messages

#: What of a developer's environment must not reach a server under test.
PRIVATE = ("CRYSTALMATH_", "QUACC_", "VASP_")

#: A structure.
CELL = {"symbols": "Al", "cell": [3.0, 3.0, 3.0], "pbc": True}


def lab_request(recipe, **params):
    """Return what submits or checks a recipe of `tests/lab`."""
    return {"recipe": f"lab_recipes.{recipe}", "structure": CELL, "engine": "local", **params}


class Wire:
    """One connection, by nothing but the wire format."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        # Longer than a server is asked to wait for jobs.
        self.socket.settimeout(180)
        try:
            self.socket.connect(os.fspath(path))
        except OSError:
            self.socket.close()
            raise
        self.file = self.socket.makefile("rb")
        self.ids = itertools.count(1)

    def call(self, method, **params):
        """Return a method's result."""
        message = self.ask(method, **params)
        assert "error" not in message, message
        return message["result"]

    def ask(self, method, **params):
        """Return the whole answer."""
        self.send({"jsonrpc": "2.0", "id": next(self.ids), "method": method, "params": params})
        return self.read()

    def send(self, document):
        self.socket.sendall(messages.frame(messages.dumps(document)))

    def read(self):
        """Return the next message; ``None`` at the end."""
        header = b"".join(iter(self.file.readline, b"\r\n")) if self.file.peek(1) else b""
        return (
            json.loads(self.file.read(messages.read_length(header, most=None))) if header else None
        )

    def close(self):
        self.file.close()
        self.socket.close()


class HomeServer:
    """The servers of one home, one after another.

    Parameters
    ----------
    home : pathlib.Path
        The home.
    light : bool or pathlib.Path
        Its processes find no quacc, so that they are there at once: for tests of processes, whose
        recipes need none. Or the folder of another `sitecustomize` that sees to that.
    inside : sequence of str
        A command that runs another, in a container say.
    **environment
        Variables beside those of this process.
    """

    def __init__(self, home, *, light=False, inside=(), **environment):
        self.home = Path(home)
        self.inside = inside
        own = {k: v for k, v in os.environ.items() if not k.startswith(PRIVATE)}
        self.environment = {**own, "CRYSTALMATH_HOME": str(home)}
        self.environment |= {"CRYSTALMATH_RECIPES": "lab_recipes", **environment}
        if light:
            folder = light if isinstance(light, Path) else LIGHT
            path = os.pathsep.join([str(folder), own["PYTHONPATH"]])
            self.environment["PYTHONPATH"] = path
        self.process = None
        self._connections = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    @property
    def place(self):
        return Place.of(self.home, self.environment)

    def install(self, site, **engines):
        """Install engines for its processes: their names, and the source of each one's module."""
        information = site / "strangers-1.0.dist-info"
        information.mkdir(parents=True)
        (information / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: strangers\nVersion: 1.0\n"
        )
        entries = [f"{name} = {name}_engine\n" for name in engines]
        (information / "entry_points.txt").write_text("[crystalmath.engines]\n" + "".join(entries))
        for name, source in engines.items():
            (site / f"{name}_engine.py").write_text(source)
        self.environment["PYTHONPATH"] += f"{os.pathsep}{site}"

    def start(self, **environment):
        """Start a server and wait until it answers."""
        self.spawn(**environment)
        eventually(
            lambda: answers(self.place) or self.process.poll() is not None,
            message=self.log(),
        )
        assert self.process.poll() is None, self.log()
        return self

    def spawn(self, **environment):
        """Start a server and do not wait."""
        self.home.mkdir(exist_ok=True)
        self.place.make()
        with self.place.output.open("ab") as output:
            self.process = subprocess.Popen(
                [*self.inside, sys.executable, "-P", "-m", "crystalmath.server"],
                env={**self.environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        return self.process

    def run(self, *arguments, timeout=120, **environment):
        """Run a command to its end."""
        return subprocess.run(
            [*self.inside, sys.executable, "-m", "crystalmath", *arguments],
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    @property
    def pid(self):
        """The process that serves; ``None`` if nobody does."""
        server = self.place.read_lock()
        return None if server is None else server.identity.pid

    def connect(self):
        """Return a new connection."""
        connection = Wire(self.place.address())
        self._connections.append(connection)
        return connection

    def call(self, method, **params):
        """Return a method's result, over a connection of its own."""
        message = self.ask(method, **params)
        assert "error" not in message, message
        return message["result"]

    def ask(self, method, **params):
        """Return the whole answer, over a connection of its own."""
        connection = Wire(self.place.address())
        try:
            return connection.ask(method, **params)
        finally:
            connection.close()

    def submit(self, recipe, **params):
        """Submit a recipe of `tests/lab`; give the job's id."""
        answer = self.call("jobs.submit", **lab_request(recipe, **params))
        assert answer["error"] is None, answer
        return answer["job_id"]

    def finish(self, job_id):
        """Wait until a job has ended; give its document."""
        answer = self.call("jobs.wait", job_ids=[job_id], timeout_s=120)
        assert answer["done"], (answer, self.log())
        return answer["jobs"][0]

    def status(self, job_id):
        return self.call("jobs.status", job_id=job_id)

    def retry(self, job_id, **changes):
        """Retry a job; give the id of the new one."""
        (answer,) = self.call("jobs.retry", job_ids=[job_id], **changes)["jobs"]
        assert answer["error"] is None, answer
        return answer["job_id"]

    def counts(self):
        """Tell how many jobs the server follows, by their state."""
        return self.call("system.status")["jobs"]

    def kill(self):
        """Kill the server (SIGKILL)."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def wait(self, timeout=60):
        """Wait until the server has left; give its exit code."""
        return self.process.wait(timeout)

    def log(self):
        """Return all that the servers of this home wrote."""
        files = [*sorted(self.place.directory.glob("log*")), self.place.output]
        return "\n".join(f.read_text(errors="replace") for f in files if f.exists())

    def living(self):
        """Return the processes of this home, with their command lines."""
        pids = processes.marked("CRYSTALMATH_HOME", str(self.home))
        return {pid: command for pid in pids if (command := _command(pid))}

    def end(self):
        """End everything; say what did not end by itself."""
        for connection in self._connections:
            connection.close()
        server = self.place.read_lock()
        if server is not None and server.is_here():
            # One that is busy may take its time; one that is leaving already answers no more.
            eventually(lambda: answers(self.place) or server.identity.is_dead(), message=self.log())
            if not server.identity.is_dead():
                self.call("system.stop", cancel=True)
            eventually(server.identity.is_dead, message=self.log())
        if self.process is not None:
            self.process.wait(60)
        try:
            # Sooner than a supervisor that was forgotten ends for want of work.
            eventually(lambda: not self.living(), timeout=45)
        except AssertionError:
            left = self.living()
            processes.end_processes(self.living)
            raise AssertionError(f"left running: {left}\n{self.log()}") from None


def _command(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    except OSError:
        return ""
