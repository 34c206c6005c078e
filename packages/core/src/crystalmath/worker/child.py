"""The supervisor's side of its template and runner: start, feed, read and end them."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import queue
import re
import select
import signal
import socket
import string
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from crystalmath import config, processes
from crystalmath.jobs.cgroups import memberships
from crystalmath.worker.node_environment import BEFORE, with_init
from crystalmath.worker.starting import PLACE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from crystalmath.jobs.cgroups import ControlGroup

#: The message of a runner that has imported everything and calls the recipe.
BEGUN = {"begun": True}
_CHUNK = 1 << 16
#: The search for left processes ends after this many rounds in which only ended ones appeared.
_ROUNDS = 10
_PR_SET_CHILD_SUBREAPER = 36
#: quacc's setting of where calculations run, instead of the work directory.
_SCRATCH = "QUACC_SCRATCH_DIR"
_MODULE = "crystalmath.worker.runner"
_EVENTS = ("memory.events", "memory.oom_control")
_OOM_KILL = re.compile(rb"^oom_kill (\d+)", re.MULTILINE)


def become_subreaper() -> None:
    """Keep all descendants of this process below it, however they detach themselves."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot become a child subreaper; Linux is needed")


def end_descendants(grace_s: float = config.GRACE_S, spared: int | None = None) -> None:
    """End all descendants of this process; kill those that have not ended in `grace_s`.

    `spared` is a child of another thread that stays alive.
    """
    me = os.getpid()
    processes.end_processes(
        lambda: [pid for pid in processes.descendants(me) if pid != spared],
        grace_s=grace_s,
        reap=True,
    )


@frozen
class Ending:
    """The end of a runner that nothing here had ended."""

    #: The end in words that follow a subject.
    how: str
    #: Whether another process killed it, and not the kernel for want of memory: then it is not the
    #: recipe's fault. (A recipe that kills its own process looks the same.)
    by_somebody: bool = False
    #: Whether the kernel killed it for want of memory.
    memory: bool = False


@frozen
class Started:
    """A process below this one."""

    pid: int
    #: Readable once it has ended.
    pidfd: int
    #: Waits for its end and returns its exit code, as `subprocess.Popen.wait` does.
    wait: Callable[[], int]


def start(
    module: str, environment: Mapping[str, str], control: int, log: int, *more: str
) -> Started:
    """Start a module of ours with the ends of a socket and of the pipe for its output."""
    process = processes.start_process(
        [sys.executable, "-P", "-m", module, str(control), str(os.getpid()), *more],
        pass_fds=[control],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        env=runner_environment(environment),
    )
    return Started(process.pid, os.pidfd_open(process.pid), process.wait)


class Template:
    """A process that has imported the libraries of recipes and forks runners; it runs no recipe.

    A thread starts it and waits for it. So it is no child of the main thread, which must have none
    when a job has ended (`processes.reap_children`).
    """

    def __init__(
        self, environment: Mapping[str, str], *, quacc: bool, group: ControlGroup | None
    ) -> None:
        self.environment = dict(environment)
        self.quacc = quacc
        self._group = group
        self._control, self._theirs = socket.socketpair()
        self._process: Started | None = None

    def __del__(self) -> None:
        self._control.close()
        self._theirs.close()
        if self._process is not None:
            os.close(self._process.pidfd)

    @property
    def pid(self) -> int | None:
        """Its pid, once it was started."""
        return self._process.pid if self._process else None

    def fork(self, control: int, log: int) -> Started:
        """Have a runner forked as soon as all is imported; return the template's own process.

        The first call starts it, and it prints to the same log: errors of an import are the job's.
        """
        if self._process is None:
            self._process = self._start(log)
            # This precedes the request, so that forked runners are in the group, too.
            if self._group:
                self._group.add(self._process.pid)
        with contextlib.suppress(OSError):  # it has ended, as the caller will notice
            socket.send_fds(self._control, [b"\n"], [control, log])
        return evolve(self._process, pidfd=os.dup(self._process.pidfd))

    def is_dead(self) -> bool:
        """Return whether it was started and has ended."""
        return self._process is not None and _is_readable(self._process.pidfd)

    def _start(self, log: int) -> Started:
        started: queue.SimpleQueue[Started | Exception] = queue.SimpleQueue()
        codes: list[int] = []
        more = ["quacc"] if self.quacc else []

        def run() -> None:
            try:
                with self._theirs as theirs:
                    process = start(_MODULE, self.environment, theirs.fileno(), log, *more)
            except Exception as error:  # noqa: BLE001 - raised by the waiting thread below
                started.put(error)
                return
            started.put(process)
            codes.append(process.wait())

        def wait() -> int:
            thread.join()
            return codes[0]

        thread = threading.Thread(target=run, name="crystalmath-template", daemon=True)
        thread.start()
        process = started.get()
        if isinstance(process, Exception):
            raise process
        return evolve(process, wait=wait)


class Runner:
    """A warm process that runs recipes, one after another.

    `begin` starts it, or has it forked, with a socket and the pipe for its output. Through the pipe
    the output of its children is read, too, and only jobs that print get a log file.
    """

    def __init__(self, begin: Callable[[int, int], Started]) -> None:
        self.message: dict[str, Any] | None = None
        #: How many jobs it has taken.
        self.taken = 0
        #: Whether a template has forked it.
        self.is_forked = False
        #: Whether the recipe itself has begun; known only for jobs with a walltime.
        self.begun = False
        self.ended = False
        self._control, theirs = socket.socketpair()
        self._log, log = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._log, False)
        with theirs:
            self._process = begin(theirs.fileno(), log)
        os.close(log)
        self._oom = OomKills(self.pid)
        self._buffer = b""
        self._results: list[dict[str, Any]] = []
        self._silent: set[Any] = set()

    def __del__(self) -> None:
        self._control.close()
        os.close(self._log)
        os.close(self._process.pidfd)

    @property
    def pid(self) -> int:
        """Its pid; until it is forked, the pid of its template."""
        return self._process.pid

    def give(self, request: dict[str, Any]) -> None:
        """Hand over a job."""
        self.message, self.begun, self._results = None, False, []
        self.taken += 1
        self._oom.note()
        with contextlib.suppress(OSError):  # it has ended; pump() will notice
            self._control.sendall(json.dumps(request).encode() + b"\n")

    def pump(self, write_log: Callable[[bytes], None], timeout: float) -> None:
        """Write the runner's output to the log and take its message, until `timeout` (seconds)."""
        # A recipe may close descriptors of others; a closed one is always ready.
        pidfd = self._process.pidfd
        watched: list[Any] = [self._control, self._log, pidfd]
        watched = [each for each in watched if each not in self._silent]
        ready, _, _ = select.select(watched, [], [], timeout)
        if self._log in ready:
            if data := self._read_log():
                write_log(data)
            else:
                self._silent.add(self._log)
        if self._control in ready and (data := self._receive()):
            self._take(data)
        elif pidfd in ready:
            self.ended = True
        elif self._control in ready:
            self._silent.add(self._control)

    def _take(self, data: bytes) -> None:
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for message in map(json.loads, lines):
            if message == BEGUN:
                self.begun = True
            elif "forked" in message:
                self._become(message["forked"])
            elif "index" in message:
                self._results.append(message)
            else:
                self.message = message

    def _become(self, pid: int) -> None:
        """Follow the forked runner from now on: it has become our child."""
        os.close(self._process.pidfd)
        self._process = Started(pid, os.pidfd_open(pid), functools.partial(_wait_for, pid))
        self.is_forked = True

    def take_results(self) -> list[dict[str, Any]]:
        """Return the results of single structures of a batch that have come since the last call."""
        results, self._results = self._results, []
        return results

    def drain(self, write_log: Callable[[bytes], None]) -> None:
        """Write the rest of the runner's output to the log."""
        while data := self._read_log():
            write_log(data)

    def end(self) -> Ending:
        """Wait for the runner's end, and return how it ended."""
        status = self._process.wait()
        if status >= 0:
            return Ending(f"exited with code {status}")
        if status == -signal.SIGKILL and self._oom.grown():
            return Ending(
                f"was killed for want of memory by the kernel (oom_kill in {self._oom.file}); give "
                "it more memory, or run fewer jobs at once",
                memory=True,
            )
        try:
            name = signal.Signals(-status).name
        except ValueError:  # a real-time signal
            name = "a real-time signal"
        return Ending(
            f"was killed by signal {-status} ({name})", by_somebody=status == -signal.SIGKILL
        )

    def is_dead(self) -> bool:
        """Return whether it has ended."""
        # The message of a runner that was just forked may be unread.
        if _is_readable(self._control):
            self._take(self._receive())
        return _is_readable(self._process.pidfd)

    def leavings(self, *, has_children: bool = True) -> list[int]:
        """List the processes that a job left: our own children, and those of the runner."""
        # The runner's children come first: when one ends, its own children become ours.
        theirs = _living(processes.children(self.pid)) if has_children else []
        ours: list[int] = []
        for _ in range(_ROUNDS):
            ours = processes.children(os.getpid(), threading.get_native_id())
            ours = [pid for pid in ours if pid != self.pid]
            if (left := theirs + _living(ours)) or not ours:
                return left
            # These have ended, and their children are ours now: look again.
            for pid in ours:
                os.waitpid(pid, os.WNOHANG)
        return ours

    def _receive(self) -> bytes:
        try:
            return self._control.recv(_CHUNK)
        except ConnectionError:
            return b""

    def _read_log(self) -> bytes:
        try:
            return os.read(self._log, _CHUNK)
        except BlockingIOError:
            return b""


def _is_readable(descriptor: int | socket.socket) -> bool:
    return bool(select.select([descriptor], [], [], 0)[0])


def _wait_for(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _living(pids: list[int]) -> list[int]:
    return [pid for pid in pids if processes.start_time(pid) is not None]


def runner_environment(forwarded: Mapping[str, str]) -> dict[str, str]:
    """Return the runner's environment: the worker's own, with exactly the forwarded variables.

    A variable of the forwarded families that the submitter had not set must not come from the
    worker, unless the cluster's commands have set it. ``PATH`` is an exception: the worker's is
    used if the submitter had none.
    """
    own = dict(os.environ)
    of_job = with_init(forwarded, own)
    own.pop(BEFORE, None)
    if forwarded:
        for name in config.forwarded(config.DEFAULT_FORWARD[1:], own):
            del own[name]
    own.update(of_job)
    # One thread for each process unless the user sets another number: an engine runs as many jobs
    # at once as there are cores.
    own.setdefault("OMP_NUM_THREADS", "1")
    # All passes of a flow iterate over sets, and so over its steps, in one order.
    own.setdefault("PYTHONHASHSEED", "0")
    # Room for the mark that the runner writes over it (worker.starting).
    own["CRYSTALMATH_ATTEMPT"] = PLACE
    # Recipes are plain functions here; the decorators read this when quacc is imported.
    own["QUACC_WORKFLOW_ENGINE"] = "None"
    # If a node lacks a variable of it (`$TMPDIR`), quacc would take its name for a folder.
    if "$" in string.Template(own.get(_SCRATCH, "")).safe_substitute(own):
        del own[_SCRATCH]
    return own


class OomKills:
    """The kernel's count of processes killed for want of memory, in the groups of one process.

    The kernel counts them in ``memory.events`` of their control group (version 2) or in its
    ``memory.oom_control`` (version 1). The count of the whole machine is in ``/proc/vmstat``.
    """

    def __init__(self, pid: int, proc: str = "/proc") -> None:
        #: The file with the count.
        self.file = _counter(pid, proc)
        self.note()

    def note(self) -> None:
        """Count from now on."""
        self._seen = _read(self.file)

    def grown(self) -> bool:
        """Return whether the kernel has killed a process since."""
        return _read(self.file) > self._seen


def _read(file: str) -> int:
    with contextlib.suppress(OSError), open(file, "rb") as stream:
        match = _OOM_KILL.search(stream.read())
        return int(match[1]) if match else 0
    return 0


def _counter(pid: int, proc: str) -> str:
    # The group above counts for a group without the memory controller.
    for group in memberships(pid, proc):
        if group.unified or "memory" in group.controllers:
            for place in group.upwards():
                for name in _EVENTS:
                    if os.path.exists(f"{place}/{name}"):
                        return f"{place}/{name}"
    return f"{proc}/vmstat"
