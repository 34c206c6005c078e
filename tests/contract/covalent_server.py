"""A Covalent server as its users start it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import uuid
from pathlib import Path

from crystalmath import processes
from crystalmath.testing.waiting import eventually
from crystalmath_engine_covalent import client, config
from crystalmath_engine_covalent.private import SCHEDULING

MARK = "COVALENT_TEST"


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


class Server:
    """A Covalent server as its users start it, with files, port and marks of its own."""

    def __init__(self, directory, workers):
        self.directory, self.workers, self.port = directory, workers, free_port()
        self.address = config.Address("localhost", self.port)
        self.mark = uuid.uuid4().hex
        # There is no variable for where Dask's tasks leave their files.
        files = f'cache_dir = "{directory}"\nworkdir = "{directory}"\n'
        (directory / "covalent.conf").write_text(f"[executors.dask]\n{files}")

    def environment(self):
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("CRYSTALMATH", "QUACC"))}
        places = "CONFIG_DIR LOGDIR CACHE_DIR DATA_DIR EXECUTOR_DIR DISPATCH_CACHE_DIR RESULTS_DIR"
        files = {f"COVALENT_{place}": str(self.directory) for place in places.split()}
        files["COVALENT_DATABASE"] = str(self.directory / "database.sqlite")
        return clean | files | SCHEDULING | {MARK: self.mark}

    def start(self):
        command = Path(sys.executable).with_name("covalent")
        options = ["--port", str(self.port), "--workers", str(self.workers), "--no-triggers"]
        subprocess.run(
            [command, "start", *options],
            env=self.environment(),
            stdout=subprocess.DEVNULL,
            check=True,
            timeout=180,
            start_new_session=True,
        )
        eventually(lambda: client.listens(self.address), 60, "the server does not come up")

    def own(self):
        """Name the processes of the server and of its Dask cluster, which share a session."""
        pids = processes.marked(MARK, self.mark)
        sessions = {pid: session(pid) for pid in pids}
        shells = [pid for pid in pids if b"app.py" in cmdline(pid)]
        return [pid for pid in pids if sessions[pid] in {sessions[shell] for shell in shells}]

    def signal(self, number):
        for pid in self.own():
            os.kill(pid, number)

    def kill(self):
        while pids := self.own():
            for pid in pids:
                os.kill(pid, signal.SIGKILL)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exception):
        processes.end_processes(lambda: processes.marked(MARK, self.mark), grace_s=0.1)


def session(pid):
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def cmdline(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
