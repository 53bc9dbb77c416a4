"""Room kept for bids that need more at once than comes free at once, so that small leases do not starve them.

A reservation with safe backfill, as EASY's (Lifka, "The ANL/IBM SP Scheduling System", JSSPP 1995), but for
the densest bid that lost instead of the first in a queue. It wraps a clearing: room that is kept looks taken
to it, leases in the way that are worth less are not renewed, and what is idle until then goes to losers whose
leases end before. Once all of the room is free the clearing decides as ever: the bid has it, unless outbid.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from walras.core.quantity import format_duration
from walras.devices.placement import Shape
from walras.market.ground import Ground
from walras.market.placement import Board
from walras.market.planning import Planning, gives_way
from walras.market.prepared import Option, Prepared
from walras.market.types import (
    Bid,
    Displacement,
    Escrow,
    Explanation,
    Lease,
    Outcome,
    Reason,
    Refusal,
    Snapshot,
)

# At once in a pool; what is kept for one is of little use to others for a while.
ESCROWS_MAX: Final = 4
# Losers that are looked at for one, in the order of the clearing.
LOOKED_AT: Final = 16
_FOR_ROOM: Final = (Reason.OUTBID, Reason.NO_CAPACITY)


@dataclass(frozen=True, slots=True)
class Held:
    """What a clearing is shown, what is really so, the escrows that stand, the leases that end for them."""

    shown: Snapshot
    real: Snapshot
    escrows: tuple[Escrow, ...] = ()
    ended: tuple[Displacement, ...] = ()
    outbid: frozenset[str] = frozenset()  # bids that lose what was kept for them to denser ones


def hold(snapshot: Snapshot) -> Held:
    """A snapshot in which the room of escrows is taken, for a bid that is decided on its arrival."""
    if not snapshot.escrows:
        return Held(snapshot, snapshot)
    bids = {bid.id: bid for bid in snapshot.bids}
    standing = tuple(each for each in snapshot.escrows if _stands(each, bids, snapshot))
    kept = tuple(reservation(each, bids[each.bid], snapshot.now_ms) for each in standing)
    return Held(replace(snapshot, leases=(*snapshot.leases, *kept)), snapshot, standing)


def giving_way(snapshot: Snapshot, bid_id: str) -> Iterator[tuple[Escrow, ...]]:
    """All escrows, then again and again without the least dense of those that the bid is denser than."""
    yield snapshot.escrows
    if not snapshot.escrows:
        return
    prepared = _prepared(snapshot, {bid_id, *(escrow.bid for escrow in snapshot.escrows)})
    weaker = [each for each in snapshot.escrows if _outbid(each, (bid_id,), prepared)]
    weaker.sort(key=lambda escrow: _density(escrow, prepared))
    for count in range(1, len(weaker) + 1):
        gone = {escrow.bid for escrow in weaker[:count]}
        yield tuple(escrow for escrow in snapshot.escrows if escrow.bid not in gone)


def _density(escrow: Escrow, prepared: Prepared) -> int:
    option = _option(escrow.bid, escrow.package, prepared)
    return option.offered_density if option is not None else 0


def hold_for_tick(snapshot: Snapshot) -> Held:
    """The same for a clearing: leases in the way that are up for renewal and worth less end, and an escrow
    whose room is free is over, as the clearing decides who has it."""
    if not snapshot.escrows:
        return Held(snapshot, snapshot)
    bids = {bid.id: bid for bid in snapshot.bids}
    prepared = Prepared(replace(snapshot, bids=tuple(bids[e.bid] for e in snapshot.escrows if e.bid in bids)))
    leases = {lease.id: lease for lease in snapshot.leases}
    ended, standing = [], []
    noticed_ms = snapshot.now_ms + snapshot.rules.notice_ms
    for escrow in snapshot.escrows:
        if not _stands(escrow, bids, snapshot):
            continue
        for lease in _in_the_way(escrow, prepared, leases.values()):
            drains_ms = max(lease.end_ms, noticed_ms)
            leases[lease.id] = replace(lease, state="draining", drains_at_ms=drains_ms)
            ended.append(Displacement(lease.id, None, drains_ms, "gang"))
        if not _is_free(escrow, prepared.ground, leases.values()):
            standing.append(escrow)
    kept = (reservation(each, bids[each.bid], snapshot.now_ms) for each in standing)
    real = replace(snapshot, leases=tuple(leases.values()))
    shown = replace(snapshot, leases=(*real.leases, *kept))
    return Held(shown, real, tuple(standing), tuple(ended))


def keep(held: Held, outcome: Outcome) -> Held:
    """With the escrows that are still wanted: those whose bids lost for want of room, to nobody denser."""
    if not held.escrows:
        return held
    lost = _losers(outcome)
    prepared = _prepared(held.shown, {*lost, *(escrow.bid for escrow in held.escrows)})
    refused = {refusal.bid: refusal.explanation.reason for refusal in outcome.refusals}
    wanted = [each for each in held.escrows if refused.get(each.bid) in _FOR_ROOM]
    outbid = frozenset(each.bid for each in wanted if _outbid(each, lost, prepared))
    kept = tuple(each for each in wanted if each.bid not in outbid)
    return replace(held, escrows=kept, outbid=outbid)


def settle(held: Held, outcome: Outcome) -> Outcome:
    """The outcome with what ended for escrows, and the escrows of the next clearing: these and new ones."""
    lost, kept = _losers(outcome), list(held.escrows)
    if not lost:
        return replace(outcome, displacements=(*outcome.displacements, *held.ended))
    prepared = _prepared(held.real, set(lost))
    planning = Planning(prepared, outcome, held.ended)
    for name in lost:
        known = name in held.outbid or any(name == each.bid for each in kept)
        if len(kept) < ESCROWS_MAX and not known:
            planned = planning.plan(name, kept)
            kept += [planned] if planned else []
    refusals = tuple(_told(each, kept, held.real.now_ms) for each in outcome.refusals)
    displacements = (*outcome.displacements, *held.ended)
    return replace(outcome, refusals=refusals, displacements=displacements, escrows=tuple(kept))


def _prepared(snapshot: Snapshot, names: set[str]) -> Prepared:
    return Prepared(replace(snapshot, bids=tuple(bid for bid in snapshot.bids if bid.id in names)))


def _stands(escrow: Escrow, bids: dict[str, Bid], snapshot: Snapshot) -> bool:
    """Whether its bid still waits for that package on devices that there still are, and it is not overdue."""
    bid, devices = bids.get(escrow.bid), {device.id for device in snapshot.devices}
    overdue_ms = escrow.starts_ms + snapshot.rules.notice_ms + 2 * snapshot.rules.tick_ms
    return (
        bid is not None
        and escrow.package < len(bid.packages)
        and bid.packages[escrow.package].milli_gpu == escrow.shares[0].milli
        and snapshot.now_ms <= overdue_ms
        and all(share.device in devices for share in escrow.shares)
    )


def reservation(escrow: Escrow, bid: Bid, now_ms: int) -> Lease:
    """The room as a lease that has not begun: nobody is placed there, and nobody may displace it."""
    package = bid.packages[escrow.package]
    return Lease(
        id=f"escrow:{bid.id}",
        bid=bid.id,
        agent=bid.agent,
        job_class=bid.job_class,
        shares=escrow.shares,
        price_micros=0,
        max_price_micros=package.price_micros,
        restart_cost_micros=0,
        term_ms=package.term_ms,
        start_ms=now_ms,
        end_ms=escrow.starts_ms,
        funds_micros=bid.funds_micros,
        state="reserved",
    )


def _option(name: str, package: int, prepared: Prepared) -> Option | None:
    return next((each for each in prepared.options.get(name, ()) if each.index == package), None)


def _in_the_way(escrow: Escrow, prepared: Prepared, leases: Iterable[Lease]) -> list[Lease]:
    """Leases up for renewal that give way to the bid and without whose going it has no room."""
    option = _option(escrow.bid, escrow.package, prepared)
    if option is None:
        return []
    ended: list[Lease] = []
    due = {lease.id for lease in prepared.due}
    for share in escrow.shares:
        room = prepared.capacity[share.device]
        here = [
            (lease, Shape(each.milli, each.memory_mib))
            for lease in leases
            for each in lease.shares
            if each.device == share.device and lease.state != "draining" and lease not in ended
        ]
        for _, shape in here:
            room -= shape
        for lease, shape in sorted(here, key=lambda item: prepared.densities[item[0].id]):
            enough = Shape(share.milli, share.memory_mib).fits(room) and share.mig is None
            if lease.id in due and gives_way(lease, option, prepared) and not enough:
                ended.append(lease)
                room += shape
    return ended


def _is_free(escrow: Escrow, ground: Ground, leases: Iterable[Lease]) -> bool:
    """Whether all of its room is free once drains are over."""
    board = Board(ground, leases)
    return all(board.has_room(share, board.later) for share in escrow.shares)


def _losers(outcome: Outcome) -> list[str]:
    """The first bids in order that lost for want of room."""
    lost = [each for each in outcome.refusals if each.explanation.reason in _FOR_ROOM]
    lost.sort(key=lambda each: (each.explanation.position, each.bid))
    return [each.bid for each in lost[:LOOKED_AT]]


def _outbid(escrow: Escrow, lost: Sequence[str], prepared: Prepared) -> bool:
    """Whether a bid of more density lost that could use some of the room that is kept."""
    mine = _option(escrow.bid, escrow.package, prepared)
    if mine is None:
        return True
    devices = {share.device for share in escrow.shares}
    return any(
        option.offered_density > mine.offered_density and not devices.isdisjoint(option.ask.needs)
        for name in lost
        if name != escrow.bid
        for option in prepared.options[name]
    )


def _told(refusal: Refusal, escrows: Sequence[Escrow], now_ms: int) -> Refusal:
    """The refusal of a bid that room is kept for says so."""
    escrow = next((each for each in escrows if each.bid == refusal.bid), None)
    if escrow is None:
        return refusal
    why: Explanation = refusal.explanation
    wait = format_duration(-(-max(1000, escrow.starts_ms - now_ms) // 1000) * 1000)
    text = f"{why.message}; room is kept for it, so it starts in {wait} at the latest unless it is outbid"
    return replace(refusal, explanation=replace(why, message=text))
