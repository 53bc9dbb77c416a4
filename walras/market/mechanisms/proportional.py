"""Proportional share: what an agent spends an hour buys that part of the pool (Kelly, ETT 1997)."""

# ruff: noqa: ARG002 (not every policy looks at all that it is told)
from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from walras.core.money import WHOLE_GPU_MILLI
from walras.market.mechanisms.filling import fill, fill_one, is_due
from walras.market.mechanisms.policy import SCALE, Want
from walras.market.mechanisms.pricing import Priced
from walras.market.types import Lease, Outcome, Reason, Share, Snapshot


class ProportionalShare:
    """The mechanism "proportional": a trading post where each agent puts its spend rate, and one price.

    The price is the highest at which more is demanded than there is, or the reserve. An agent demands what
    its spend rate buys, but no more than it has bids for that pay this price; so where everybody wants more,
    parts are as spend rates are. Shares are indivisible here: an agent gets what of its bids fits into its
    part, and never more. The rest is idle, and nobody spends faster than it said.
    """

    def clear(self, snapshot: Snapshot) -> Outcome:
        fixed = [lease for lease in snapshot.leases if not is_due(snapshot, lease)]
        rates = _rates(snapshot, fixed)
        return fill(snapshot, _Spending(snapshot, _price(snapshot, rates, fixed), rates))

    def express(self, snapshot: Snapshot, bid_id: str) -> Outcome:
        price = max(snapshot.price_micros, snapshot.rules.reserve_micros, 1)
        return fill_one(snapshot, _Spending(snapshot, price, _rates(snapshot, snapshot.leases)), bid_id)


def _rates(snapshot: Snapshot, fixed: Sequence[Lease]) -> dict[str, int]:
    """Thousandths of a micro an hour by agent, beyond what leases at locked prices take."""
    priced = Priced(snapshot, 0)
    rates = {}
    for agent in priced.agents:
        facts = snapshot.agents.get(agent)
        said = facts.spend_micros_per_hour if facts else None
        if said is None:
            rates[agent] = priced.purse(agent) * WHOLE_GPU_MILLI
        else:
            locked = sum(each.price_micros * each.total_milli for each in fixed if each.agent == agent)
            rates[agent] = max(0, said * WHOLE_GPU_MILLI - locked)
    return rates


def _price(snapshot: Snapshot, rates: dict[str, int], fixed: Sequence[Lease]) -> int:
    """The last price at which too much is wanted, by bisection: demand falls as the price rises."""
    offers: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for bid in snapshot.bids:
        for package in bid.packages[:1]:
            offers[bid.agent].append((package.price_micros, package.total_milli))
    for lease in snapshot.leases:
        if is_due(snapshot, lease):
            offers[lease.agent].append((lease.max_price_micros, lease.total_milli))
    free = sum(device.milli for device in snapshot.devices)
    free -= sum(lease.total_milli for lease in fixed if lease.state != "draining")

    def demanded(price: int) -> int:
        return sum(
            min(rates[agent] // price, sum(milli for most, milli in wanted if most >= price))
            for agent, wanted in offers.items()
        )

    low = reserve = max(snapshot.rules.reserve_micros, 1)
    high = 1 + max((most for wanted in offers.values() for most, _ in wanted), default=0)
    while low < high:
        middle = (low + high) // 2
        if demanded(middle) <= max(0, free):
            high = middle
        else:
            low = middle + 1
    return max(reserve, low - 1)


class _Spending(Priced):
    takes_over = True

    def __init__(self, snapshot: Snapshot, price_micros: int, rates: dict[str, int]) -> None:
        super().__init__(snapshot, price_micros)
        self._parts = {agent: rate // price_micros for agent, rate in rates.items()}
        self._bought = dict.fromkeys(rates, 0)

    def rank(self, want: Want, ahead: Sequence[Want] = ()) -> tuple[int, ...]:
        bought = self._bought[want.agent] + sum(each.milli for each in ahead)
        return (bought * SCALE // max(1, self._parts[want.agent]),)

    def refuses(self, want: Want, shares: Sequence[Share] = ()) -> Reason | None:
        refused = super().refuses(want, shares)
        over = self._bought[want.agent] + want.milli > self._parts[want.agent]
        return refused or (Reason.OVER_SHARE if over else None)

    def winning_price(self, want: Want, reason: Reason) -> int | None:
        # With a higher bid there would be more demand, and another price.
        return None

    def took(self, want: Want, shares: Sequence[Share], *, fixed: bool = False) -> None:
        super().took(want, shares, fixed=fixed)
        if not fixed:
            self._bought[want.agent] += want.milli
