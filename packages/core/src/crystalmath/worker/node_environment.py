"""Variables that a cluster's own commands (``worker_init``) set on a node for its jobs."""

from __future__ import annotations

import base64
import binascii
import os
from typing import TYPE_CHECKING

from crystalmath import config

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Variable of a worker with the forwarded variables before those commands (``env -0``), in base64.
#: The batch system has copied them from the server's environment, which jobs must not get.
BEFORE = "CRYSTALMATH_BEFORE_INIT"
#: Additions of the commands to these variables come before the submitter's value.
_LISTS = ("PATH", "LD_LIBRARY_PATH")
#: As in :data:`crystalmath.config.DEFAULT_FORWARD`, for grep.
_FAMILIES = "|".join(
    f"{pattern[:-1]}[^=]*=" if pattern.endswith("*") else f"{pattern}="
    for pattern in config.DEFAULT_FORWARD
)


def init_script(commands: str) -> str:
    """Return a cluster's ``worker_init`` as lines of a script whose variables reach the jobs.

    The script first records the variables of before, since the batch system brings along the
    server's environment, which the worker keeps from jobs.

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
    # There is always a PATH, so an empty record means that the node lacks the commands for it.
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
        environ = os.fsdecode(base64.b64decode(text, validate=True))
    except binascii.Error:
        return {}
    pairs = (entry.partition("=") for entry in environ.split("\0") if entry)
    return {name: value for name, _, value in pairs}
