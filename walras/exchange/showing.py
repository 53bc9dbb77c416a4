"""What the exchange says of itself in the status of pools, agents and leases, written when it changes."""

from __future__ import annotations

from collections.abc import Callable

from walras.core.clock import rfc3339
from walras.core.money import format_credits
from walras.exchange import accounts
from walras.exchange.book import Pool, is_pending
from walras.exchange.carried import Carried
from walras.exchange.demand import AGENTS, BIDS, FLEET, POOLS
from walras.exchange.effects import Effects
from walras.kube.record import Object


class Display:
    """Remembers what was last shown, so that what stays the same is not written again."""

    def __init__(self) -> None:
        self._shown: dict[str, Object] = {}

    def refresh(self, fx: Effects, pool: Pool, prices: Carried, now_ms: int) -> None:
        """Stage the statuses of the pool, of every agent and of every lease that runs."""
        running = [holding for holding in fx.holdings.values() if holding.phase != "Reserved"]
        capacity = sum(device.milli for device in pool.devices) or 1
        status: Object = {
            "devices": len(pool.devices),
            "price": format_credits(prices.price_micros),
            "postedPrice": format_credits(prices.slow.posted_micros),
            "reserve": format_credits(prices.slow.reserve_micros),
            "allocated": f"{100 * sum(holding.milli for holding in running) // capacity}%",
            "bids": sum(1 for _, bid in fx.api.everywhere(BIDS) if is_pending(bid)),
            "leases": len(running),
        }
        if self._is_new(f"{POOLS}/{pool.name}", status):
            fx.edit(FLEET, POOLS, "", pool.name, lambda stored: _show_pool(stored, status, now_ms))
        for key in [key for key in self._shown if key.startswith(AGENTS)]:
            # Another agent of the same name begins anew.
            if key.removeprefix(f"{AGENTS}/") not in fx.treasury.budgets:
                del self._shown[key]
        for agent in fx.treasury.budgets:
            held = [holding for holding in running if holding.agent == agent]
            current = accounts.status(fx.treasury, agent, held)
            if self._is_new(f"{AGENTS}/{agent}", current):
                fx.edit(FLEET, AGENTS, "", agent, _merging(current))
        for holding in running:
            fx.project(holding)

    def _is_new(self, key: str, status: Object) -> bool:
        if self._shown.get(key) == status:
            return False
        self._shown[key] = dict(status)
        return True


def _show_pool(stored: Object, status: Object, now_ms: int) -> None:
    stored["status"] = status | {
        "clearedAt": rfc3339(now_ms),
        "observedGeneration": stored["metadata"].get("generation", 1),
    }


def _merging(status: Object) -> Callable[[Object], None]:
    def merge(stored: Object) -> None:
        stored.setdefault("status", {}).update(status)

    return merge
