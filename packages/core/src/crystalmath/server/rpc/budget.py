"""How much messages and answers may hold in memory: each connection some, the rest is for all.

What a connection has of its own is never lent, so a small message waits for no other connection. Of
the common rest one request of a connection at a time has a part, and they come in turn. Whoever
takes part by part could wait for ever for one who does the same: so one request may go ahead, and
take more than is left, until it has given all of it back.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import time
from collections import deque
from typing import TYPE_CHECKING, Self, TypeVar

from attrs import define, field

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_T = TypeVar("_T")

#: The share of the request that is being carried out; `None` where there is no server.
present: contextvars.ContextVar[Share | None] = contextvars.ContextVar("present", default=None)

#: While others wait for room, a client that holds some may keep us waiting for so long in all, in
#: seconds, and a second longer for each so many bytes. Then it is cut off.
_CUT_OFF_S = 5.0
_PACE = 2**20

#: How often is looked whether others wait, in seconds.
_LOOK_S = 1.0


async def room(size: int) -> None:
    """Wait until the answer of the present request may take so many bytes more."""
    share = present.get()
    if share is not None:
        await share.grow(size)


class Budget:
    """So many bytes, for all connections of a server; for its event loop alone.

    Parameters
    ----------
    common : int
        How many bytes are shared by all.
    own : int
        How many each connection has beside them.
    """

    def __init__(self, *, common: int, own: int) -> None:
        self._common = common
        self._own = own
        self.used = 0
        self._line: deque[_Waiting] = deque()
        self._ahead: Share | None = None
        #: Whether any of the common bytes were in use since this was reset.
        self.was_used = False

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits for room."""
        return bool(self._line)

    def account(self) -> Account:
        """Open the account of a connection."""
        return Account(self, self._own)

    async def take(self, share: Share, size: int) -> None:
        """Take bytes for a share as soon as it is its turn and they are left."""
        if self._ahead is share:
            self.put(share, size)
            return
        waiting = _Waiting(share, size)
        self._line.append(waiting)
        self._serve()
        try:
            await waiting.served.wait()
        finally:
            if not waiting.served.is_set():
                self._line.remove(waiting)
                self._serve()

    def put(self, share: Share, size: int) -> None:
        """Count bytes of a share that are there already; or return some, as a negative number."""
        self.used += size
        share.common += size
        share.account.common += size
        self.was_used |= size > 0
        if not share.account.common:
            share.account.waited_s = 0.0
        if size < 0:
            if self._ahead is share and not share.common:
                self._ahead = None
            self._serve()

    def _serve(self) -> None:
        while self._line:
            share, size = self._line[0].share, self._line[0].size
            if self.used + size > self._common:
                if self._ahead is not None:
                    return
                self._ahead = share
            self.put(share, size)
            self._line.popleft().served.set()


@define(eq=False)
class _Waiting:
    """A share that waits for bytes."""

    share: Share
    size: int
    served: asyncio.Event = field(factory=asyncio.Event)


class Account:
    """What one connection has in memory.

    Parameters
    ----------
    budget : Budget
        Where what it has not itself comes from.
    own : int
        How many bytes it has itself.

    Attributes
    ----------
    left, common : int
        How many of its own bytes are left, and how many it has of the common ones.
    waited_s : float
        How long we have waited for its client since it has common ones, in seconds.
    turn : asyncio.Lock
        Held by the request that has common ones.
    """

    def __init__(self, budget: Budget, own: int) -> None:
        self.budget = budget
        self.left = own
        self.common = 0
        self.waited_s = 0.0
        self.turn = asyncio.Lock()

    def share(self) -> Share:
        """Begin the share of one request."""
        return Share(self)

    @property
    def is_wanted(self) -> bool:
        """Whether others wait for what its client keeps."""
        return self.common > 0 and self.budget.is_wanted

    @property
    def is_overdue(self) -> bool:
        """Whether they have waited long enough."""
        return self.is_wanted and self.waited_s > _CUT_OFF_S + self.common / _PACE


class Share:
    """What one request, and then its answer, holds in memory.

    Parameters
    ----------
    account : Account
        The connection's.

    Attributes
    ----------
    own, common : int
        Bytes of the connection's own, and of the common ones.
    """

    def __init__(self, account: Account) -> None:
        self.account = account
        self.own = 0
        self.common = 0
        self._has_turn = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def size(self) -> int:
        """How many bytes it is."""
        return self.own + self.common

    async def grow(self, size: int) -> None:
        """Take more bytes, as soon as they are there."""
        if self._take_own(size):
            return
        await self.take_turn()
        if not self._take_own(size):
            await self.account.budget.take(self, size)

    async def take_turn(self) -> None:
        """Wait until no other request of the connection is a large one."""
        if not self._has_turn:
            await self.account.turn.acquire()
            self._has_turn = True

    def settle(self, size: int) -> None:
        """Hold so many bytes and no others: they are there."""
        if size - self.own <= self.account.left:
            self.account.left -= size - self.own
            self.own = size
            self.account.budget.put(self, -self.common)
        else:
            self.account.budget.put(self, size - self.size)

    def close(self) -> None:
        """Return all."""
        self.settle(0)
        if self._has_turn:
            self._has_turn = False
            self.account.turn.release()

    async def patiently(
        self, step: Callable[[], Awaitable[_T]], most_s: float, wanted_s: float = math.inf
    ) -> _T:
        """Wait for the client; not for long while others wait for what it keeps.

        Parameters
        ----------
        step : callable
            Takes what the client gives next, or gives it what it takes.
        most_s : float
            How long it may take, in seconds.
        wanted_s : float
            And how long while others wait.

        Raises
        ------
        TimeoutError
            It was too slow. The step was cancelled.
        """
        began, before = time.monotonic(), self.account.waited_s
        while True:
            try:
                async with asyncio.timeout(min(_LOOK_S, most_s)):
                    return await step()
            except TimeoutError:
                limit = wanted_s if self.account.is_wanted else most_s
                if time.monotonic() - began >= min(limit, most_s) or self.account.is_overdue:
                    raise
            finally:
                waited = before + time.monotonic() - began
                self.account.waited_s = waited if self.account.common else 0.0

    def _take_own(self, size: int) -> bool:
        if size > self.account.left:
            return False
        self.account.left -= size
        self.own += size
        return True
