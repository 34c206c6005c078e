"""Mark the Parsl processes of an owner, and end those whose owner is dead.

All processes of an owner's pools carry the owner's token in their environment, and are in its
session. Processes of jobs carry it, too, but have sessions of their own. A file names the owner and
its session, so that a later owner can tidy up after one that was killed.
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
#: The longest path of a folder for the sockets of Parsl's pool, in bytes. A socket's path may have
#: 107, and the pool adds 33 to its folder.
LONGEST = 55
#: How long processes may take to end by themselves, in seconds.
GRACE_S = 0.5

#: The file that names the scripts of an owner's pilot jobs, one a line.
BLOCKS = "blocks"

#: The script that guards a process of a pool.
_TETHER = Path(__file__).with_name("tether.py")
_FILE = "owner.json"
#: The folder of Linux's named semaphores.
_SEMAPHORES = Path("/dev", "shm")
_PREFIX = "parsl-"


class Ownership:
    """An owner of pools, this process: its token, and its folders while it has pools.

    `runs` has the folders of all owners of the home; `runner` knows which of them are alive.
    """

    def __init__(self, runs: Path, runner: EngineRunner) -> None:
        self._runs = runs
        self._runner = runner
        self.token = secrets.token_hex(8)
        self.directory = runs / self.token
        self.temporary = ""

    def record(self) -> None:
        """Make the folders, and the record that names their owner."""
        if self.temporary:
            # Many machines remove old files from /tmp.
            with contextlib.suppress(FileExistsError):
                Path(self.temporary).mkdir(mode=0o700)
            return
        temporary = temporary_folder()
        record = {
            "owner": self._runner.own_name(),
            "session": os.getsid(0),
            "temporary": temporary,
        }
        # A folder with its final name is complete.
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
        """End the remaining processes of pools whose owners have died, and remove their folders.

        If the owner was on another host, or in another container, only waiting pilot jobs are
        ended. A later owner there ends its processes.
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
        """End the remaining processes of the pools."""
        _end(self.token, os.getsid(0))

    def cancel_waiting(self) -> bool:
        """Cancel pilot jobs of ended pools that wait; return whether Slurm has answered."""
        return _cancel_waiting(self.directory)

    def forget(self) -> None:
        """Remove the folders; keep the record if pilot jobs may still wait."""
        if self.temporary:
            shutil.rmtree(self.temporary, ignore_errors=True)
            if self.cancel_waiting():
                shutil.rmtree(self.directory, ignore_errors=True)
            self.temporary = ""


def temporary_folder() -> str:
    """Make a folder of this host for the sockets of a pool."""
    short = len(os.fsencode(tempfile.gettempdir())) <= LONGEST
    return tempfile.mkdtemp(prefix=_PREFIX, dir=None if short else "/tmp")  # noqa: S108 - mkdtemp


def semaphores(token: str) -> str:
    """Return the prefix of the names of an owner's semaphores."""
    return f"/mp-{token}"


def is_temporary(folder: str) -> bool:
    """Return whether a folder has a name as `temporary_folder` makes it."""
    return Path(folder).name.startswith(_PREFIX)


def pool_processes(token: str, session: int) -> list[int]:
    """Return the pids of an owner's pools, without this process."""
    return [pid for pid in processes.marked(MARK, token) if _session(pid) == session]


def end_unguarded(token: str, session: int) -> None:
    """End the processes of an owner's pools that have lost their guard.

    A living guard ends the processes below it in the right order. Semaphores and shared memory stay
    for ever if the process that removes them is killed first.
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
    """Cancel an owner's waiting pilot jobs; return whether Slurm has answered.

    Running ones end after the jobs in them. The ids of pilot jobs may never have been recorded, so
    they are looked up by their names.
    """
    try:
        names = (directory / BLOCKS).read_text(encoding="utf-8").splitlines()
        queue = SlurmQueue()
        waiting = [each for each in queue.active() if name_of(each) in names]
        queue.cancel(waiting, pending_only=True)
    except FileNotFoundError:
        return True
    except EngineUnavailable:
        return False  # the start of the next pool tries again
    return True


def _end(token: str, session: int) -> None:
    end_in_turn(lambda: pool_processes(token, session), grace_s=GRACE_S)


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None
