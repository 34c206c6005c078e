"""Import PSI/J so that it takes no signal of the process, and prints no warning."""

from __future__ import annotations

import importlib
import logging
import threading


def import_psij() -> None:
    """Import PSI/J on a thread; call this before any other import of it.

    Imported on the main thread, PSI/J would take SIGCHLD for itself. On another thread it warns.
    """
    importer = threading.Thread(target=_import, name="crystalmath-psij-import", daemon=True)
    importer.start()
    importer.join()


def _import() -> None:
    log = logging.getLogger("psij.executors.local")
    before, log.disabled = log.disabled, True
    try:
        importlib.import_module("psij.executors.local")
    finally:
        log.disabled = before
