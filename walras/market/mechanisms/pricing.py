"""A price that all pay, and agents that can pay so much."""

# ruff: noqa: ARG002 (not every policy looks at all that it is told)
from __future__ import annotations

from collections.abc import Sequence

from walras.core.money import charge
from walras.market.mechanisms.policy import Policy, Want
from walras.market.types import Bid, Lease, Reason, Share, Snapshot


class Priced(Policy):
    """In order of arrival for those that pay the price and have the funds; renewals first."""

    def __init__(self, snapshot: Snapshot, price_micros: int) -> None:
        super().__init__(snapshot)
        self.price_micros = price_micros
        self._purse: dict[str, int] = {}
        items: tuple[Bid | Lease, ...] = (*snapshot.bids, *snapshot.leases)
        for item in items:
            self._purse[item.agent] = min(self._purse.get(item.agent, item.funds_micros), item.funds_micros)

    def order(self, want: Want) -> tuple[int, ...]:
        return (not want.renewal, want.since_ms)

    def refuses(self, want: Want, shares: Sequence[Share] = ()) -> Reason | None:
        if want.price_micros < self.price_micros:
            below = want.price_micros < self.snapshot.rules.reserve_micros
            return Reason.BELOW_RESERVE if below else Reason.OUTBID
        return None if self._can_pay(want) else Reason.INSUFFICIENT_FUNDS

    def winning_price(self, want: Want, reason: Reason) -> int | None:
        by_price = reason in (Reason.OUTBID, Reason.BELOW_RESERVE)
        return self.price_micros if by_price and self._can_pay(want) else None

    def took(self, want: Want, shares: Sequence[Share], *, fixed: bool = False) -> None:
        super().took(want, shares, fixed=fixed)
        if not fixed:
            self._purse[want.agent] -= self._cost(want)

    def purse(self, agent: str) -> int:
        """Micros that the agent can still pay; 0 for one that is only named in the facts."""
        return max(0, self._purse.get(agent, 0))

    def _can_pay(self, want: Want) -> bool:
        return self._cost(want) <= self.purse(want.agent)

    def _cost(self, want: Want) -> int:
        return charge(self.price_micros, want.milli, want.term_ms)
