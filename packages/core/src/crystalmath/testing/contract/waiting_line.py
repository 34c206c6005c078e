"""Attempts that wait for a worker in some order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from crystalmath.models import Attempt
    from crystalmath.testing.contract.door import Door
    from crystalmath.testing.oracle import Oracle


class Line:
    """Attempts that are begun in some order, and each let go by itself."""

    def __init__(self, door: Door, oracle: Oracle, folder: Path) -> None:
        self.attempts: list[Attempt] = []
        self._door, self._oracle, self._folder = door, oracle, folder

    def add(self, count: int, terms: Mapping[str, Any] | None = None) -> list[Attempt]:
        """Write some down, on terms of their own if there are any."""
        places = range(len(self.attempts), len(self.attempts) + count)
        added = [
            self._door.write("wait_for", terms, path=str(self._folder / f"go.{place}"))
            for place in places
        ]
        self.attempts += added
        return added

    def let_go(self, attempt: Attempt) -> None:
        """Have one end, now or as soon as it is begun."""
        (self._folder / f"go.{self.attempts.index(attempt)}").touch()

    def end(self) -> None:
        """Have all end, and wait for it."""
        for attempt in self.attempts:
            self.let_go(attempt)
        if not self._door.closed:
            self._door.ended(*self.attempts)

    def has_begun(self, attempt: Attempt) -> bool:
        """Tell whether a worker has begun one."""
        return self._oracle.claimed(attempt.job_id)
