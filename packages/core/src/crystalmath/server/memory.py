"""Memory of this process: what was needed for a moment goes back to the system."""

from __future__ import annotations

import contextlib
import ctypes
import gc

__all__ = ["hand_back", "look_at_all_rarely"]

#: After so many new objects the collector of cycles looks at them; at those that stay after ten of
#: these times; at all there are never by itself.
_NEW = 20_000
_NEVER = 1_000_000


def look_at_all_rarely() -> None:
    """Have the collector of cycles look at all objects in :func:`hand_back` only.

    All threads stand still meanwhile, for 50 ms and more beside a large message.
    """
    gc.set_threshold(_NEW, 10, _NEVER)


def hand_back() -> None:
    """Free cycles, and have the C library return free memory, which it would keep."""
    gc.collect()
    # Only glibc keeps it, and only glibc has this.
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
