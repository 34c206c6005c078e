"""Memory of the server's process: what was needed for a moment goes back to the system."""

from __future__ import annotations

import ctypes
import gc
import sys

#: After so many new objects the collector of cycles looks at them; at those that stay after ten of
#: these times; at all there are never by itself.
_NEW = 20_000
_NEVER = 1_000_000

#: For glibc's `mallopt`: the number of arenas, and from how many bytes on a block is apart and goes
#: back as soon as it is free. By itself it makes sixteen arenas, and learns to keep large blocks.
_M_ARENA_MAX, _ARENAS = -8, 2
_M_MMAP_THRESHOLD, _APART = -3, 2**18

#: How many modules there were when the collector was told to pass over what was there.
_imported = 0


def prepare() -> None:
    """Have freed memory lie together, so that it can go back, and the collector seldom in the way.

    The collector of cycles looks at all objects in :func:`hand_back` only: all threads stand still
    meanwhile, for 50 ms and more beside a large message.
    """
    gc.set_threshold(_NEW, 10, _NEVER)
    if (library := _glibc()) is not None:
        library.mallopt(_M_ARENA_MAX, _ARENAS)
        library.mallopt(_M_MMAP_THRESHOLD, _APART)


def hand_back(*, at_rest: bool) -> None:
    """Free cycles, and have the C library return free memory, which it would keep.

    At rest, when nothing was done lately, what was imported is passed over from then on: to look at
    it takes 50 ms. Where that was decided amid work, so was what was in use, and is no more: of
    10,000 refused submissions their errors with the frames, 150 MB. It is looked at once more.
    """
    global _imported  # noqa: PLW0603
    if at_rest:
        gc.unfreeze()
    gc.collect()
    if at_rest or len(sys.modules) != _imported:
        _imported = len(sys.modules)
        gc.freeze()
    if (library := _glibc()) is not None:
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None)
    return library if hasattr(library, "malloc_trim") else None
