"""A process that owns jobs, asked in messages: the side of :mod:`~crystalmath.testing.owner`.

Started as ``python -P -m crystalmath.testing.owner_process ENGINE CLUSTER NUMBER``, with the number
of a socket: what the engine writes to standard output is then no answer. Each question is a message
``[method, arguments, keywords]``; each answer ``{"answer": ...}`` or ``{"error": ..., "traceback":
...}``, as JSON.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from crystalmath.testing import snapshot
from crystalmath.testing.owner import CHILD_EXITS_WITH, NOTE, RECIPES
from crystalmath.testing.waiting import own_time, within

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from crystalmath.models import Attempt, Sighting
    from crystalmath.quacc.engine import EngineRunner

#: How long something may differ that is put back, in seconds.
SETTLE_S = 2.0
#: How long a child of the user's has ended before he asks for its exit code, in seconds.
ZOMBIE_S = 0.5
#: How long a pipe may take to come to its end, in seconds: a process that is about to execute its
#: program still has what its parent has.
PIPE_S = 10.0
#: How long a child may take to end, and how long an interrupt is waited for, in seconds: an engine
#: may have taken that for itself.
CHILD_S, CTRL_C_S = 30.0, 5.0

if __name__ == "__mp_main__" and NOTE in os.environ:
    # So a worker of `multiprocessing` calls the script of its owner, which it runs again.
    Path(os.environ[NOTE]).touch()


class OwnerProcess:
    """What the process does when it is asked."""

    def __init__(self, engine: str, cluster: str) -> None:
        from crystalmath.quacc import get_runner

        self._engine = engine
        self._pipe = os.pipe()
        self._born = snapshot.take(engine)
        # Those that this Python starts before all else are no engine's.
        self._threads = set(threading.enumerate())
        self._cluster = cluster
        self._launched: set[str] = set()
        self._taken: set[str] = set()
        self._stopped, self._stop_s = threading.Event(), 0.0
        self._runner = cast("EngineRunner", get_runner(engine))

    def submit(self, recipe: str, times: int = 1, /, **parameters: Any) -> list[str]:
        """Submit a recipe of the kit, or one with its full name, some times."""
        from crystalmath.testing.attempts import aluminium

        name = recipe if "." in recipe else f"{RECIPES}.{recipe}"
        return [
            self._runner.submit(name, aluminium(), self._cluster, **parameters)
            for _ in range(times)
        ]

    def status(self, job_id: str) -> str:
        """Return a state."""
        return self._runner.get_status(job_id).value

    def result(self, job_id: str) -> Any:
        """Return a result."""
        return self._runner.get_result(job_id)

    def cancel(self, job_id: str) -> bool:
        """Request a cancellation."""
        return self._runner.cancel(job_id)

    def launch(
        self, job_ids: Sequence[str], terms: dict[str, dict[str, Any]] | None = None
    ) -> dict[str, str]:
        """Hand attempts to the engine past core; ``{job id: handle}``, and none is recorded.

        As core, it keeps back more than `max_queued` unfinished ones; `terms` has those of some
        jobs.
        """
        self._launched = set(filter(self._is_unfinished, self._launched))
        most = self._runner.capabilities.max_queued
        free = max(most - len(self._launched.difference(job_ids)), 0)
        attempts = self._attempts(job_ids[:free], terms=terms)
        if not attempts:
            return {}
        answers: Mapping[str, Any] = self._runner.launch(attempts)
        refusals = [each for each in answers.values() if isinstance(each, Exception)]
        if refusals and len(refusals) == len(answers):
            raise refusals[0]
        handles = {key: each for key, each in answers.items() if each not in refusals}
        wrong = {key: each for key, each in handles.items() if not isinstance(each, str)}
        if wrong:
            raise TypeError(f"these handles are no strings: {wrong}")
        handles_by_job = _by_job(attempts, handles)
        self._launched.update(handles_by_job)
        return handles_by_job

    def probe(
        self,
        job_ids: Sequence[str],
        handles: dict[str, str] | None = None,
        terms: dict[str, dict[str, Any]] | None = None,
    ) -> dict[str, Any]:
        """Ask the engine past core; ``{job id: [state, reason]}``."""
        attempts = self._attempts(job_ids, handles, terms)
        seen = _by_job(attempts, self._runner.probe(attempts))
        answers = {job_id: _spelt(sighting) for job_id, sighting in seen.items()}
        self._launched -= {job_id for job_id, (state, _) in answers.items() if state == "gone"}
        return {attempt.job_id: ["unknown", None] for attempt in attempts} | answers

    def release(
        self, job_ids: Sequence[str], terms: dict[str, dict[str, Any]] | None = None
    ) -> None:
        """Have the engine drop attempts, past core."""
        attempts = self._attempts(job_ids, terms=terms)
        self._runner.release(attempts)
        # Core cancels what it releases, and so it has ended.
        self._launched -= {each.job_id for each in attempts if not self._runner.has_begun(each)}

    def stop(self) -> None:
        """End the engine, past core."""
        self._runner.stop()

    def write(self, recipe: str, **parameters: Any) -> str:
        """Write a job down that nobody has launched; it belongs to this process."""
        from crystalmath.testing.attempts import write_down

        settings = self._runner.settings
        return write_down(settings.home, settings.name, recipe, self._cluster, **parameters)

    def close(self, *, cancel: bool = True) -> None:
        """Close the runner; cancel its jobs, or let them go."""
        self._runner.close(cancel=cancel)

    def watch(self) -> None:
        """Note from now on which attempts the engine takes, and how long its `stop` takes."""
        launch, stop = self._runner.launch, self._runner.stop

        def launched(attempts: Sequence[Attempt]) -> Mapping[str, str | Exception]:
            answers = launch(attempts)
            self._taken.update(key for key, each in answers.items() if isinstance(each, str))
            return answers

        def stopped() -> None:
            began = own_time()
            try:
                stop()
            finally:
                self._stop_s = own_time() - began
                self._stopped.set()

        vars(self._runner).update(launch=launched, stop=stopped)

    def taken(self) -> int:
        """Return how many attempts the engine has taken since it is watched."""
        return len(self._taken)

    def leave(self, limit_s: float) -> float | None:
        """Close the runner and let its jobs go; return how long `stop` took, if it was in time."""
        self.close(cancel=False)
        return self._stop_s if self._stopped.wait(limit_s) else None

    def renew(self) -> bool:
        """Ask for the runner again; tell whether it is another object."""
        from crystalmath.quacc import get_runner

        former = self._runner
        self._runner = cast("EngineRunner", get_runner(former.settings.name))
        return former is not self._runner

    def crash(self) -> None:
        """End as a script does that an exception ends."""
        raise _Crash("as the test wanted")

    def changes(self) -> dict[str, list[str]]:
        """Return what of this process is not as it was before it had a runner."""

        def found() -> dict[str, list[str]]:
            return snapshot.differences(self._born, snapshot.take(self._engine))

        # A thread may be within `warnings.catch_warnings`, which puts it back.
        within(lambda: not any(found().values()), SETTLE_S)
        return found()

    def note_passing(self, home: str, folder: str) -> None:
        """Note from now on what is changed for a moment, and files elsewhere than they may be."""
        from crystalmath.testing.watching import PassingChanges

        self._passing = PassingChanges(home, folder)

    def passing(self) -> dict[str, Any]:
        """Return what was noted, and which temporary files were made outside TMPDIR, and where."""
        found = {topic: list(found) for topic, found in self._passing.found.items()}
        return {**found, "temporary": self._passing.temporary}

    def start_child(self) -> None:
        """Start a process that ends at once, of which somebody must be told with which code."""
        self._child = subprocess.Popen(["/bin/sh", "-c", f"exit {CHILD_EXITS_WITH}"])

    def child_ended_with(self) -> int:
        """Return its exit code some time after its end; until then it is a visible zombie."""
        time.sleep(ZOMBIE_S)
        return self._child.wait()

    def end_pipe(self) -> str | None:
        """Close one end of an older pipe; return its name if the other does not come to its end."""
        read, write = self._pipe
        name = str(Path(f"/proc/self/fd/{read}").readlink())
        os.close(write)
        has_ended = bool(select.select([read], [], [], PIPE_S)[0])
        os.close(read)
        return None if has_ended else name

    def fork(self) -> None:
        """Fork a child that ends as a script ends, with all that is done then."""
        with warnings.catch_warnings():
            # From Python 3.12 on it is said of each process with threads that a child has none.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            sys.exit()
        deadline = time.monotonic() + CHILD_S
        with contextlib.suppress(ChildProcessError):  # that others collect it is told elsewhere
            while os.waitpid(child, os.WNOHANG) == (0, 0):
                if time.monotonic() > deadline:
                    os.kill(child, signal.SIGKILL)
                time.sleep(0.01)

    def interrupt(self) -> None:
        """Press Ctrl-C, and catch it, as a notebook does."""
        deadline = time.monotonic() + CTRL_C_S
        try:
            os.killpg(0, signal.SIGINT)
            # Not in one go: the signal may wake another thread than this.
            while time.monotonic() < deadline:
                time.sleep(0.01)
        except KeyboardInterrupt:
            pass

    def typed(self) -> str:
        """Read from standard input what is there, up to its end."""
        return sys.stdin.read()

    def surroundings(self) -> dict[str, Any]:
        """Return what jobs may find likewise: cores, limits, and how text becomes bytes."""
        cores = sorted(os.sched_getaffinity(0))
        return {"cores": cores, "limits": snapshot.limits(), "encodings": snapshot.encodings()}

    def threads(self) -> list[str]:
        """Name the threads that are alive and were not before there was a runner."""
        return [thread.name for thread in threading.enumerate() if thread not in self._threads]

    def collect(self) -> None:
        """Let go of what nobody refers to any more, but in circles."""
        gc.collect()

    def _is_unfinished(self, job_id: str) -> bool:
        (attempt,) = self._attempts([job_id])
        return attempt.directory.exists() and not self._runner.has_ended(attempt)

    def _attempts(
        self,
        job_ids: Sequence[str],
        handles: dict[str, str] | None = None,
        terms: dict[str, dict[str, Any]] | None = None,
    ) -> Any:
        from crystalmath.testing.attempts import attempt_of

        home, cluster = self._runner.settings.home, self._cluster
        known, own = handles or {}, terms or {}
        return [
            attempt_of(home, each, known.get(each), cluster=cluster, terms=own.get(each))
            for each in job_ids
        ]


class _Crash(BaseException):
    """What nobody catches."""


def _by_job(attempts: Sequence[Any], answers: Mapping[str, Any]) -> dict[str, Any]:
    jobs = {attempt.id: attempt.job_id for attempt in attempts}
    strange = set(answers) - set(jobs)
    if strange:
        raise ValueError(f"an answer about {strange}, which was not asked about")
    return {jobs[attempt]: answer for attempt, answer in answers.items()}


def _spelt(sighting: Sighting) -> list[str | None]:
    """Return a sighting as JSON has it, once it is known to be one."""
    from crystalmath.models import Sighting

    if not isinstance(sighting, Sighting):
        raise TypeError(f"{sighting!r} is no Sighting")
    if sighting.state not in {"queued", "running", "gone", "unknown"}:
        raise ValueError(f"{sighting!r} has no legal state")
    if not isinstance(sighting.reason, str | None):
        raise TypeError(f"the reason of {sighting!r} is no string")
    return [sighting.state, sighting.reason]


def _main() -> None:
    engine, cluster, number = sys.argv[1:]
    # Else what the engine starts would keep it open.
    os.set_inheritable(int(number), False)  # noqa: FBT003 - the only form
    owner = OwnerProcess(engine, cluster)
    with Connection(int(number)) as line, contextlib.suppress(EOFError, ConnectionResetError):
        line.send_bytes(b"it is born")
        while True:
            method, arguments, keywords = json.loads(line.recv_bytes())
            try:
                answer = {"answer": getattr(owner, method)(*arguments, **keywords)}
            except Exception as error:  # noqa: BLE001 - whatever it is, the test shall see it
                answer = {"error": f"{_kind(error)}: {error}", "traceback": _trace(error)}
            line.send_bytes(json.dumps(answer, default=str).encode())


def _kind(error: BaseException) -> str:
    """Name an error; one of an author's own that core takes for another has that one's name."""
    from crystalmath.errors import EngineUnavailable

    return (EngineUnavailable if isinstance(error, EngineUnavailable) else type(error)).__name__


def _trace(error: BaseException) -> str:
    """Return a traceback without the frames of this module above it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace))


if __name__ == "__main__":
    _main()
