"""What calculators raise while they are asked, written down."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from crystalmath.preflight.report import Trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: What an exception may say, in characters.
_LONGEST = 2000
#: Troubles of this machine, as when its disk is full: they are no fault of the job's.
_PASSING = {
    errno.EDQUOT,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ENOSPC,
    errno.EROFS,
}


def trouble(where: str, error: BaseException) -> Trouble:
    """Write down an exception."""
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - somebody's exception may not even be able to speak
        message = "(its message cannot be shown)"
    return Trouble(where=where, type=type(error).__name__, message=message[:_LONGEST])


def is_passing(error: BaseException) -> bool:
    """Return whether an exception is about this machine as it is now, not about the job."""
    return isinstance(error, MemoryError) or getattr(error, "errno", None) in _PASSING


def troubles_of(where: str, call: Callable[[], Any]) -> Iterator[Trouble]:
    """Do what a calculation does, and give what it would die of; once, or not at all."""
    try:
        call()
    except Exception as error:
        if is_passing(error):
            raise
        yield trouble(where, error)
