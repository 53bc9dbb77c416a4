"""One pass of the auction: bids in order of density, each placed, waiting, or in the place of another."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

from walras.core.money import HOUR_MS, WHOLE_GPU_MILLI, charge
from walras.devices.placement import Shape
from walras.market.eviction import Eviction, evict
from walras.market.ground import at_speed
from walras.market.placement import locate
from walras.market.prepared import Option, Prepared, term_cost, value
from walras.market.types import DisplacementReason, Lease, Share

# Restart costs are micros; values are micros x milli x milliseconds, so that nothing is rounded.
VALUE_PER_MICRO = WHOLE_GPU_MILLI * HOUR_MS


@dataclass(frozen=True, slots=True)
class Override:
    """Clear as if a package named this price; `funded` as if its agent could pay anything."""

    bid: str
    package: int
    price_micros: int
    funded: bool = False


@dataclass(frozen=True, slots=True)
class Win:
    """A bid that was placed; what it pays for its lease is known when all are.

    `victims` are displaced by it, or bought out if `buys`; it pays each of their holders its compensation.
    """

    option: Option
    density: int
    shares: tuple[Share, ...]
    starts_now: bool
    victims: tuple[Lease, ...] = ()
    compensations: tuple[int, ...] = ()
    buys: bool = False

    @property
    def milli(self) -> int:
        return sum(share.milli for share in self.shares)

    @property
    def compensations_micros(self) -> int:
        return sum(self.compensations)


@dataclass(slots=True)
class Pass:
    """What one pass decides. `given_up` are leases that end because a bid with more density takes over."""

    wins: list[Win] = field(default_factory=list)
    lost: list[tuple[int, Option]] = field(default_factory=list)  # the best funded package of each loser
    unfunded: list[str] = field(default_factory=list)
    given_up: dict[str, Lease] = field(default_factory=dict)
    displaced: dict[str, Lease] = field(default_factory=dict)
    bought: dict[str, Lease] = field(default_factory=dict)
    ended: dict[str, DisplacementReason] = field(default_factory=dict)  # not renewed, whoever bids
    support: list[tuple[int, frozenset[str]]] = field(default_factory=list)  # win, leases it needs given up


class Clearing:
    """Runs one pass over a prepared snapshot.

    kept: leases up for renewal that no bid may take over; broke: those that end because their agents cannot
    pay; only: decide this bid alone and renew nothing; floor: the least price that counts.
    """

    def __init__(
        self,
        prepared: Prepared,
        *,
        kept: frozenset[str] = frozenset(),
        broke: frozenset[str] = frozenset(),
        override: Override | None = None,
        only: str | None = None,
        floor_micros: int = 0,
    ) -> None:
        self._prepared = prepared
        self._now = prepared.snapshot.now_ms
        self._rules = prepared.snapshot.rules
        self._kept = kept
        self._override = override
        self._only = only
        self.floor_micros = max(floor_micros, self._rules.reserve_micros)
        self.board = prepared.board.copy()
        self._purse = dict(prepared.funds)
        self._result = Pass()
        self._renewing: dict[str, Lease] = {}
        self._given_up_on: dict[str, set[str]] = {}
        # What found no place, by kind: whatever offers no more will not find one until something is evicted.
        self._no_room: dict[int, int] = {}
        self._none_to_displace: dict[tuple[int, str], int] = {}
        due = {lease.id for lease in prepared.due}
        self._for_sale = [
            lease
            for lease in prepared.snapshot.leases
            if lease.resale_micros is not None and lease.state == "active" and lease.id not in due
        ]
        percent, quantum_ms = 100 + self._rules.epsilon_percent, self._rules.quantum_ms
        # Leases that a latency bid may end, with what that costs for each millisecond of its term and once.
        self._interruptible = [
            (
                lease,
                value(lease.max_price_micros, lease.total_milli) * percent,
                100 * lease.restart_cost_micros * VALUE_PER_MICRO,
            )
            for lease in prepared.snapshot.leases
            if lease.state == "active" and self._now - lease.start_ms >= quantum_ms
        ]
        for lease in () if only else prepared.due:
            self._begin_renewal(lease, broke=lease.id in broke)

    def run(self, until: str | None = None) -> Pass:
        """Decide every bid, best density first; on equal density latency first, then the older one.

        With `until`, no further than to where that bid wins.
        """
        packages = self._contenders()
        heap = [self._rank(options[0], 0) for options in packages.values()]
        heapq.heapify(heap)
        losers: list[str] = []
        while heap:
            *_, bid_id, at = heapq.heappop(heap)
            options = packages[bid_id]
            evicted = self._evicted()
            if not self._try_placing(options[at]):
                if at + 1 < len(options):
                    heapq.heappush(heap, self._rank(options[at + 1], at + 1))
                    continue
                if not self._try_displacing(options):
                    losers.append(bid_id)
                    continue
            if bid_id == until:
                return self._result
            if self._evicted() > evicted:
                # What a large lease leaves over goes to the best of those that found no room before.
                for loser in losers:
                    heapq.heappush(heap, self._rank(packages[loser][0], 0))
                losers = []
                self._no_room.clear()
                self._none_to_displace.clear()
        for loser in losers:
            self._lose(packages[loser])
        return self._result

    def order(self) -> list[str]:
        """The bids that offer enough, best density first."""
        ranks = [min(self._rank(each, 0) for each in options) for options in self._contenders().values()]
        return [bid_id for *_, bid_id, _ in sorted(ranks)]

    def _contenders(self) -> dict[str, list[Option]]:
        """The bids that offer enough and are in time, with their packages by surplus."""
        found = {}
        for bid_id, options in self._prepared.options.items():
            if self._only in (None, bid_id) and (worth := self._worth(options)):
                found[bid_id] = worth
        return found

    def _evicted(self) -> int:
        return len(self._result.given_up) + len(self._result.displaced) + len(self._result.bought)

    @property
    def renewing(self) -> tuple[Lease, ...]:
        """Leases up for renewal that are neither given up nor displaced nor ended."""
        return tuple(self._renewing.values())

    def _begin_renewal(self, lease: Lease, *, broke: bool) -> None:
        cost = term_cost(lease, self._renewal_estimate(lease))
        if lease.max_price_micros < at_speed(self._rules.reserve_micros, self._prepared.speed_of(lease)):
            self._result.ended[lease.id] = "price"
        elif broke or cost > self._purse[lease.agent]:
            self._result.ended[lease.id] = "funds"
        else:
            self._renewing[lease.id] = lease
            self._purse[lease.agent] -= cost
            return
        self.board.drain(lease)

    def price(self, option: Option) -> int:
        """What a package offers, as overridden."""
        override = self._override
        if override and (override.bid, override.package) == (option.bid.id, option.index):
            return override.price_micros
        return option.package.price_micros

    def _density(self, option: Option) -> int:
        return option.density(self.price(option))

    def _worth(self, options: tuple[Option, ...]) -> list[Option]:
        """Packages that offer the floor, by surplus over the posted price, best first."""
        worth = [option for option in options if self.price(option) >= option.at_speed(self.floor_micros)]
        if len(worth) > 1:
            worth.sort(key=self._surplus, reverse=True)
        return worth

    def _surplus(self, option: Option) -> int:
        posted = option.at_speed(self._prepared.snapshot.price_micros)
        return value(self.price(option) - posted, option.package.total_milli)

    def _rank(self, option: Option, at: int) -> tuple[int, int, int, str, int]:
        bid = option.bid
        return (-self._density(option), int(bid.job_class != "latency"), bid.submitted_ms, bid.id, at)

    def _renewal_estimate(self, lease: Lease) -> int:
        """What to put aside for a renewal before the price is known."""
        posted = max(self._prepared.snapshot.price_micros, self._rules.reserve_micros)
        return self._prepared.price_of(lease, posted)

    def _most(self, option: Option) -> int:
        """On how many devices the agent can pay its own price for the term."""
        override = self._override
        if override and override.funded and override.bid == option.bid.id:
            return option.ask.devices
        return option.most(self.price(option), self._purse[option.bid.agent])

    def _funded(self, option: Option, compensations: int = 0) -> bool:
        """Whether the agent can pay for the fewest devices that do, and so much beside."""
        override = self._override
        if override and override.funded and override.bid == option.bid.id:
            return True
        cost = option.cost(self.price(option), option.ask.fewest)
        return cost + compensations <= self._purse[option.bid.agent]

    def _lose(self, options: list[Option]) -> None:
        funded = [option for option in options if self._funded(option)]
        if funded:
            best = max(funded, key=self._density)
            self._result.lost.append((self._density(best), best))
        else:
            self._result.unfunded.append(options[0].bid.id)

    def _try_placing(self, option: Option) -> bool:
        """Free capacity now, or free once drains are over, or that of renewals which are worth less, or what
        its holders sell."""
        if not self._funded(option):
            return False
        return self._try_room(option) or self._try_buying(option)

    def _try_room(self, option: Option) -> bool:
        density = self._density(option)
        if density <= self._no_room.get(option.kind, -1):
            return False
        board, ask, most = self.board, option.ask, self._most(option)
        for now in (True, False):
            rooms = board.rooms(ask, now=now)
            devices = locate(ask, rooms, most, self._prepared.demand, board)
            if devices is not None:
                self._win(option, devices, now=now)
                return True
        weaker = [
            lease
            for lease in self._renewing.values()
            if lease.id not in self._kept and self._prepared.densities[lease.id] < density
        ]
        found = self._evict(option, weaker, lambda lease: value(lease.max_price_micros, lease.total_milli))
        if found is not None:
            for lease in found.victims:
                self._give_up(lease)
            self._win(option, found.devices, now=False)
            return True
        self._no_room[option.kind] = density
        return False

    def _evict(self, option: Option, leases: list[Lease], cost: Callable[[Lease], int]) -> Eviction | None:
        return evict(option.ask, self.board, leases, cost) if leases else None

    def _try_buying(self, option: Option) -> bool:
        """Leases whose holders ask no more than is left of its bid when it has paid the least price."""
        price, devices = self.price(option), option.ask.fewest
        left = option.cost(price, devices) - option.cost(option.at_speed(self.floor_micros), devices)
        found = self.buyable(option)
        if found is None or found.cost > left or not self._funded(option, found.cost):
            return False
        for lease in found.victims:
            self.board.drain(lease)
            self._result.bought[lease.id] = lease
        compensations = tuple(self.asked(lease) for lease in found.victims)
        self._win(
            option,
            found.devices,
            now=False,
            victims=found.victims,
            compensations=compensations,
            buys=True,
        )
        return True

    def buyable(self, option: Option) -> Eviction | None:
        """The cheapest leases for sale in whose place the option could go, at what their holders ask."""
        taken = self._result.displaced.keys() | self._result.bought.keys()
        leases = [
            lease for lease in self._for_sale if lease.agent != option.bid.agent and lease.id not in taken
        ]
        return self._evict(option, leases, self.asked)

    def asked(self, lease: Lease) -> int:
        """What the holder is paid for the rest of its term, beside what it has not used of its own price."""
        assert lease.resale_micros is not None
        rest_ms = max(0, lease.end_ms - self._now - self._rules.notice_ms)
        return charge(max(0, lease.resale_micros - lease.price_micros), lease.total_milli, rest_ms)

    def _give_up(self, lease: Lease) -> None:
        self.board.drain(lease)
        del self._renewing[lease.id]
        self._result.given_up[lease.id] = lease
        for share in lease.shares:
            self._given_up_on.setdefault(share.device, set()).add(lease.id)

    def _try_displacing(self, options: list[Option]) -> bool:
        """For a latency bid: end running leases that are worth enough less, and pay for their restart."""
        if options[0].bid.job_class != "latency":
            return False
        for option in options:
            price, kind = self.price(option), (option.kind, option.bid.agent)
            if not self._funded(option) or price <= self._none_to_displace.get(kind, -1):
                continue
            found = self.displaceable(option, price)
            if found is None or found.cost > self.displacing_value(option, price):
                self._none_to_displace[kind] = price
                continue
            restarts = tuple(
                lease.restart_cost_micros if lease.agent != option.bid.agent else 0 for lease in found.victims
            )
            if self._funded(option, sum(restarts)):
                for lease in found.victims:
                    self.board.drain(lease)
                    self._renewing.pop(lease.id, None)
                    self._result.displaced[lease.id] = lease
                self._win(option, found.devices, now=False, victims=found.victims, compensations=restarts)
                return True
        return False

    def displaceable(self, option: Option, price_micros: int) -> Eviction | None:
        """The cheapest leases whose place a latency bid of that price could take, cost as `displacing_value`.

        A lease of the latency class, or of the bid's own agent, goes only for a higher price than its own.
        """
        result, agent = self._result, option.bid.agent
        taken = result.displaced.keys() | result.given_up.keys() | result.ended.keys() | result.bought.keys()
        budget, term_ms = self.displacing_value(option, price_micros), option.package.term_ms
        leases, costs = [], {}
        for lease, hourly, restart in self._interruptible:
            lower = lease.max_price_micros < price_micros
            yields = lower or (lease.job_class != "latency" and lease.agent != agent)
            cost = hourly * term_ms + restart
            # One that costs more than all of the bid is worth is no part of what could go.
            if yields and cost <= budget and lease.id not in taken:
                leases.append(lease)
                costs[lease.id] = cost
        return self._evict(option, leases, lambda lease: costs[lease.id])

    @staticmethod
    def displacing_value(option: Option, price_micros: int) -> int:
        """What a bid sets against the cost of those that it displaces: its value over its own term."""
        return 100 * value(price_micros, option.fewest_milli) * option.package.term_ms

    def _win(
        self,
        option: Option,
        devices: tuple[str, ...],
        *,
        now: bool,
        victims: tuple[Lease, ...] = (),
        compensations: tuple[int, ...] = (),
        buys: bool = False,
    ) -> None:
        shares = self.board.shares(option.ask, devices, now=now)
        win = Win(option, self._density(option), shares, now, victims, compensations, buys)
        given_up = self._needed_given_up(shares)
        self.board.take(shares, now=now)
        cost = option.cost(self.price(option), len(devices))
        self._purse[option.bid.agent] -= cost + win.compensations_micros
        if given_up:
            self._result.support.append((len(self._result.wins), given_up))
        self._result.wins.append(win)

    def _needed_given_up(self, shares: tuple[Share, ...]) -> frozenset[str]:
        """The leases whose giving up these shares rest on: without it they would not fit."""
        needed: set[str] = set()
        for share in shares:
            given_up = self._given_up_on.get(share.device)
            if given_up:
                back = _room_before(self.board.room_later(share.device), share.device, self._result, given_up)
                if not Shape(share.milli, share.memory_mib).fits(back):
                    needed |= given_up
        return frozenset(needed)


def _room_before(room: Shape, device: str, result: Pass, given_up: set[str]) -> Shape:
    """The room if the leases given up there had stayed."""
    for lease_id in given_up:
        for share in result.given_up[lease_id].shares:
            if share.device == device:
                room -= Shape(share.milli, share.memory_mib)
    return room


def unworthy(result: Pass, price: Callable[[Option], int]) -> frozenset[str]:
    """Leases given up for bids that are, together, worth less an hour than those leases."""
    groups: list[tuple[set[int], set[str]]] = []
    for win, leases in result.support:
        wins, members = {win}, set(leases)
        for group in [group for group in groups if group[1] & members]:
            groups.remove(group)
            wins |= group[0]
            members |= group[1]
        groups.append((wins, members))
    bad: set[str] = set()
    for wins, members in groups:
        gained = sum(value(price(result.wins[win].option), result.wins[win].milli) for win in wins)
        given = [result.given_up[lease] for lease in members]
        if gained < sum(value(lease.max_price_micros, lease.total_milli) for lease in given):
            bad |= members
    return frozenset(bad)
