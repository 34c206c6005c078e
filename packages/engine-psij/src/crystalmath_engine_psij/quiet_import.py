"""Import PSI/J without what its import does to the process: signals, and words to the user."""

from __future__ import annotations

import logging
import threading


def import_psij() -> None:
    """Import it; whoever needs PSI/J calls this first.

    Imported by the main thread, it would take SIGCHLD for itself; by another one it warns.
    """
    importer = threading.Thread(target=_import, name="crystalmath-psij-import", daemon=True)
    importer.start()
    importer.join()


def _import() -> None:
    log = logging.getLogger("psij.executors.local")
    before, log.disabled = log.disabled, True
    try:
        import psij.executors.local  # noqa: F401
    finally:
        log.disabled = before
