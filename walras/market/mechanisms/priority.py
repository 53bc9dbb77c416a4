"""Priority with preemption, as in Kubernetes and Kueue: the higher ends the lower, with notice."""

# ruff: noqa: ARG002 (not every policy looks at all that it is told)
from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from walras.market.mechanisms.filling import fill, fill_one
from walras.market.mechanisms.policy import CLASS_RANK, Policy, Want
from walras.market.types import Lease, Outcome, Snapshot

# A victim of a higher level costs more than all of lower ones together, over this many levels.
_LEVELS: Final = 16
_LEVEL_COST: Final[int] = 10**9


class Priority:
    """The mechanism "priority": by `priority`, then class, then arrival; no price.

    A bid that does not fit preempts active leases of strictly lower priority (number, then class) that are
    past their minimum quantum, the lowest ones first. Smaller bids behind it are not held up (Kueue's
    BestEffortFIFO). As what is displaced is strictly lower, displacement ends.
    """

    def clear(self, snapshot: Snapshot) -> Outcome:
        return fill(snapshot, _ByPriority(snapshot))

    def express(self, snapshot: Snapshot, bid_id: str) -> Outcome:
        return fill_one(snapshot, _ByPriority(snapshot), bid_id)


class _ByPriority(Policy):
    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__(snapshot)
        levels = sorted({_level(lease) for lease in snapshot.leases}, reverse=True)
        self._cost: dict[tuple[int, int], int] = {
            level: _LEVEL_COST ** min(height, _LEVELS) for height, level in enumerate(levels)
        }

    def rank(self, want: Want, ahead: Sequence[Want] = ()) -> tuple[int, ...]:
        return _level(want)

    def preempts(self, want: Want, lease: Lease) -> bool:
        return _level(want) < _level(lease)

    def eviction_cost(self, lease: Lease) -> int:
        return lease.total_milli * self._cost[_level(lease)]


def _level(of: Want | Lease) -> tuple[int, int]:
    """Lower goes first."""
    return (-of.priority, CLASS_RANK[of.job_class])
