"""A Covalent server of one home alone: started on request, shared by the home's processes.

Each process that uses it holds a shared lock on a file, which the kernel drops with the process.
The last one to leave ends the server. If the last one was killed, the server ends itself after a
while (:mod:`crystalmath_engine_covalent.serve`), unless another process adopts it before.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import subprocess
import sys
import time
from typing import IO, TYPE_CHECKING

from attrs import asdict, frozen

from crystalmath import processes
from crystalmath.errors import EngineUnavailable
from crystalmath_engine_covalent import client
from crystalmath_engine_covalent.config import Address

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from crystalmath.models import EngineSettings

#: Dask expects a task to take half a second until it has seen others of its kind end, and each
#: task of ours is a kind of its own. So it may queue a job behind another, although a worker is
#: idle; the job then waits for the other's end.
SCHEDULING = {"DASK_DISTRIBUTED__SCHEDULER__UNKNOWN_TASK_DURATION": "1h"}

#: The environment variable that the server's processes carry.
MARK = "CRYSTALMATH_COVALENT"
#: How long the server may take to start, in seconds; it imports all of Dask first.
START_S = 120.0
#: How long its processes may take to end by themselves, in seconds.
STOP_S = 2.0
#: How long the idle supervisors of its workers may take to see that these have gone, in seconds.
IDLE_S = 3.0


class NotStarted(EngineUnavailable):
    """The server for this home cannot be started."""


@frozen(kw_only=True)
class Record:
    """The record of a server that was started, in ``server.json``."""

    pid: int
    start_time: int
    port: int
    mark: str

    @classmethod
    def read(cls, directory: Path) -> Record | None:
        """Read it; ``None`` if there is none."""
        try:
            return cls(**json.loads((directory / "server.json").read_text(encoding="ascii")))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, directory: Path) -> None:
        """Write it, whole or not at all."""
        temporary = directory / f"server.json.{os.getpid()}"
        temporary.write_text(json.dumps(asdict(self)), encoding="ascii")
        temporary.replace(directory / "server.json")

    @property
    def address(self) -> Address:
        """The address of the server."""
        return Address("localhost", self.port)

    def is_alive(self) -> bool:
        """Return whether the recorded server runs."""
        return processes.is_alive(self.pid, self.start_time)

    def own_processes(self) -> list[int]:
        """List the processes of the server and its Dask cluster, without those of jobs.

        Jobs have sessions of their own.
        """
        return [pid for pid in self.marked() if _session(pid) == self.pid]

    def marked(self) -> list[int]:
        """List all processes that came from the server, with jobs and their supervisors."""
        return processes.marked(MARK, self.mark)


class PrivateServer:
    """The server of one home, with all of its files below its directory."""

    def __init__(self, directory: Path, workers: int) -> None:
        self._directory = directory
        self._workers = workers
        self._use: IO[str] | None = None
        self._record: Record | None = None

    def enter(self) -> Address:
        """Use the server, and start it if it does not run; `NotStarted` if it does not come up."""
        if self._use is None:
            if reason := unusable(self._directory):
                raise NotStarted(reason)
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._use = (self._directory / "users.lock").open("a", encoding="ascii")
            fcntl.flock(self._use, fcntl.LOCK_SH)
        if self._record is None or not self._record.is_alive():
            with _locked(self._directory / "start.lock"):
                self._record = self._started()
        return self._record.address

    def leave(self) -> None:
        """Leave the server; end it if no other process uses it."""
        if self._use is None:
            return
        self._use.close()
        self._use = self._record = None
        with alone(self._directory) as unused:
            if unused:
                self._end()

    def _started(self) -> Record:
        record = Record.read(self._directory)
        if record is None or not record.is_alive():
            self._end()
            record = self._start()
        deadline = time.monotonic() + START_S
        while record.is_alive() and time.monotonic() < deadline:
            if client.listens(record.address):
                return record
            time.sleep(0.1)
        self._end()
        raise self._failed()

    @property
    def _log(self) -> Path:
        return self._directory / "server.log"

    def _failed(self) -> NotStarted:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = lines[-1].strip() if lines else "nothing"
        return NotStarted(f"a Covalent server cannot be started; {self._log} ends with: {last}")

    def _start(self) -> Record:
        with self._log.open("ab") as log:
            processes.start_process(
                [
                    *(sys.executable, "-P", "-m", "crystalmath_engine_covalent.serve"),
                    *(str(self._directory), str(self._workers)),
                ],
                env={**SCHEDULING, **os.environ, MARK: secrets.token_hex(8)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            ).wait()
        record = Record.read(self._directory)
        if record is None:
            raise self._failed()
        return record

    def _end(self) -> None:
        record = Record.read(self._directory)
        if record is None:
            return
        processes.end_processes(record.own_processes, grace_s=STOP_S)
        deadline = time.monotonic() + IDLE_S
        while record.marked() and time.monotonic() < deadline:
            time.sleep(0.05)
        (self._directory / "server.json").unlink(missing_ok=True)


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def directory_of(settings: EngineSettings) -> Path:
    """Return the directory for the files of a home's server."""
    return settings.directory / "server"


def unusable(directory: Path) -> str | None:
    """Return why Covalent cannot keep its files below a directory; ``None`` if it can."""
    # Covalent uses its paths as parts of URLs, and would write elsewhere.
    if re.fullmatch(r"[\w/.~!$&'()*+,;=:@-]+", str(directory), re.ASCII):
        return None
    return (
        f"Covalent cannot keep its files below {directory}, because of a blank or another special "
        "character; set CRYSTALMATH_HOME to a plain path, or start a server yourself"
    )


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[bool]:
    """Yield whether the server of a directory is unused; none begins to use it meanwhile."""
    with (directory / "users.lock").open("a", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
