"""What Slurm says of this user's jobs: one question for all of them."""

from __future__ import annotations

import subprocess
import time

from crystalmath.errors import EngineUnavailable

#: How long an answer is good for, in seconds.
FRESH_S = 2.0
#: How long Slurm may take to answer, in seconds.
ANSWER_S = 30.0
#: Id, state, reason and name of a job; the last may hold anything.
_FORMAT = "%i|%T|%r|%j"
#: States of jobs that are over. What still ends ("COMPLETING") is listed and is not.
_OVER = frozenset(
    [
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "TIMEOUT",
    ]
)


class SlurmQueue:
    """The jobs of this user that are not over; one object for each thread."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, str]] = {}
        self._names: dict[str, str] = {}
        self._at = float("-inf")
        self._ended: set[str] = set()

    def active(self) -> dict[str, tuple[str, str]]:
        """Give state and reason of each job that is not over, by its id.

        Raises
        ------
        EngineUnavailable
            Slurm does not answer.
        """
        if time.monotonic() - self._at >= FRESH_S:
            told = _slurm("squeue", "--noheader", "--me", "--states=all", f"--format={_FORMAT}")
            lines = [line.split("|", 3) for line in told.splitlines() if line.strip()]
            active = [line for line in lines if line[1] not in _OVER]
            self._seen = {job: (state, reason) for job, state, reason, _ in active}
            self._names = {job: name for job, _, _, name in active}
            # It saw the ends of these. A node that it knows nothing of any more may go on.
            self._ended |= {line[0] for line in lines if line[1] in _OVER - {"NODE_FAIL"}}
            self._at = time.monotonic()
        return self._seen

    def names(self) -> dict[str, str]:
        """Give the name of each job that is not over, by its id; raises as :meth:`active`."""
        self.active()
        return self._names

    def saw_end(self, job: str) -> bool:
        """Tell whether Slurm saw that nothing of a job, which is over, is alive."""
        return job in self._ended

    def cancel(self, jobs: list[str], *, pending_only: bool = False) -> None:
        """Cancel jobs, or those of them that wait; `EngineUnavailable` if Slurm does not answer."""
        if jobs:
            _slurm("scancel", *(["--state=PENDING"] if pending_only else []), *jobs)
        self.forget()

    def forget(self) -> None:
        """Ask anew next time: something has been changed."""
        self._at = float("-inf")


def _slurm(*command: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - our own words, and ids that Slurm gave
            command, capture_output=True, text=True, timeout=ANSWER_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineUnavailable(f"Slurm does not answer: {error}") from error
    # It complains of jobs that are over by now: that is what was wanted.
    if done.returncode and "Invalid job id" not in done.stderr:
        raise EngineUnavailable(f"{command[0]}: {done.stderr.strip() or done.returncode}")
    return done.stdout
