"""What code could change of the process that calls it."""

from __future__ import annotations

import locale
import logging
import os
import signal
import sys
from typing import Any


def process_state() -> dict[str, Any]:
    """Give what is set in this process now, to be compared with what is set later."""
    umask = os.umask(0o077)
    os.umask(umask)
    root = logging.getLogger()
    return {
        "environment": dict(os.environ),
        "working directory": os.getcwd(),  # noqa: PTH109 - text is shown
        "umask": oct(umask),
        "sys.path": list(sys.path),
        "locale": locale.setlocale(locale.LC_ALL),
        "root logger": [root.level, *map(repr, root.handlers)],
        "signal handlers": {
            number.name: repr(signal.getsignal(number)) for number in signal.Signals
        },
    }
