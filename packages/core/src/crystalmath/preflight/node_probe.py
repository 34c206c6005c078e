"""A recipe that tells what a job finds where it runs: the one that is not quacc's or the user's."""

from __future__ import annotations

import os
import platform
import socket
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from attrs import asdict

from crystalmath import __version__
from crystalmath.preflight.programs_here import conditions

__all__ = ["probe_job"]


def probe_job() -> dict[str, Any]:
    """Tell what a job finds on its node.

    Returns
    -------
    dict
        ``host``; ``cores``, how many it may use; ``python`` and ``prefix``; ``versions`` of
        ``crystalmath``, ``quacc`` and ``ase``, ``None`` where one is missing; ``time``, the node's
        clock in seconds since the epoch; ``directory``, where it ran; and ``conditions``, what
        programs find there, each as a dict of ``name``, ``ok``, ``message`` and ``remedy``.
    """
    return {
        "host": socket.gethostname(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "prefix": sys.prefix,
        "versions": {
            "crystalmath": __version__,
            "quacc": _version("quacc"),
            "ase": _version("ase"),
        },
        "time": time.time(),
        "directory": os.getcwd(),
        "conditions": [asdict(each) for each in conditions(os.environ)],
    }


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
