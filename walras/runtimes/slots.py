"""So many at a time for each agent, so that what one has done for it does not hold up the others."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Slots:
    """Keeps nothing of an agent that uses none."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._slots: dict[str, asyncio.Semaphore] = {}
        self._users: Counter[str] = Counter()

    @asynccontextmanager
    async def of(self, cluster: str) -> AsyncIterator[None]:
        """One of the agent's slots, waited for in order."""
        self._users[cluster] += 1
        try:
            async with self._slots.setdefault(cluster, asyncio.Semaphore(self._most)):
                yield
        finally:
            self._users[cluster] -= 1
            if not self._users[cluster]:
                del self._users[cluster], self._slots[cluster]
