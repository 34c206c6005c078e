"""PSI/J's executor for this host, made to leave the signals and threads of the process alone."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from crystalmath_engine_psij.quiet_import import import_psij

if TYPE_CHECKING:
    from pathlib import Path

    from psij import Job
    from psij.executors.local import LocalJobExecutor

#: How often the processes are polled for their ends, in seconds.
LOOK_S = 0.05
#: A shell command that starts a program with its standard error in a file. PSI/J's own scripts
#: fail if the name of a file has a blank.
_START = 'exec "$@" </dev/null >/dev/null 2>"$0"'


class Reaper:
    """A thread that notices the ends of processes, and itself ends with the last of them.

    PSI/J's own thread never ends.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: list[Any] = []
        self._works = False
        self._stopped = threading.Event()

    def register(self, entry: Any) -> None:
        """Follow a process of PSI/J's."""
        if entry.process.stdout is not None:
            # Nothing is written to it, and a job that goes on without us would keep it open.
            entry.process.stdout.close()
            entry.process.stdout = None
        with self._lock:
            self._entries.append(entry)
            if not self._works:
                # If this fails, the next process tries again.
                threading.Thread(target=self._work, name="crystalmath-psij", daemon=True).start()
                self._works = True

    def stop(self) -> None:
        """Stop polling."""
        self._stopped.set()

    def _work(self) -> None:
        while not self._stopped.wait(LOOK_S):
            for entry in list(self._entries):
                entry.exit_code, entry.out = entry.poll()
                if entry.exit_code is not None:
                    self._entries.remove(entry)
                    # This may start the next job.
                    entry.executor._process_done(entry)  # noqa: SLF001 - as PSI/J's reaper does
            with self._lock:
                if not self._entries:
                    self._works = False
                    return


def local_executor(directory: Path, reaper: Reaper) -> LocalJobExecutor:
    """Make the executor, which starts processes without PSI/J's launcher scripts.

    PSI/J writes into `directory` in place of ``~/.psij``. `reaper` notices the ends of processes.
    """
    import_psij()
    from psij import JobExecutor, JobExecutorConfig, Launcher
    from psij.executors.local import LocalJobExecutor

    class Start(Launcher):  # type: ignore[misc]  # PSI/J may be missing
        def get_launch_command(self, job: Job) -> list[str]:
            spec = job.spec
            return [
                "/bin/sh",
                "-c",
                _START,
                str(spec.stderr_path),
                spec.executable,
                *spec.arguments,
            ]

        def is_launcher_failure(self, output: str) -> bool:
            del output  # the file has the error of a program that cannot start
            return False

        def get_launcher_failure_message(self, output: str) -> str:
            return output

    class Executor(LocalJobExecutor):  # type: ignore[misc]  # PSI/J may be missing
        def __init__(self) -> None:
            # The parent's own method would start a thread.
            JobExecutor.__init__(self, config=JobExecutorConfig(work_directory=directory))
            self._reaper: Any = reaper

        def _get_launcher(self, name: str, version_constraint: str | None = None) -> Launcher:
            del name, version_constraint
            return Start(self.config)

    return Executor()
