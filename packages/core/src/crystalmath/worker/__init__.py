"""The only code of ours that runs where the engine's workers are.

An engine's worker calls :func:`crystalmath.worker.run`, which uses a chain of processes::

    engine worker -> supervisor -> runner -> whatever the recipe starts

The supervisor (:mod:`crystalmath.worker.supervisor`) claims attempts, watches, kills and publishes;
the runner (:mod:`crystalmath.worker.runner`) is warm: it was forked from a template that has
imported quacc, and runs one recipe after another. Template, runner and all their descendants are
in a control group. If the machine allows none, a guardian process is between worker and supervisor.
"""

from crystalmath.worker.chains import run, warm
from crystalmath.worker.child import become_subreaper
from crystalmath.worker.node_environment import init_script
from crystalmath.worker.starting import end_with_parent
from crystalmath.worker.time_left import ENDS, least_left

__all__ = [
    "ENDS",
    "become_subreaper",
    "end_with_parent",
    "init_script",
    "least_left",
    "run",
    "warm",
]
