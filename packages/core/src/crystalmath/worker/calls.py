"""The calls of a batched function that are still to be made, and what failed calls change."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from attrs import define

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@define
class Limits:
    """The most structures of a call, and the most atoms of all of them together."""

    most: int
    atoms: int | None = None


class Calls:
    """Jobs that wait for a call, by their index.

    Jobs of one group have equal parameters, so one call can compute them. `sizes` are their numbers
    of atoms. `limits` become smaller when a call needs too much memory.
    """

    def __init__(
        self, groups: Iterable[Sequence[int]], sizes: Sequence[int], limits: Limits
    ) -> None:
        self._waiting = deque(list(group) for group in groups)
        self._sizes = sizes
        self.limits = limits

    def next(self) -> list[int]:
        """Return the jobs of the next call; an empty list if none is left.

        A job that is alone is for the recipe itself.
        """
        if not self._waiting:
            return []
        group = self._waiting.popleft()
        count = self._count(group)
        if rest := group[count:]:
            self._waiting.appendleft(rest)
        return group[:count]

    def _count(self, group: Sequence[int]) -> int:
        """Return how many jobs of a group one call may have; one at least."""
        atoms, most = 0, self.limits.atoms
        for count, job in enumerate(group[: self.limits.most]):
            atoms += self._sizes[job]
            if most is not None and atoms > most:
                return max(1, count)
        return min(len(group), self.limits.most)

    def failed(self, left: Sequence[int], *, done: int) -> None:
        """Call again for the jobs that a failed call has `left`, after it has done others.

        A generator fails at the first job that is left. Else each half goes by itself.
        """
        middle = 1 if done else (len(left) + 1) // 2
        self.again(left[middle:])
        self.again(left[:middle])

    def too_large(self, call: Sequence[int], left: Sequence[int]) -> None:
        """Call again with half as many structures and atoms, now and later: memory was short."""
        self.limits.most = max(1, len(call) // 2)
        self.limits.atoms = max(1, sum(self._sizes[job] for job in call) // 2)
        self.again(left)

    def again(self, left: Sequence[int]) -> None:
        """Call again for these jobs, before all others."""
        if left:
            self._waiting.appendleft(list(left))
