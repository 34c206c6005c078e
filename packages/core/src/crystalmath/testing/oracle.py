"""Look at processes and files directly, without the interfaces that are tested."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from crystalmath.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


#: The errors of looking at a process or a file that ends meanwhile, or that others may not see.
TRANSIENT = (OSError, psutil.Error)


def listed(folder: Path | str) -> list[Path]:
    """Return the entries of a folder, or none if it cannot be read."""
    with contextlib.suppress(OSError):
        return list(Path(folder).iterdir())
    return []


def below(folder: Path | str) -> Iterator[Path]:
    """Yield the files and folders below a folder."""
    # `rglob` would fail if a folder is removed meanwhile.
    for place, folders, files in os.walk(folder):
        yield from (Path(place, name) for name in (*folders, *files))


def links(folder: Path | str) -> list[str]:
    """Return the targets of the symbolic links in a folder, as of ``/proc/<pid>/fd``."""
    targets = []
    for path in listed(folder):
        with contextlib.suppress(OSError):
            targets.append(str(path.readlink()))
    return targets


_MARK = "CRYSTALMATH_ATTEMPT"


class Oracle:
    """A reader of processes and run directories, by their documented layout alone."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def directory(self, job_id: str) -> Path:
        """Return the run directory of a job."""
        return self.home / "jobs" / job_id

    def jobs(self) -> set[str]:
        """Return the names of the run directories, which are the jobs' ids."""
        entries = listed(self.home / "jobs")
        return {path.name for path in entries if not path.name.startswith(".")}

    def claimed(self, job_id: str, attempt: int = 1) -> bool:
        """Return whether a worker has claimed an attempt."""
        return (self.directory(job_id) / f"{attempt}.claim").exists()

    def outcome(self, job_id: str, attempt: int = 1) -> dict[str, Any] | None:
        """Read the head of an outcome."""
        try:
            head: dict[str, Any] = json.loads(self._outcome(job_id, attempt).readline())
        except FileNotFoundError:
            return None
        return head

    def _outcome(self, job_id: str, attempt: int) -> io.BytesIO:
        """Read an outcome; in a journal it follows a line with its attempt and size."""
        content = io.BytesIO((self.directory(job_id) / f"{attempt}.outcome").read_bytes())
        while (line := content.readline()).startswith(b"crystalmath "):
            _, name, size, _ = line.split()
            record = content.read(int(size))
            if name == f"{job_id}.{attempt}".encode():
                return io.BytesIO(record)
        content.seek(0)
        return content

    def state(self, job_id: str, attempt: int = 1) -> str | None:
        """Return the state in an outcome; ``None`` while there is none."""
        outcome = self.outcome(job_id, attempt)
        return None if outcome is None else str(outcome["state"])

    def is_over(self, job_id: str) -> bool:
        """Return whether a begun attempt has an outcome, or no process any more."""
        return self.outcome(job_id) is not None or not self.processes(job_id)

    def ended(
        self, job_id: str, limit_s: float, what: str | Callable[[], str] = ""
    ) -> dict[str, Any]:
        """Wait for the outcome of a job."""
        what = what or f"the job {job_id} did not finish"
        outcome = eventually(partial(self.outcome, job_id), limit_s, what)
        assert outcome is not None
        return outcome

    def end(self, job_id: str) -> str | None:
        """Return how the first attempt of a job ended; ``None`` if it has not.

        A cancelled attempt may be lost instead, if its allocation ends before its supervisor can
        publish.
        """
        outcome = self.outcome(job_id)
        if outcome is None:
            return None
        return "cancelled" if outcome.get("cancelled") else str(outcome["state"])

    def payload(self, job_id: str, attempt: int = 1) -> Any:
        """Read the result in an outcome, as plain JSON."""
        file = self._outcome(job_id, attempt)
        header = json.loads(file.readline())
        # The index follows the result.
        return json.loads(gzip.decompress(file.read(header["size"] - header.get("index", 0))))

    def attempts(self, job_id: str) -> int:
        """Return how many attempts have begun."""
        return sum(path.suffix == ".claim" for path in listed(self.directory(job_id)))

    def supervisor(self, job_id: str, attempt: int = 1) -> int:
        """Return the pid of the process that claimed an attempt."""
        pid: int = self.claimant(job_id, attempt)["pid"]
        return pid

    def claimant(self, job_id: str, attempt: int = 1) -> dict[str, Any]:
        """Return the process that claimed an attempt: host, boot, pid and start time."""
        return _head(self.directory(job_id) / f"{attempt}.claim")

    def spec(self, job_id: str) -> dict[str, Any]:
        """Read the header of a specification: engine, owner, number of the attempt."""
        return _head(self.directory(job_id) / "spec")

    def processes(self, job_id: str) -> list[psutil.Process]:
        """Return the live processes that carry the mark of any attempt of a job."""
        return living(_MARK, job_id)


def found(pids: Iterable[int]) -> list[psutil.Process]:
    """Return the processes of these pids, which are recognized even if a pid is used again."""
    processes = []
    for pid in pids:
        with contextlib.suppress(*TRANSIENT):
            processes.append(psutil.Process(pid))
    return processes


def alive(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Return the processes that have not ended; zombies have."""
    return [process for process in processes if _is_alive(process)]


def _is_alive(process: psutil.Process) -> bool:
    with contextlib.suppress(*TRANSIENT):
        # Another process may have its pid now.
        if not process.is_running():
            return False
        state = process.status()
        if state == psutil.STATUS_ZOMBIE:
            # A zombie counts as one thread. With more, only its main thread has ended.
            return bool(process.num_threads() > 1)
        return bool(state != psutil.STATUS_DEAD)
    return False


def none_left(look: Callable[[], list[psutil.Process]]) -> Callable[[], bool]:
    """Return a condition that holds once none of the processes that `look` finds is alive.

    `look` is slow, so it is called again only after all the processes of its last call have ended.
    """
    known: list[psutil.Process] = []

    def are_gone() -> bool:
        known[:] = alive(known) or look()
        return not known

    return are_gone


def living(variable: str, prefix: str) -> list[psutil.Process]:
    """Return the live processes with a variable whose value has a prefix."""
    marked = []
    for process in psutil.process_iter():
        with contextlib.suppress(*TRANSIENT):
            if process.environ().get(variable, "").startswith(prefix):
                marked.append(process.pid)
    # The iterator may yield processes that had these pids before.
    return alive(found(marked))


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot, as in claims."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return int(fields.rpartition(")")[2].split()[19])
    return None


def shown(process: psutil.Process) -> str:
    """Return a description of a process for a message: its pid and command."""
    with contextlib.suppress(*TRANSIENT):
        return f"{process.pid} ({' '.join(process.cmdline())[:200]})"
    return str(process.pid)


def _head(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        head: dict[str, Any] = json.loads(file.readline())
    return head
