"""A process of its own that owns jobs: asked in lines of JSON, and killed when a test wants it.

It carries a mark, and so does what it starts: what is left of it can be found.

Started as ``python -P -m crystalmath.testing.owner ENGINE CLUSTER QUESTIONS ANSWERS``, with the
numbers of two pipes: what the engine writes to standard output is then no answer. Each question is
a line ``[method, arguments, keywords]``; each answer a line ``{"answer": ...}`` or
``{"error": ..., "traceback": ...}``.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import weakref
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

from crystalmath.testing import snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import IO

    import psutil

    from crystalmath.models import Sighting
    from crystalmath.quacc.engine import EngineRunner

__all__ = ["MARK", "Owner", "OwnerError"]

#: The environment variable that marks it.
MARK = "CRYSTALMATH_KIT"
RECIPES = "crystalmath.testing.recipes"
#: How often a process that does not answer is looked at, in seconds.
_TICK = 0.5
#: How much is told of what it wrote, in characters.
_TAIL = 5000


class OwnerError(AssertionError):
    """The process raised, ended, or did not answer; its message, and its traceback below."""


class Owner:
    """The test's side of such a process.

    Parameters
    ----------
    engine : str
        The engine's name.
    environment : dict
        The whole environment of the process.
    errors : pathlib.Path, optional
        Takes its standard error.
    cluster : str
        Where its jobs go.
    folder : pathlib.Path, optional
        Its working directory, if not the test's own.

    Attributes
    ----------
    patience_s : float
        How long an answer may take, in seconds; then the process is killed.
    """

    #: All of this process that are still referred to.
    made: ClassVar[weakref.WeakSet[Owner]] = weakref.WeakSet()

    def __init__(
        self,
        engine: str,
        environment: dict[str, str],
        errors: Path | None = None,
        cluster: str = "local",
        folder: Path | None = None,
    ) -> None:
        self.patience_s = 120.0
        self._mark = environment.get(MARK, "") + secrets.token_hex(8)
        self._started: list[psutil.Process] = []
        # Files, as a full pipe would stop the engine.
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as this
        self._errors = tempfile.TemporaryFile() if errors is None else errors.open("w+b")  # noqa: SIM115
        self._read = dict.fromkeys((self._output, self._errors), 0)
        for file in self._read:
            weakref.finalize(self, file.close)
        asked, self._questions = os.pipe()
        self._answers, answered = os.pipe()
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, engine, cluster, str(asked), str(answered)],
                env={**environment, MARK: self._mark},
                cwd=folder,
                pass_fds=(asked, answered),
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._errors,
                start_new_session=True,
            )
        finally:
            os.close(asked)
            os.close(answered)
        self._unread = b""
        Owner.made.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    @property
    def closed(self) -> bool:
        """Whether the process has ended."""
        return self.process.poll() is not None

    def ask(self, method: str, *arguments: Any, **keywords: Any) -> Any:
        """Have a method of :class:`_Owner` called over there."""
        self.tell(method, *arguments, **keywords)
        return self.hear(method)

    def tell(self, method: str, *arguments: Any, **keywords: Any) -> None:
        """Ask without waiting for the answer, which :meth:`hear` gives."""
        question = json.dumps([method, arguments, keywords]) + "\n"
        try:
            os.write(self._questions, question.encode())
        except OSError:
            code = self.process.wait()
            raise OwnerError(f"the process ended with {code} before {method!r}") from None

    def hear(self, method: str) -> Any:
        """Wait for the answer to what was asked last."""
        deadline = time.monotonic() + self.patience_s
        while b"\n" not in self._unread:
            # What it forked may hold its end of the pipe: look at the process, too.
            ended = self.process.poll() is not None
            if select.select([self._answers], [], [], 0 if ended else _TICK)[0]:
                more = os.read(self._answers, 2**16)
                self._unread += more
                ended = not more
            if ended:
                raise OwnerError(f"the process ended with {self.process.wait()} during {method!r}")
            if time.monotonic() > deadline:
                self.kill()
                raise OwnerError(f"{method!r} gave no answer in {self.patience_s:g} s")
        line, _, self._unread = self._unread.partition(b"\n")
        answer = json.loads(line)
        if "error" in answer:
            raise OwnerError(f"{answer['error']}\n\n{answer['traceback']}".rstrip())
        return answer["answer"]

    @property
    def output(self) -> str:
        """What it wrote to standard output."""
        return _text(self._output, 0)

    def news(self) -> tuple[str, str]:
        """Give what it wrote to standard output and to standard error since this was asked last."""
        told = tuple(_text(file, self._read[file]) for file in (self._output, self._errors))
        self._read = {file: os.fstat(file.fileno()).st_size for file in self._read}
        return told[0], told[1]

    def told(self) -> list[str]:
        """Put into words what it wrote since this or :meth:`news` was asked last."""
        output, errors = (text.strip() for text in self.news())
        found = [f"your engine wrote `{output[-_TAIL:]}` to standard output"] if output else []
        if errors:
            found.append(f"standard error of the process {self.process.pid}:\n{errors[-_TAIL:]}")
        return found

    def has_answered(self) -> bool:
        """Tell whether :meth:`hear` would not wait."""
        return bool(select.select([self._answers], [], [], 0)[0])

    def kill(self) -> None:
        """Kill it (SIGKILL), and nothing else."""
        if self.process.poll() is None:
            # Else what it starts now would not be known.
            self.process.send_signal(signal.SIGSTOP)
            self._started = self.children()
        self.process.kill()
        self._reap()

    def children(self) -> list[psutil.Process]:
        """List the processes that descend from it."""
        import psutil

        found: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            found = psutil.Process(self.process.pid).children(recursive=True)
        return found

    def others(self) -> list[psutil.Process]:
        """List what is alive of that which it has started, whether it is alive itself or not."""
        from crystalmath.testing.oracle import alive, living

        descended = self.children() + [each for each in self._started if each.is_running()]
        left = {process.pid: process for process in living(MARK, self._mark) + descended}
        left.pop(self.process.pid, None)
        return [left[pid] for pid in alive(left)]

    def leave(self, timeout: float = 60.0) -> int:
        """Have it end as a script ends; give its exit code."""
        self._hang_up()
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise OwnerError(
                f"the script did not end in {timeout:g} s: does a thread of the engine's, which is "
                "no daemon, keep it alive?"
            ) from None
        finally:
            self.kill()

    def _reap(self) -> None:
        self._hang_up()
        if self._answers >= 0:
            os.close(self._answers)
            self._answers = -1
        self.process.wait()

    def _hang_up(self) -> None:
        if self._questions >= 0:
            os.close(self._questions)
            self._questions = -1


def _text(file: IO[bytes], start: int) -> str:
    # It shares its position with the process, which goes on writing.
    size = os.fstat(file.fileno()).st_size - start
    return os.pread(file.fileno(), size, start).decode(errors="replace")


class _Owner:
    """What the process does when it is asked."""

    def __init__(self, engine: str, cluster: str) -> None:
        from crystalmath.quacc import get_runner

        self._born = snapshot.take()
        self._cluster = cluster
        self._runner = cast("EngineRunner", get_runner(engine))

    def submit(self, recipe: str, times: int = 1, /, **parameters: Any) -> list[str]:
        """Submit a recipe of the kit, some times."""
        from ase.build import bulk

        return [
            self._runner.submit(f"{RECIPES}.{recipe}", bulk("Al"), self._cluster, **parameters)
            for _ in range(times)
        ]

    def status(self, job_id: str) -> str:
        """Tell a state."""
        return self._runner.get_status(job_id).value

    def result(self, job_id: str) -> Any:
        """Give a result."""
        return self._runner.get_result(job_id)

    def cancel(self, job_id: str) -> bool:
        """Request a cancellation."""
        return self._runner.cancel(job_id)

    def launch(self, job_ids: Sequence[str]) -> dict[str, str]:
        """Hand attempts to the engine past core; ``{job id: handle}``, and none is recorded."""
        attempts = self._attempts(job_ids)
        handles: Mapping[str, Any] = self._runner.launch(attempts)
        wrong = {key: each for key, each in handles.items() if not isinstance(each, str)}
        if wrong:
            raise TypeError(f"these handles are no strings: {wrong}")
        return _by_job(attempts, handles)

    def probe(
        self, job_ids: Sequence[str], handles: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """Ask the engine past core; ``{job id: [state, reason]}``."""
        attempts = self._attempts(job_ids, handles or {})
        seen = _by_job(attempts, self._runner.probe(attempts))
        answers = {job_id: _spelt(sighting) for job_id, sighting in seen.items()}
        return {attempt.job_id: ["unknown", None] for attempt in attempts} | answers

    def release(self, job_ids: Sequence[str]) -> None:
        """Have the engine drop attempts, past core."""
        self._runner.release(self._attempts(job_ids))

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
        """Tell what of this process is not as it was before it had a runner."""
        return snapshot.differences(self._born, snapshot.take())

    def limits(self) -> dict[str, list[int]]:
        """Give this process's limits."""
        return snapshot.limits()

    def encodings(self) -> dict[str, str]:
        """Tell how text becomes bytes here."""
        return snapshot.encodings()

    def threads(self) -> list[str]:
        """Name the threads that are alive, but for the one that asks."""
        return [t.name for t in threading.enumerate() if t is not threading.main_thread()]

    def _attempts(self, job_ids: Sequence[str], handles: dict[str, str] | None = None) -> Any:
        from crystalmath.testing.attempts import attempt_of

        home = self._runner.settings.home
        known = handles or {}
        return [
            attempt_of(home, job_id, known.get(job_id), cluster=self._cluster) for job_id in job_ids
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
    """Give a sighting as JSON has it, once it is known to be one."""
    from crystalmath.models import Sighting

    if not isinstance(sighting, Sighting):
        raise TypeError(f"{sighting!r} is no Sighting")
    if sighting.state not in {"queued", "running", "gone", "unknown"}:
        raise ValueError(f"{sighting!r} has no legal state")
    if not isinstance(sighting.reason, str | None):
        raise TypeError(f"the reason of {sighting!r} is no string")
    return [sighting.state, sighting.reason]


def _main() -> None:
    engine, cluster, asked, answered = sys.argv[1:]
    for pipe in (asked, answered):
        # Else what the engine starts would keep them open.
        os.set_inheritable(int(pipe), False)  # noqa: FBT003 - the only form
    owner = _Owner(engine, cluster)
    with open(int(asked), encoding="utf-8") as questions, open(int(answered), "wb", 0) as answers:  # noqa: PTH123
        for line in questions:
            method, arguments, keywords = json.loads(line)
            try:
                answer = {"answer": getattr(owner, method)(*arguments, **keywords)}
            except Exception as error:  # noqa: BLE001 - whatever it is, the test shall see it
                answer = {"error": f"{_kind(error)}: {error}", "traceback": _trace(error)}
            answers.write(json.dumps(answer, default=str).encode() + b"\n")


def _kind(error: BaseException) -> str:
    """Name an error; one of an author's own that core takes for another bears that one's name."""
    from crystalmath.errors import EngineUnavailable

    return (EngineUnavailable if isinstance(error, EngineUnavailable) else type(error)).__name__


def _trace(error: BaseException) -> str:
    """Give a traceback without the frames of this module above it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace))


if __name__ == "__main__":
    _main()
