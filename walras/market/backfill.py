"""What is kept idle for a while goes to leases that are over before it is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from walras.core.money import charge
from walras.devices.placement import Shape
from walras.market.escrow import Held
from walras.market.placement import Board, locate
from walras.market.prepared import Option, Prepared
from walras.market.types import Award, Outcome


def backfill(held: Held, outcome: Outcome) -> Outcome:
    """The outcome with losers placed, in order, on room of escrows that is idle until they are over.

    At the price of the clearing, for those that pay it and are worth no more than what the room is kept for,
    so that they give way when it is needed.
    """
    snapshot, kept = held.real, {escrow.bid: escrow for escrow in held.escrows}
    bids = {bid.id: bid for bid in snapshot.bids}
    rest_ms = max(each.starts_ms for each in held.escrows) - snapshot.now_ms - snapshot.rules.notice_ms
    lost = sorted(outcome.refusals, key=lambda each: (each.explanation.position, each.bid))
    short = [
        each.bid
        for each in lost
        if each.explanation.position
        and each.bid not in kept
        and any(package.term_ms <= rest_ms for package in bids[each.bid].packages)
    ]
    if not short:
        return outcome
    prepared = Prepared(replace(snapshot, bids=tuple(bids[name] for name in (*kept, *short))))
    filling = _Filling(prepared, held, outcome)
    awards = [award for name in short if (award := filling.place(prepared.options[name]))]
    placed = {award.bid for award in awards}
    return replace(
        outcome,
        awards=(*outcome.awards, *awards),
        refusals=tuple(each for each in outcome.refusals if each.bid not in placed),
    )


class _Filling:
    """Room of escrows with what a clearing gave out, and what agents have left."""

    def __init__(self, prepared: Prepared, held: Held, outcome: Outcome) -> None:
        self._prepared, self._price = prepared, outcome.price_micros
        self._rules, self._now = held.real.rules, held.real.now_ms
        gone = {each.lease for each in outcome.displacements}
        leases = {
            lease.id: replace(lease, state="draining") if lease.id in gone else lease
            for lease in held.real.leases
        }
        self._board = Board(prepared.ground, leases.values())
        for award in outcome.awards:
            self._board.take(award.shares, now=award.starts_now)
        self._purse = dict(prepared.funds)
        for renewal in outcome.renewals:
            lease = leases[renewal.lease]
            self._spend(lease.agent, charge(renewal.price_micros, lease.total_milli, lease.term_ms))
        agents = {bid.id: bid.agent for bid in held.real.bids}
        for award in outcome.awards:
            cost = charge(award.max_price_micros, award.total_milli, award.term_ms)
            self._spend(agents[award.bid], cost + award.compensations_micros)
        self._kept: dict[str, tuple[int, int]] = {}  # by device: until when, and for how dense a bid
        for escrow in held.escrows:
            options = prepared.options[escrow.bid]
            option = next(each for each in options if each.index == escrow.package)
            for share in escrow.shares:
                self._kept[share.device] = (escrow.starts_ms, option.offered_density)

    def _spend(self, agent: str, micros: int) -> None:
        if agent in self._purse:
            self._purse[agent] -= micros

    def place(self, options: Sequence[Option]) -> Award | None:
        """The first package that is over in time, where there is room at once."""
        for option in options:
            offered = option.package.price_micros
            price = min(option.at_speed(self._price), offered)
            if price < option.at_speed(self._rules.reserve_micros):
                continue
            rooms = {
                device: self._board.free(option.ask, device, now=True)
                if self._may_use(option, device)
                else _NOTHING
                for device in option.ask.needs
            }
            most = option.most(offered, self._purse[option.bid.agent])
            devices = locate(option.ask, rooms, most, self._prepared.demand, self._board)
            if devices is not None:
                shares = self._board.shares(option.ask, devices, now=True)
                self._board.take(shares, now=True)
                self._spend(option.bid.agent, option.cost(offered, len(devices)))
                term_ms = option.package.term_ms
                return Award(option.bid.id, option.index, shares, price, offered, term_ms, True)
        return None

    def _may_use(self, option: Option, device: str) -> bool:
        over_ms = self._now + option.package.term_ms + self._rules.notice_ms
        starts_ms, density = self._kept.get(device, (0, 0))
        return over_ms <= starts_ms and option.offered_density <= density


_NOTHING = Shape(-1, -1)
