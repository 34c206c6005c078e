"""Run quacc recipes on any installed engine."""

from crystalmath.quacc.runner import JobRunner, JobState, get_runner

__all__ = ["JobRunner", "JobState", "get_runner"]
