"""Another machine: an sshd on the loopback, with keys, a home and a command of its own."""

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import LAB, LIGHT, eventually
from crystalmath import processes
from crystalmath.server.endpoint import Place

#: The configuration of the server; each login has the key of the test.
CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile none
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxStartups 500
MaxSessions 500
AcceptEnv *
"""
#: What the login sees: nothing of this process but where Python finds the package.
COMMAND = """#!/bin/sh
export PYTHONPATH={path} CRYSTALMATH_RECIPES=lab_recipes CRYSTALMATH_HOME={home}
export OMP_NUM_THREADS=1 {more}
exec {python} -P -m crystalmath "$@"
"""


def sshd():
    """Return the path of sshd, or skip the test."""
    path = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    for name, there in (("openssh-server", path), ("openssh-client", shutil.which("ssh"))):
        if there is None:
            pytest.skip(f"{name} is not installed")
    return path


class Machine:
    """An sshd, and the home behind it.

    Parameters
    ----------
    folder : pathlib.Path
        An empty folder.
    light : bool
        Its processes find no quacc.
    **environment
        Variables of the commands there.
    """

    #: Where one logs in.
    login = "127.0.0.1"

    def __init__(self, folder, *, light=True, **environment):
        self.folder = folder
        self.light = light
        self.home = folder / "jobs"
        self.command = folder / "crystalmath"
        self.write(**environment)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        path = sshd()
        for name in ("host_key", "user_key"):
            keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
            subprocess.run(keygen, check=True)
        (folder / "sshd_config").write_text(CONFIG.format(port=self.port, folder=folder))
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        self.log = folder / "sshd.log"
        self._sshd = self.inside([path, "-D", "-e", "-f", str(folder / "sshd_config")])
        self._serve()

    def _serve(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self._sshd, stderr=log, env={})
        eventually(self._answers, message=self.log.read_text)

    def inside(self, command):
        """Return what runs a command on the machine."""
        return command

    def write(self, **environment):
        """Write the command anew, with other variables."""
        more = " ".join(f"{name}={shlex.quote(str(value))}" for name, value in environment.items())
        path = os.pathsep.join([*([str(LIGHT)] if self.light else []), str(LAB)])
        self.command.write_text(
            COMMAND.format(path=path, home=self.home, python=sys.executable, more=more)
        )
        self.command.chmod(0o755)

    def _answers(self):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
            return True
        return False

    @property
    def ssh(self):
        """The arguments of ssh that lead to it."""
        options = {
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": self.folder / "known_hosts",
            "IdentitiesOnly": "yes",
            "IdentityFile": self.folder / "user_key",
        }
        host = (self.folder / "host_key.pub").read_text()
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {host}")
        words = ["-F", "/dev/null", "-p", str(self.port)]
        words += [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return [*words, self.login]

    def table(self, name="hawk", **more):
        """Return the table of ``config.toml`` that names it."""
        keys = {"ssh": self.ssh, "command": str(self.command), **more}
        lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
        return "\n".join([f"[remotes.{name}]", *lines, ""])

    def run(self, *arguments):
        """Run a command there, as typed there."""
        return subprocess.run(
            [str(self.command), *map(str, arguments)],
            env={"HOME": os.environ["HOME"], "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=False,
        )

    def cut(self):
        """End all connections: kill the processes of sshd that serve them."""
        self._signal_connections(signal.SIGKILL)

    @contextlib.contextmanager
    def away(self):
        """End all connections, and refuse new ones meanwhile."""
        self.process.send_signal(signal.SIGSTOP)  # it accepts no other one
        self.cut()
        self.process.kill()
        self.process.wait()
        try:
            yield
        finally:
            self._serve()

    @contextlib.contextmanager
    def silent(self):
        """Answer nothing meanwhile: neither over connections that are there, nor over new ones."""
        self.process.send_signal(signal.SIGSTOP)
        self._signal_connections(signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal_connections(signal.SIGCONT)
            self.process.send_signal(signal.SIGCONT)

    def _signal_connections(self, number):
        for pid in processes.descendants(self.process.pid):
            with contextlib.suppress(OSError):  # it has ended
                if "sshd" in Path(f"/proc/{pid}/comm").read_text():
                    os.kill(pid, number)

    def bridges(self):
        """Return the processes of `crystalmath serve --stdio` there."""
        return [
            pid
            for pid in processes.marked("CRYSTALMATH_HOME", str(self.home))
            if b"--stdio" in arguments_of(pid)
        ]

    def end(self):
        """Stop the home's server and sshd."""
        self.run("stop", "--cancel")
        self.cut()
        self.process.kill()
        self.process.wait()
        assert Place.of(self.home, {}).read_lock() is None


def arguments_of(pid):
    """Return the words of the command that a process was started with; none if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []
