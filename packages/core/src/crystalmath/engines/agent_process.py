"""The agent's own process: it calls what its owner asks for, one after another.

Started as ``python -P -m crystalmath.engines.agent_process LINE OWNER START`` by
:class:`~crystalmath.engines.agent.Agent`: a socket, and the pid and the start time of its owner.
Messages are pickles behind their length; only the owner has the other end of the line.
"""

from __future__ import annotations

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

#: How many bytes a message has.
LENGTH = struct.Struct("!Q")


def main() -> None:
    """Serve until the owner closes the line, or is gone."""
    descriptor, owner, started = map(int, sys.argv[1:])
    end_with_owner(owner, started, line=descriptor)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    line = socket.socket(fileno=descriptor)
    line.set_inheritable(False)  # not for programs that are started here
    with line.makefile("rb") as questions:
        while question := _read(questions):
            line.sendall(_answer(question))
    # The guard ends what is left. Who waited here for threads and handlers of a library might wait
    # for jobs.
    os._exit(0)


def _read(file: BufferedReader) -> bytes | None:
    head = file.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    body = file.read(length)
    return body if len(body) == length else None


def _answer(question: bytes) -> bytes:
    """Return the answer as a message: whether the function returned, and what it gave or raised."""
    try:
        function, arguments, options = pickle.loads(question)  # noqa: S301 - our owner wrote it
        body = pickle.dumps((True, _called(function, arguments, options)))
    except Exception as error:  # noqa: BLE001 - it is the owner's
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
        pickle.loads(body)  # noqa: S301 - some can be written and not read
    except Exception:  # noqa: BLE001 - whatever a foreign class raises
        readable = RuntimeError(f"{type(error).__name__}: {error}")
        readable.__notes__ = error.__notes__
        body = pickle.dumps((False, readable))
    return body


if __name__ == "__main__":
    main()
