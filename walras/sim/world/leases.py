"""Leases from award to end: their states, and the money of each of their terms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

from walras.core.money import charge
from walras.market.placement import startable
from walras.market.types import Award, Bid, Device, Displacement, Lease, Renewal
from walras.sim.world.bank import Bank


class Claim(Protocol):
    """What a bid is for. Told of its lease when that begins, is warned and ends, with the true time."""

    def started(self, holding: Holding, now_ms: int) -> None: ...
    def warned(self, holding: Holding, now_ms: int) -> None: ...
    def ended(self, holding: Holding, now_ms: int) -> None: ...


@dataclass(slots=True)
class Term:
    """A stretch of a lease at one price: the hold that covers it, and what of it is paid."""

    hold: str
    price_micros: int
    from_ms: int
    until_ms: int
    paid_micros: int = 0


@dataclass(slots=True)
class Holding:
    """A lease with the bid that won it and what that is for. `began_ms` is true time, None while reserved."""

    lease: Lease
    bid: Bid
    claim: Claim
    terms: list[Term] = field(default_factory=list)
    began_ms: int | None = None


class Leases:
    """All that there are, by id. Times of leases are the market's, `now_ms` is that of the run. `freed`: room
    came free since reserved leases were looked at; `changes` counts whatever changes what is free."""

    def __init__(self, bank: Bank) -> None:
        self._bank = bank
        self._held: dict[str, Holding] = {}
        self._made = 0
        self.freed = False
        self.changes = 0

    def __iter__(self) -> Iterator[Holding]:
        return iter(self._held.values())

    def __getitem__(self, lease: str) -> Holding:
        return self._held[lease]

    def __contains__(self, lease: str) -> bool:
        return lease in self._held

    def as_market(self) -> tuple[Lease, ...]:
        """As a snapshot has them, with what each holder can pay now."""
        funds = {name: self._bank.available(name) for name in self._bank.weights}
        for holding in self._held.values():
            lease = holding.lease
            if lease.funds_micros != funds[lease.agent]:
                holding.lease = replace(lease, funds_micros=funds[lease.agent])
        return tuple(holding.lease for holding in self._held.values())

    def grant(self, award: Award, bid: Bid, claim: Claim, at_ms: int) -> Holding:
        """The lease that a bid won, its first term paid into a hold. Raises InsufficientFunds."""
        self._made += 1
        self.changes += 1
        lease = replace(award.lease(f"l{self._made}", bid, at_ms), state="reserved")
        hold = self._bank.hold(bid.agent, award.cost_micros, at_ms)
        holding = Holding(lease, bid, claim, [Term(hold, award.price_micros, at_ms, lease.end_ms)])
        self._held[lease.id] = holding
        return holding

    def activate(self, holding: Holding, now_ms: int, at_ms: int) -> None:
        """Its capacity is free: the term begins."""
        lease, end_ms = holding.lease, at_ms + holding.lease.term_ms
        holding.lease = replace(lease, state="active", start_ms=at_ms, end_ms=end_ms)
        holding.terms[0].from_ms, holding.terms[0].until_ms = at_ms, end_ms
        holding.began_ms = now_ms
        holding.claim.started(holding, now_ms)

    def renew(self, renewal: Renewal, at_ms: int) -> None:
        """Another term, from the end of the present one. Raises InsufficientFunds."""
        holding = self._held[renewal.lease]
        lease, starts_ms = holding.lease, renewal.end_ms - holding.lease.term_ms
        self._settle(holding, at_ms)
        cost = charge(renewal.price_micros, lease.total_milli, lease.term_ms)
        hold = self._bank.hold(lease.agent, cost, at_ms)
        holding.terms.append(Term(hold, renewal.price_micros, starts_ms, renewal.end_ms))
        holding.lease = replace(lease, price_micros=renewal.price_micros, end_ms=renewal.end_ms)

    def warn(self, displacement: Displacement, now_ms: int) -> Holding:
        """It must end at that time."""
        holding = self._held[displacement.lease]
        self.changes += 1
        holding.lease = replace(holding.lease, state="draining", drains_at_ms=displacement.drains_at_ms)
        holding.claim.warned(holding, now_ms)
        return holding

    def end(self, holding: Holding, now_ms: int, at_ms: int) -> None:
        """It is over: the time until now is paid, what is left on hold goes back."""
        if holding.lease.state != "reserved":
            self._settle(holding, at_ms)
        for term in holding.terms:
            self._bank.release(term.hold, at_ms)
        holding.terms.clear()
        del self._held[holding.lease.id]
        self.changes += 1
        self.freed = True
        holding.claim.ended(holding, now_ms)

    def drained(self, at_ms: int) -> list[Holding]:
        """Those whose notice is over."""
        return [
            holding
            for holding in self._held.values()
            if holding.lease.drains_at_ms is not None and holding.lease.drains_at_ms <= at_ms
        ]

    def startable(self, devices: Iterable[Device]) -> Iterator[Holding]:
        """Reserved ones whose room is free, one after the other, each to be activated before the next."""
        if not self.freed:
            return
        self.freed = False
        for holding in [each for each in self._held.values() if each.lease.state == "reserved"]:
            if startable(holding.lease, [each.lease for each in self._held.values()], devices):
                yield holding

    def _settle(self, holding: Holding, at_ms: int) -> None:
        """Pay for the time until now out of what is on hold; a term that is over gives back its rest."""
        milli = holding.lease.total_milli
        for term in list(holding.terms):
            served_ms = max(0, min(at_ms, term.until_ms) - term.from_ms)
            due = charge(term.price_micros, milli, served_ms) - term.paid_micros
            self._bank.capture(term.hold, due, at_ms)
            term.paid_micros += due
            if at_ms >= term.until_ms:
                self._bank.release(term.hold, at_ms)
                holding.terms.remove(term)
