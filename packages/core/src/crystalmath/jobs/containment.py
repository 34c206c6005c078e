"""What holds the processes of a job together when their supervisor has been killed.

A claim says what that is: ``{"cgroup": PATH}``, a control group that is ended from here, or
``{"guardian": [PID, START TIME]}``, a process that ends them itself and is waited for.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from crystalmath import processes
from crystalmath.jobs.cgroups import ControlGroup

if TYPE_CHECKING:
    from collections.abc import Mapping


def end_contained(containment: Mapping[str, Any], limit_s: float) -> bool:
    """End what a supervisor of this host, which is dead, has left alive.

    Parameters
    ----------
    containment : mapping
        As its claim says.
    limit_s : float
        How long to wait, in seconds.

    Returns
    -------
    bool
        Whether nobody is left.
    """
    if "cgroup" in containment:
        return ControlGroup(containment["cgroup"]).end(limit_s)
    if "guardian" in containment:
        deadline = time.monotonic() + limit_s
        while processes.is_alive(*containment["guardian"]):
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.01)
    return True
