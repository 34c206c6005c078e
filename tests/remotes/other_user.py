"""A machine where the login is another user, with a home and a Python of its own.

Neither the host's users nor its files change: sshd runs in a mount namespace of its own, where
`/etc/passwd` has one more line. The interpreter, its packages and this tree are mounted there below
a folder that the user can enter, as they may lie in folders that only root can.
"""

import os
import pwd
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import pytest

from commands import ran
from conftest import LAB, LIGHT, eventually
from crystalmath import processes
from remotes.machine import COMMAND, Machine

ROOT = Path(__file__).parents[2]
NAME, UID = "crystalmath-test", 54321


def _unshare():
    """Return a command that runs another one in a new mount namespace, or skip the test."""
    if os.geteuid() != 0:
        pytest.skip("only root can log in as another user")
    for name in ("unshare", "mount"):
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed")
    command = [shutil.which("unshare"), "--mount"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this container may make no mount namespace")
    if any(one.pw_uid == UID or one.pw_name == NAME for one in pwd.getpwall()):
        pytest.skip(f"the user {NAME} ({UID}) is there already")
    return command


class OtherUser(Machine):
    """An sshd where one logs in as another user."""

    login = f"{NAME}@127.0.0.1"

    def __init__(self):
        self.unshare = _unshare()
        # The folders of pytest are closed to other users.
        self.base = Path(tempfile.mkdtemp(prefix="crystalmath-test-", dir="/tmp"))
        self.base.chmod(0o711)
        site = Path(sysconfig.get_paths()["purelib"])
        below = site.relative_to(sys.prefix)
        self.mounts = {"python": sys.base_prefix, f"venv/{below}": site, "tree": ROOT}
        for name in [*self.mounts, "venv/bin", "sshd", "home"]:
            (self.base / name).mkdir(mode=0o755, parents=True)
        python = self.base / "python/bin" / Path(os.path.realpath(sys.executable)).name
        self.python = self.base / "venv/bin/python"
        self.python.symlink_to(python)
        (self.base / "venv/pyvenv.cfg").write_text(f"home = {python.parent}\n")
        self.user_home = self.base / "home"
        os.chown(self.user_home, UID, UID)
        line = f"{NAME}:*:{UID}:{UID}::{self.user_home}:/bin/sh\n"
        (self.base / "passwd").write_text(Path("/etc/passwd").read_text() + line)
        super().__init__(self.base / "sshd")

    def inside(self, command):
        binds = [(source, self.base / name) for name, source in self.mounts.items()]
        binds.append((self.base / "passwd", "/etc/passwd"))
        mounts = [shlex.join(["mount", "--bind", str(a), str(b)]) for a, b in binds]
        script = " && ".join([*mounts, 'exec "$@"'])
        return [*self.unshare, "/bin/sh", "-c", script, "sh", *command]

    def write(self, **environment):
        tree = self.base / "tree"
        sources = [tree / path.relative_to(ROOT) for path in ROOT.glob("packages/*/src")]
        lab = [tree / path.relative_to(ROOT) for path in (LIGHT, LAB)]
        # The links of an editable installation lead to where the user may not go.
        path = os.pathsep.join(map(str, [*lab, *sources]))
        self.home, self.command = self.user_home / "jobs", self.user_home / "crystalmath"
        self.command.write_text(
            COMMAND.format(path=path, home=self.home, python=self.python, more="")
        )
        self.command.chmod(0o755)

    def run(self, *arguments):
        words = shlex.join([str(self.command), *map(str, arguments)])
        return ran("ssh", *self.ssh, words)

    def end(self):
        self.run("stop", "--cancel")
        eventually(lambda: not processes.marked("CRYSTALMATH_HOME", str(self.home)))
        self.cut()
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.base)
