"""A PostgreSQL server for tests, of Debian's package `postgresql`, that nobody else can reach."""

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from conftest import eventually

#: PostgreSQL refuses to run as root; Debian's package makes this user.
USER = "postgres"


def binaries():
    """Find the newest release that is installed; Debian has none of it on the path."""
    found = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    return max((file.parent for file in found), key=lambda path: int(path.parent.name))


class PostgreSQL:
    """A server that listens on a Unix socket in a private folder, and ends with this process."""

    def __init__(self):
        self._bin = binaries()
        self._root = Path(tempfile.mkdtemp(prefix="crystalmath-postgresql-"))
        self._process = None
        self._numbers = itertools.count(1)
        if os.geteuid() == 0:
            shutil.chown(self._root, USER, USER)

    def __enter__(self):
        options = ["--pgdata", self._root / "data", "--auth=trust", f"--username={USER}"]
        command = [self._bin / "initdb", *options, "--encoding=UTF8", "--locale=C.UTF-8"]
        initialised = subprocess.run(
            self._as_user(*command, "--no-sync"),
            cwd="/",
            check=False,
            capture_output=True,
            text=True,
        )
        assert initialised.returncode == 0, initialised.stderr
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self._root)

    def start(self):
        """Start it, and wait until it answers."""
        with (self._root / "log").open("a") as log:
            options = ["-D", self._root / "data", "-k", self._root, "-c", "listen_addresses="]
            self._process = subprocess.Popen(
                self._as_user(self._bin / "postgres", *options, "-c", "fsync=off"),
                cwd="/",
                stdout=log,
                stderr=log,
            )
        eventually(self._is_ready, message=(self._root / "log").read_text())

    def stop(self, number=signal.SIGINT):
        """End it: in order (SIGINT, which rolls back), or as a crash does (SIGQUIT)."""
        self._process.send_signal(number)
        self._process.wait(timeout=120)

    @property
    def url(self):
        """The URL of its database, as somebody configures it."""
        return f"postgresql://{USER}@/postgres?host={self._root}"

    def new_url(self):
        """Return the URL of a schema of its own, which is not there yet."""
        return f"{self.url}&schema=test{next(self._numbers)}"

    def ask(self, sql):
        """Have `psql` carry out a statement, and give what it prints."""
        options = ["--no-psqlrc", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]
        where = [f"--host={self._root}", f"--username={USER}", "--dbname=postgres"]
        command = [self._bin / "psql", *options, *where, f"--command={sql}"]
        told = subprocess.run(command, check=False, capture_output=True, text=True)
        assert told.returncode == 0, told.stderr
        return told.stdout.strip()

    def drop_connections(self):
        """End all connections but the one that asks for it; tell how many there were."""
        others = "pid <> pg_backend_pid() AND backend_type = 'client backend'"
        ended = f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {others}"
        return int(self.ask(ended))

    def _is_ready(self):
        assert self._process.poll() is None, (self._root / "log").read_text()
        command = [self._bin / "pg_isready", "--quiet", f"--host={self._root}"]
        return subprocess.run(command, check=False).returncode == 0

    def _as_user(self, *command):
        # Whatever ends the tests ends the server.
        prefix = ["setpriv", "--pdeathsig=INT"]
        if os.geteuid() == 0:
            prefix += [f"--reuid={USER}", f"--regid={USER}", "--init-groups"]
        return [*prefix, *command]
