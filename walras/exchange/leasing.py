"""A lease from award to end: its money, its Node, its notice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from walras.core.clock import Ids, rfc3339
from walras.core.money import charge, format_credits, parse_credits
from walras.core.quantity import format_duration
from walras.cost.usage import NOTHING, Used
from walras.exchange.demand import PODS
from walras.exchange.effects import Effects
from walras.exchange.holding import BID_LABEL, LEASES, Holding, Term
from walras.exchange.leased import leased_slices, slice_titles
from walras.exchange.nodes import NODES, drain, lease_node
from walras.exchange.settlement import go_on, settle
from walras.exchange.supply import Supply
from walras.exchange.treasury import account_of, revenue_of
from walras.kube.policy import SLICES
from walras.kube.record import Object
from walras.market.types import Award, Bid
from walras.runtimes.gpus.machine import Access
from walras.tenants.objects import DISRUPTION_TARGET, set_condition

# How long after the end of its term a hold that no lease names any more gives itself back.
HOLD_GRACE_MS: Final = 600_000
# Why a lease ends whose device is not there any more.
GONE: Final = "DeviceGone"


def grant(
    fx: Effects, award: Award, bid: Bid, bid_object: Object, pool: str, supply: Supply, ids: Ids, now_ms: int
) -> Holding:
    """Stage the lease that a bid won: money on hold, GPULease, and its Node unless it has to wait."""
    metadata = bid_object["metadata"]
    suffix = ids.suffix()
    while fx.api.find(bid.agent, NODES, "", f"lease-{suffix}") is not None:
        suffix = ids.suffix()
    holding = Holding(
        id=ids.uid(),
        agent=bid.agent,
        namespace=metadata["namespace"],
        name=f"{metadata['name'][:240]}-{suffix}",
        node=f"lease-{suffix}",
        bid=metadata["name"],
        job_class=bid.job_class,
        pool=pool,
        shares=award.shares,
        price_micros=award.price_micros,
        worth_micros=award.max_price_micros,
        restart_cost_micros=bid.restart_cost_micros,
        term_ms=award.term_ms,
        enforcement=supply.enforcement_of(award.shares),
        phase="Reserved",
        start_ms=now_ms,
        end_ms=now_ms + award.term_ms,
        term_start_ms=now_ms,
        hold="",
        priority=bid.priority,
        package=award.package,
        uuids=supply.uuids(award.shares),
    )
    holding.hold = f"lease:{holding.id}:{holding.terms}"
    fx.treasury.hold(
        holding.hold,
        account_of(bid.agent),
        revenue_of(pool),
        holding.cost_of_term(),
        now_ms,
        ref=f"{holding.namespace}/{holding.name}",
        expires_at_ms=holding.end_ms + HOLD_GRACE_MS,
    )
    fx.tx.create(bid.agent, LEASES, _object(holding))
    fx.won.add(bid.id)
    fx.set_bid(
        bid.agent,
        metadata["namespace"],
        metadata["name"],
        phase="Leased",
        lease=holding.name,
        explanation=None,
    )
    if award.starts_now and supply.machine is None:
        activate(fx, holding, supply, now_ms)
    else:
        # It starts when its devices are free and are what it needs.
        fx.keep(holding)
    fx.tell_bidder(
        bid.agent,
        bid_object,
        "Won",
        f"won {_share_text(holding)} at {format_credits(holding.price_micros)} credits per GPU-hour"
        + ("" if award.starts_now else "; it starts when the devices are free"),
    )
    return holding


def activate(
    fx: Effects, holding: Holding, supply: Supply, now_ms: int, access: Sequence[Access] = ()
) -> Object:
    """Stage the start of a lease whose capacity is free: its term begins now; returns its Node."""
    holding.phase = "Active"
    holding.start_ms = holding.term_start_ms = holding.metered_until_ms = now_ms
    holding.end_ms = now_ms + holding.term_ms
    node = fx.tx.create(holding.agent, NODES, lease_node(holding, supply, now_ms, access))
    publish(fx, holding, supply, node)
    fx.project(holding)
    fx.keep(holding)
    return node


def publish(fx: Effects, holding: Holding, supply: Supply, node: Object) -> None:
    """Stage the slices that are not there yet; they go with the node."""
    owner = {
        "apiVersion": "v1",
        "kind": "Node",
        "name": holding.node,
        "uid": node["metadata"]["uid"],
        "controller": True,
    }
    for each in leased_slices(holding, supply):
        name = each["metadata"]["name"]
        if fx.api.find(holding.agent, SLICES, "", name) is None:
            each["metadata"]["ownerReferences"] = [owner]
            fx.tx.create(holding.agent, SLICES, each)


def renew(fx: Effects, holding: Holding, price_micros: int, end_ms: int, now_ms: int) -> None:
    """Stage another term at a new price, with its own money on hold; the old price stays to the old end."""
    holding.terms += 1
    term = Term(f"lease:{holding.id}:{holding.terms}", price_micros, max(holding.end_ms, now_ms))
    settle(fx, holding, now_ms)
    is_over = holding.end_ms < now_ms
    holding.following, holding.end_ms = (*holding.following, term), end_ms
    fx.treasury.hold(
        term.hold,
        account_of(holding.agent),
        revenue_of(holding.pool),
        charge(price_micros, holding.milli, end_ms - term.start_ms),
        now_ms,
        ref=f"{holding.namespace}/{holding.name}",
        expires_at_ms=end_ms + HOLD_GRACE_MS,
    )
    if is_over:
        # The server was down at its end; the time since then is nobody's.
        go_on(fx, holding, now_ms)
    fx.project(holding)
    fx.keep(holding)


def offer(fx: Effects, holding: Holding) -> None:
    """Stage for how much the holder gives up the rest of the term, as its GPULease says now."""
    asked = ((fx.lease(holding) or {}).get("spec") or {}).get("resalePrice")
    resale_micros = parse_credits(asked) if asked else None
    if resale_micros != holding.resale_micros:
        holding.resale_micros = resale_micros
        fx.keep(holding)


def warn(fx: Effects, holding: Holding, drains_at_ms: int, reason: str, message: str, now_ms: int) -> None:
    """Stage the notice: the Node takes no more pods, those on it get SIGTERM and the time until the end."""
    holding.phase = "Draining"
    holding.drains_at_ms = min(drains_at_ms, holding.end_ms)
    holding.reason, holding.message = reason, message
    grace_ms = max(0, holding.drains_at_ms - now_ms)
    fx.edit(holding.agent, NODES, "", holding.node, drain)

    def disrupt(pod: Object) -> None:
        set_condition(
            pod, DISRUPTION_TARGET, "True", rfc3339(now_ms), reason="DeletionByWalras", message=message
        )

    for pod in fx.pods_on(holding):
        metadata = pod["metadata"]
        fx.edit(holding.agent, PODS, metadata["namespace"], metadata["name"], disrupt)
        if not metadata.get("deletionTimestamp"):
            grace_s = -(-grace_ms // 1000)
            fx.delete(holding.agent, PODS, metadata["namespace"], metadata["name"], grace_seconds=grace_s)
        fx.tell(
            holding.agent,
            pod,
            reason,
            f"{message}; {format_duration(grace_ms)} to finish or checkpoint",
            warn=True,
        )
    bid = fx.bid(holding)
    fx.set_bid_of(holding, phase="Displaced")
    fx.tell(holding.agent, bid, reason, message, warn=True)
    fx.project(holding)
    fx.keep(holding)


def lose(
    fx: Effects, holding: Holding, now_ms: int, reason: str = GONE, message: str = "", used: Used = NOTHING
) -> None:
    """Stage the end of a lease whose devices are gone, at once; one that had not begun was never served.

    Nothing is charged from now on, however long it takes to end what runs there.
    """
    message = message or "a device of this lease is no longer there, or not as it was sold"
    if holding.phase == "Reserved":
        fx.set_bid_of(holding, phase="Displaced")
        fx.tell(holding.agent, fx.bid(holding), reason, message, warn=True)
        return
    settle(fx, holding, now_ms, used)
    for term in holding.following:
        fx.treasury.release(term.hold, now_ms)
    holding.following = ()
    holding.end_ms = max(holding.term_start_ms, min(holding.end_ms, now_ms))
    warn(fx, holding, now_ms, reason, message, now_ms)


def end(fx: Effects, holding: Holding, now_ms: int, used: Used = NOTHING) -> None:
    """Stage the end of a lease whose processes are gone: last settlement, unused money back, Node away."""
    if holding.phase != "Reserved":
        settle(fx, holding, now_ms, used)
    for hold in holding.holds:
        fx.treasury.release(hold, now_ms)
    holding.phase = "Ended"
    holding.end_ms = min(holding.end_ms, now_ms)
    for name in slice_titles(holding):
        fx.delete(holding.agent, SLICES, "", name)
    fx.delete(holding.agent, NODES, "", holding.node)
    fx.project(holding)
    _leave_to_bid(fx, holding)
    fx.forget(holding)


def _leave_to_bid(fx: Effects, holding: Holding) -> None:
    """The GPULease is there to be seen as long as the lease is; from now on as long as its bid."""
    bid = fx.bid(holding)
    if bid is None:
        fx.delete(holding.agent, LEASES, holding.namespace, holding.name)
        return
    owner = {
        "apiVersion": "walras.dev/v1alpha1",
        "kind": "Bid",
        "name": bid["metadata"]["name"],
        "uid": bid["metadata"]["uid"],
    }
    fx.edit(
        holding.agent,
        LEASES,
        holding.namespace,
        holding.name,
        lambda lease: lease["metadata"].update(ownerReferences=[owner]),
    )


def _object(holding: Holding) -> Object:
    return {
        "apiVersion": "walras.dev/v1alpha1",
        "kind": "GPULease",
        "metadata": {
            "name": holding.name,
            "namespace": holding.namespace,
            "labels": {BID_LABEL: holding.bid, "walras.dev/pool": holding.pool},
        },
        "spec": holding.spec(),
        "status": holding.status(),
    }


def _share_text(holding: Holding) -> str:
    return " + ".join(
        f"{share.mig or f'{share.milli} milli-GPU'} of {share.device}" for share in holding.shares
    )
