"""A pool in virtual time, whatever the mechanism: bids in, leases and money out, each outcome checked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from fractions import Fraction

from walras.core.money import HOUR_MS
from walras.devices.mig import MigInstance
from walras.ledger.ledger import Ledger
from walras.ledger.types import Limit
from walras.market.auction import Auction
from walras.market.mechanism import Mechanism
from walras.market.placement import startable
from walras.market.types import (
    Award,
    Bid,
    Device,
    Displacement,
    Escrow,
    Lease,
    Memory,
    Outcome,
    Rules,
    Snapshot,
)


@dataclass
class Term:
    """What is set aside for a stretch of a lease at a price, and how much of it is paid."""

    hold: str
    price_micros: int
    cost_micros: int
    from_ms: int
    until_ms: int
    paid_micros: int = 0


@dataclass
class Held:
    """A lease with the bid that won it, its money, and the events of its life. `bills`: all its terms."""

    lease: Lease
    bid: Bid
    terms: list[Term]
    bills: list[Term]
    started_ms: int | None = None
    ended_ms: int | None = None
    leaves_ms: int | None = None


@dataclass
class Work:
    """A bid with what it is for: so many ms of lease (None has no end), and how long it takes to stop."""

    bid: Bid
    left_ms: int | None = None
    stops_ms: int | None = None


@dataclass
class Displaced:
    """One step of a chain: which lease of which bid went for which bid, and what the latter's lease is."""

    at_ms: int
    lease: str
    bid: str
    by: str
    by_lease: str


@dataclass
class Market:
    """Agents with wallets in the real ledger, devices, and a mechanism that is asked every tick.

    A bid whose lease ends before its work is done bids again, at the same prices. `held` are live leases,
    `past` those that ended; `displaced` every displacement by a bid, `resold` how many leases were bought.
    """

    devices: tuple[Device, ...]
    rules: Rules = field(default_factory=Rules)
    mechanism: Mechanism = field(default_factory=Auction)
    now_ms: int = 1_000_000
    price_micros: int = 0
    explain: frozenset[str] | None = frozenset()
    ledger: Ledger = field(default_factory=Ledger)
    incomes: dict[str, int] = field(default_factory=dict)
    works: dict[str, Work] = field(default_factory=dict)
    bids: dict[str, Bid] = field(default_factory=dict)
    held: dict[str, Held] = field(default_factory=dict)
    past: list[Held] = field(default_factory=list)
    displaced: list[Displaced] = field(default_factory=list)
    memory: Memory = field(default_factory=Memory)
    escrows: tuple[Escrow, ...] = ()
    operations: int = 0
    resold: int = 0

    def __post_init__(self) -> None:
        self.ledger.open("open:mint", "mint", limit=Limit.NONE, at_ms=self.now_ms)
        self.ledger.open("open:revenue", "revenue", limit=Limit.DEBITS, at_ms=self.now_ms)

    # Agents and what they want

    def fund(self, agent: str, micros: int, *, income_micros_per_hour: int = 0) -> None:
        """Give an agent money, and an income from now on."""
        if agent not in self.incomes:
            self.ledger.open(f"open:{agent}", agent, limit=Limit.DEBITS, at_ms=self.now_ms)
        self.incomes[agent] = income_micros_per_hour
        self._pay("mint", agent, micros)

    def available(self, agent: str) -> int:
        return self.ledger.account(agent).available

    def want(self, bid: Bid, work_ms: int | None = None, *, stops_ms: int | None = None) -> None:
        """A bid arrives; one of the latency class is decided at once. `stops_ms`: it can stop so soon."""
        self.works[bid.id] = Work(bid, work_ms, stops_ms)
        self._arrive(bid)

    def _arrive(self, bid: Bid) -> None:
        bid = replace(bid, submitted_ms=self.now_ms)
        self.bids[bid.id] = bid
        if bid.job_class == "latency":
            snapshot = self.snapshot()
            self._apply(snapshot, self.mechanism.express(snapshot, bid.id))

    def withdraw(self, bid_id: str) -> None:
        """The agent wants it no more, whether it runs or waits."""
        self.works.pop(bid_id, None)
        self.bids.pop(bid_id, None)
        for held in [held for held in self.held.values() if held.bid.id == bid_id]:
            self._end(held)

    def lose_device(self, device: str) -> Device:
        """A device goes, and with it every lease that has a share of it."""
        lost = next(each for each in self.devices if each.id == device)
        self.devices = tuple(each for each in self.devices if each.id != device)
        for held in list(self.held.values()):
            if any(share.device == device for share in held.lease.shares):
                self._end(held)
        return lost

    # Time

    def tick(self, count: int = 1) -> None:
        """So many ticks: incomes, meters, leases that end or start, and a clearing."""
        for _ in range(count):
            self.now_ms += self.rules.tick_ms
            for agent, rate in self.incomes.items():
                self._pay("mint", agent, rate * self.rules.tick_ms // HOUR_MS)
            self._meter()
            self._start()
            snapshot = self.snapshot()
            outcome = self.mechanism.clear(snapshot)
            self.price_micros, self.memory, self.escrows = (
                outcome.price_micros,
                outcome.memory,
                outcome.escrows,
            )
            self._apply(snapshot, outcome)
            assert self.ledger.balanced()

    def snapshot(self) -> Snapshot:
        return Snapshot(
            now_ms=self.now_ms,
            rules=self.rules,
            devices=self.devices,
            leases=tuple(
                replace(held.lease, funds_micros=self.available(held.lease.agent))
                for held in self.held.values()
            ),
            bids=tuple(replace(bid, funds_micros=self.available(bid.agent)) for bid in self.bids.values()),
            price_micros=max(self.price_micros, self.rules.reserve_micros),
            explain=self.explain,
            memory=self.memory,
            escrows=self.escrows,
        )

    def running(self, bid_id: str) -> bool:
        """Whether a bid's lease runs, be it in its notice."""
        return any(held.bid.id == bid_id and held.lease.state != "reserved" for held in self.held.values())

    def starts(self, bid_id: str) -> list[int]:
        """When its leases began."""
        every = (*self.past, *self.held.values())
        return [held.started_ms for held in every if held.bid.id == bid_id and held.started_ms is not None]

    def used_milli(self, states: Iterable[str] = ("active", "draining")) -> int:
        return sum(held.lease.total_milli for held in self.held.values() if held.lease.state in states)

    def _meter(self) -> None:
        for held in list(self.held.values()):
            lease = held.lease
            if lease.state == "reserved":
                continue
            work = self.works[held.bid.id]
            if work.left_ms is not None:
                work.left_ms -= self.rules.tick_ms
            self._capture(held)
            ends = lease.end_ms if lease.drains_at_ms is None else lease.drains_at_ms
            if held.leaves_ms is not None:
                ends = min(ends, held.leaves_ms)
            done = work.left_ms is not None and work.left_ms <= 0
            if done:
                del self.works[held.bid.id]
            if done or (lease.state == "draining" and self.now_ms >= ends):
                self._end(held)

    def _capture(self, held: Held) -> None:
        """Pay for the time until now out of what is set aside; a term that is over gives back its rest."""
        for term in list(held.terms):
            served = max(0, min(self.now_ms, term.until_ms) - term.from_ms)
            whole = max(1, term.until_ms - term.from_ms)
            due = term.cost_micros * served // whole - term.paid_micros
            self.ledger.capture(self._id(), term.hold, due, at_ms=self.now_ms)
            term.paid_micros += due
            if self.now_ms >= term.until_ms and len(held.terms) > 1:
                self.ledger.release(self._id(), term.hold, at_ms=self.now_ms)
                held.terms.remove(term)

    def _end(self, held: Held) -> None:
        if held.lease.state != "reserved":
            self._capture(held)
        for term in held.terms:
            self.ledger.release(self._id(), term.hold, at_ms=self.now_ms)
        del self.held[held.lease.id]
        held.ended_ms = self.now_ms
        self.past.append(held)
        if held.bid.id in self.works:
            self._arrive(self.works[held.bid.id].bid)

    def _start(self) -> None:
        leases = [held.lease for held in self.held.values()]
        for held in [held for held in self.held.values() if held.lease.state == "reserved"]:
            if startable(held.lease, leases, self.devices):
                self._activate(held)
                leases = [each.lease for each in self.held.values()]

    def _activate(self, held: Held) -> None:
        end_ms = self.now_ms + held.lease.term_ms
        held.lease = replace(held.lease, state="active", start_ms=self.now_ms, end_ms=end_ms)
        held.terms[0].from_ms, held.terms[0].until_ms = self.now_ms, end_ms
        held.started_ms = self.now_ms
        self.check_devices()

    # Outcomes

    def _apply(self, snapshot: Snapshot, outcome: Outcome) -> None:
        for renewal in outcome.renewals:
            held = self.held[renewal.lease]
            lease = held.lease
            cost = renewal.price_micros * lease.total_milli * lease.term_ms // (1000 * HOUR_MS)
            starts = renewal.end_ms - lease.term_ms
            hold = self._hold(lease.agent, cost)
            held.terms.append(Term(hold, renewal.price_micros, cost, starts, renewal.end_ms))
            held.bills.append(held.terms[-1])
            held.lease = replace(lease, price_micros=renewal.price_micros, end_ms=renewal.end_ms)
        for gone in outcome.displacements:
            self._displace(gone)
        for award in outcome.awards:
            self._grant(award)
        self.check_devices()

    def _displace(self, gone: Displacement) -> None:
        held = self.held[gone.lease]
        assert held.lease.state == "active"
        assert gone.drains_at_ms >= self.now_ms + self.rules.notice_ms
        held.lease = replace(held.lease, state="draining", drains_at_ms=gone.drains_at_ms)
        work = self.works[held.bid.id]
        if work.stops_ms is not None:
            held.leaves_ms = self.now_ms + work.stops_ms
        if gone.by is not None:
            self.resold += gone.reason == "resold"
            if gone.reason != "resold":
                self.displaced.append(
                    Displaced(self.now_ms, gone.lease, held.bid.id, gone.by, self._next(gone.by))
                )
            payer = self.bids[gone.by].agent if gone.by in self.bids else held.lease.agent
            if payer != held.lease.agent:
                self._pay(payer, held.lease.agent, gone.compensation_micros)

    def _grant(self, award: Award) -> None:
        bid = self.bids.pop(award.bid)
        assert award.price_micros <= award.max_price_micros <= self.worth(bid, award.package)
        offered = award.max_price_micros * award.total_milli * award.term_ms // (1000 * HOUR_MS)
        assert award.cost_micros + award.compensations_micros <= offered, "nobody pays more than it bid"
        lease = replace(award.lease(self._next(bid.id), bid, self.now_ms), state="reserved")
        hold = self._hold(bid.agent, award.cost_micros)
        term = Term(hold, award.price_micros, award.cost_micros, lease.start_ms, lease.end_ms)
        held = Held(lease, bid, [term], [term])
        self.held[lease.id] = held
        if award.starts_now:
            self._activate(held)

    def _next(self, bid_id: str) -> str:
        """The name of the bid's next lease."""
        return f"{bid_id}/{sum(held.bid.id == bid_id for held in (*self.past, *self.held.values()))}"

    def worth(self, bid: Bid, package: int) -> Fraction:
        """What a package names, in a line to nothing at the deadline from when it decays."""
        price = Fraction(bid.packages[package].price_micros)
        if bid.decays_ms is None or bid.deadline_ms is None or self.now_ms <= bid.decays_ms:
            return price
        return price * max(0, bid.deadline_ms - self.now_ms) / (bid.deadline_ms - bid.decays_ms)

    def check_devices(self) -> None:
        """No device is oversold in compute, memory or MIG slices, now or when the drains are over."""
        for device in self.devices:
            for state in ("draining", "reserved"):
                shares = [
                    share
                    for held in self.held.values()
                    if held.lease.state in ("active", state)
                    for share in held.lease.shares
                    if share.device == device.id
                ]
                if any(share.mig is not None for share in shares):
                    self._check_slices(device, [share.mig for share in shares])
                else:
                    assert sum(share.milli for share in shares) <= device.milli
                    assert sum(share.memory_mib for share in shares) <= device.memory_mib

    @staticmethod
    def _check_slices(device: Device, cuts: list[MigInstance | None]) -> None:
        """Instances lie at allowed starts, share no slice, and no plain share is beside them."""
        instances = [cut for cut in cuts if cut is not None]
        assert device.mig is not None
        assert len(instances) == len(cuts), "a device is cut or shared, never both"
        slices: list[int] = []
        for cut in instances:
            profile = device.mig[cut.profile]
            assert cut.start in profile.starts
            slices += range(cut.start, cut.start + profile.memory_slices)
        assert len(slices) == len(set(slices))
        assert max(slices) < device.mig.memory_slices
        assert sum(device.mig[cut.profile].compute_slices for cut in instances) <= device.mig.compute_slices
        assert sum(device.mig[cut.profile].media for cut in instances) <= 1

    # Money

    def _id(self) -> str:
        self.operations += 1
        return f"op:{self.operations}"

    def _pay(self, payer: str, payee: str, micros: int) -> None:
        self.ledger.transfer(self._id(), payer, payee, micros, at_ms=self.now_ms)

    def _hold(self, agent: str, micros: int) -> str:
        """Raises InsufficientFunds: nobody spends what it has not."""
        hold = self._id()
        self.ledger.hold(hold, agent, "revenue", micros, at_ms=self.now_ms)
        return hold
