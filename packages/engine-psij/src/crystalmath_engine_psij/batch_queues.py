"""Query the queue of a batch system, once for all of our allocations."""

from __future__ import annotations

import getpass
import json
import re
import subprocess
from typing import TYPE_CHECKING, Any, Literal, Protocol

from attrs import frozen

from crystalmath.engines import schedulers

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

_State = Literal["queued", "running", "gone", "unknown"]


@frozen
class Row:
    """An allocation, as the batch system lists it."""

    #: The scheduler's id.
    native_id: str
    #: The allocation's name, which is the attempt's id.
    name: str
    #: State and reason are as in :class:`~crystalmath.models.Sighting`.
    state: _State
    reason: str | None = None
    #: Whether another attempt would end in the same way.
    fatal: bool = False


class BatchQueue(Protocol):
    """A way to query a batch system."""

    def rows(
        self, run: Callable[[Sequence[str]], str], natives: Collection[str | None]
    ) -> list[Row]:
        """Return the allocations of this user; `run` runs a command and returns its output.

        `natives` are the native ids of the wanted ones; ``None`` is an id that was never recorded.
        """


class SlurmQueue:
    """``squeue``, which lists jobs for ``MinJobAge`` after their end (300 s unless configured)."""

    _STATES: Mapping[str, _State] = {
        **dict.fromkeys(["PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED"], "queued"),
        **dict.fromkeys(["REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"], "queued"),
        # COMPLETING: some of its processes are alive.
        **dict.fromkeys(["RUNNING", "COMPLETING", "SUSPENDED", "STOPPED"], "running"),
        **dict.fromkeys(["SIGNALING", "STAGE_OUT", "RESIZING"], "running"),
        **dict.fromkeys(["COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "DEADLINE"], "gone"),
        **dict.fromkeys(["NODE_FAIL", "BOOT_FAIL", "PREEMPTED", "OUT_OF_MEMORY"], "gone"),
        "REVOKED": "gone",
    }

    def rows(
        self, run: Callable[[Sequence[str]], str], natives: Collection[str | None]
    ) -> list[Row]:
        """Return all allocations of this user, whichever are wanted."""
        del natives
        return [self._row(job) for job in schedulers.slurm_rows(run(schedulers.SQUEUE))]

    def _row(self, job: schedulers.SlurmJob) -> Row:
        state = self._STATES.get(job.state, "unknown")
        reason = None if job.state == "RUNNING" else job.state
        if state == "queued" and job.reason not in {"None", ""}:
            reason = job.reason
        return Row(job.native_id, job.name, state, reason)


class PbsQueue:
    """``qstat`` of PBS Professional and OpenPBS."""

    # See "Job States" in the PBS Professional Reference Guide.
    _STATES: Mapping[str, _State] = {
        **dict.fromkeys("HMQTWU", "queued"),
        **dict.fromkeys("BERS", "running"),
        **dict.fromkeys("FX", "gone"),
    }
    _UNKNOWN = re.compile(r"Unknown Job Id(?: Error)?:?\s+(\S+)", re.IGNORECASE)
    #: The option that lists ended jobs, too; it fails if the server keeps no history.
    _ENDED = "-x"
    _NO_HISTORY = re.compile(r"not configured to maintain job history", re.IGNORECASE)

    def rows(
        self, run: Callable[[Sequence[str]], str], natives: Collection[str | None]
    ) -> list[Row]:
        """Return the wanted allocations, or all of this user if an id is unknown."""
        if None in natives:
            ids = self._run(run, "qselect", "-u", getpass.getuser()).split()
        else:
            ids = [native for native in natives if native]
        report = self._report(run, ids)
        jobs: Mapping[str, Mapping[str, Any]] = report.get("Jobs", {})
        # A server that lost its state uses ids again, for other users as well.
        mine = f"{getpass.getuser()}@"
        return [
            self._row(native_id, job)
            for native_id, job in jobs.items()
            if str(job.get("Job_Owner", mine)).startswith(mine)
        ]

    def _report(self, run: Callable[[Sequence[str]], str], ids: Sequence[str]) -> dict[str, Any]:
        """Return the report on jobs; leave out those that the server does not know any more."""
        while ids:
            try:
                return _document(self._run(run, "qstat", "-f", "-F", "json", *ids))
            except subprocess.CalledProcessError as error:
                unknown = {_number(native) for native in self._UNKNOWN.findall(error.output)}
                known = [native for native in ids if _number(native) not in unknown]
                if len(known) == len(ids):
                    raise
                ids = known
        return {}

    def _run(self, run: Callable[[Sequence[str]], str], command: str, *arguments: str) -> str:
        try:
            return run([command, self._ENDED, *arguments])
        except subprocess.CalledProcessError as error:
            if not self._NO_HISTORY.search(error.output):
                raise
            return run([command, *arguments])

    def _row(self, native_id: str, job: Mapping[str, Any]) -> Row:
        state = self._STATES.get(job.get("job_state", ""), "unknown")
        reason = job.get("comment")
        if state == "gone" and job.get("Exit_status"):
            reason = self._EXITS.get(job["Exit_status"]) or reason
        return Row(native_id, str(job.get("Job_Name", "")), state, reason)

    # JOB_EXEC_KILL_WALLTIME, _CPUT, _MEM and _VMEM in job.h of OpenPBS.
    _EXITS: Mapping[int, str] = {
        -29: "TIMEOUT",
        -28: "CPU_TIME",
        -27: "OUT_OF_MEMORY",
        -26: "OUT_OF_MEMORY",
    }


class LsfQueue:
    """``bjobs`` of IBM Spectrum LSF."""

    _COMMAND = ("bjobs", "-a", "-json", "-o", "jobid stat job_name pend_reason exit_reason")
    _STATES: Mapping[str, _State] = {
        **dict.fromkeys(["PEND", "PROV", "PSUSP", "WAIT"], "queued"),
        **dict.fromkeys(["RUN", "USUSP", "SSUSP", "ZOMBI"], "running"),
        **dict.fromkeys(["DONE", "EXIT"], "gone"),
    }
    # The error of ``bjobs`` if it remembers no job of this user.
    _NONE = re.compile(r"No (unfinished )?job found")
    _WORDS: Mapping[str, str] = {
        "TERM_RUNLIMIT": "TIMEOUT",
        "TERM_CPULIMIT": "CPU_TIME",
        "TERM_MEMLIMIT": "OUT_OF_MEMORY",
        "TERM_SWAP": "OUT_OF_MEMORY",
        "TERM_PREEMPT": "PREEMPTED",
    }

    def rows(
        self, run: Callable[[Sequence[str]], str], natives: Collection[str | None]
    ) -> list[Row]:
        """Return all allocations of this user, whichever are wanted."""
        del natives
        try:
            output = run(self._COMMAND)
        except subprocess.CalledProcessError as error:
            if not self._NONE.search(error.output):
                raise
            return []
        return [self._row(job) for job in _document(output).get("RECORDS", [])]

    def _row(self, job: Mapping[str, str]) -> Row:
        state = self._STATES.get(job.get("STAT", ""), "unknown")
        why = job.get("EXIT_REASON" if state == "gone" else "PEND_REASON") or job.get("STAT")
        word = next((self._WORDS[each] for each in self._WORDS if each in (why or "")), why)
        return Row(job.get("JOBID", ""), job.get("JOB_NAME", ""), state, word)


class FluxQueue:
    """``flux jobs``."""

    # See flux-jobs(1).
    _STATES: Mapping[str, _State] = {
        **dict.fromkeys(["NEW", "DEPEND", "PRIORITY", "SCHED"], "queued"),
        # CLEANUP: some of its processes are alive, or its epilog runs.
        **dict.fromkeys(["RUN", "CLEANUP"], "running"),
        "INACTIVE": "gone",
    }
    #: An allocation whose id was never recorded is found if it ended since then.
    _SINCE = "-1d"

    def rows(
        self, run: Callable[[Sequence[str]], str], natives: Collection[str | None]
    ) -> list[Row]:
        """Return the wanted allocations, however old; and all recent ones if an id is unknown."""
        ids = [native for native in natives if native]
        # Flux leaves out unknown ids, and warns on its standard error.
        rows = self._listed(run, *ids) if ids else []
        if None in natives:
            rows += self._listed(run, "--count=0", f"--since={self._SINCE}")
        return list({row.native_id: row for row in rows}.values())

    def _listed(self, run: Callable[[Sequence[str]], str], *which: str) -> list[Row]:
        document = _document(run(["flux", "jobs", "--json", *which]))
        # A single job is not wrapped in a list.
        jobs = [document] if "id" in document else document.get("jobs", [])
        return [self._row(job) for job in jobs]

    def _row(self, job: Mapping[str, Any]) -> Row:
        native_id = flux_id(str(job.get("jobid", ""))) or str(job["id"])
        name, word = str(job.get("name", "")), str(job.get("state", ""))
        state = self._STATES.get(word, "unknown")
        if state == "gone":
            return Row(native_id, name, state, *self._end(job))
        if state == "queued":
            word = self._waits_for(job, word)
        return Row(native_id, name, state, None if word == "RUN" else word)

    def _waits_for(self, job: Mapping[str, Any], word: str) -> str:
        reason = job.get("annotations", {}).get("sched", {}).get("reason_pending")
        if reason:
            return str(reason)
        if job.get("dependencies"):
            return f"{word}: {', '.join(job['dependencies'])}"
        is_held = 0 in {job.get("urgency"), job.get("priority")} and word == "SCHED"
        return "held" if is_held else word

    def _end(self, job: Mapping[str, Any]) -> tuple[str, bool]:
        """Return how a job ended, and whether another attempt would end in the same way."""
        result, why = str(job.get("result", "INACTIVE")), job.get("exception", {})
        if result not in {"FAILED", "CANCELED"} or not why.get("occurred") or why.get("severity"):
            return result, False
        kind, note = str(why.get("type", "")), str(why.get("note", ""))
        if kind == "node-failure":
            return "NODE_FAIL", False
        words = [result, kind if result == "FAILED" else "", note]
        # "alloc": no node of the scheduler has the requested resources.
        return ": ".join(filter(None, words)), kind == "alloc"


def flux_id(text: str) -> str | None:
    """Return the id in Flux's output, with a plain f; Flux's own letter depends on the locale."""
    ids = re.findall(r"^(?:f|[^\x00-\x7f]+)([1-9A-HJ-NP-Za-km-z]+)\s*$", text, re.MULTILINE)
    return f"f{ids[-1]}" if ids else None


def _number(native: str) -> str:
    """Return the part of a PBS id before the server's name, which may be shortened."""
    return native.partition(".")[0]


def _document(text: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text)) if text.strip() else {}
    except (TypeError, ValueError) as error:
        raise schedulers.unreadable("the scheduler", text) from error


#: The batch systems, by the name of PSI/J's executor.
QUEUES: Mapping[str, BatchQueue] = {
    "slurm": SlurmQueue(),
    "pbs": PbsQueue(),
    "lsf": LsfQueue(),
    "flux": FluxQueue(),
}
