"""Run directories that have moved with their home: the paths that were written in the old one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Move(NamedTuple):
    """Where a run directory was when its job ran, and where it is."""

    old: str
    new: str

    def path(self, path: str) -> str:
        """Return a path below the run directory as it is now; any other stays as it is."""
        below = path.removeprefix(self.old)
        return self.new + below if below != path and below[:1] in {"", "/"} else path

    def texts(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield a JSON text, which comes in pieces, with the new place of the run directory."""
        old, new = _in_json(self.old), _in_json(self.new)
        rest = b""
        for chunk in chunks:
            *whole, rest = (rest + chunk).split(old)
            # The old place may begin at the end of this piece.
            certain = max(0, len(rest) - len(old) + 1)
            yield b"".join(part + new for part in whole) + rest[:certain]
            rest = rest[certain:]
        yield rest


def move_of(path: str | None, directory: str) -> Move | None:
    """Return from where a run directory was moved; ``None`` if it was not.

    `path` lay below the run directory when the job ran.
    """
    name = directory.rpartition("/")[2]
    before, found, below = (path or "").rpartition(f"/{name}")
    if not found or below[:1] not in {"", "/"}:
        return None
    old = before + found
    return None if old == directory else Move(old, directory)


def _in_json(text: str) -> bytes:
    return json.dumps(text)[1:-1].encode()
