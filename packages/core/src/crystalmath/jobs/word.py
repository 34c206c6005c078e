"""What an engine's word about an attempt is worth.

Pure functions, as all of :mod:`crystalmath.jobs.life`, which they are a part of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crystalmath.jobs.facts import Engine


def is_gone(engine: Engine) -> bool:
    """Return whether the engine will not start an attempt any more."""
    return engine.sighting is not None and engine.sighting.state == "gone"


def is_over(engine: Engine) -> bool:
    """Return whether the engine vouches that nothing of an attempt is alive."""
    sighting = engine.sighting
    seen = sighting is not None and sighting.state == "gone" and not sighting.unseen
    return seen and engine.capabilities.gone_means_dead


def is_fatal(engine: Engine) -> bool:
    """Return whether an attempt is over in a way that another one would meet, too."""
    return is_over(engine) and engine.sighting is not None and engine.sighting.fatal


def told(engine: Engine) -> str:
    """Return why the engine has ended an attempt."""
    reason = (engine.sighting.reason if engine.sighting else None) or "it is gone"
    return f"the engine ended it: {reason}"


def vouches_for_end(engine: Engine) -> bool:
    """Return whether an attempt without claim, and without processes on this host, has none at all.

    There is no heart to wait for where the engine has lost sight of a host.
    """
    can = engine.capabilities
    return (can.workers_here and engine.asked) or (can.gone_means_dead and is_gone(engine))
