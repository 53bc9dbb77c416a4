"""The market's turn in a simulated pool: snapshots out, what the mechanism decides carried out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from walras.core.errors import Invalid
from walras.market.mechanism import Mechanism
from walras.market.mechanisms.registry import MECHANISMS
from walras.market.slow import Load, Slow, step, step_by
from walras.market.types import Bid, Device, Escrow, Memory, Outcome, Rules, Snapshot
from walras.sim.world.bank import Bank
from walras.sim.world.bidding import Ask, Bidding
from walras.sim.world.keeping import LARGE, Keeping, keep
from walras.sim.world.leases import Claim, Leases
from walras.sim.world.standstill import stands_until

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

    `observe` is called with every outcome before it is carried out, `at_drain` with the true time at which a
    lease that was warned is over.
    """

    def __init__(
        self,
        mechanism: str,
        rules: Rules,
        devices: tuple[Device, ...],
        bank: Bank,
        bidding: Bidding,
        *,
        kept: bool | None = None,
    ) -> None:
        """kept: whether the compiled engine keeps the pool, if it can; None for large ones."""
        self.mechanism, self.rules = mechanism, rules
        self.bank, self.bidding = bank, bidding
        self.leases = Leases(bank)
        self.pending: dict[str, Pending] = {}
        self._bid_of: dict[Claim, str] = {}
        self.price_micros = 0
        self.clearings = 0
        self.observe: Callable[[Snapshot, Outcome], None] = lambda *_: None
        self.at_drain: Callable[[int], None] = lambda _: None
        self._mechanism = MECHANISMS[mechanism]
        self._memory = Memory()
        self._escrows: tuple[Escrow, ...] = ()
        self._slow = Slow(rules.reserve_micros, rules.reserve_micros, 0)
        self._reserve_micros = rules.reserve_micros
        self._repriced_ms = self._next_ms = self._bid_changes = 0
        self._decided: tuple[int, int] = (-1, -1)
        self._made = 0
        self._refused: tuple[object, ...] = ()
        self._keeps = len(devices) >= LARGE if kept is None else kept
        self._kept: Keeping | None = None
        self._install(devices)

    def _install(self, devices: tuple[Device, ...]) -> None:
        if self._keeps:
            self._stop_keeping()
            self._kept = keep(self.mechanism, devices, self.rules, self.bank, self._find, self.leases)
        if self._kept is not None:
            self._kept.touched.update(dict.fromkeys(self.pending))
        self.devices = devices
        self.pool_milli = sum(device.milli for device in devices)
        self._by_name = {device.id: device for device in devices}

    def _find(self, name: str) -> Bid | None:
        pending = self.pending.get(name)
        return None if pending is None else pending.bid

    def _stop_keeping(self) -> None:
        if self._kept is not None:
            self._kept.leave()
            self._kept = None

    def _touch(self, bid: str) -> None:
        self._bid_changes += 1
        if self._kept is not None:
            self._kept.touched[bid] = None

    def decide_by(self, name: str, mechanism: Mechanism) -> None:
        """From now on by that one, which is none of a server's."""
        self._stop_keeping()
        self.mechanism, self._mechanism, self._keeps = name, mechanism, False

    def bid(self, ask: Ask, claim: Claim, now_ms: int, at_ms: int) -> None:
        """Take in a bid; one of the latency class is decided at once."""
        self._made += 1
        bid = Bid(
            # As wide as any number, so that names are in the order in which bids were made.
            id=f"b{self._made:08}",
            agent=ask.agent,
            job_class=ask.job_class,
            packages=ask.priced(self.bidding.price(ask, at_ms)),
            restart_cost_micros=ask.restart_cost_micros,
            submitted_ms=at_ms,
            funds_micros=0,
            deadline_ms=ask.deadline_ms,
            priority=ask.priority,
        )
        self._touch(bid.id)
        self.pending[bid.id] = Pending(bid, ask, claim)
        self._bid_of[claim] = bid.id
        if ask.job_class != "latency":
            return
        # Where one of the same kind was just refused, another is.
        asked = (bid.agent, bid.packages, bid.deadline_ms, bid.restart_cost_micros, bid.priority)
        moment = (asked, at_ms, self.leases.changes)
        if moment != self._refused:
            snapshot, outcome = self._express(bid.id, at_ms)
            self._escrows = outcome.escrows
            self._apply(snapshot, outcome, now_ms, at_ms)
            self._refused = moment if bid.id in self.pending else ()

    def withdraw(self, claim: Claim, now_ms: int, at_ms: int) -> None:
        """Take a claim's bid back, or its lease that has not begun."""
        name = self._bid_of.pop(claim, None)
        if name is not None:
            del self.pending[name]
            self._touch(name)
        holding = self.leases.waiting(claim)
        if holding is not None:
            self.leases.end(holding, now_ms, at_ms)

    def tick(self, now_ms: int, at_ms: int) -> None:
        """End what has drained, begin what may, and clear if there is anything to decide."""
        self.turn_over(now_ms, at_ms)
        if at_ms - self._repriced_ms >= REPRICE_MS:
            self._repriced_ms = at_ms
            self._reprice(at_ms)
        if at_ms >= self._next_ms or self._decided != (self.leases.changes, self._bid_changes):
            self._clear(now_ms, at_ms)
        elif self.mechanism == "auction":
            self._move_price(at_ms)

    def turn_over(self, now_ms: int, at_ms: int) -> None:
        """End what has drained and begin what waited for its room, as the exchange does between ticks."""
        for holding in self.leases.drained(at_ms):
            self.leases.end(holding, now_ms, at_ms)
        for holding in self.leases.startable(self._by_name):
            self.leases.activate(holding, now_ms, at_ms)

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
        self.clearings += 1
        whole = None if self._kept is not None else self._snapshot(at_ms)
        price_micros, slow = self._price_micros(), self._moved_price(at_ms, whole)
        snapshot, outcome, until = self._decide(at_ms, whole)
        self._memory, self._escrows = outcome.memory, outcome.escrows
        self.price_micros = outcome.price_micros
        self.bidding.posted_micros, self._slow = price_micros, slow
        self._apply(snapshot, outcome, now_ms, at_ms)
        self._decided = (self.leases.changes, self._bid_changes)
        self._next_ms = until()

    def _decide(self, at_ms: int, whole: Snapshot | None) -> tuple[Snapshot, Outcome, Callable[[], int]]:
        """What is so, what is decided, and until when another clearing would decide the same, if nobody bids
        or is paid and no lease begins or ends: so that most ticks of a full pool cost nothing."""
        if (kept := self._kept) is not None:
            try:
                turn = kept.clear(at_ms, self._price_micros(), self._escrows)
            except Invalid:
                self._stop_keeping()
            else:
                outcome = turn.outcome
                done = outcome.awards or outcome.renewals or outcome.displacements
                moves = done or self._escrows or outcome.escrows or not turn.stands
                return (
                    self._named(outcome, at_ms),
                    outcome,
                    lambda: at_ms if moves else kept.changes_ms(at_ms),
                )
        snapshot = whole or self._snapshot(at_ms)
        outcome = self._mechanism.clear(snapshot)
        return snapshot, outcome, lambda: stands_until(self.mechanism, snapshot, outcome)

    def _express(self, bid: str, at_ms: int) -> tuple[Snapshot, Outcome]:
        """One bid on its arrival."""
        if self._kept is not None:
            try:
                outcome = self._kept.express(bid, at_ms, self._price_micros(), self._escrows)
            except Invalid:
                self._stop_keeping()
            else:
                return self._named(outcome, at_ms), outcome
        snapshot = self._snapshot(at_ms, only=bid)
        return snapshot, self._mechanism.express(snapshot, bid)

    def _named(self, outcome: Outcome, at_ms: int) -> Snapshot:
        """Of a kept pool, the bids and leases that an outcome names."""
        names = [each.lease for each in outcome.renewals] + [each.lease for each in outcome.displacements]
        return Snapshot(
            now_ms=at_ms,
            rules=self.rules,
            devices=self.devices,
            leases=tuple(self.leases[name].lease for name in names),
            bids=tuple(self.pending[each.bid].bid for each in outcome.awards),
            price_micros=self._price_micros(),
        )

    def _price_micros(self) -> int:
        """The posted price, or that of the last clearing."""
        posted = self._slow.posted_micros if self.mechanism == "auction" else self.price_micros
        return max(posted, self.rules.reserve_micros)

    def _move_price(self, at_ms: int) -> None:
        self.bidding.posted_micros, self._slow = self._price_micros(), self._moved_price(at_ms)

    def _moved_price(self, at_ms: int, whole: Snapshot | None = None) -> Slow:
        """The posted price of the auction goes by what is wanted now, whether anything is decided or not."""
        least = self._reserve_micros
        if self.mechanism != "auction":
            return self._slow
        if self._kept is not None:
            try:
                excess = self._kept.excess_milli(self._slow.posted_micros)
            except Invalid:
                self._stop_keeping()
            else:
                leased = sum(self.leases.held_milli.values())
                load = Load(at_ms, self.rules.reserve_micros, self.pool_milli, leased, excess)
                return step_by(self._slow, load, reserve_micros=least, reserve_max_micros=least)
        snapshot = whole or self._snapshot(at_ms)
        return step(self._slow, snapshot, reserve_micros=least, reserve_max_micros=least)

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
        return Snapshot(
            now_ms=at_ms,
            rules=self.rules,
            devices=self.devices,
            leases=self.leases.as_market(),
            bids=tuple(pending.bid for pending in wanted),
            price_micros=self._price_micros(),
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
            self.at_drain(now_ms + max(0, displacement.drains_at_ms - at_ms))
            if displacement.by is not None and displacement.compensation_micros:
                payer = self.pending[displacement.by].bid.agent
                if payer != holding.lease.agent:
                    self.bank.transfer(payer, holding.lease.agent, displacement.compensation_micros, at_ms)
        for award in outcome.awards:
            pending = self.pending.pop(award.bid)
            if self._kept is not None:
                self._kept.touched[award.bid] = None
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
                    pending.bid = replace(pending.bid, packages=pending.ask.priced(price))
                    self._touch(pending.bid.id)
