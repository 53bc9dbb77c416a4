"""Dominant resource fairness over milli-GPU and memory (Ghodsi et al., NSDI 2011, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence

from walras.market.mechanisms.filling import fill, fill_one
from walras.market.mechanisms.policy import SCALE, Policy, Want
from walras.market.types import Outcome, Snapshot


class Drf:
    """The mechanism "drf": next is the agent whose dominant share over its weight is smallest; no price.

    A dominant share is the larger of an agent's parts of the pool's milli-GPU and of its memory. Leases that
    end their terms are filled in anew beside the bids; draining ones no longer count. Work-conserving.
    """

    def clear(self, snapshot: Snapshot) -> Outcome:
        return fill(snapshot, _DominantShare(snapshot))

    def express(self, snapshot: Snapshot, bid_id: str) -> Outcome:
        return fill_one(snapshot, _DominantShare(snapshot), bid_id)


class _DominantShare(Policy):
    takes_over = True

    def rank(self, want: Want, ahead: Sequence[Want] = ()) -> tuple[int, ...]:
        use = self.use(want.agent, ahead)
        dominant = max(use.milli * max(1, self.memory_mib), use.memory_mib * max(1, self.milli))
        whole = max(1, self.milli) * max(1, self.memory_mib)
        return (dominant * SCALE // (whole * self.weight(want.agent)),)
