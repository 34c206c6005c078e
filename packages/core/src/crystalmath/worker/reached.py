"""How far a job had come whose time was up, as a part of its error."""

from __future__ import annotations

from pathlib import Path

from crystalmath.jobs.piecewise import at_once


def reached(work: str) -> str:
    """Return what the newest calculation of a job has written last.

    Parameters
    ----------
    work : str
        The work directory.

    Returns
    -------
    str
        A line to be appended; empty where nothing is known.
    """
    # Few jobs come here, and every supervisor is waited for while it imports.
    from crystalmath.progress.readers import AseLog, AseMdLog, Oszicar, PwOutput
    from crystalmath.progress.search import read_progress

    # Those of plugins are not asked: a supervisor runs nobody else's code.
    own = (Oszicar(), PwOutput(), AseLog(), AseMdLog())
    readers = {reader.file: reader for reader in own}
    try:
        progress = at_once(read_progress(Path(work), readers))
    except Exception:  # noqa: BLE001 - whatever lies there, the job's end is to be told
        return ""
    return "" if progress is None else f"\nwhat it had reached: {progress}"
