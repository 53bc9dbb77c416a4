"""Why bids lost, from what the pass knows; for a few of them also the price that would have won."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from walras.core.money import charge, format_credits, price_within
from walras.core.quantity import format_duration
from walras.market.engine.jit import LIMIT, NONE, Ints
from walras.market.engine.searching import Found, Search
from walras.market.engine.snapshots import Translated
from walras.market.explain import describe, unfit
from walras.market.ground import Ground
from walras.market.types import Bid, Constraint, Explanation, Package, Reason, Snapshot


@dataclass(frozen=True, slots=True)
class Decision:
    """What is known of a decision: its price, the least that counted, what each agent has left."""

    price_micros: int
    floor_micros: int
    purse: Ints


class Refusals:
    """Explains the refusals of one decision."""

    def __init__(
        self, snapshot: Snapshot, translated: Translated, decision: Decision, search: Search, only: str | None
    ) -> None:
        self._snapshot, self._translated, self._decision = snapshot, translated, decision
        self._search, self._only = search, only
        self._options, self._kinds = translated.book.options(), translated.book.catalogue.columns()
        self._tightest: dict[int, Constraint] = {}
        self._unfit: dict[tuple[Package, ...], Explanation] = {}

    def explain(self, bid: Bid) -> Explanation:
        """The explanation of a bid that was refused."""
        price, now = self._decision.price_micros, self._snapshot.now_ms
        if bid.deadline_ms is not None and bid.deadline_ms <= now:
            late = format_duration((now - bid.deadline_ms) // 1000 * 1000)
            text = f"the deadline passed {late} ago; bid again with a later one"
            return Explanation(Reason.EXPIRED, Constraint.DEADLINE, price, None, 0, text)
        rows = self._possible(bid)
        if not rows:
            return self._impossible(bid)
        best = max(rows, key=lambda row: (int(self._options.density[row]), -int(self._options.nth[row])))
        position, wanted = int(self._positions[self._options.head[best]]), self._snapshot.explain
        unfunded = position > 0 and not any(self._payable(row) for row in rows)
        found = Found(best, None)
        searched = (wanted is None or bid.id in wanted) and not self._search.over
        if searched:
            found = self._winning(rows, unfunded)
            best = found.option if found.price_micros is not None else best
        return self._explanation(best, found, position, unfunded, searched)

    def _possible(self, bid: Bid) -> list[int]:
        """The options that the empty pool could hold."""
        first = self._translated.rows.get(bid.id)
        if first is None:
            return []
        rows = [first] if not self._options.several[first] else self._translated.book.packages(first).tolist()
        return [row for row in rows if self._kinds.possible[self._options.kind[row]]]

    def _impossible(self, bid: Bid) -> Explanation:
        found = self._unfit.get(bid.packages)
        if found is None:
            none = unfit(bid, Ground(self._snapshot.devices))
            price = self._decision.price_micros
            found = Explanation(none.reason, none.constraint, price, None, 0, none.message)
            self._unfit[bid.packages] = found
        return found

    def _offers(self, row: int) -> bool:
        return bool(self._options.price[row] >= self._decision.floor_micros)

    def _payable(self, row: int) -> bool:
        left = self._decision.purse[self._options.agent[row]]
        return self._offers(row) and bool(self._options.cost[row] <= left)

    def _winning(self, rows: list[int], unfunded: bool) -> Found:
        """The cheapest price of all packages, else whether one would win that the agent cannot pay."""
        book, options = self._translated.book, self._options
        every = []
        for row in rows:
            package, ratios = self._package(row), book.catalogue.kinds
            ratio = tuple(int(ratios[name][options.kind[row]]) for name in ("numerator", "denominator"))
            funds, amount = int(book.funds[options.agent[row]]), package.total_milli * package.term_ms
            affordable = price_within(funds, amount) if funds >= 0 else -1
            least = 1 if unfunded else package.price_micros + 1
            every.append(self._search.find(row, (ratio[0], ratio[1]), least, affordable))
        return min(every, key=lambda found: (found.price_micros or LIMIT, not found.unaffordable))

    @cached_property
    def _positions(self) -> Ints:
        """By first option, the bid's place in the order, from 1; 0 for one that offers too little."""
        options = self._options
        counts = self._kinds.possible[options.kind] & (options.price >= self._decision.floor_micros)
        counts &= self._translated.book.live()
        if self._only is not None:
            counts &= options.head == self._translated.rows.get(self._only, NONE)
        rows = np.flatnonzero(counts)
        best, places = np.full(options.kind.size, NONE, np.int64), np.zeros(options.kind.size, np.int64)
        np.maximum.at(best, options.head[rows], options.density[rows])
        heads = np.flatnonzero(best != NONE)
        order = np.lexsort((options.told[heads], options.rank[heads], -best[heads]))
        places[heads[order]] = np.arange(1, heads.size + 1)
        return places

    def _constraint(self, kind: int) -> Constraint:
        """What was short for a kind before anything was awarded."""
        found = self._tightest.get(kind)
        if found is None:
            devices, need = self._translated.book.devices, self._kinds.memory[kind, :]
            fits = need[devices.kind] != LIMIT
            free = devices.class_milli[devices.kind] - devices.later_milli
            free_memory = devices.class_memory[devices.kind] - devices.later_memory
            milli = int((fits & (free >= self._kinds.milli[kind])).sum())
            memory = int((fits & (free_memory >= need[devices.kind])).sum())
            wanted = int(self._kinds.devices[kind])
            found = Constraint.MILLI_GPU
            if milli >= wanted > memory:
                found = Constraint.MEMORY
            elif 0 < milli < wanted:
                found = Constraint.DEVICES
            self._tightest[kind] = found
        return found

    def _package(self, row: int) -> Package:
        bid, index = self._translated.packages[row]
        return bid.packages[index]

    def _explanation(
        self, row: int, found: Found, position: int, unfunded: bool, searched: bool
    ) -> Explanation:
        package, winning = self._package(row), found.price_micros
        constraint = self._constraint(int(self._options.kind[row]))
        if unfunded or (winning is not None and winning <= package.price_micros):
            reason, constraint = Reason.INSUFFICIENT_FUNDS, Constraint.FUNDS
        elif position == 0 and package.price_micros < self._snapshot.rules.reserve_micros:
            reason, constraint = Reason.BELOW_RESERVE, Constraint.PRICE
        elif winning is not None or not searched:
            reason = Reason.OUTBID
        elif found.unaffordable:
            reason, constraint = Reason.OUTBID, Constraint.FUNDS
        else:
            reason = Reason.NO_CAPACITY
        index = self._translated.packages[row][1]
        text = self._message(reason, row, winning, searched)
        price, bid = self._decision.price_micros, self._translated.packages[row][0]
        # The price to name, which is more than what is left of it now where the bid decays.
        named = None if winning is None else bid.price_for(winning, self._snapshot.now_ms)
        return Explanation(reason, constraint, price, named, position, text, index)

    def _message(self, reason: Reason, row: int, winning: int | None, searched: bool) -> str:
        package = self._package(row)
        asks, offer = describe(package), format_credits(package.price_micros)
        would = f"; a maxPrice of {format_credits(winning)} would have won" if winning is not None else ""
        if reason is Reason.BELOW_RESERVE:
            reserve = format_credits(self._snapshot.rules.reserve_micros)
            advice = would or "; raise maxPrice"
            return f"{offer} is below the pool's reserve price of {reserve} per GPU-hour{advice}"
        if reason is Reason.INSUFFICIENT_FUNDS:
            cost = format_credits(charge(package.price_micros, package.total_milli, package.term_ms))
            funds = format_credits(int(self._translated.book.funds[self._options.agent[row]]))
            advice = would or "; wait for income, shorten the term or lower maxPrice"
            term = format_duration(package.term_ms)
            return (
                f"{asks} at {offer} for {term} costs up to {cost} but {funds} is available for all that the "
                f"agent wins, renews and restarts{advice}"
            )
        if reason is Reason.NO_CAPACITY:
            return f"{asks} is under leases that no bid may displace now; it is considered again every tick"
        if not searched:
            return f"no room for {asks} this time; too many bids to say what price would win"
        clearing = format_credits(self._decision.price_micros)
        text = f"outbid for {asks}: it offers {offer} where the clearing price is {clearing}"
        return text + (
            would
            or "; winning takes more than the agent's funds cover; wait for income, shorten the term or ask "
            "for a smaller share"
        )
