"""What one request takes of the server's time: its steps are all its agent's, and a long one takes turns."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from walras.kube.serve.fair import Fair, Metered, Turn

T = TypeVar("T")

# A request that has had this much since its last turn waits for another.
STEP_NS: Final = 200_000
# As whom requests to functions take turns with the users of their cluster.
_USER: Final = "functions"


class Share:
    """Of one request to a function of the cluster."""

    def __init__(self, fair: Fair, cluster: str) -> None:
        self._fair, self._payer = fair, (cluster, "")
        self._turn: Turn | None = None
        self._had_ns = 0

    async def begin(self) -> None:
        """Waits for its first turn. Raises TooManyRequests."""
        await self._next(goes_on=False)

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The outcome of the work, whose time on the loop is the agent's; also of a part of the request that
        is a task of its own."""
        outcome: T = await Metered(work, self.charge, self._fair.timer)
        return outcome

    def charge(self, cost_ns: int) -> None:
        self._had_ns += cost_ns
        if self._turn is not None:
            self._turn.charge(cost_ns)

    def moves(self, cluster: str) -> None:
        """What comes is another cluster's, from the next turn on."""
        self._payer = (cluster, "")

    async def again(self) -> None:
        """Between two pieces: waits for another turn where it has used up its last."""
        if self._had_ns >= STEP_NS:
            await self._next(goes_on=True)

    async def _next(self, *, goes_on: bool) -> None:
        self._had_ns = 0
        turn = self._turn = await self._fair.turn(self._payer, _USER, goes_on=goes_on)
        # Others begin once this step is done, however long it then waits.
        asyncio.get_running_loop().call_soon(turn.leave)
