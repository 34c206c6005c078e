"""Whose Parsl processes are whose, and how those are ended that nobody owns any more.

All processes of an owner's pools carry the owner's token in their environment, and are in its
session; whatever belongs to a job carries it, too, but has a session of its own. What names the
owner and its session stands in a file, for whoever comes after a killed owner.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import Any

from crystalmath import processes
from crystalmath.errors import EngineUnavailable
from crystalmath_engine_parsl.slurm_queue import SlurmQueue

__all__ = ["BLOCKS", "MARK", "Ownership", "pool_processes"]

#: The variable that holds the token.
MARK = "CRYSTALMATH_PARSL"
#: The longest folder that the sockets of Parsl's pool may be put in, in bytes: a socket's path may
#: have 107, and the pool adds 33 to its folder.
LONGEST = 55
#: How long processes may take to end by themselves, in seconds.
GRACE_S = 0.5

#: The file that names an owner's pilot jobs, one a line.
BLOCKS = "blocks"

_FILE = "owner.json"
_PREFIX = "parsl-"


class Ownership:
    """Tell that this process owns pools: its token, and its folders while it has pools.

    Parameters
    ----------
    runs : pathlib.Path
        Where the folders of all owners of the home are.
    """

    def __init__(self, runs: Path) -> None:
        self._runs = runs
        self.token = secrets.token_hex(8)
        self.directory = runs / self.token
        self.temporary = ""

    def record(self) -> None:
        """Make the folders, and the record of whose they are."""
        if self.temporary:
            return
        short = len(os.fsencode(tempfile.gettempdir())) <= LONGEST
        temporary = tempfile.mkdtemp(prefix=_PREFIX, dir=None if short else "/tmp")  # noqa: S108
        record = {
            "owner": processes.own_identity().as_dict(),
            "session": os.getsid(0),
            "temporary": temporary,
        }
        # What is there under its own name is complete.
        unfinished = self.directory.with_suffix(".new")
        try:
            unfinished.mkdir(mode=0o700, parents=True)
            (unfinished / _FILE).write_text(json.dumps(record), encoding="utf-8")
            unfinished.rename(self.directory)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        self.temporary = temporary

    def end_dead_pools(self) -> None:
        """End what is left of pools whose owners are known to have died, and their folders."""
        for file in self._runs.glob(f"*/{_FILE}"):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                record = json.loads(file.read_text(encoding="utf-8"))
                owner = processes.Identity.read(record["owner"])
                # Another host, or container, looks after its own.
                if owner.is_here() and owner.is_dead():
                    _end_dead(file.parent, record)

    def end_processes(self) -> None:
        """End what is left of the pools."""
        _end(self.token, os.getsid(0))

    def forget(self) -> None:
        """Remove the folders."""
        if self.temporary:
            shutil.rmtree(self.temporary, ignore_errors=True)
            shutil.rmtree(self.directory, ignore_errors=True)
            self.temporary = ""


def pool_processes(token: str, session: int) -> list[int]:
    """List the processes of an owner's pools, but for the one that asks."""
    return [pid for pid in processes.marked(MARK, token) if _session(pid) == session]


def _end_dead(directory: Path, record: dict[str, Any]) -> None:
    _end(directory.name, record["session"])
    with contextlib.suppress(FileNotFoundError, EngineUnavailable):
        # Those that run have lost their interchange, and end after the jobs in them.
        blocks = (directory / BLOCKS).read_text(encoding="ascii").split()
        SlurmQueue().cancel(blocks, pending_only=True)
    temporary = Path(record["temporary"])
    if temporary.name.startswith(_PREFIX):
        shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(directory, ignore_errors=True)


def _end(token: str, session: int) -> None:
    processes.end_processes(lambda: pool_processes(token, session), grace_s=GRACE_S)


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None
