"""The server's log: bounded, private, and without the values that users pass in.

It never contains environments, parameters or database URLs. Our own messages leave them out. The
text of an unforeseen exception may quote anything, so only its type and its frames are written.
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

#: The size at which a log is rotated, in bytes, and how many old ones are kept.
SIZE, KEPT = 2_000_000, 3

#: Parts of a URL up to this length are not masked: they occur in ordinary words.
_SHORT = 3


@contextlib.contextmanager
def log_to(file: Path, *, secret: str, stream: Any = None) -> Iterator[RotatingFileHandler]:
    """Send the log of this process to a file that is rotated.

    A thread writes it, because the event loop must not hang with the home's file system. `secret`,
    the database URL, is masked, and so are the parts of it that name a database. Warnings go to
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
    """Lines without secrets, and exceptions without their texts."""

    def __init__(self, secrets: Iterable[str]) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
        self._secrets = sorted(secrets, key=len, reverse=True)

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def formatException(  # noqa: N802 - the name of logging.Formatter
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
    """Return the URL, and the parts by which messages may name the database."""
    from urllib.parse import unquote

    rest = url.partition("://")[2]
    netloc, _, path = rest.partition("/")
    credentials, _, host = netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    masked = f"{user}:***@{host}/{path.partition('?')[0]}"
    parts = {url, rest, masked, netloc, password, unquote(password)}
    if not netloc:  # a file
        parts |= {path, f"/{path.lstrip('/')}"}
    return {part for part in parts if len(part) > _SHORT}
