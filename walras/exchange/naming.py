"""What a lease is worth to its holder: locked for a term, named anew by its bid when it is up for renewal."""

from __future__ import annotations

from walras.core.errors import WalrasError
from walras.exchange import podbid
from walras.exchange.book import Pool, read_bid
from walras.exchange.demand import BIDS, PODS
from walras.exchange.effects import Effects
from walras.exchange.holding import Holding
from walras.exchange.proxy import Proxy
from walras.kube.record import Object


def rename(fx: Effects, pool: Pool, proxy: Proxy, now_ms: int) -> None:
    """Stage the worth of every lease that is up for renewal: what its bid names now, or its agent's strategy.

    A lease whose bid is gone, cannot be read or has its package no more is worth what it was.
    """
    due_ms = now_ms + pool.rules.notice_ms + pool.rules.tick_ms
    for holding in fx.holdings.values():
        if holding.phase == "Active" and holding.end_ms <= due_ms:
            worth_micros = _named(fx, holding, pool, proxy, now_ms)
            if worth_micros is not None and worth_micros != holding.worth_micros:
                holding.worth_micros = worth_micros
                fx.keep(holding)


def _named(fx: Effects, holding: Holding, pool: Pool, proxy: Proxy, now_ms: int) -> int | None:
    stored = fx.bid(holding)
    if stored is None:
        return None
    try:
        packages = _moved(fx, holding, stored, pool, proxy)
        if packages is not None:
            stored = {**stored, "spec": {**stored["spec"], "packages": packages}}
            _write(fx, holding, packages)
        bid = read_bid(holding.agent, stored, pool, funds_micros=0, arrived_ms=0)
    except WalrasError:
        return None
    if holding.package >= len(bid.packages):
        return None
    return bid.worth_micros(bid.packages[holding.package].price_micros, now_ms)


def _moved(fx: Effects, holding: Holding, bid: Object, pool: Pool, proxy: Proxy) -> list[Object] | None:
    """The packages of a pod's bid at what its agent's strategy says now; None where that is not asked.

    Raises Invalid for a bid that cannot be read.
    """
    if not proxy.adapts(holding.agent):
        return None
    metadata = bid["metadata"]
    pod = fx.api.find(holding.agent, PODS, metadata["namespace"], metadata["name"])
    owners = metadata.get("ownerReferences") or ()
    if pod is None or all(owner.get("uid") != pod["metadata"]["uid"] for owner in owners):
        return None
    if podbid.names_price(fx.api, holding.agent, pod):
        return None
    return podbid.reprice(holding.agent, pod, bid["spec"], proxy, pool)


def _write(fx: Effects, holding: Holding, packages: list[Object]) -> None:
    def change(bid: Object) -> None:
        bid["spec"]["packages"] = packages

    fx.edit(holding.agent, BIDS, holding.namespace, holding.bid, change)
