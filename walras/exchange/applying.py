"""What a mechanism decided, staged: renewals and notices, then leases."""

from __future__ import annotations

from typing import Final

from walras.core.clock import Ids
from walras.core.errors import InsufficientFunds, NotFound
from walras.core.money import format_credits
from walras.exchange import accounts, leasing
from walras.exchange.book import Pool
from walras.exchange.effects import Effects
from walras.exchange.explaining import Explainer
from walras.exchange.holding import Holding
from walras.exchange.supply import Supply
from walras.kube.record import Object
from walras.market import types as market

Pending = dict[str, tuple[market.Bid, Object]]
# Leases that end so were not taken from their holders.
_BY_THEMSELVES: Final = ("OutOfFunds", "Resold")


def displace(fx: Effects, pool: Pool, outcome: market.Outcome, now_ms: int) -> int:
    """Stage renewals, and the notice of every lease that has to go; how many are taken from their holders.

    A lease of a device that has left the market is not renewed, whatever it would pay.
    """
    offered = {device.id for device in pool.devices}
    for renewal in outcome.renewals:
        holding = fx.holdings[renewal.lease]
        if all(share.device in offered for share in holding.shares):
            leasing.renew(fx, holding, renewal.price_micros, renewal.end_ms, now_ms)
        else:
            message = "not renewed: a device of it was taken off the market"
            leasing.warn(fx, holding, max(holding.end_ms, now_ms), "NotRenewed", message, now_ms)
    taken = 0
    for displacement in outcome.displacements:
        holding = fx.holdings[displacement.lease]
        if displacement.by is not None and displacement.reason in ("outbid", "resold"):
            accounts.compensate(fx, displacement, holding, now_ms)
        reason, message = _why(displacement, holding, outcome.price_micros)
        taken += reason not in _BY_THEMSELVES
        leasing.warn(fx, holding, displacement.drains_at_ms, reason, message, now_ms)
    return taken


def _why(displacement: market.Displacement, holding: Holding, price_micros: int) -> tuple[str, str]:
    """The reason, as it is on the lease and its Events, and the same in words."""
    worth = format_credits(holding.worth_micros)
    match displacement.reason:
        case "priority":
            return "Preempted", "preempted by a bid of higher priority"
        case "share":
            return "NotRenewed", "not renewed: the place is another agent's by the pool's mechanism"
        case "gang":
            return "NotRenewed", "not renewed: its room is kept for a gang"
        case "resold":
            paid = format_credits(displacement.compensation_micros)
            return (
                "Resold",
                f"sold as resalePrice asks: {paid} credits, and what is left of its own price comes back",
            )
        case "outbid":
            return (
                "Displaced",
                f"displaced by a latency-class bid worth more than {worth} credits per GPU-hour",
            )
        case "funds":
            return "OutOfFunds", "not renewed: the agent's balance does not cover another term"
        case "price":
            price = format_credits(price_micros)
            return "PriceRose", f"not renewed: the price is {price} and this bid pays at most {worth}"


def award(
    fx: Effects,
    pool: Pool,
    outcome: market.Outcome,
    bids: Pending,
    explainer: Explainer,
    supply: Supply,
    ids: Ids,
    now_ms: int,
) -> None:
    """Stage a lease for every bid that won."""
    for won in outcome.awards:
        bid, stored = bids[won.bid]
        try:
            holding = leasing.grant(fx, won, bid, stored, pool.name, supply, ids, now_ms)
        except (InsufficientFunds, NotFound) as error:
            explainer.unreadable(fx, bid.agent, stored, error, now_ms)
            continue
        fx.holdings[holding.id] = holding
        explainer.forget(bid.id)
