"""The market's turn in a simulated pool: snapshots out, what the mechanism decides carried out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from walras.core.money import HOUR_MS
from walras.market.mechanisms.registry import MECHANISMS
from walras.market.slow import Slow, step
from walras.market.types import Bid, Device, Escrow, Memory, Outcome, Reason, Rules, Snapshot
from walras.sim.world.bank import Bank
from walras.sim.world.bidding import Ask, Bidding
from walras.sim.world.leases import Claim, Leases

# Refusals that stand as long as nothing changes; those for money or a part do not.
STANDING: Final = frozenset(
    (Reason.OUTBID, Reason.NO_CAPACITY, Reason.BELOW_RESERVE, Reason.TOO_LARGE, Reason.NO_DEVICE)
)
# Their decisions move from tick to tick by themselves, as those of all that remember do.
MOVING: Final = frozenset(("proportional",))
# Prices of those that adapt are looked at so often.
REPRICE_MS: Final = 5_000
# These ask for nothing but devices, leases and bids.
WITHOUT_FACTS: Final = ("auction", "fifo", "priority", "posted")


@dataclass(slots=True)
class Pending:
    """A bid that waits, with what it is for and what it was made of."""

    bid: Bid
    ask: Ask
    claim: Claim


class Market:
    """One pool under one mechanism. Carries its memory, its escrows and the posted price to the next turn.

    `observe` is called with every outcome before it is carried out.
    """

    def __init__(
        self, mechanism: str, rules: Rules, devices: tuple[Device, ...], bank: Bank, bidding: Bidding
    ) -> None:
        self.mechanism, self.rules = mechanism, rules
        self.bank, self.bidding = bank, bidding
        self.leases = Leases(bank)
        self.pending: dict[str, Pending] = {}
        self._bid_of: dict[Claim, str] = {}
        self.price_micros = 0
        self.clearings = 0
        self.observe: Callable[[Snapshot, Outcome], None] = lambda *_: None
        self._mechanism = MECHANISMS[mechanism]
        self._memory = Memory()
        self._escrows: tuple[Escrow, ...] = ()
        self._slow = Slow(rules.reserve_micros, rules.reserve_micros, 0)
        self._reserve_micros = rules.reserve_micros
        self._repriced_ms = self._next_ms = self._bid_changes = 0
        self._decided: tuple[int, int] = (-1, -1)
        self._made = 0
        self._refused: tuple[object, ...] = ()
        self._install(devices)

    def _install(self, devices: tuple[Device, ...]) -> None:
        self.devices = devices
        self.pool_milli = sum(device.milli for device in devices)
        self._by_name = {device.id: device for device in devices}

    def bid(self, ask: Ask, claim: Claim, now_ms: int, at_ms: int) -> None:
        """Take in a bid; one of the latency class is decided at once."""
        self._made += 1
        bid = Bid(
            # As wide as any number, so that names are in the order in which bids were made.
            id=f"b{self._made:08}",
            agent=ask.agent,
            job_class=ask.job_class,
            packages=(replace(ask.package, price_micros=self.bidding.price(ask, at_ms)),),
            restart_cost_micros=ask.restart_cost_micros,
            submitted_ms=at_ms,
            funds_micros=0,
            deadline_ms=ask.deadline_ms,
            priority=ask.priority,
        )
        self._bid_changes += 1
        self.pending[bid.id] = Pending(bid, ask, claim)
        self._bid_of[claim] = bid.id
        if ask.job_class != "latency":
            return
        # Where one of the same kind was just refused, another is.
        asked = (bid.agent, bid.packages, bid.deadline_ms, bid.restart_cost_micros, bid.priority)
        moment = (asked, at_ms, self.leases.changes)
        if moment != self._refused:
            snapshot = self._snapshot(at_ms, only=bid.id)
            self._apply(snapshot, self._mechanism.express(snapshot, bid.id), now_ms, at_ms)
            self._refused = moment if bid.id in self.pending else ()

    def withdraw(self, claim: Claim, now_ms: int, at_ms: int) -> None:
        """Take a claim's bid back, or its lease that has not begun."""
        name = self._bid_of.pop(claim, None)
        if name is not None:
            del self.pending[name]
            self._bid_changes += 1
        holding = self.leases.waiting(claim)
        if holding is not None:
            self.leases.end(holding, now_ms, at_ms)

    def tick(self, now_ms: int, at_ms: int) -> None:
        """End what has drained, begin what may, and clear if there is anything to decide."""
        for holding in self.leases.drained(at_ms):
            self.leases.end(holding, now_ms, at_ms)
        for holding in self.leases.startable(self._by_name):
            self.leases.activate(holding, now_ms, at_ms)
        if at_ms - self._repriced_ms >= REPRICE_MS:
            self._repriced_ms = at_ms
            self._reprice(at_ms)
        if at_ms >= self._next_ms or self._decided != (self.leases.changes, self._bid_changes):
            self._clear(now_ms, at_ms)
        elif self.mechanism == "auction":
            self._move_price(self._snapshot(at_ms))

    def funds_changed(self) -> None:
        """Agents were paid: the next tick clears."""
        self._next_ms = 0

    def set_devices(self, devices: tuple[Device, ...], now_ms: int, at_ms: int) -> None:
        """The devices are these from now on; leases that have a share of others end at once."""
        self._install(devices)
        self.leases.freed, self._next_ms = True, 0
        for holding in list(self.leases):
            if any(share.device not in self._by_name for share in holding.lease.shares) and (
                holding.lease.id in self.leases
            ):
                self.leases.end(holding, now_ms, at_ms)

    def _clear(self, now_ms: int, at_ms: int) -> None:
        snapshot = self._snapshot(at_ms)
        outcome = self._mechanism.clear(snapshot)
        self.clearings += 1
        self._memory, self._escrows = outcome.memory, outcome.escrows
        self.price_micros = outcome.price_micros
        self._move_price(snapshot)
        self._apply(snapshot, outcome, now_ms, at_ms)
        self._decided = (self.leases.changes, self._bid_changes)
        self._next_ms = self._stands_until(snapshot, outcome)

    def _move_price(self, snapshot: Snapshot) -> None:
        """The posted price of the auction goes by what is wanted now, whether anything is decided or not."""
        self.bidding.posted_micros = snapshot.price_micros
        if self.mechanism == "auction":
            least = self._reserve_micros
            self._slow = step(self._slow, snapshot, reserve_micros=least, reserve_max_micros=least)

    def _stands_until(self, snapshot: Snapshot, outcome: Outcome) -> int:
        """Until when another clearing would decide the same, if nobody bids or is paid and no lease begins or
        ends: so that most ticks of a full pool cost nothing."""
        now_ms, rules = snapshot.now_ms, self.rules
        done = (*outcome.awards, *outcome.renewals, *outcome.displacements)
        kept = (*snapshot.escrows, *outcome.escrows)
        reasons = {refusal.explanation.reason for refusal in outcome.refusals}
        moves = outcome.memory.mechanism or self.mechanism in MOVING
        if done or kept or moves or not reasons <= STANDING:
            return now_ms
        changes = [now_ms + HOUR_MS]
        changes += [bid.deadline_ms for bid in snapshot.bids if bid.deadline_ms is not None]
        for lease in snapshot.leases:
            changes.append(lease.end_ms - rules.notice_ms - rules.tick_ms)
            changes += [at for at in (lease.start_ms + rules.quantum_ms,) if at > now_ms]
        return min(changes)

    def _snapshot(self, at_ms: int, only: str | None = None) -> Snapshot:
        wanted = list(self.pending.values())
        if only is not None:
            # Room that is kept is kept from it too.
            kept = {escrow.bid for escrow in self._escrows}
            wanted = [each for each in wanted if each.bid.id == only or each.bid.id in kept]
        funds = {name: self.bank.available(name) for name in self.bank.weights}
        for pending in wanted:
            if pending.bid.funds_micros != funds[pending.bid.agent]:
                pending.bid = replace(pending.bid, funds_micros=funds[pending.bid.agent])
        posted = self._slow.posted_micros if self.mechanism == "auction" else self.price_micros
        return Snapshot(
            now_ms=at_ms,
            rules=self.rules,
            devices=self.devices,
            leases=self.leases.as_market(),
            bids=tuple(pending.bid for pending in wanted),
            price_micros=max(posted, self.rules.reserve_micros),
            explain=frozenset(),
            agents={} if self.mechanism in WITHOUT_FACTS else self.bidding.facts(),
            memory=self._memory,
            escrows=self._escrows,
        )

    def _apply(self, snapshot: Snapshot, outcome: Outcome, now_ms: int, at_ms: int) -> None:
        self.observe(snapshot, outcome)
        for renewal in outcome.renewals:
            self.leases.renew(renewal, at_ms)
        for displacement in outcome.displacements:
            holding = self.leases.warn(displacement, now_ms)
            if displacement.by is not None and displacement.compensation_micros:
                payer = self.pending[displacement.by].bid.agent
                if payer != holding.lease.agent:
                    self.bank.transfer(payer, holding.lease.agent, displacement.compensation_micros, at_ms)
        for award in outcome.awards:
            pending = self.pending.pop(award.bid)
            del self._bid_of[pending.claim]
            holding = self.leases.grant(award, pending.bid, pending.claim, at_ms)
            if award.starts_now:
                self.leases.activate(holding, now_ms, at_ms)

    def _reprice(self, at_ms: int) -> None:
        self.bidding.observe(at_ms)
        for pending in self.pending.values():
            if self.bidding.adapts(pending.bid.agent):
                price = self.bidding.moved(pending.bid, pending.ask, at_ms)
                if price is not None:
                    package = replace(pending.bid.packages[0], price_micros=price)
                    pending.bid = replace(pending.bid, packages=(package,))
                    self._bid_changes += 1
