"""Whose bids the market looks at, so that an agent with thousands of them holds up only itself."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Final

from walras.market.types import Bid

# Packages of one agent in one clearing; what it takes grows with them.
PACKAGES_A_TURN: Final = 256


class Urgent:
    """Bids that are decided on arrival: each agent's in order, the agents in turn."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[str]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, agent: str, bid: str) -> None:
        self._waiting.setdefault(agent, deque()).append(bid)

    def take(self) -> str:
        """The next bid. Raises KeyError when none waits."""
        agent, bids = self._waiting.popitem(last=False)
        bid = bids.popleft()
        if bids:
            self._waiting[agent] = bids
        return bid


def in_turn(bids: Iterable[Bid], *, by_price: bool) -> tuple[list[Bid], list[Bid]]:
    """The bids to look at now and those that wait: of each agent the dearest, or the oldest, come first."""

    def rank(bid: Bid) -> tuple[int, int, str]:
        dearest = max((package.price_micros for package in bid.packages), default=0)
        return (-dearest if by_price else 0, bid.submitted_ms, bid.id)

    by_agent: dict[str, list[Bid]] = {}
    for bid in bids:
        by_agent.setdefault(bid.agent, []).append(bid)
    now: list[Bid] = []
    later: list[Bid] = []
    for waiting in by_agent.values():
        if sum(len(bid.packages) for bid in waiting) > PACKAGES_A_TURN:
            waiting.sort(key=rank)
        left = PACKAGES_A_TURN
        for bid in waiting:
            left -= len(bid.packages)
            (now if left >= 0 else later).append(bid)
    return now, later
