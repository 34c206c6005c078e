"""PSI/J's executor for this host, so that the user's process keeps its signals and threads."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from psij.executors.local import LocalJobExecutor

__all__ = ["Reaper", "local_executor"]

#: How often it is looked whether a process has ended, in seconds.
LOOK_S = 0.05


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
        with self._lock:
            self._entries.append(entry)
            if self._works:
                return
            self._works = True
        threading.Thread(target=self._work, name="crystalmath-psij", daemon=True).start()

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
    """Make the executor; its launcher scripts lie below a directory of ours.

    Parameters
    ----------
    directory : pathlib.Path
        PSI/J would use ``~/.psij``.
    reaper : Reaper
        Notices the ends.
    """
    # Imported by the main thread, it would take SIGCHLD for itself; by another one it warns.
    importer = threading.Thread(target=_import, name="crystalmath-psij-import", daemon=True)
    importer.start()
    importer.join()
    from psij import JobExecutor, JobExecutorConfig
    from psij.executors.local import LocalJobExecutor

    class Executor(LocalJobExecutor):  # type: ignore[misc]  # may be missing
        def __init__(self) -> None:
            # Past its parent's, which starts a thread.
            JobExecutor.__init__(self, config=JobExecutorConfig(work_directory=directory))
            self._reaper: Any = reaper

    return Executor()


def _import() -> None:
    log = logging.getLogger("psij.executors.local")
    before, log.disabled = log.disabled, True
    try:
        import psij.executors.local  # noqa: F401
    finally:
        log.disabled = before
