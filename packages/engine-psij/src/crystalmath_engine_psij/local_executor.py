"""PSI/J's executor for this host, so that the user's process keeps its signals and threads."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from crystalmath_engine_psij.quiet_import import import_psij

if TYPE_CHECKING:
    from pathlib import Path

    from psij import Job
    from psij.executors.local import LocalJobExecutor

#: How often it is looked whether a process has ended, in seconds.
LOOK_S = 0.05
#: Starts a command with its standard error in a file. PSI/J's scripts do not quote the names of
#: files, and fail where one has a blank.
_START = 'exec "$@" </dev/null >/dev/null 2>"$0"'


class Reaper:
    """Notice the ends of processes, on a thread that ends with the last of them or with us.

    PSI/J's own thread goes on for ever.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: list[Any] = []
        self._works = False
        self._stopped = threading.Event()

    def register(self, entry: Any) -> None:
        """Follow a process of PSI/J's."""
        if entry.process.stdout is not None:
            # Nothing comes through it, and a job that is let go would keep it open.
            entry.process.stdout.close()
            entry.process.stdout = None
        with self._lock:
            self._entries.append(entry)
            if not self._works:
                # Where it cannot be started, it is tried again with the next process.
                threading.Thread(target=self._work, name="crystalmath-psij", daemon=True).start()
                self._works = True

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()

    def _work(self) -> None:
        while not self._stopped.wait(LOOK_S):
            for entry in list(self._entries):
                entry.exit_code, entry.out = entry.poll()
                if entry.exit_code is not None:
                    self._entries.remove(entry)
                    # What follows may start the next.
                    entry.executor._process_done(entry)  # noqa: SLF001 - in PSI/J's reaper's place
            with self._lock:
                if not self._entries:
                    self._works = False
                    return


def local_executor(directory: Path, reaper: Reaper) -> LocalJobExecutor:
    """Make the executor, which starts processes without PSI/J's launcher scripts.

    PSI/J may write in `directory`; it would use ``~/.psij``. `reaper` notices the ends.
    """
    import_psij()
    from psij import JobExecutor, JobExecutorConfig, Launcher
    from psij.executors.local import LocalJobExecutor

    class Start(Launcher):  # type: ignore[misc]
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
            del output  # what cannot start says so in the file
            return False

        def get_launcher_failure_message(self, output: str) -> str:
            return output

    class Executor(LocalJobExecutor):  # type: ignore[misc]  # may be missing
        def __init__(self) -> None:
            # Past its parent's, which starts a thread.
            JobExecutor.__init__(self, config=JobExecutorConfig(work_directory=directory))
            self._reaper: Any = reaper

        def _get_launcher(self, name: str, version_constraint: str | None = None) -> Launcher:
            del name, version_constraint
            return Start(self.config)

    return Executor()
