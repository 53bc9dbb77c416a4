"""What winners pay: one price for all, or each the least with which it would have won.

Critical values after Lehmann, O'Callaghan and Shoham, "Truth revelation in approximately efficient
combinatorial auctions" (JACM 2002), found by clearing again with other prices, not by formula.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from walras.core.money import charge, price_within
from walras.market.clearing import Override, Win
from walras.market.ground import at_speed
from walras.market.placement import locate
from walras.market.prepared import Prepared
from walras.market.types import Lease
from walras.market.winning import Decide, Decision

# Bids looked at again in one clearing, all searches together; who comes after pays the uniform price.
EFFORT_MAX: Final = 20_000


class Payments:
    """Prices per GPU-hour of the winners of one clearing, at most what each offers."""

    def __init__(self, prepared: Prepared, decide: Decide, decision: Decision) -> None:
        self._prepared, self._decide, self._decision = prepared, decide, decision
        self._lost = sorted(decision.result.lost, key=lambda lost: -lost[0])
        self._effort = 0

    def price(self, win: Win) -> int:
        """What a winner pays for its lease: never more than it bid, with what it pays to those who go."""
        option, offered = win.option, self._decision.clearing.price(win.option)
        price, bound = option.at_speed(self._decision.price_micros), offered
        if self._prepared.snapshot.rules.payments == "critical" and self._effort <= EFFORT_MAX:
            price = bound = self._critical(win, offered)
        if win.compensations_micros:
            milli_ms = win.milli * option.package.term_ms
            left = charge(bound, win.milli, option.package.term_ms) - win.compensations_micros
            price = min(price, price_within(max(0, left), milli_ms))
        return min(price, offered)

    def renewal(self, lease: Lease) -> int:
        """What a lease pays for its next term: the one price, or with critical payments the best density that
        lost to somebody else's bid which could have had its room, if that is less."""
        uniform = self._prepared.price_of(lease, self._decision.price_micros)
        if self._prepared.snapshot.rules.payments == "uniform":
            return uniform
        board = self._decision.clearing.board.copy()
        board.drain(lease)
        for density, option in self._lost:
            if self._effort > EFFORT_MAX:
                return uniform
            self._effort += 1
            ask, rooms = option.ask, board.rooms(option.ask, now=False)
            other = option.bid.agent != lease.agent
            if other and locate(ask, rooms, ask.fewest, self._prepared.demand, board) is not None:
                return min(uniform, self._prepared.price_for(lease, density))
        reserve = at_speed(self._decision.clearing.floor_micros, self._prepared.speed_of(lease))
        return min(uniform, reserve)

    def _critical(self, win: Win, offered: int) -> int:
        """The least price with which that package wins, all else the same."""
        floor = win.option.at_speed(self._decision.clearing.floor_micros)
        prices = sorted({floor, offered, *(p for p in self._turning(win) if floor < p < offered)})
        found = prices[bisect_left(prices, True, key=lambda price: self._wins(win, price))]
        low = floor - 1
        # Where it wins with less than that, too, the turning point is none of those.
        while found - 1 > low and self._wins(win, found - 1):
            found -= 1
            while found - low > 1:
                middle = (low + found) // 2
                low, found = (low, middle) if self._wins(win, middle) else (middle, found)
        return found

    def _turning(self, win: Win) -> set[int]:
        """Prices where it would pass another bid or lease."""
        clearing, result = self._decision.clearing, self._decision.result
        densities = {other.density for other in result.wins} | {density for density, _ in result.lost}
        for lease in (*clearing.renewing, *result.given_up.values(), *result.displaced.values()):
            densities.add(self._prepared.densities[lease.id])
        prices = ((win.option.price_for(each), win.option.price_for(each + 1)) for each in densities)
        return {price for pair in prices for price in pair}

    def _wins(self, win: Win, price: int) -> bool:
        bid = win.option.bid.id
        if price >= self._decision.clearing.price(win.option):
            return True
        self._effort += len(self._prepared.bids)
        again = self._decide(Override(bid, win.option.index, price))
        won = {(each.option.bid.id, each.option.index) for each in again.result.wins}
        return (bid, win.option.index) in won
