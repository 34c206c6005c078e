"""A process that owns jobs and answers messages; :mod:`~crystalmath.testing.owner` sends them.

Started as ``python -P -m crystalmath.testing.owner_process ENGINE CLUSTER NUMBER``, with the number
of a socket, so that the engine's standard output is no answer. Each call is a message ``[method,
arguments, keywords]``. Each answer is ``{"answer": ...}`` or ``{"error": ..., "traceback": ...}``,
as JSON.
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

from crystalmath.processes import inherited
from crystalmath.testing import snapshot
from crystalmath.testing.owner import CHILD_EXITS_WITH, NOTE, RECIPES
from crystalmath.testing.waiting import own_time, within

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from crystalmath.models import Attempt, Sighting
    from crystalmath.quacc.engine import EngineRunner

#: How long a setting may differ until a thread restores it, in seconds.
SETTLE_S = 2.0
#: How long an ended child stays a zombie before its exit code is read, in seconds.
ZOMBIE_S = 0.5
#: How long a pipe may take to come to its end, in seconds: a process that is about to execute its
#: program still has its parent's descriptors.
PIPE_S = 10.0
#: How long a child may take to end, and how long to wait for an interrupt, in seconds. An engine
#: may have taken the signal for itself.
CHILD_S, CTRL_C_S = 30.0, 5.0

if __name__ == "__mp_main__" and NOTE in os.environ:
    # A worker of `multiprocessing` runs its owner's script again, under this name.
    Path(os.environ[NOTE]).touch()


class OwnerProcess:
    """The methods that a test can call in the process."""

    def __init__(self, engine: str, cluster: str) -> None:
        from crystalmath.quacc import get_runner

        self._engine = engine
        self._pipe = os.pipe()
        self._born = snapshot.take(engine)
        # Threads that Python itself has started are not the engine's.
        self._threads = set(threading.enumerate())
        self._cluster = cluster
        self._launched: set[str] = set()
        self._taken: set[str] = set()
        self._stopped, self._stop_s = threading.Event(), 0.0
        self._runner = cast("EngineRunner", get_runner(engine))

    def submit(self, recipe: str, times: int = 1, /, **parameters: Any) -> list[str]:
        """Submit a recipe of the kit, or one with its full name, a number of times."""
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
        """Launch attempts directly; return ``{job id: handle}``, without recording any handle.

        Like core, it keeps at most `max_queued` unfinished ones with the engine. `terms` has the
        terms of some jobs.
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
        """Probe attempts directly; return ``{job id: [state, reason]}``."""
        attempts = self._attempts(job_ids, handles, terms)
        seen = _by_job(attempts, self._runner.probe(attempts))
        answers = {job_id: _spelt(sighting) for job_id, sighting in seen.items()}
        self._launched -= {job_id for job_id, (state, _) in answers.items() if state == "gone"}
        return {attempt.job_id: ["unknown", None] for attempt in attempts} | answers

    def release(
        self, job_ids: Sequence[str], terms: dict[str, dict[str, Any]] | None = None
    ) -> None:
        """Release attempts directly."""
        attempts = self._attempts(job_ids, terms=terms)
        self._runner.release(attempts)
        # Core would have cancelled them, so those that have not begun never will.
        self._launched -= {each.job_id for each in attempts if not self._runner.has_begun(each)}

    def stop(self) -> None:
        """Stop the engine directly."""
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
        """Record from now on which attempts the engine takes, and how long its `stop` takes."""
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
        """Return how many attempts the engine has taken since `watch`."""
        return len(self._taken)

    def leave(self, limit_s: float) -> float | None:
        """Close the runner and let its jobs go; return the duration of `stop`, if in time."""
        self.close(cancel=False)
        return self._stop_s if self._stopped.wait(limit_s) else None

    def renew(self) -> bool:
        """Get the runner again; return whether it is another object."""
        from crystalmath.quacc import get_runner

        former = self._runner
        self._runner = cast("EngineRunner", get_runner(former.settings.name))
        return former is not self._runner

    def crash(self) -> None:
        """End as a script that raises."""
        raise _Crash("as the test wanted")

    def changes(self) -> dict[str, list[str]]:
        """Return the changes of this process since before it had a runner, by topic."""

        def differences() -> dict[str, list[str]]:
            return snapshot.differences(self._born, snapshot.take(self._engine))

        # A thread may be within `warnings.catch_warnings`, which restores the filters.
        within(lambda: not any(differences().values()), SETTLE_S)
        return differences()

    def note_passing(self, home: str, folder: str) -> None:
        """Record from now on changes that last a moment, and files in places where none may be."""
        from crystalmath.testing.watching import PassingChanges

        self._passing = PassingChanges(home, folder)

    def passing(self) -> dict[str, Any]:
        """Return the recorded changes, and the temporary files outside TMPDIR with their makers."""
        changes = {topic: list(texts) for topic, texts in self._passing.changes.items()}
        return {**changes, "temporary": self._passing.temporary}

    def start_child(self) -> None:
        """Start a process that ends at once, and whose exit code is then a zombie's."""
        self._child = subprocess.Popen(["/bin/sh", "-c", f"exit {CHILD_EXITS_WITH}"])

    def child_ended_with(self) -> int:
        """Return its exit code some time after its end; until then it is a visible zombie."""
        time.sleep(ZOMBIE_S)
        return self._child.wait()

    def end_pipe(self) -> str | None:
        """Close the writing end of an older pipe; return its name if another process has it."""
        read, write = self._pipe
        name = str(Path(f"/proc/self/fd/{read}").readlink())
        os.close(write)
        has_ended = bool(select.select([read], [], [], PIPE_S)[0])
        os.close(read)
        return None if has_ended else name

    def fork(self) -> None:
        """Fork a child that ends as a script ends, with its exit functions."""
        with warnings.catch_warnings():
            # Python 3.12 and later warn if a process with threads forks.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            sys.exit()
        deadline = time.monotonic() + CHILD_S
        with contextlib.suppress(ChildProcessError):  # another test finds who else waits for it
            while os.waitpid(child, os.WNOHANG) == (0, 0):
                if time.monotonic() > deadline:
                    os.kill(child, signal.SIGKILL)
                time.sleep(0.01)

    def interrupt(self) -> None:
        """Press Ctrl-C, and catch it, as a notebook does."""
        deadline = time.monotonic() + CTRL_C_S
        try:
            os.killpg(0, signal.SIGINT)
            # In short pauses, because the signal may wake another thread.
            while time.monotonic() < deadline:
                time.sleep(0.01)
        except KeyboardInterrupt:
            pass

    def typed(self) -> str:
        """Read standard input to its end."""
        return sys.stdin.read()

    def surroundings(self) -> dict[str, Any]:
        """Return the cores, limits and encodings of this process, which jobs may have as well."""
        cores = sorted(os.sched_getaffinity(0))
        return {"cores": cores, "limits": snapshot.limits(), "encodings": snapshot.encodings()}

    def threads(self) -> list[str]:
        """Return the names of the live threads that were not there before the runner."""
        return [thread.name for thread in threading.enumerate() if thread not in self._threads]

    def collect(self) -> None:
        """Collect garbage, which may hold descriptors and files."""
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
    """An exception that no code catches."""


def _by_job(attempts: Sequence[Any], answers: Mapping[str, Any]) -> dict[str, Any]:
    jobs = {attempt.id: attempt.job_id for attempt in attempts}
    strange = set(answers) - set(jobs)
    if strange:
        raise ValueError(f"an answer about {strange}, which was not asked about")
    return {jobs[attempt]: answer for attempt, answer in answers.items()}


def _spelt(sighting: Sighting) -> list[str | None]:
    """Return a sighting for JSON; raise an error if it is none."""
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
    # Processes of the engine must not keep it open.
    descriptor = inherited(int(number))
    owner = OwnerProcess(engine, cluster)
    with Connection(descriptor) as line, contextlib.suppress(EOFError, ConnectionResetError):
        line.send_bytes(b"it is born")
        while True:
            method, arguments, keywords = json.loads(line.recv_bytes())
            try:
                answer = {"answer": getattr(owner, method)(*arguments, **keywords)}
            except Exception as error:  # noqa: BLE001 - the test raises it
                answer = {"error": f"{_kind(error)}: {error}", "traceback": _trace(error)}
            line.send_bytes(json.dumps(answer, default=str).encode())


def _kind(error: BaseException) -> str:
    """Return the name of an error's class; a subclass of `EngineUnavailable` has that name."""
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
