"""The price that would have won: found by clearing again, not by formula."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from walras.core.money import CREDITS_MAX, MICROS, price_within
from walras.market.clearing import Clearing, Override, Pass
from walras.market.eviction import evict
from walras.market.prepared import Option, Prepared, value
from walras.market.types import Bid, Lease

PRICE_MAX: Final = CREDITS_MAX * MICROS
TRIES_MAX: Final = 8
# Bids looked at again in one clearing, all searches together: a flood of bids must not hold up the market.
EFFORT_MAX: Final = 2_500


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
    option: Option
    searched: bool = True


class WinningPrice:
    """Finds winning prices in one clearing. Prices that win can have gaps between them, because a price that
    goes before another bid may find less to share than one that goes after it; so when the lowest one cannot
    be paid, the highest ones that can are tried. After EFFORT_MAX the rest is not searched for."""

    def __init__(self, prepared: Prepared, decide: Decide, *, only: str | None) -> None:
        self._prepared = prepared
        self._decide = decide
        self._only = only
        self._effort = 0
        self._known: dict[tuple[int, str, str], int | None] = {}

    def find(self, bid: Bid, decision: Decision) -> Found:
        """The lowest price found, over all packages of a bid that lost."""
        options = self._prepared.options[bid.id]
        wanted = self._prepared.snapshot.explain
        if self._effort > EFFORT_MAX or (wanted is not None and bid.id not in wanted):
            return Found(None, None, options[0], searched=False)
        found = [self._find(option, decision) for option in options]
        return min(found, key=_cheapness)

    def _find(self, option: Option, decision: Decision) -> Found:
        # A price that the agent cannot pay may have to fall to win.
        cost = option.cost(option.package.price_micros, option.ask.fewest)
        enough = cost <= self._prepared.funds[option.bid.agent]
        funded = enough and option.bid.id not in decision.result.unfunded
        least = option.package.price_micros + 1 if funded else 1
        wanted = self._wanted(option, decision, least)
        if wanted is not None and self._wins(option, wanted):
            return Found(wanted, None, option)
        affordable = self._affordable(option)
        if wanted is None:
            return Found(None, None, option)
        # Below its own price too: with less of its funds bound it may pay for a restart.
        tried = [affordable, *(price for price in self._prices(option, decision) if price < affordable)]
        tried = sorted((price for price in tried if price > 0), reverse=True)[:TRIES_MAX]
        winning = [price for price in tried if self._wins(option, price)]
        return Found(min(winning), None, option) if winning else Found(None, wanted, option)

    def _wanted(self, option: Option, decision: Decision, least: int) -> int | None:
        """The lowest price that wins if it can be paid; the same for all bids that differ in price alone."""
        latency = option.bid.job_class == "latency"
        key = (option.kind, option.bid.job_class, option.bid.agent if latency else "")
        if key in self._known:
            known = self._known[key]
            if known is None or (known >= least and self._wins(option, known, funded=True)):
                return known
        candidates = (price for price in self._prices(option, decision) if least <= price < PRICE_MAX)
        self._known[key] = self._lowest(option, sorted(set(candidates)), least)
        return self._known[key]

    def _wins(self, option: Option, price: int, *, funded: bool = False) -> bool:
        """Whether the bid wins this very clearing with that price, and with any funds if `funded`."""
        self._effort += 1 if self._only else len(self._prepared.bids)
        again = self._decide(Override(option.bid.id, option.index, price, funded))
        return any(win.option.bid.id == option.bid.id for win in again.result.wins)

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
        milli_ms = option.fewest_milli * option.package.term_ms
        return min(PRICE_MAX, price_within(funds, milli_ms)) if funds >= 0 else -1

    def _prices(self, option: Option, decision: Decision) -> Iterable[int]:
        """Where something changes for this package: it passes a winner, or is worth a displacement."""
        prepared, result, clearing = self._prepared, decision.result, decision.clearing
        reserve = prepared.snapshot.rules.reserve_micros
        yield from map(option.at_speed, (reserve, max(reserve, prepared.snapshot.price_micros)))
        levels = {win.density for win in result.wins}
        for lease in (*clearing.renewing, *result.given_up.values(), *result.displaced.values()):
            levels.add(prepared.densities[lease.id])
        for level in levels:
            yield from (option.price_for(level), option.price_for(level + 1))
        term_ms, milli = option.package.term_ms, option.fewest_milli
        due = evict(option.ask, prepared.board, prepared.due, _worth)
        if due is not None:
            yield -(-due.cost // milli)
        for state in (Clearing(prepared, only=self._only), clearing):
            found = state.displaceable(option, PRICE_MAX)
            if found is not None:
                yield -(-found.cost // (100 * milli * term_ms))
                yield from (lease.max_price_micros + 1 for lease in found.victims)
            found = state.buyable(option)
            if found is not None:
                floor = option.cost(option.at_speed(reserve), option.ask.fewest)
                yield price_within(floor + found.cost, milli * term_ms)


def _worth(lease: Lease) -> int:
    return value(lease.max_price_micros, lease.total_milli)


def _cheapness(found: Found) -> tuple[int, int]:
    """Sorts what can be paid before what cannot, the cheaper first."""
    return (found.price_micros or PRICE_MAX + 1, found.unaffordable_micros or PRICE_MAX + 1)
