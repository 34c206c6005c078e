"""What the operating system and the files say, past every interface that is tested."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Oracle"]

_MARK = "CRYSTALMATH_ATTEMPT"


class Oracle:
    """Look at processes and run directories directly.

    It knows the layout of a run directory (docs/architecture.md, "Files") and nothing of the
    classes that read it.

    Parameters
    ----------
    home : pathlib.Path
        The home whose jobs are looked at.
    """

    def __init__(self, home: Path) -> None:
        self.home = home

    def directory(self, job_id: str) -> Path:
        """Give the run directory of a job."""
        return self.home / "jobs" / job_id

    def jobs(self) -> set[str]:
        """List the run directories."""
        directory = self.home / "jobs"
        entries = directory.iterdir() if directory.exists() else ()
        return {path.name for path in entries if not path.name.startswith(".")}

    def claimed(self, job_id: str, attempt: int = 1) -> bool:
        """Tell whether somebody began an attempt."""
        return (self.directory(job_id) / f"{attempt}.claim").exists()

    def outcome(self, job_id: str, attempt: int = 1) -> dict[str, Any] | None:
        """Read the head of an outcome."""
        try:
            with (self.directory(job_id) / f"{attempt}.outcome").open("rb") as file:
                head: dict[str, Any] = json.loads(file.readline())
        except FileNotFoundError:
            return None
        return head

    def attempts(self, job_id: str) -> int:
        """Count the attempts that were begun."""
        return len(list(self.directory(job_id).glob("*.claim")))

    def supervisor(self, job_id: str, attempt: int = 1) -> int:
        """Tell the pid of the process that claimed an attempt."""
        with (self.directory(job_id) / f"{attempt}.claim").open("rb") as file:
            pid: int = json.loads(file.readline())["pid"]
        return pid

    def processes(self, job_id: str) -> list[psutil.Process]:
        """List the living processes that carry the mark of any attempt of a job."""
        return living(_MARK, job_id)


def living(variable: str, prefix: str) -> list[psutil.Process]:
    """List the living processes with an environment variable that begins so."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            value = process.environ().get(variable, "")
            if value.startswith(prefix) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
