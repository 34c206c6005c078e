"""One commit for all who come while the one before is under way."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Generic, TypeVar

from crystalmath.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")


class _Entry(Generic[_Item, _Answer]):
    """What one thread wants to have committed, and what became of it."""

    def __init__(self, item: _Item) -> None:
        self.item = item
        self.outcome: _Answer | BaseException | None = None


class GroupCommit(Generic[_Item, _Answer]):
    """Have threads that come together share a transaction; each is answered after its commit.

    Parameters
    ----------
    commit : callable
        Commits the items of several threads, in their order and durably, and gives the answer to
        each, or the exception that refuses it alone. What it raises refuses all of them.
    """

    def __init__(self, commit: Callable[[Sequence[_Item]], Sequence[_Answer | Exception]]) -> None:
        self._commit = commit
        # Guards what follows; never held during a commit.
        self._changed = threading.Condition()
        self._waiting: list[_Entry[_Item, _Answer]] = []
        self._busy = False

    @property
    def waiting(self) -> int:
        """How many wait for the next commit."""
        return len(self._waiting)

    def __call__(self, item: _Item) -> _Answer:
        """Commit an item, with those of others, and give its answer or raise its exception."""
        mine: _Entry[_Item, _Answer] = _Entry(item)
        with self._changed:
            self._waiting.append(mine)
            self._changed.wait_for(lambda: mine.outcome is not None or not self._busy)
            group: list[_Entry[_Item, _Answer]] = []
            if mine.outcome is None:  # the first to wake commits for all who wait
                self._busy = True
                group, self._waiting = self._waiting, []
        if group:
            self._carry_out(group)
        if isinstance(mine.outcome, BaseException):
            raise mine.outcome
        assert mine.outcome is not None  # noqa: S101 - it was waited for
        return mine.outcome

    def _carry_out(self, group: list[_Entry[_Item, _Answer]]) -> None:
        outcomes: Sequence[_Answer | BaseException]
        try:
            outcomes = self._commit([entry.item for entry in group])
        except Exception as error:  # noqa: BLE001 - each raises it where it waits
            outcomes = [error] * len(group)
        except BaseException:
            # Ctrl-C of the thread that commits is not the others'; they must not wait for ever.
            cut = StoreError("the commit was interrupted; list the jobs to see what is on record")
            self._settle(group, [cut] * len(group))
            raise
        self._settle(group, outcomes)

    def _settle(
        self,
        group: list[_Entry[_Item, _Answer]],
        outcomes: Sequence[_Answer | BaseException],
    ) -> None:
        with self._changed:
            for entry, outcome in zip(group, outcomes, strict=True):
                entry.outcome = outcome
            self._busy = False
            self._changed.notify_all()
