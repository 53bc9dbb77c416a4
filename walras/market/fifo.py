"""First in, first out: what schedulers without prices do, to compare with."""

from __future__ import annotations

from walras.core.errors import NotFound
from walras.devices.placement import Demand, place
from walras.market.explain import describe, unfit
from walras.market.placement import Board
from walras.market.prepared import Option, Prepared
from walras.market.types import (
    Award,
    Bid,
    Constraint,
    Explanation,
    Outcome,
    Reason,
    Refusal,
    Renewal,
    Share,
    Snapshot,
)


class Fifo:
    """The mechanism "fifo": order of arrival, no price, no displacement, leases for as long as they are used.

    Work-conserving: a bid that does not fit does not hold up those behind it.
    """

    def clear(self, snapshot: Snapshot) -> Outcome:
        return _serve(Prepared(snapshot), snapshot.bids, renew=True)

    def express(self, snapshot: Snapshot, bid_id: str) -> Outcome:
        prepared = Prepared(snapshot)
        if bid_id not in prepared.bids:
            raise NotFound(f'bid "{bid_id}" is not pending')
        return _serve(prepared, (prepared.bids[bid_id],), renew=False)


def _serve(prepared: Prepared, bids: tuple[Bid, ...], *, renew: bool) -> Outcome:
    now = prepared.snapshot.now_ms
    board = Board(prepared.capacity, prepared.snapshot.leases)
    awards: list[Award] = []
    refusals: list[Refusal] = []
    queue = sorted(bids, key=lambda bid: (bid.submitted_ms, bid.id))
    for position, bid in enumerate(queue, 1):
        options = prepared.options[bid.id]
        award = _award(board, options, prepared.demand)
        if award is not None:
            board.take(award.shares, now=award.starts_now)
            awards.append(award)
        else:
            refusals.append(Refusal(bid.id, _explain(bid, options, prepared, position)))
    due = prepared.due if renew else ()
    renewals = (Renewal(lease.id, 0, max(lease.end_ms, now) + lease.term_ms) for lease in due)
    return Outcome(tuple(awards), tuple(refusals), tuple(renewals), (), 0)


def _award(board: Board, options: tuple[Option, ...], demand: Demand) -> Award | None:
    for room, starts_now in ((board.room_now, True), (board.room_later, False)):
        for option in options:
            rooms = {device: room(device) for device in option.needs}
            devices = place(option.needs, rooms, option.package.devices, demand)
            if devices is not None:
                shares = tuple(Share(device, *option.needs[device]) for device in devices)
                return Award(option.bid.id, option.index, shares, 0, option.package.term_ms, starts_now)
    return None


def _explain(bid: Bid, options: tuple[Option, ...], prepared: Prepared, position: int) -> Explanation:
    if prepared.expired(bid):
        text = "the deadline has passed; bid again with a later one"
        return Explanation(Reason.EXPIRED, Constraint.DEADLINE, 0, None, 0, text)
    if not options:
        return unfit(bid, prepared.capacity)
    text = f"{describe(options[0].package)} is not free; the bid is number {position} in the queue"
    return Explanation(Reason.NO_CAPACITY, Constraint.MILLI_GPU, 0, None, position, text)
