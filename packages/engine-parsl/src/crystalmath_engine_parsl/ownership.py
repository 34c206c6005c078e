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
from typing import TYPE_CHECKING, Any

from crystalmath import processes
from crystalmath.engines.guard import end_in_turn
from crystalmath.errors import EngineUnavailable
from crystalmath_engine_parsl.slurm_queue import SlurmQueue, name_of

if TYPE_CHECKING:
    from crystalmath.quacc.engine import EngineRunner

#: The variable that holds the token.
MARK = "CRYSTALMATH_PARSL"
#: The longest folder that the sockets of Parsl's pool may be put in, in bytes. A socket's path may
#: have 107, and the pool adds 33 to its folder.
LONGEST = 55
#: How long processes may take to end by themselves, in seconds.
GRACE_S = 0.5

#: The file that names the scripts of an owner's pilot jobs, one a line.
BLOCKS = "blocks"

#: What guards a process of a pool.
_TETHER = Path(__file__).with_name("tether.py")
_FILE = "owner.json"
#: Where Linux has semaphores by their names.
_SEMAPHORES = Path("/dev/shm")  # noqa: S108
_PREFIX = "parsl-"


class Ownership:
    """Mark this process as the owner of pools: its token, and its folders while it has pools.

    `runs` has the folders of all owners of the home; `runner` says which of them live.
    """

    def __init__(self, runs: Path, runner: EngineRunner) -> None:
        self._runs = runs
        self._runner = runner
        self.token = secrets.token_hex(8)
        self.directory = runs / self.token
        self.temporary = ""

    def record(self) -> None:
        """Make the folders, and the record of whose they are."""
        if self.temporary:
            # Many machines remove what has lain in /tmp for days.
            with contextlib.suppress(FileExistsError):
                Path(self.temporary).mkdir(mode=0o700)
            return
        temporary = temporary_folder()
        record = {
            "owner": self._runner.own_name(),
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
        """End what is left of pools whose owners have died, and their folders.

        If the owner was on another host, or in another container, only waiting pilot jobs are
        ended. Its processes are left to a later owner there.
        """
        for file in self._runs.glob(f"*/{_FILE}"):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                record = json.loads(file.read_text(encoding="utf-8"))
                owner = processes.Identity.read(record["owner"])
                if owner.is_here():
                    if owner.is_dead():
                        _end_dead(file.parent, record)
                elif self._runner.is_orphan(record["owner"]) and _cancel_waiting(file.parent):
                    (file.parent / BLOCKS).unlink(missing_ok=True)

    def end_processes(self) -> None:
        """End the processes that are left of the pools."""
        _end(self.token, os.getsid(0))

    def cancel_waiting(self) -> bool:
        """Cancel pilot jobs of ended pools that wait; return whether Slurm has answered."""
        return _cancel_waiting(self.directory)

    def forget(self) -> None:
        """Remove the folders; the record stays where pilot jobs may still wait."""
        if self.temporary:
            shutil.rmtree(self.temporary, ignore_errors=True)
            if self.cancel_waiting():
                shutil.rmtree(self.directory, ignore_errors=True)
            self.temporary = ""


def temporary_folder() -> str:
    """Make a folder of this host for the sockets of a pool."""
    short = len(os.fsencode(tempfile.gettempdir())) <= LONGEST
    return tempfile.mkdtemp(prefix=_PREFIX, dir=None if short else "/tmp")  # noqa: S108


def semaphores(token: str) -> str:
    """Return what the names of an owner's semaphores begin with."""
    return f"/mp-{token}"


def is_temporary(folder: str) -> bool:
    """Return whether a folder is one that `temporary_folder` has made, by its name."""
    return Path(folder).name.startswith(_PREFIX)


def pool_processes(token: str, session: int) -> list[int]:
    """List the processes of an owner's pools, but for the one that asks."""
    return [pid for pid in processes.marked(MARK, token) if _session(pid) == session]


def end_unguarded(token: str, session: int) -> None:
    """End the processes of an owner's pools that have lost their guard.

    A guard that lives ends those below it: semaphores and shared memory stay for ever where what
    removes them is killed first.
    """
    end_in_turn(lambda: _unguarded(token, session), grace_s=0.0)


def _unguarded(token: str, session: int) -> list[int]:
    left = pool_processes(token, session)
    guards = filter(_is_tethered, left)
    guarded = {each for pid in guards for each in (pid, *processes.descendants(pid))}
    return [pid for pid in left if pid not in guarded]


def _is_tethered(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return os.fsencode(_TETHER) in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return False


def _end_dead(directory: Path, record: dict[str, Any]) -> None:
    token = directory.name
    _end(token, record["session"])
    for left in _SEMAPHORES.glob(f"sem.{semaphores(token)[1:]}-*"):
        left.unlink(missing_ok=True)
    if is_temporary(record["temporary"]):
        shutil.rmtree(record["temporary"], ignore_errors=True)
    if _cancel_waiting(directory):
        shutil.rmtree(directory, ignore_errors=True)


def _cancel_waiting(directory: Path) -> bool:
    """Cancel an owner's pilot jobs that wait; those that run end after the jobs in them.

    Slurm is asked for their names, as their ids may never have been recorded.
    """
    try:
        names = (directory / BLOCKS).read_text(encoding="utf-8").splitlines()
        queue = SlurmQueue()
        waiting = [each for each in queue.active() if name_of(each) in names]
        queue.cancel(waiting, pending_only=True)
    except FileNotFoundError:
        return True
    except EngineUnavailable:
        return False  # it is tried again when the next pool starts
    return True


def _end(token: str, session: int) -> None:
    end_in_turn(lambda: pool_processes(token, session), grace_s=GRACE_S)


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None
