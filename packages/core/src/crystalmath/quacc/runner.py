"""The interface of an engine for callers: its states, its runner, and `get_runner`."""

from __future__ import annotations

from crystalmath.engines.job_runner import JobRunner, generate_job_id
from crystalmath.models import JobState

__all__ = ["JobRunner", "JobState", "generate_job_id", "get_runner"]


def get_runner(engine: str) -> JobRunner:
    """Return this process's runner of an engine, the same object at every call.

    Parameters
    ----------
    engine : str
        The engine's name, as ``crystalmath engines`` lists it.

    Raises
    ------
    ValueError
        No installed plugin provides the engine; the message names those that are installed.
    ImportError
        The plugin is installed and cannot load; its own error is chained.
    """
    from crystalmath.quacc.engines import runner_for

    return runner_for(engine)
