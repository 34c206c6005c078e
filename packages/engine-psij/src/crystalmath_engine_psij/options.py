"""What the configuration file says about the PSI/J engine; nothing here imports PSI/J."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from crystalmath.errors import ConfigError

if TYPE_CHECKING:
    from crystalmath.models import EngineSettings

__all__ = ["workers"]


def workers(settings: EngineSettings) -> int:
    """Tell how many jobs run at once on the cluster ``local``: ``workers``, else the cores."""
    settings.check_options("workers")
    count = settings.options.get("workers", len(os.sched_getaffinity(0)))
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ConfigError(
            f"[engines.{settings.name}] workers must be a whole number from 1, not {count!r}"
        )
    return count
