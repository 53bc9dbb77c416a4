"""Leases from award to end: their states, and the money of each of their terms."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from typing import Protocol

from walras.core.money import charge
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
    """A lease with the bid that won it and what that is for. `began_ms` is true time, None before."""

    lease: Lease
    bid: Bid
    claim: Claim
    milli: int
    terms: list[Term] = field(default_factory=list)
    began_ms: int | None = None


class Leases:
    """All that there are, by id. Times of leases are the market's, `now_ms` is that of the run.

    freed: room came free since reserved leases were looked at. changes: counts whatever changes what is free.
    held_milli: milli-GPU under leases that have begun, by agent; `begun` counts what changes it, `renewed`
    counts renewals.
    """

    def __init__(self, bank: Bank) -> None:
        self._bank = bank
        self._held: dict[str, Holding] = {}
        self._reserved: dict[Claim, Holding] = {}
        self._drains: list[tuple[int, str]] = []  # a heap; leases that are gone may still be in it
        self._taken: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])  # by device, of those begun
        self._logs: list[dict[str, None]] = []
        self._made = 0
        self.freed = False
        self.changes = self.begun = self.renewed = 0
        self.held_milli: dict[str, int] = {}

    def __iter__(self) -> Iterator[Holding]:
        return iter(self._held.values())

    def __len__(self) -> int:
        return len(self._held)

    def __getitem__(self, lease: str) -> Holding:
        return self._held[lease]

    def __contains__(self, lease: str) -> bool:
        return lease in self._held

    def as_they_are(self, leases: Iterable[str]) -> dict[str, Lease | None]:
        """Each as it is now, None once it is over."""
        held = self._held
        return {name: held[name].lease if name in held else None for name in leases}

    def find(self, lease: str) -> Holding | None:
        """With the bid that won it, None once it is over."""
        return self._held.get(lease)

    def log(self) -> dict[str, None]:
        """The names of leases that began, changed or ended from now on; for who asks to read and to empty."""
        self._logs.append({})
        return self._logs[-1]

    def unlog(self, log: dict[str, None]) -> None:
        """Nobody reads that log any more."""
        self._logs = [each for each in self._logs if each is not log]

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
        # As wide as any number, so that names are in the order in which leases were made.
        lease = award.lease(f"l{self._made:08}", bid, at_ms)
        hold = self._bank.hold(bid.agent, award.cost_micros, at_ms)
        terms = [Term(hold, award.price_micros, at_ms, lease.end_ms)]
        holding = Holding(lease, bid, claim, lease.total_milli, terms)
        self._held[lease.id] = self._reserved[claim] = holding
        self._note(lease)
        return holding

    def activate(self, holding: Holding, now_ms: int, at_ms: int) -> None:
        """Its capacity is free: the term begins."""
        lease, end_ms = holding.lease, at_ms + holding.lease.term_ms
        if lease.state == "reserved":
            holding.lease = lease = replace(lease, state="active", start_ms=at_ms, end_ms=end_ms)
        holding.terms[0].from_ms, holding.terms[0].until_ms = at_ms, end_ms
        holding.began_ms = now_ms
        del self._reserved[holding.claim]
        self._occupy(holding, 1)
        self._note(lease)
        holding.claim.started(holding, now_ms)

    def renew(self, renewal: Renewal, at_ms: int) -> None:
        """Another term, from the end of the present one. Raises InsufficientFunds."""
        holding = self._held[renewal.lease]
        lease, starts_ms = holding.lease, renewal.end_ms - holding.lease.term_ms
        self._settle(holding, at_ms)
        cost = charge(renewal.price_micros, holding.milli, lease.term_ms)
        hold = self._bank.hold(lease.agent, cost, at_ms)
        holding.terms.append(Term(hold, renewal.price_micros, starts_ms, renewal.end_ms))
        holding.lease = _renewed(lease, renewal)
        self.renewed += 1
        self._note(lease)

    def warn(self, displacement: Displacement, now_ms: int) -> Holding:
        """It must end at that time."""
        holding = self._held[displacement.lease]
        self.changes += 1
        holding.lease = replace(holding.lease, state="draining", drains_at_ms=displacement.drains_at_ms)
        heappush(self._drains, (displacement.drains_at_ms, holding.lease.id))
        self._note(holding.lease)
        holding.claim.warned(holding, now_ms)
        return holding

    def end(self, holding: Holding, now_ms: int, at_ms: int) -> None:
        """It is over: the time until now is paid, what is left on hold goes back."""
        if holding.began_ms is not None:
            self._settle(holding, at_ms)
            self._occupy(holding, -1)
        else:
            del self._reserved[holding.claim]
        for term in holding.terms:
            self._bank.release(term.hold, at_ms)
        holding.terms.clear()
        del self._held[holding.lease.id]
        self.changes += 1
        self.freed = True
        self._note(holding.lease)
        holding.claim.ended(holding, now_ms)

    def taken_milli(self) -> Iterator[tuple[str, int]]:
        """By device, what is under leases that have begun."""
        return ((device, taken[0]) for device, taken in self._taken.items())

    def waiting(self, claim: Claim) -> Holding | None:
        """The lease for that claim which has not begun."""
        return self._reserved.get(claim)

    def drained(self, at_ms: int) -> list[Holding]:
        """Those whose notice is over, the older first; each is named once."""
        found = []
        while self._drains and self._drains[0][0] <= at_ms:
            holding = self._held.get(heappop(self._drains)[1])
            if holding is not None:
                found.append(holding)
        return sorted(found, key=lambda holding: holding.lease.id)

    def startable(self, devices: Mapping[str, Device]) -> Iterator[Holding]:
        """Reserved ones whose room is free, one after the other, each to be activated before the next."""
        if not self.freed:
            return
        self.freed = False
        for holding in list(self._reserved.values()):
            if all(
                self._fits(share.device, share.milli, share.memory_mib, devices)
                for share in holding.lease.shares
            ):
                yield holding

    def _fits(self, name: str, milli: int, memory_mib: int, devices: Mapping[str, Device]) -> bool:
        device, taken = devices.get(name), self._taken.get(name, _NOTHING)
        return device is not None and (
            taken[0] + milli <= device.milli and taken[1] + memory_mib <= device.memory_mib
        )

    def _occupy(self, holding: Holding, sign: int) -> None:
        """Count a lease that begins or ends."""
        agent = holding.lease.agent
        self.begun += 1
        self.held_milli[agent] = self.held_milli.get(agent, 0) + sign * holding.milli
        for share in holding.lease.shares:
            taken = self._taken[share.device]
            taken[0] += sign * share.milli
            taken[1] += sign * share.memory_mib

    def _note(self, lease: Lease) -> None:
        for log in self._logs:
            log[lease.id] = None

    def _settle(self, holding: Holding, at_ms: int) -> None:
        """Pay for the time until now out of what is on hold; a term that is over gives back its rest."""
        over = 0
        for term in holding.terms:
            until_ms = at_ms if at_ms < term.until_ms else term.until_ms
            if until_ms > term.from_ms:
                owed = charge(term.price_micros, holding.milli, until_ms - term.from_ms)
                self._bank.capture(term.hold, owed - term.paid_micros, at_ms)
                term.paid_micros = owed
            if at_ms >= term.until_ms:
                self._bank.release(term.hold, at_ms)
                over += 1
        # One follows the other, so that those that are over are the first.
        del holding.terms[:over]


def _renewed(lease: Lease, renewal: Renewal) -> Lease:
    """The lease for another term. As `replace` does it, in a fraction of its time."""
    return Lease(
        *(lease.id, lease.bid, lease.agent, lease.job_class, lease.shares, renewal.price_micros),
        *(lease.max_price_micros, lease.restart_cost_micros, lease.term_ms, lease.start_ms, renewal.end_ms),
        *(lease.funds_micros, lease.state, lease.drains_at_ms, lease.priority, lease.resale_micros),
    )


_NOTHING = (0, 0)
