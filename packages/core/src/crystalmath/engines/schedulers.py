"""Run commands of batch systems, and interpret their answers, for all engines that need them."""

from __future__ import annotations

import math
import os
import re
import subprocess
import time
from typing import TYPE_CHECKING

from attrs import frozen

from crystalmath.errors import ConfigError, EngineUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "SQUEUE",
    "SlurmJob",
    "SlurmReboots",
    "cancel_slurm_job",
    "is_final",
    "run",
    "slurm_jobs",
    "slurm_rows",
    "takes_nothing",
    "trouble",
    "unreadable",
]

#: How long a command of a batch system may take, in seconds.
ANSWER_S = 30.0
#: How long a command may take while a person waits, in seconds: Slurm's own give up after ten.
CHECK_S = 15.0
#: The interval between questions to Slurm whether hosts have booted, in seconds.
BOOTS_S = 10.0
#: The pause before the next question about a host whose boot could not be read, in seconds.
BUSY_S = 60.0
#: The length to which an unreadable answer is quoted, in characters.
_QUOTED = 200

# The end of each refusal by a policy of Slurm's; the line before may name the limit.
_ANY_LIMIT = re.compile(r"Job violates accounting/QOS policy( \(.*\))?")
# Refusals that keep out every job for a while, even if they name a part of the request.
_PASSING = re.compile(
    r"Submit\w*Limit|submit limit|would exceed|max number of jobs|threshold|is down|disabled"
    r"|inactive|closed|not enabled|not started|not responding|timed out|temporar|try again"
    r"|try later|available now|connect|controller|munge|authentication|zero bytes",
    re.IGNORECASE,
)
_REQUEST = re.compile(
    r"\b(partition|queue|account|bank|project|qos|wckey|feature|gres|reservation|walltime)\b"
    r"|licen[sc]e|node (count|name)|requested node|bad host|processors|cpu count|\w+Limit\b"
    r"|memory (specification|required)|specification|resource|exceed|too many|unsatisfiable"
    r"|illegal attribute|invalid (numeric|--)|(unrecognized|invalid|unknown|illegal) (option|arg)"
    r"|(option|argument) requires",
    re.IGNORECASE,
)
# Cheap commands that fail if the batch system cannot be reached.
_PINGS: Mapping[str, Sequence[str]] = {
    "slurm": ("squeue", "--me", "--noheader", "--format=%i"),
    "pbs": ("qstat", "-B"),
    "lsf": ("lsid",),
    "flux": ("flux", "jobs", "--count=1"),
}


def run(
    command: Sequence[str],
    *,
    answer_s: float | None = None,
    variables: Mapping[str, str] | None = None,
) -> str:
    """Run a command of a batch system, and return what it prints.

    `variables` are added to its environment.

    Raises `EngineUnavailable`: it did not answer within `answer_s` (`ANSWER_S` by default), but may
    have had its effect. `ConfigError`: there is no such command here.
    `subprocess.CalledProcessError`: it failed; its ``output`` has the reason.
    """
    limit = ANSWER_S if answer_s is None else answer_s
    try:
        done = subprocess.run(  # noqa: S603 - the batch system's own command
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, **variables} if variables else None,
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise EngineUnavailable(f"{command[0]} did not answer in {limit:g} s") from None
    except FileNotFoundError:
        raise ConfigError(
            f"{command[0]} is not in PATH: the server has to run where the batch system's commands "
            "are, on a login node"
        ) from None
    except OSError as error:  # no process could be started, or the command is being replaced
        raise EngineUnavailable(f"{command[0]} cannot be run: {error}") from error
    if done.returncode:
        output = "\n".join(filter(None, [done.stdout.strip(), done.stderr.strip()]))
        raise subprocess.CalledProcessError(done.returncode, command, output=output or "no message")
    return done.stdout


def is_final(message: str) -> bool:
    """Return whether a refusal names a part of the request, so that a repetition would not help.

    Examples are a partition, an account, a limit that one job exceeds. After all other refusals
    the command is repeated: no credentials, no controller, too many jobs at once, unknown words.
    """
    message = _ANY_LIMIT.sub("", message)
    return _REQUEST.search(message) is not None and _PASSING.search(message) is None


def takes_nothing(message: str) -> bool:
    """Return whether a refusal concerns all jobs at this time, so that no other need be tried."""
    return _PASSING.search(_ANY_LIMIT.sub("", message)) is not None


def trouble(scheduler: str) -> str | None:
    """Return why a batch system does not answer; ``None`` if it does, or has no commands."""
    command = _PINGS.get(scheduler)
    if command is None:
        return None
    try:
        run(command, answer_s=CHECK_S)
    except (ConfigError, EngineUnavailable) as error:
        return str(error)
    except subprocess.CalledProcessError as error:
        return f"{command[0]}: {'; '.join(str(error.output).splitlines())}"
    return None


def unreadable(command: str, answer: str) -> EngineUnavailable:
    """Return the error for an unreadable answer of a command."""
    return EngineUnavailable(f"what {command} answers cannot be read: {answer[:_QUOTED]!r}")


@frozen
class SlurmJob:
    """One job of this user that Slurm knows; its id may come again once Slurm has lost its state.

    `state` and `reason` are Slurm's words (``PENDING``, ``Priority``).
    """

    native_id: str
    name: str
    state: str
    reason: str


#: Lists this user's jobs. A name may hold anything, ends of lines too: the id comes after it again.
SQUEUE = ("squeue", "--me", "--noheader", "--array", "--states=all", "--format=%i|%T|%r|%j|%i")
_SLURM_JOB = re.compile(
    r"(\d+(?:[_+]\S+?)?)\|([A-Z_]+)\|([^\n]*?)\|(.*?)\|\1(?:\n\s*|\Z)", re.DOTALL
)


def slurm_jobs() -> list[SlurmJob]:
    """Return this user's jobs, with those that ended within ``MinJobAge`` (300 s by default).

    Raises `EngineUnavailable`: ``squeue`` cannot be run, fails, or answers what cannot be read.
    """
    try:
        output = run(SQUEUE)
    except (ConfigError, subprocess.CalledProcessError) as error:
        why = getattr(error, "output", None) or error
        raise EngineUnavailable(f"Slurm cannot be asked: {why}") from error
    return slurm_rows(output)


def slurm_rows(output: str) -> list[SlurmJob]:
    """Read what ``squeue`` printed for :func:`slurm_jobs`; `EngineUnavailable` if that fails."""
    jobs, at, end = [], 0, len(output.rstrip())
    while at < end:
        match = _SLURM_JOB.match(output, at)
        if match is None:
            raise unreadable("squeue", output)
        native_id, state, reason, name = match.groups()
        jobs.append(SlurmJob(native_id, name, state, reason))
        at = match.end()
    return jobs


#: Lists this user's jobs that ended as their hosts fell silent: when they began, and on which.
_NODE_FAILS = (
    "squeue",
    "--me",
    "--noheader",
    "--array",
    "--states=NODE_FAIL",
    "--format=%i|%S|%N|%P|%a|%j|%i",
)
_NODE_FAIL = re.compile(
    r"(\d+(?:[_+]\S+?)?)\|(\d+)\|([^|\s]+)\|([^|\s]*)\|([^|\s]*)\|(.*?)\|\1(?:\n\s*|\Z)", re.DOTALL
)
_BOOT = re.compile(r"\bBootTime=(\d+) SlurmdStartTime=(\d+)\b")
#: Asks a node, in a job of a second, for its boot; it does not wait long for a free core.
_ASK_BOOT = (
    *("srun", "--quiet", "--immediate=5", "--time=1", "--job-name=crystalmath-boot"),
    *("--nodes=1", "--ntasks=1", "--mem=16M", "--chdir=/"),
)
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_A_BOOT_ID = re.compile(r"^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$", re.MULTILINE)


@frozen
class _NodeFail:
    """An allocation that Slurm has lost sight of; times in seconds since the epoch."""

    began: float
    hosts: str
    partition: str
    account: str


class SlurmReboots:
    """Find allocations without living processes: all their hosts have booted since they began.

    Slurm ends an allocation as ``NODE_FAIL`` when it loses sight of a host, where processes may go
    on. None of them outlives that host's next boot. One object serves one thread.
    """

    def __init__(self) -> None:
        self._failed: dict[tuple[str, str], _NodeFail] = {}
        self._up_since: dict[str, tuple[float, float]] = {}
        self._at = float("-inf")
        self._boot_ids: dict[str, tuple[float, str]] = {}
        self._not_before: dict[str, float] = {}

    def ended(self, native_id: str, name: str) -> bool:
        """Return whether all hosts of an allocation have booted since it began, by Slurm's report.

        Slurm is asked every `BOOTS_S` seconds, once for all. Without a report the answer is no.
        """
        try:
            failed = self._find(native_id, name)
            return failed is not None and self._times_of(failed.hosts)[0] > failed.began
        except (ConfigError, EngineUnavailable, subprocess.CalledProcessError):
            return False

    def boot_id(self, native_id: str, name: str) -> str | None:
        """Return the present boot id of the host of an allocation; ``None`` if unknown.

        Only a host whose ``slurmd`` has started since is asked. Slurm reports how long a host is
        up; a system container has its own boot id, but is up for as long as its machine.
        """
        try:
            failed = self._find(native_id, name)
            if failed is None or not re.fullmatch(r"[^\[,]+", failed.hosts):
                return None
            started = self._times_of(failed.hosts)[1]
            return self._ask_host(failed, started) if started > failed.began else None
        except (ConfigError, EngineUnavailable, subprocess.CalledProcessError):
            return None

    def _find(self, native_id: str, name: str) -> _NodeFail | None:
        if time.monotonic() - self._at >= BOOTS_S:
            self._at, self._up_since = time.monotonic(), {}
            # Slurm forgets them some minutes after their end.
            for job, began, *where, its_name in _NODE_FAIL.findall(_ask(*_NODE_FAILS)):
                self._failed[job, its_name] = _NodeFail(float(began), *where)
        return self._failed.get((native_id, name))

    def _times_of(self, hosts: str) -> tuple[float, float]:
        """Return the earliest boot of some hosts, and the earliest start of their ``slurmd``."""
        if hosts not in self._up_since:
            self._up_since[hosts] = (-math.inf, -math.inf)
            nodes = _ask("scontrol", "--oneliner", "show", "node", hosts)
            times = _BOOT.findall(nodes)
            if times and len(times) == nodes.count("NodeName="):
                boots, starts = zip(*times, strict=True)
                self._up_since[hosts] = (min(map(float, boots)), min(map(float, starts)))
        return self._up_since[hosts]

    def _ask_host(self, failed: _NodeFail, started: float) -> str | None:
        """Ask a host for its boot id, once for each start of its ``slurmd``."""
        host, now = failed.hosts, time.monotonic()
        since, boot_id = self._boot_ids.get(host, (-math.inf, ""))
        if since == started:
            return boot_id
        if now < self._not_before.get(host, now):
            return None
        self._not_before[host] = now + BUSY_S
        terms = [f"--nodelist={host}", f"--partition={failed.partition}"]
        if failed.account not in {"", "(null)"}:
            terms.append(f"--account={failed.account}")
        # A prolog of the site may print something before it.
        ids: list[str] = _A_BOOT_ID.findall(run((*_ASK_BOOT, *terms, "cat", _BOOT_ID)))
        if not ids:
            return None
        self._boot_ids[host] = (started, ids[-1])
        return ids[-1]


def _ask(*command: str) -> str:
    """Ask Slurm, with its times in seconds since the epoch."""
    return run(command, variables={"SLURM_TIME_FORMAT": "%s"})


def cancel_slurm_job(native_id: str, name: str, *, pending_only: bool = False) -> None:
    """Cancel a job, if it is this user's and has this name when Slurm looks for it.

    An id alone names another job once Slurm has lost its state. With `pending_only` a job that has
    begun is left alone.

    Raises `EngineUnavailable`: ``scancel`` cannot be run, or fails: the job may still be there.
    """
    state = ["--state=PENDING"] if pending_only else []
    command = ["scancel", *state, f"--user={os.getuid()}", f"--name={name}", native_id]
    try:
        run(command)
    except (ConfigError, subprocess.CalledProcessError) as error:
        why = str(getattr(error, "output", None) or error)
        # A job that is over by now is what was wanted.
        if "Invalid job id" not in why:
            raise EngineUnavailable(f"scancel: {why}") from error
