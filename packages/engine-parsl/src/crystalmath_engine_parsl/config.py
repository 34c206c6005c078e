"""What the configuration file says about the Parsl engine; nothing here imports Parsl."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from crystalmath.errors import ConfigError

if TYPE_CHECKING:
    from crystalmath.models import EngineSettings

__all__ = ["workers"]


def workers(settings: EngineSettings) -> int:
    """Give the number of workers: ``[engines.parsl] workers``, else the usable cores."""
    settings.check_options("workers")
    count = settings.options.get("workers", len(os.sched_getaffinity(0)))
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ConfigError(
            f"[engines.{settings.name}] workers must be a whole number from 1, not {count!r}"
        )
    return count
