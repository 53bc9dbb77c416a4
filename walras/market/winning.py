"""The price that would have won: found by clearing again, not by formula."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final, Protocol

from walras.core.money import CREDITS_MAX, MICROS
from walras.market.clearing import VALUE_PER_MICRO, Clearing, Override, Pass
from walras.market.eviction import evict
from walras.market.placement import Board
from walras.market.prepared import Option, Prepared, value
from walras.market.types import Bid, Lease, Package

PRICE_MAX: Final = CREDITS_MAX * MICROS


class Decision(Protocol):
    """The outcome of one clearing."""

    @property
    def clearing(self) -> Clearing: ...
    @property
    def result(self) -> Pass: ...
    @property
    def price_micros(self) -> int: ...


Decide = Callable[[Override | None], Decision]


@dataclass(frozen=True, slots=True)
class Found:
    """A price with which that package wins, or one that would if the agent could pay it, or neither."""

    price_micros: int | None
    unaffordable_micros: int | None
    package: int


class WinningPrice:
    """Finds winning prices in one clearing. Prices that win can have gaps between them, because a price that
    goes before another bid may find less to share than one that goes after it; so when the lowest one cannot
    be paid, all those at which something changes are tried."""

    def __init__(self, prepared: Prepared, decide: Decide, *, only: str | None) -> None:
        self._prepared = prepared
        self._decide = decide
        self._only = only
        self._known: dict[tuple[str, str, Package], Found] = {}

    def find(self, bid: Bid, decision: Decision) -> Found:
        """The lowest price found, over all packages of a bid that lost."""
        options = self._prepared.options[bid.id]
        found = [self._find(option, decision) for option in options]
        return min(found, key=_cheapness)

    def _find(self, option: Option, decision: Decision) -> Found:
        """Bids of one agent for the same single package share the search, unless order decides."""
        bid = option.bid
        key = (bid.agent, bid.job_class, replace(option.package, price_micros=0))
        # A price that the agent cannot pay may have to fall to win.
        enough = option.package.cost_max_micros <= self._prepared.funds[bid.agent]
        funded = enough and bid.id not in decision.result.unfunded
        shared = len(bid.packages) == 1 and funded
        known = self._known.get(key) if shared else None
        if known is not None and self._same_for(option, known, decision):
            return replace(known, package=option.index)
        found = self._search(option, decision, option.package.price_micros + 1 if funded else 1)
        if shared:
            self._known[key] = found
        return found

    def _same_for(self, option: Option, known: Found, decision: Decision) -> bool:
        price = known.price_micros
        if price is None:
            return True
        tie = any(win.density == option.density(price) for win in decision.result.wins)
        return price > option.package.price_micros and not tie

    def _wins(self, option: Option, price: int, *, funded: bool = False) -> bool:
        """Whether the bid wins this very clearing with that price, and with any funds if `funded`."""
        again = self._decide(Override(option.bid.id, option.index, price, funded))
        return any(win.option.bid.id == option.bid.id for win in again.result.wins)

    def _search(self, option: Option, decision: Decision, least: int) -> Found:
        affordable = self._affordable(option)
        candidates = {*self._prices(option, decision), affordable}
        prices = sorted(price for price in candidates if least <= price < PRICE_MAX)
        wanted = self._lowest(option, prices, least)
        if wanted is not None and self._wins(option, wanted):
            return Found(wanted, None, option.index)
        payable = (price for price in prices if price <= affordable and self._wins(option, price))
        price = next(payable, None)
        return Found(price, wanted if price is None else None, option.index)

    def _lowest(self, option: Option, prices: list[int], least: int) -> int | None:
        """The lowest of the prices that wins if it can be paid, or one above them all, or None."""
        if not self._wins(option, PRICE_MAX, funded=True):
            return None
        low, high = 0, len(prices)
        while low < high:
            middle = (low + high) // 2
            if self._wins(option, prices[middle], funded=True):
                high = middle
            else:
                low = middle + 1
        if low < len(prices):
            return prices[low]
        loses, wins = prices[-1] if prices else least - 1, PRICE_MAX
        while wins - loses > 1:
            middle = (loses + wins) // 2
            if self._wins(option, middle, funded=True):
                wins = middle
            else:
                loses = middle
        return wins

    def _affordable(self, option: Option) -> int:
        """The highest price whose whole term the agent can pay."""
        funds = self._prepared.funds[option.bid.agent]
        amount = option.package.total_milli * option.package.term_ms
        return min(PRICE_MAX, ((funds + 1) * VALUE_PER_MICRO - 1) // amount) if funds >= 0 else -1

    def _prices(self, option: Option, decision: Decision) -> Iterable[int]:
        """Where something changes for this package: it passes a winner, or is worth a displacement."""
        prepared, result, clearing = self._prepared, decision.result, decision.clearing
        reserve = prepared.snapshot.rules.reserve_micros
        yield from (reserve, max(reserve, prepared.snapshot.price_micros))
        levels = {win.density for win in result.wins}
        for lease in (*clearing.renewing, *result.given_up.values(), *result.displaced.values()):
            levels.add(prepared.densities[lease.id])
        for level in levels:
            yield from (option.price_for(level), option.price_for(level + 1))
        package, milli = option.package, option.package.total_milli
        board = Board(prepared.capacity, prepared.snapshot.leases)
        due = evict(option.needs, package.devices, board, list(prepared.due), _worth)
        if due is not None:
            yield -(-due.cost // milli)
        for state in (Clearing(prepared, only=self._only), clearing):
            found = state.displaceable(option, PRICE_MAX)
            if found is not None:
                yield -(-found.cost // (100 * milli * package.term_ms))
                yield from (lease.max_price_micros + 1 for lease in found.victims)


def _worth(lease: Lease) -> int:
    return value(lease.max_price_micros, lease.total_milli)


def _cheapness(found: Found) -> tuple[int, int]:
    """Sorts what can be paid before what cannot, the cheaper first."""
    return (found.price_micros or PRICE_MAX + 1, found.unaffordable_micros or PRICE_MAX + 1)
