"""The lifecycle of leases: in each step those whose devices are free begin, those that are over end."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import structlog

from walras.cost.usage import Used
from walras.exchange import leasing, settlement
from walras.exchange.book import Pool
from walras.exchange.effects import Effects
from walras.exchange.emptying import Emptying
from walras.exchange.equipment import Equipment, Holdings, is_as_sold
from walras.exchange.holding import Holding
from walras.exchange.supply import Supply
from walras.market.placement import startable

# When a node that could not be stopped is tried again.
RETRY_MS: Final = 1_000

_log = structlog.get_logger("walras.exchange")


class Lifecycle:
    """Of the leases that a step's effects have."""

    def __init__(self, supply: Supply, equipment: Equipment, emptying: Emptying) -> None:
        self._supply, self._equipment, self._emptying = supply, equipment, emptying
        # Leases that the last step looked at and that had not begun.
        self._waiting: set[str] = set()

    def open(self, fx: Effects, now: int) -> None:
        """End the leases of devices that this start found no more, or not as they were sold."""
        for holding in fx.holdings.values():
            if not is_as_sold(holding, self._supply):
                leasing.lose(fx, holding, now)
                self._emptying.begin(holding)

    def advance(
        self,
        fx: Effects,
        pool: Pool,
        now: int,
        *,
        look: Collection[str],
        offered: Collection[tuple[str, str, str]],
    ) -> None:
        """Stage what comes of devices, bids, pods and time.

        look: leases that nobody may have use for any more. offered: those that have another resale price, by
        cluster, namespace and name.
        """
        self._take_in_offers(fx, offered)
        self._take_in_devices(fx, now)
        self._end_what_is_over(fx, look, now)
        self._start_reserved(fx, pool, now)

    def settle_all(self, fx: Effects, now: int) -> None:
        """Stage payment for what every lease that has begun owes since the last reading."""
        for holding in fx.holdings.values():
            if holding.phase != "Reserved":
                settlement.settle(fx, holding, now, self._used(holding))

    def due_ms(self, holdings: Holdings) -> list[int]:
        """When each lease that drains is over."""
        return [
            holding.drains_at_ms
            for holding in holdings.values()
            if holding.phase == "Draining" and holding.id not in self._emptying
        ]

    def has_new(self, holdings: Holdings) -> bool:
        """Whether leases wait for their cards that nobody has looked at yet: they may be ready."""
        return self._supply.machine is not None and any(
            holding.phase == "Reserved" and holding.id not in self._waiting for holding in holdings.values()
        )

    def _take_in_offers(self, fx: Effects, offered: Collection[tuple[str, str, str]]) -> None:
        if offered:
            for holding in fx.holdings.values():
                if (holding.agent, holding.namespace, holding.name) in offered:
                    leasing.offer(fx, holding)

    def _take_in_devices(self, fx: Effects, now: int) -> None:
        """End the leases of devices that failed or were taken off the market."""
        for holding, reason, message in self._equipment.take_in(fx, now):
            # One whose node could not be stopped is tried again later, and told once.
            ending = holding.phase == "Draining" and min(holding.drains_at_ms, holding.end_ms) <= now
            if not ending and holding.id not in self._emptying:
                leasing.lose(fx, holding, now, reason, message, self._used(holding))
                self._emptying.begin(holding)

    def _end_what_is_over(self, fx: Effects, look: Collection[str], now: int) -> None:
        for identity in look:
            holding = fx.holdings.get(identity)
            if holding is not None and not fx.pods_on(holding) and self._is_done(fx, holding):
                self._emptying.begin(holding)
        for holding in list(fx.holdings.values()):
            if holding.phase == "Draining" and now >= holding.drains_at_ms:
                self._emptying.begin(holding)
        for identity, error in self._emptying.done():
            holding = fx.holdings.get(identity)
            if holding is None:
                continue
            if error is not None and self._supply.machine is None:
                _log.error("a node could not be stopped; trying again", node=holding.node, error=str(error))
                holding.drains_at_ms = now + RETRY_MS
                continue
            if error is not None:
                # The card is not sold until it is empty; nobody waits or pays for that.
                _log.error("a node could not be stopped", node=holding.node, error=str(error))
                self._equipment.stuck(fx, holding, error, now)
            leasing.end(fx, holding, now, self._used(holding))
            del fx.holdings[identity]
            self._emptying.forget(holding)
            self._equipment.ended()
            self._requeue_bid(fx, holding)

    def _is_done(self, fx: Effects, holding: Holding) -> bool:
        """Whether nothing will use it any more: it drains, a device is gone, or its bid is gone or over."""
        if holding.phase == "Draining" or not is_as_sold(holding, self._supply):
            return True
        bid = fx.bid(holding)
        return bid is None or bid.get("status", {}).get("phase") == "Ended"

    def _requeue_bid(self, fx: Effects, holding: Holding) -> None:
        """A bid whose lease was displaced is pending again, unless it is that of a pod which had its node.

        Where the disk refused the step that displaced it, the bid does not say so, and its lease ends all the
        same.
        """
        bid = fx.bid(holding)
        if bid is None or bid["status"].get("phase") not in ("Displaced", "Leased"):
            return
        if fx.had_node(holding, bid):
            fx.set_bid_of(holding, phase="Displaced")
        else:
            fx.set_bid_of(holding, phase="Pending", lease=None)

    def _start_reserved(self, fx: Effects, pool: Pool, now: int) -> None:
        waiting = [holding for holding in fx.holdings.values() if holding.phase == "Reserved"]
        self._waiting = {holding.id for holding in waiting}
        coming = []
        for holding in sorted(waiting, key=lambda holding: (holding.start_ms, holding.id)):
            if holding.id in self._emptying:
                continue
            if not startable(holding.as_market(0), fx.market_leases(), pool.devices):
                continue
            if self._equipment.is_ready(holding):
                access = self._equipment.access(holding)
                self._equipment.began(holding, leasing.activate(fx, holding, self._supply, now, access))
            else:
                coming.append(holding)
        running = [holding for holding in fx.holdings.values() if holding.phase != "Reserved"]
        self._equipment.want(running, coming)

    def _used(self, holding: Holding) -> Used:
        return self._equipment.used(holding, self._emptying.cpu_since(holding))
