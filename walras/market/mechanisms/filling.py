"""Progressive filling: the agent that is next by the policy gets its next wish, until nothing more fits.

Leases whose term is running are left alone; those whose term ends are asked for again like bids. So what a
policy calls fair is reached as terms end, without anybody losing a lease in the middle of one.
"""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Final

from walras.core.errors import NotFound
from walras.devices.placement import Shape
from walras.market.eviction import Eviction, evict
from walras.market.explain import describe, unfit
from walras.market.ground import Ask, Ground
from walras.market.mechanisms.policy import Policy, Want
from walras.market.placement import Board, locate
from walras.market.prepared import as_of_now, well_formed
from walras.market.types import (
    Award,
    Bid,
    Constraint,
    Displacement,
    DisplacementReason,
    Explanation,
    Lease,
    Memory,
    Outcome,
    Package,
    Reason,
    Refusal,
    Renewal,
    Snapshot,
)

_ENDS: Final[dict[Reason, DisplacementReason]] = {
    Reason.OUTBID: "price",
    Reason.BELOW_RESERVE: "price",
    Reason.INSUFFICIENT_FUNDS: "funds",
    Reason.OVER_SHARE: "share",
}
_CONSTRAINTS: Final = {
    Reason.OUTBID: Constraint.PRICE,
    Reason.BELOW_RESERVE: Constraint.PRICE,
    Reason.INSUFFICIENT_FUNDS: Constraint.FUNDS,
    Reason.OVER_SHARE: Constraint.SHARE,
    Reason.NO_CAPACITY: Constraint.MILLI_GPU,
}
_WORDS: Final = {
    Reason.OUTBID: "has a price above what it pays",
    Reason.BELOW_RESERVE: "has a reserve price above what it pays",
    Reason.INSUFFICIENT_FUNDS: "costs more for the term than the agent's funds cover",
    Reason.OVER_SHARE: "is more than its agent's part has left",
    Reason.NO_CAPACITY: "is not free",
}


@dataclass(frozen=True, slots=True)
class _Option:
    """A package that fits the empty pool, and where."""

    index: int
    package: Package
    ask: Ask
    want: Want


@dataclass(frozen=True, slots=True)
class _Item:
    """A wish: a bid with its options, or a lease that is up for renewal."""

    want: Want
    bid: Bid | None = None
    options: tuple[_Option, ...] = ()
    lease: Lease | None = None


@dataclass(slots=True)
class _Decided:
    awards: list[Award] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    renewals: list[Renewal] = field(default_factory=list)
    displacements: list[Displacement] = field(default_factory=list)


def fill(snapshot: Snapshot, policy: Policy, memory: Memory | None = None) -> Outcome:
    """Decide every bid and every lease that is up for renewal; `memory` goes with the outcome."""
    return _Filling(snapshot, policy, None).run(memory or Memory())


def fill_one(snapshot: Snapshot, policy: Policy, bid_id: str) -> Outcome:
    """Decide one bid on its arrival; the memory stays as it is. Raises NotFound when it is not pending."""
    if all(bid.id != bid_id for bid in snapshot.bids):
        raise NotFound(f'bid "{bid_id}" is not pending')
    return _Filling(snapshot, policy, bid_id).run(snapshot.memory)


def is_due(snapshot: Snapshot, lease: Lease) -> bool:
    """Whether a lease is up for renewal: by the next clearing its notice would be too late."""
    horizon_ms = snapshot.now_ms + snapshot.rules.notice_ms + snapshot.rules.tick_ms
    return lease.state == "active" and lease.end_ms <= horizon_ms


class _Filling:
    def __init__(self, snapshot: Snapshot, policy: Policy, only: str | None) -> None:
        snapshot = as_of_now(snapshot)
        self._snapshot, self._policy, self._now = snapshot, policy, snapshot.now_ms
        self._ground = Ground(snapshot.devices)
        self._board = Board(self._ground, snapshot.leases)
        self._decided = _Decided()
        self._gone: set[str] = set()
        bids = [bid for bid in snapshot.bids if only in (None, bid.id)]
        items = [self._bid_item(bid) for bid in bids]
        self._demand = Counter(
            next(iter(o.ask.needs.values())) for item in items if item for o in item.options
        )
        self._undecided: dict[str, _Item] = {}
        for lease in snapshot.leases:
            if only is None and is_due(snapshot, lease):
                self._undecided[lease.id] = _Item(_lease_want(lease, lease.term_ms), lease=lease)
            elif lease.state != "draining":
                rest_ms = lease.term_ms if lease.state == "reserved" else max(0, lease.end_ms - self._now)
                policy.took(_lease_want(lease, rest_ms), lease.shares, fixed=True)
        self._queues: dict[str, list[_Item]] = {}
        for item in (*self._undecided.values(), *filter(None, items)):
            self._queues.setdefault(item.want.agent, []).append(item)
        for queue in self._queues.values():
            queue.sort(key=lambda item: (policy.order(item.want), item.want.id), reverse=True)

    def run(self, memory: Memory) -> Outcome:
        heap = [self._turn(agent) for agent in self._queues]
        heapq.heapify(heap)
        position = 0
        while heap:
            *_, agent = heapq.heappop(heap)
            item = self._queues[agent].pop()
            if item.bid is not None:
                position += 1
                self._decide_bid(item, item.bid, position)
            elif item.lease is not None and item.lease.id not in self._gone:
                self._decide_renewal(item.want, item.lease)
            if self._queues[agent]:
                heapq.heappush(heap, self._turn(agent))
        done = self._decided
        return Outcome(
            tuple(done.awards),
            tuple(done.refusals),
            tuple(done.renewals),
            tuple(done.displacements),
            self._policy.price_micros,
            memory,
        )

    def _turn(self, agent: str) -> tuple[tuple[int, ...], bool, int, str, str]:
        want = self._queues[agent][-1].want
        return (self._policy.rank(want), not want.renewal, want.since_ms, want.id, agent)

    def _bid_item(self, bid: Bid) -> _Item | None:
        """The bid as a wish, or None and a refusal when the pool could never hold it or it is late."""
        options = []
        for index, package in enumerate(bid.packages):
            if well_formed(package) and self._ground.holds(ask := self._ground.ask(package)):
                options.append(_Option(index, package, ask, _bid_want(bid, package, ask)))
        if bid.deadline_ms is not None and bid.deadline_ms <= self._now:
            text = "the deadline has passed; bid again with a later one"
            why = Explanation(Reason.EXPIRED, Constraint.DEADLINE, self._policy.price_micros, None, 0, text)
        elif options:
            return _Item(options[0].want, bid=bid, options=tuple(options))
        else:
            why = unfit(bid, self._ground)
        self._decided.refusals.append(Refusal(bid.id, why))
        return None

    def _decide_renewal(self, want: Want, lease: Lease) -> None:
        del self._undecided[lease.id]
        reason = self._policy.refuses(want, lease.shares)
        if reason is None:
            self._policy.took(want, lease.shares)
            end_ms = max(lease.end_ms, self._now) + lease.term_ms
            price = min(self._policy.price_micros, lease.max_price_micros)
            self._decided.renewals.append(Renewal(lease.id, price, end_ms))
        else:
            self._end(lease, _ENDS[reason])

    def _end(self, lease: Lease, reason: DisplacementReason, by: str | None = None) -> None:
        """A lease that is not renewed keeps its term, one that is preempted does not; both get notice."""
        noticed = self._now + self._snapshot.rules.notice_ms
        ends = noticed if by else max(lease.end_ms, noticed)
        self._gone.add(lease.id)
        self._undecided.pop(lease.id, None)
        self._board.drain(lease)
        self._decided.displacements.append(Displacement(lease.id, by, ends, reason))

    def _decide_bid(self, item: _Item, bid: Bid, position: int) -> None:
        refused = {option.index: self._policy.refuses(option.want) for option in item.options}
        allowed = [option for option in item.options if refused[option.index] is None]
        if not (self._try_free(bid, allowed) or self._try_taking(bid, allowed)):
            option = (allowed or item.options)[0]
            reason = refused[option.index] or Reason.NO_CAPACITY
            self._decided.refusals.append(Refusal(bid.id, self._explain(option, reason, position)))

    def _rooms(self, option: _Option, *, now: bool) -> dict[str, Shape]:
        """What the option may use of each device, of what is free and of what its agent may have."""
        agent, ask = option.want.agent, option.ask
        return {
            device: self._policy.room(agent, device, self._board.free(ask, device, now=now))
            for device in ask.needs
        }

    def _locate(self, option: _Option, *, now: bool) -> tuple[str, ...] | None:
        rooms = self._rooms(option, now=now)
        return locate(option.ask, rooms, option.ask.devices, self._demand, self._board)

    def _try_free(self, bid: Bid, options: list[_Option]) -> bool:
        for now in (True, False):
            for option in options:
                devices = self._locate(option, now=now)
                if devices is not None:
                    self._award(bid, option, devices, now=now)
                    return True
        return False

    def _try_taking(self, bid: Bid, options: list[_Option]) -> bool:
        """The place of leases that the policy lets it end, or of those up for renewal that come after it."""
        for option in options:
            running = [lease for lease in self._snapshot.leases if self._may_preempt(option.want, lease)]
            found = self._take(option, running)
            if found is not None:
                for lease in found.victims:
                    self._end(lease, "priority", bid.id)
                self._award(bid, option, found.devices, now=False, victims=found.victims)
                return True
            if self._policy.takes_over and (found := self._take_last(option)):
                for lease in found.victims:
                    self._end(lease, "share")
                self._award(bid, option, found.devices, now=False)
                return True
        return False

    def _may_preempt(self, want: Want, lease: Lease) -> bool:
        past_quantum = self._now - lease.start_ms >= self._snapshot.rules.quantum_ms
        running = lease.state == "active" and lease.id not in self._gone and past_quantum
        return running and self._policy.preempts(want, lease)

    def _take(self, option: _Option, leases: list[Lease]) -> Eviction | None:
        if not leases:
            return None
        agent = option.want.agent
        rooms = {
            device: self._policy.room(agent, device, self._board.room_later(device))
            for device in option.ask.needs
        }
        return evict(option.ask, self._board, leases, self._policy.eviction_cost, rooms)

    def _take_last(self, option: _Option) -> Eviction | None:
        """From as few of the last in order as will do."""
        leases = self._last_first()
        if self._take(option, leases) is None:
            return None
        low, high = 1, len(leases)
        while low < high:
            middle = (low + high) // 2
            if self._take(option, leases[:middle]) is None:
                low = middle + 1
            else:
                high = middle
        return self._take(option, leases[:low])

    def _last_first(self) -> list[Lease]:
        """Leases that are still to be decided, from the one whose turn would come last."""
        ranked = []
        for queue in self._queues.values():
            ahead: list[Want] = []
            for item in reversed(queue):
                if item.lease is not None and item.lease.id in self._undecided:
                    ranked.append((self._policy.rank(item.want, ahead), item.want.since_ms, item.lease.id))
                    ahead.append(item.want)
        leases = (self._undecided[lease].lease for *_, lease in sorted(ranked, reverse=True))
        return [lease for lease in leases if lease is not None]

    def _award(
        self,
        bid: Bid,
        option: _Option,
        devices: tuple[str, ...],
        *,
        now: bool,
        victims: tuple[Lease, ...] = (),
    ) -> None:
        shares = self._board.shares(option.ask, devices, now=now)
        self._board.take(shares, now=now)
        milli, memory_mib = sum(share.milli for share in shares), sum(share.memory_mib for share in shares)
        self._policy.took(replace(option.want, milli=milli, memory_mib=memory_mib), shares)
        award = Award(
            bid=bid.id,
            package=option.index,
            shares=shares,
            price_micros=self._policy.price_micros,
            max_price_micros=option.package.price_micros,
            term_ms=option.package.term_ms,
            starts_now=now,
            displaces=tuple(lease.id for lease in victims),
        )
        self._decided.awards.append(award)

    def _explain(self, option: _Option, reason: Reason, position: int) -> Explanation:
        price = self._policy.price_micros
        winning = self._policy.winning_price(option.want, reason)
        if winning is not None and self._locate(option, now=False) is None:
            winning = None
        text = f"{describe(option.package)} {_WORDS[reason]}; the bid is number {position} in the queue"
        return Explanation(reason, _CONSTRAINTS[reason], price, winning, position, text, option.index)


def _bid_want(bid: Bid, package: Package, ask: Ask) -> Want:
    memory_mib = next(iter(ask.needs.values())).memory_mib * package.devices
    return Want(
        agent=bid.agent,
        milli=package.total_milli,
        memory_mib=memory_mib,
        term_ms=package.term_ms,
        price_micros=package.price_micros,
        priority=bid.priority,
        job_class=bid.job_class,
        since_ms=bid.submitted_ms,
        id=bid.id,
        renewal=False,
    )


def _lease_want(lease: Lease, term_ms: int) -> Want:
    return Want(
        agent=lease.agent,
        milli=lease.total_milli,
        memory_mib=sum(share.memory_mib for share in lease.shares),
        term_ms=term_ms,
        price_micros=lease.max_price_micros,
        priority=lease.priority,
        job_class=lease.job_class,
        since_ms=lease.start_ms,
        id=lease.id,
        renewal=True,
    )
