"""The agent's own process: it calls functions for its owner, one after another.

:class:`~crystalmath.engines.agent.Agent` starts it as ``python -P -m
crystalmath.engines.agent_process LINE OWNER START``, with a socket, and its owner's pid and start
time. Messages are pickles behind their length; only the owner has the other end of the line.
"""

from __future__ import annotations

import io
import os
import pickle
import socket
import struct
import sys
from typing import TYPE_CHECKING, Any

from crystalmath.engines.guard import end_with_owner

if TYPE_CHECKING:
    from collections.abc import Callable
    from io import BufferedReader

#: The number of a message's bytes.
LENGTH = struct.Struct("!Q")


def main() -> None:
    """Serve until the owner closes the line, or dies."""
    descriptor, owner, started = map(int, sys.argv[1:])
    end_with_owner(owner, started, line=descriptor)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    line = socket.socket(fileno=descriptor)
    line.set_inheritable(False)  # not for programs that are started here
    with line.makefile("rb") as questions:
        while question := _read(questions):
            line.sendall(_answer(question))
    # The guard ends the rest. Threads and exit handlers of a library are not waited for, as they
    # might wait for jobs.
    os._exit(0)


def _read(file: BufferedReader) -> bytes | None:
    head = file.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    body = file.read(length)
    return body if len(body) == length else None


def unpickled(body: bytes) -> Any:
    """Return the content of a message between an agent and its owner."""
    return pickle.loads(body)  # noqa: S301 - written by our own process


def _answer(question: bytes) -> bytes:
    """Return the answer as a message: whether the function returned, and its value or error."""
    try:
        function, arguments, options = unpickled(question)
        body = pickle.dumps((True, _called(function, arguments, options)))
    except Exception as error:  # noqa: BLE001 - raised again by the owner
        body = _raised(error)
    return LENGTH.pack(len(body)) + body


def _called(function: Callable[..., Any], arguments: Any, options: Any) -> Any:
    try:
        return function(*arguments, **options)
    except SystemExit as error:
        raise RuntimeError(f"{function.__qualname__} called sys.exit({error.code!r})") from error


def _raised(error: Exception) -> bytes:
    import traceback

    trace = "".join(traceback.format_exception(error)).rstrip()
    error.add_note(f"In the agent (pid {os.getpid()}):\n{trace}")
    try:
        body = pickle.dumps((False, error))
        unpickled(body)  # some errors can be pickled, but not read
    except Exception:  # noqa: BLE001 - a foreign class may raise anything
        readable = RuntimeError(f"{type(error).__name__}: {error}")
        readable.__notes__ = error.__notes__
        body = pickle.dumps((False, readable))
    return body


if __name__ == "__main__":
    main()
