"""The signals of a process of ours, whatever whoever started it ignores or blocks."""

from __future__ import annotations

import signal

#: Python itself ignores these.
_IGNORED = {signal.SIGPIPE, signal.SIGXFSZ}


def receive_all_signals() -> None:
    """Ignore and block no signal.

    Both are inherited: below ``nohup``, behind ``&`` in a script, or of a worker that keeps Ctrl-C
    from itself, no program could be interrupted, and none could be told to stop.
    """
    for number in signal.valid_signals() - _IGNORED:
        if signal.getsignal(number) is signal.SIG_IGN:
            is_int = number == signal.SIGINT
            signal.signal(number, signal.default_int_handler if is_int else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
