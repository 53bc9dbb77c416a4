"""Static split: every agent owns a fixed part of the devices. What one does not use, nobody uses."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from walras.core.money import split
from walras.devices.placement import EMPTY, Shape
from walras.market.mechanisms.filling import fill, fill_one
from walras.market.mechanisms.policy import Policy, Want
from walras.market.types import Outcome, Reason, Share, Snapshot


class StaticSplit:
    """The mechanism "static": the pool's devices in a row, cut by weight among its agents; no price.

    An agent's part is whole devices as far as they go, and slices of the two at its ends. In order of arrival
    within a part; not work-conserving. Leases last as long as they are used and their part covers them.
    """

    def clear(self, snapshot: Snapshot) -> Outcome:
        return fill(snapshot, _Parts(snapshot))

    def express(self, snapshot: Snapshot, bid_id: str) -> Outcome:
        return fill_one(snapshot, _Parts(snapshot), bid_id)


def parts(snapshot: Snapshot) -> dict[str, dict[str, Shape]]:
    """By agent, what it owns of which device. The agents are those that the snapshot names anywhere."""
    policy = Policy(snapshot)
    owned: dict[str, dict[str, Shape]] = {agent: {} for agent in policy.agents}
    if not owned:
        return owned
    weights = [policy.weight(agent) for agent in policy.agents]
    left = dict(zip(policy.agents, split(policy.milli, weights), strict=True))
    owners = iter(policy.agents)
    owner = next(owners)
    for device in snapshot.devices:
        free = device.milli
        while free:
            while not left[owner]:
                owner = next(owners)
            milli = min(free, left[owner])
            owned[owner][device.id] = Shape(milli, device.memory_mib * milli // device.milli)
            free -= milli
            left[owner] -= milli
    return owned


class _Parts(Policy):
    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__(snapshot)
        self._owned = parts(snapshot)
        self._used: defaultdict[tuple[str, str], Shape] = defaultdict(lambda: EMPTY)

    def order(self, want: Want) -> tuple[int, ...]:
        # What an agent has it keeps: within a part nobody else waits for it.
        return (not want.renewal, *super().order(want))

    def refuses(self, want: Want, shares: Sequence[Share] = ()) -> Reason | None:
        if shares:
            fits = all(
                Shape(share.milli, share.memory_mib).fits(self._left(want.agent, share.device))
                for share in shares
            )
            return None if fits else Reason.OVER_SHARE
        part = sum(shape.milli for shape in self._owned[want.agent].values())
        return Reason.OVER_SHARE if self.use(want.agent).milli + want.milli > part else None

    def took(self, want: Want, shares: Sequence[Share], *, fixed: bool = False) -> None:
        super().took(want, shares, fixed=fixed)
        for share in shares:
            self._used[want.agent, share.device] += Shape(share.milli, share.memory_mib)

    def room(self, agent: str, device: str, free: Shape) -> Shape:
        left = self._left(agent, device)
        return Shape(min(free.milli, left.milli), min(free.memory_mib, left.memory_mib))

    def _left(self, agent: str, device: str) -> Shape:
        return self._owned[agent].get(device, EMPTY) - self._used[agent, device]
