"""Snapshots of the surroundings of a process, in which an engine could change something.

This module imports only Python's own ones, because recipes use it in workers, too.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import locale
import logging
import multiprocessing
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

#: The topics of a snapshot.
TOPICS = (
    "working directory",
    "umask",
    "signal handlers",
    "environment",
    "root logger",
    "limits",
    "interpreter",
    "loggers",
    "warning filters",
    "standard library",
    "kernel attributes",
    "random numbers",
)
#: Functions that some libraries replace for the whole process.
_REPLACED = (
    (socket, "getaddrinfo"),
    (socket, "create_connection"),
    (socket, "socket"),
    (time, "sleep"),
    (subprocess, "Popen"),
)
#: Attributes that `prctl` reads into an integer.
_ATTRIBUTES = {"PR_GET_CHILD_SUBREAPER": 37, "PR_GET_PDEATHSIG": 2}
#: The signals that Python itself ignores.
_IGNORED = {signal.SIGPIPE, signal.SIGXFSZ}
#: How long to wait for standard input, in seconds; at its end it is ready at once.
_READY_S = 1.0


def take(engine: str = "") -> dict[str, dict[str, str]]:
    """Return the settings of the whole process by topic, with the logger of `engine`."""
    root = logging.getLogger()
    received = {_name(each): repr(signal.getsignal(each)) for each in signal.valid_signals()}
    parts = [
        {"it": str(Path.cwd())},
        {"it": f"{umask():03o}"},
        {**received, **{f"{name} signals": repr(each) for name, each in signals().items()}},
        dict(os.environ),
        {
            "handlers": repr(root.handlers),
            "filters": repr(root.filters),
            "level": logging.getLevelName(root.level),
            "logging.disable": str(logging.root.manager.disable),
            "class of loggers": repr(logging.getLoggerClass()),
            "factory of records": repr(logging.getLogRecordFactory()),
        },
        {name: repr(pair) for name, pair in limits().items()},
        {
            "sys.path": repr(sys.path),
            "sys.stdout": repr(sys.stdout),
            "sys.stderr": repr(sys.stderr),
            "sys.excepthook": repr(sys.excepthook),
            "threading.excepthook": repr(threading.excepthook),
            "sys.unraisablehook": repr(sys.unraisablehook),
            "warnings.showwarning": repr(warnings.showwarning),
            "timeout of sockets": str(socket.getdefaulttimeout()),
            "start of processes": multiprocessing.get_start_method(allow_none=True)
            or multiprocessing.get_all_start_methods()[0],
            "locale": locale.setlocale(locale.LC_ALL),
            "garbage collection": str(gc.isenabled()),
        },
        {k: v for each in ("", f".engines.{engine}") for k, v in _logger(f"crystalmath{each}")},
        {"filters that match every warning": repr(_sweeping_filters())},
        {f"{module.__name__}.{name}": _defined(module, name) for module, name in _REPLACED},
        {**_attributes(), **_timers(), **_blocking(), "cores": repr(os.sched_getaffinity(0))},
        # Drawing a number changes their state, so only calls that seed them are recorded.
        {},
    ]
    return dict(zip(TOPICS, parts, strict=True))


def _logger(name: str) -> list[tuple[str, str]]:
    logger = logging.getLogger(name)
    # Libraries add handlers that do nothing.
    handlers = [each for each in logger.handlers if not isinstance(each, logging.NullHandler)]
    return [
        (f"level of {name}", logging.getLevelName(logger.level)),
        (f"handlers of {name}", repr(handlers)),
        (f"propagate of {name}", str(logger.propagate)),
    ]


def _sweeping_filters() -> list[str]:
    """Return the filters that match every warning; a library may filter its own ones."""
    return [
        f"{action} each of them"
        for action, message, category, module, line in warnings.filters
        if message is None and module is None and not line and issubclass(Warning, category)
    ]


def _defined(module: Any, name: str) -> str:
    """Return a description of the object with a name, and the place of its code."""
    value = getattr(module, name)
    code = getattr(value, "__code__", None)
    where = f"{code.co_filename}:{code.co_firstlineno}" if code else value.__module__
    return f"{value!r} at {id(value):#x} ({where})"


def _attributes() -> dict[str, str]:
    """Return attributes that the kernel keeps for this process, as whether it is a subreaper."""
    prctl, value = ctypes.CDLL(None).prctl, ctypes.c_int()
    settings = {}
    for name, number in _ATTRIBUTES.items():
        answered = prctl(number, ctypes.byref(value), 0, 0, 0) == 0
        settings[name] = str(value.value) if answered else "unknown"
    return settings


def _timers() -> dict[str, str]:
    """Return how often each timer of the process sends its signal."""
    names = ("ITIMER_REAL", "ITIMER_VIRTUAL", "ITIMER_PROF")
    timers = {name: signal.getitimer(getattr(signal, name)) for name in names}
    return {name: f"on, every {each[1]} s" if any(each) else "off" for name, each in timers.items()}


def _blocking() -> dict[str, str]:
    """Return for each standard stream whether its reads and writes block."""
    streams = {}
    for number, name in enumerate(("input", "output", "error")):
        with contextlib.suppress(OSError):  # it is closed
            streams[f"standard {name} blocks"] = str(os.get_blocking(number))
    return streams


def differences(
    before: dict[str, dict[str, str]], after: dict[str, dict[str, str]]
) -> dict[str, list[str]]:
    """Return the differences of each topic, in words."""
    return {topic: _changes(before[topic], after[topic]) for topic in TOPICS}


def _changes(before: dict[str, str], after: dict[str, str]) -> list[str]:
    return [
        f"{name} was {before.get(name)}, is {after.get(name)}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def umask() -> int:
    """Return the process's umask."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def signals() -> dict[str, list[str]]:
    """Return the names of the blocked signals, and of the ignored ones without Python's own."""
    valid = sorted(signal.valid_signals() - _IGNORED)
    ignored = [number for number in valid if signal.getsignal(number) is signal.SIG_IGN]
    blocked = sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    return {"ignored": [_name(each) for each in ignored], "blocked": [_name(e) for e in blocked]}


def limits() -> dict[str, list[int]]:
    """Return the soft and the hard limit of each resource; -1 means no limit."""
    names = sorted(name for name in vars(resource) if name.startswith("RLIMIT_"))
    return {name: list(resource.getrlimit(getattr(resource, name))) for name in names}


def encodings() -> dict[str, str]:
    """Return the encodings of text files and of their names."""
    return {
        "text files": locale.getencoding().lower(),
        "names of files": sys.getfilesystemencoding(),
    }


def streams() -> dict[str, str]:
    """Return the state of each standard stream, in words."""
    return {"input": _input(), "output": _output(sys.stdout), "error": _output(sys.stderr)}


def _input() -> str:
    try:
        if not select.select([0], [], [], _READY_S)[0]:
            return "a pipe or terminal that is open"
        return "something to read" if os.read(0, 1) else "at its end"
    except OSError as error:
        return f"closed ({error.strerror})"


def _output(stream: Any) -> str:
    try:
        os.fstat(stream.fileno())
        stream.write("\N{GREEK SMALL LETTER ALPHA}\n")
        stream.flush()
    except (AttributeError, OSError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return f"open, {stream.encoding}"


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return str(int(number))
