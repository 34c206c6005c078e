"""The variables that a cluster's own commands (``worker_init``) have set on a node for its jobs."""

from __future__ import annotations

import base64
import binascii
import os
from typing import TYPE_CHECKING

from crystalmath import config

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Variable of a worker: what reaches jobs of what was set before those commands (``env -0``), in
#: base64. The batch system has brought it from the server's environment, which is no job's.
BEFORE = "CRYSTALMATH_BEFORE_INIT"
#: Of these jobs get what the commands have added, before their submitter's.
_LISTS = ("PATH", "LD_LIBRARY_PATH")
#: As in :data:`crystalmath.config.DEFAULT_FORWARD`, for grep.
_FAMILIES = "|".join(
    f"{pattern[:-1]}[^=]*=" if pattern.endswith("*") else f"{pattern}="
    for pattern in config.DEFAULT_FORWARD
)


def init_script(commands: str) -> str:
    """Write a cluster's ``worker_init`` as a script has it: what it sets reaches the jobs.

    The worker could not tell these variables from the server's environment that the batch system
    brings along, and keeps all of that from jobs.

    Parameters
    ----------
    commands : str
        The shell commands; empty if there are none.
    """
    if not commands.strip():
        return ""
    before = f"env -0 | grep -zE '^({_FAMILIES})' | base64 -w0"
    return f'export {BEFORE}="$({before})"\n{commands.rstrip()}\n'


def with_init(forwarded: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a job with those that its cluster's commands have set on the node.

    The job's own variables stay. Additions to ``PATH`` and ``LD_LIBRARY_PATH`` come first.
    """
    # Empty where the node lacks the command that writes it down: there is always a PATH.
    before = _before(environ.get(BEFORE, ""))
    if not before:
        return dict(forwarded)
    now = config.forwarded(config.DEFAULT_FORWARD, environ)
    there = {name: value for name, value in now.items() if before.get(name) != value}
    made = {**there, **forwarded}
    for name in _LISTS:
        if name in there and name in forwarded:
            known = before.get(name, "").split(os.pathsep)
            added = [each for each in there[name].split(os.pathsep) if each not in known]
            own = [each for each in forwarded[name].split(os.pathsep) if each not in added]
            made[name] = os.pathsep.join([*added, *own])
    return made


def _before(text: str) -> dict[str, str]:
    try:
        told = os.fsdecode(base64.b64decode(text, validate=True))
    except binascii.Error:
        return {}
    pairs = (entry.partition("=") for entry in told.split("\0") if entry)
    return {name: value for name, _, value in pairs}
