"""Where a bid that needs more room than comes free at once would have it, and when at the latest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from walras.market.eviction import evict
from walras.market.placement import Board
from walras.market.prepared import Option, Prepared, value
from walras.market.types import Displacement, Escrow, Lease, Outcome


class Planning:
    """Plans after one clearing: `ended` are leases that end beside what the clearing decided."""

    def __init__(self, prepared: Prepared, outcome: Outcome, ended: Iterable[Displacement]) -> None:
        self._prepared, snapshot = prepared, prepared.snapshot
        gone = {each.lease for each in (*outcome.displacements, *ended)}
        renewed = {each.lease: each.end_ms for each in outcome.renewals}
        self._leases = [
            lease for lease in snapshot.leases if lease.state != "draining" and lease.id not in gone
        ]
        self._ends_ms = {lease.id: renewed.get(lease.id, self._ends(lease)) for lease in snapshot.leases}
        self._board = Board(prepared.ground, [each for each in snapshot.leases if each.id not in gone])
        for award in outcome.awards:
            self._board.take(award.shares, now=award.starts_now)

    def _ends(self, lease: Lease) -> int:
        """When its term is over; that of a lease which waits begins once what drains for it is gone."""
        if lease.state != "reserved":
            return lease.end_ms
        rules, now_ms = self._prepared.snapshot.rules, self._prepared.snapshot.now_ms
        return now_ms + rules.notice_ms + rules.tick_ms + lease.term_ms

    def plan(self, bid: str, kept: Sequence[Escrow]) -> Escrow | None:
        """The room that a bid which lost would have if leases that give way to it are not renewed.

        None where that is no help: when no such leases make room beside what is kept already, when they are
        worth more together than the bid, or when one of them alone does, which the bid takes over when that
        is up for renewal.
        """
        taken = {share.device for escrow in kept for share in escrow.shares}
        for option in self._prepared.options[bid]:
            needs = {device: need for device, need in option.ask.needs.items() if device not in taken}
            weaker = [lease for lease in self._leases if gives_way(lease, option, self._prepared)]
            found = evict(replace(option.ask, needs=needs), self._board, weaker, self._wait_ms)
            if found is not None and _helps(option, found.victims):
                board = self._board.copy()
                for lease in found.victims:
                    board.drain(lease)
                shares = board.shares(option.ask, found.devices, now=False)
                ends = [self._ends_ms[lease.id] for lease in found.victims]
                return Escrow(bid, option.index, shares, max([*ends, *self._drains(found.devices)]))
        return None

    def _wait_ms(self, lease: Lease) -> int:
        return max(1, self._ends_ms[lease.id] - self._prepared.snapshot.now_ms)

    def _drains(self, devices: Sequence[str]) -> list[int]:
        """When what drains on some devices is over."""
        return [
            lease.drains_at_ms or lease.end_ms
            for lease in self._prepared.snapshot.leases
            if lease.state == "draining" and any(share.device in devices for share in lease.shares)
        ]


def gives_way(lease: Lease, option: Option, prepared: Prepared) -> bool:
    """Whether it is not renewed for the bid: worth less, or as much and begun after the bid had come."""
    mine, its = option.offered_density, prepared.densities[lease.id]
    return its < mine or (its == mine and lease.start_ms >= option.bid.submitted_ms)


def _helps(option: Option, victims: Sequence[Lease]) -> bool:
    """Whether the bid is worth as much as the leases that would go, and would not have their room anyway."""
    if not victims:
        return False
    alone = len(victims) == 1 and option.ask.fewest == 1
    if alone and victims[0].total_milli >= option.package.milli_gpu:
        return False
    worth = sum(value(lease.max_price_micros, lease.total_milli) for lease in victims)
    return worth <= value(option.package.price_micros, option.fewest_milli)
