"""A recipe of CrystalMath's own that reports the node on which it runs."""

from __future__ import annotations

import os
import platform
import re
import socket
import sys
import time
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING, Any

from attrs import asdict

from crystalmath import build_version, entry_points_of
from crystalmath.engines.registry import ENGINES
from crystalmath.preflight.programs_here import conditions

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

_CORE = "crystalmath"


def probe_job() -> dict[str, Any]:
    """Return the versions, cores and programs that a job has on its node.

    Returns
    -------
    dict
        ``host``; ``cores``, the number that it may use; ``python`` and ``prefix``; ``versions`` of
        ``crystalmath``, ``quacc`` and ``ase``, ``None`` if one is missing; ``engines``, for each
        installed engine the versions of its distribution and of that one's requirements; ``time``,
        the node's clock in seconds since the epoch; ``directory``, the working directory; and
        ``conditions`` of programs, each a dict of ``name``, ``ok``, ``message`` and ``remedy``.
    """
    return {
        "host": socket.gethostname(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "prefix": sys.prefix,
        "versions": {
            _CORE: build_version(),
            "quacc": _version("quacc"),
            "ase": _version("ase"),
        },
        "engines": {entry.name: _versions(entry) for entry in entry_points_of(ENGINES)},
        "time": time.time(),
        "directory": os.getcwd(),
        "conditions": [asdict(each) for each in conditions(os.environ)],
    }


def _versions(engine: EntryPoint) -> dict[str, str | None]:
    """Return the versions of an engine's distribution and of its libraries, such as Parsl."""
    if engine.dist is None or engine.dist.name == _CORE:
        return {}
    try:
        of_core = {_canonical(each) for each in requires(_CORE) or ()}
    except PackageNotFoundError:
        of_core = set()
    needed = [each for each in engine.dist.requires or () if "extra ==" not in each]
    own = {engine.dist.name, *(map(_name, needed))}
    names = sorted(name for name in own if _canonical(name) not in {*of_core, _CORE})
    return {name: _version(name) for name in names}


def _name(requirement: str) -> str:
    """Return the name in ``psij-python>=0.9.11,<0.10``."""
    name = re.match(r"[\w.-]+", requirement)
    return name[0] if name else requirement


def _canonical(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", _name(requirement)).lower()


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
