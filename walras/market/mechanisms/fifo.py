"""First in, first out: what schedulers without prices do, to compare with."""

from __future__ import annotations

from walras.market.mechanisms.filling import fill, fill_one
from walras.market.mechanisms.policy import Policy, Want
from walras.market.types import Outcome, Snapshot


class Fifo:
    """The mechanism "fifo": order of arrival, no price, no displacement, leases for as long as they are used.

    Work-conserving: a bid that does not fit does not hold up those behind it.
    """

    def clear(self, snapshot: Snapshot) -> Outcome:
        return fill(snapshot, _Arrival(snapshot))

    def express(self, snapshot: Snapshot, bid_id: str) -> Outcome:
        return fill_one(snapshot, _Arrival(snapshot), bid_id)


class _Arrival(Policy):
    def order(self, want: Want) -> tuple[int, ...]:
        return (not want.renewal, want.since_ms)
