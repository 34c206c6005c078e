"""A Covalent server as its users start it."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import uuid
from pathlib import Path

import psutil

from crystalmath import processes
from crystalmath.testing.waiting import eventually
from crystalmath_engine_covalent import client, config
from crystalmath_engine_covalent.private import SCHEDULING

MARK = "COVALENT_TEST"


def free_port():
    """Find a port that stays free while a server is down.

    Below those that Linux gives to outgoing connections: whoever asks a killed server whether it
    is back could be given its very port for that, and ``covalent start`` would take the next one.
    """
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(10_000, first)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("localhost", port))
            return port


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
            timeout=600,
            start_new_session=True,
        )
        eventually(lambda: client.listens(self.address), 300, "the server does not come up")

    def own(self):
        """Name the processes of the server and of its Dask cluster, which share a session."""
        pids = processes.marked(MARK, self.mark)
        sessions = {pid: session(pid) for pid in pids}
        shells = [pid for pid in pids if b"app.py" in cmdline(pid)]
        return [pid for pid in pids if sessions[pid] in {sessions[shell] for shell in shells}]

    def signal(self, number):
        for pid in self.own():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self):
        """Kill it; ``covalent start`` also takes one for running that nobody has reaped yet."""
        killed = set()
        while pids := self.own():
            killed |= set(pids)
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        eventually(lambda: not any(map(psutil.pid_exists, killed)), 60, f"{killed} are still there")

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
