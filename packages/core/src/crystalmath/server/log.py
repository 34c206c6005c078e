"""The server's log: bounded, private, and silent about what users pass in.

Environments, parameters and database URLs are never in it. Our own messages leave them out; what
an exception says of its own accord may quote anything, so that of an unforeseen one only the type
and the places are written.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import traceback
from logging.handlers import QueueHandler, QueueListener, RotatingFileHandler
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from types import TracebackType

#: The size of a log that is turned over, in bytes, and how many old ones are kept.
SIZE, KEPT = 2_000_000, 3


@contextlib.contextmanager
def log_to(file: Path, *, secret: str, stream: Any = None) -> Iterator[RotatingFileHandler]:
    """Send the log of this process to a file, which is turned over when it has grown.

    A thread of its own writes it: the event loop must not hang with the home's file system. Neither
    `secret`, the database URL, nor a part of it that names a database is written. Warnings go to
    `stream` as well.
    """
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    logging.getLogger("crystalmath").setLevel(logging.INFO)
    lines = QueueHandler(queue.SimpleQueue())
    lines.setFormatter(_Discreet(_parts(secret)))
    written = _Private(file, maxBytes=SIZE, backupCount=KEPT, encoding="utf-8", errors="replace")
    handlers: list[logging.Handler] = [written]
    if stream is not None:
        shown = logging.StreamHandler(stream)
        shown.setLevel(logging.WARNING)
        handlers.append(shown)
    writing = QueueListener(lines.queue, *handlers, respect_handler_level=True)
    writing.start()
    root.addHandler(lines)
    try:
        yield written
    finally:
        root.removeHandler(lines)
        writing.stop()
        written.close()


class _Private(RotatingFileHandler):
    """Files that only the user can read."""

    def _open(self) -> Any:
        return open(
            self.baseFilename,
            self.mode,
            encoding=self.encoding,
            errors=self.errors,
            opener=_open_private,
        )


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


class _Discreet(logging.Formatter):
    """Lines without secrets, and exceptions without what they say."""

    def __init__(self, secrets: Iterable[str]) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
        self._secrets = sorted(secrets, key=len, reverse=True)

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def formatException(  # noqa: N802 - logging's name
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, ...],
    ) -> str:
        lines: list[str] = []
        error = ei[1]
        seen: set[int] = set()
        while error is not None and id(error) not in seen:
            seen.add(id(error))
            kind = type(error)
            lines.append(f"{kind.__module__}.{kind.__qualname__}, raised in")
            lines += [
                f"  {frame.f_code.co_filename}, line {line}, in {frame.f_code.co_name}"
                for frame, line in traceback.walk_tb(error.__traceback__)
            ]
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        return "\n".join(lines)


def _parts(url: str) -> set[str]:
    """Return the URL, and what our messages and a driver's may call the database by."""
    from urllib.parse import unquote

    rest = url.partition("://")[2]
    netloc, _, path = rest.partition("/")
    credentials, _, host = netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    masked = f"{user}:***@{host}/{path.partition('?')[0]}"
    parts = {url, rest, masked, netloc, password, unquote(password)}
    if not netloc:  # a file
        parts |= {path, f"/{path.lstrip('/')}"}
    # A part this short would tear words to pieces.
    return {part for part in parts if len(part) > 3}  # noqa: PLR2004
