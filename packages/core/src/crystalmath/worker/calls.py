"""The calls of a batched function that are still to be made, and what failed calls change."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from attrs import define, evolve

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
    of atoms. `limits` become smaller when a call needs too much memory or time. They become what
    they were if one job is to blame for that: it was in all of these calls, and fails alone.
    """

    def __init__(
        self, groups: Iterable[Sequence[int]], sizes: Sequence[int], limits: Limits
    ) -> None:
        self._waiting = deque(list(group) for group in groups)
        self._sizes = sizes
        self.limits = limits
        # The limits before memory or time was short, and the jobs that may each have caused that.
        self._before = limits
        self._suspects: set[int] = set()

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
        """Call again with half as many structures and atoms, now and later.

        Memory or time was short.
        """
        if self._suspects:
            self._suspects.intersection_update(left)
        else:
            self._before, self._suspects = evolve(self.limits), {*left}
        self.limits.most = max(1, len(call) // 2)
        self.limits.atoms = max(1, sum(self._sizes[job] for job in call) // 2)
        self.again(left)

    def fitted(self, call: Iterable[int]) -> None:
        """Note that memory and time were enough for these jobs."""
        self._suspects.difference_update(call)

    def ended_alone(self, job: int, *, failed: bool) -> None:
        """Note the end of a job that was alone."""
        if failed and job in self._suspects:
            self.limits.most, self.limits.atoms = self._before.most, self._before.atoms
            self._suspects.clear()
        self.fitted([job])

    def again(self, left: Sequence[int]) -> None:
        """Call again for these jobs, before all others."""
        if left:
            self._waiting.appendleft(list(left))
