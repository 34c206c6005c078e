"""How much large messages may hold in memory, over all connections."""

from __future__ import annotations

import asyncio

__all__ = ["Budget"]


class Budget:
    """So many bytes, for all; who needs more than is left waits in line.

    Parameters
    ----------
    most : int
        How many bytes there are.
    """

    def __init__(self, most: int) -> None:
        self._left = most
        self._line = asyncio.Lock()
        self._returned = asyncio.Event()

    async def take(self, share: int) -> None:
        """Take a share, as soon as it is there."""
        async with self._line:
            while self._left < share:
                self._returned.clear()
                await self._returned.wait()
            self._left -= share

    def give_back(self, share: int) -> None:
        """Return a share."""
        self._left += share
        self._returned.set()
