"""A snapshot with everything worked out that does not depend on prices."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction

from walras.core.money import charge, price_within
from walras.devices.placement import Fill, Shape
from walras.market.ground import SPEED_UNIT, Ask, Ground, at_speed
from walras.market.placement import Board
from walras.market.types import Bid, Lease, Package, Snapshot


@dataclass(frozen=True, slots=True)
class Option:
    """A package of a bid on devices of one speed: where it could go, how much of its price counts."""

    bid: Bid
    index: int
    package: Package
    ask: Ask
    speed_milli: int
    kind: int  # options of the same kind differ in nothing but the bid and the price
    numerator: int  # of milli asked for / effective size at speed 1000
    denominator: int

    def density(self, price_micros: int) -> int:
        """Price per GPU-hour of effective size at speed 1000, rounded down."""
        return price_micros * self.numerator // self.denominator

    @property
    def offered_density(self) -> int:
        """The density of its own price."""
        return self.density(self.package.price_micros)

    def price_for(self, density: int) -> int:
        """The least price of that density or more."""
        return -(-density * self.denominator // self.numerator)

    def at_speed(self, price_micros: int) -> int:
        """What a price at speed 1000 is on these devices."""
        return at_speed(price_micros, self.speed_milli)

    @property
    def fewest_milli(self) -> int:
        """Thousandths of devices of the least that it is content with."""
        return self.ask.fewest * self.package.milli_gpu

    def cost(self, price_micros: int, devices: int) -> int:
        """What a term on so many devices costs at a price."""
        return charge(price_micros, devices * self.package.milli_gpu, self.package.term_ms)

    def most(self, price_micros: int, micros: int) -> int:
        """On how many devices a term costs no more than that, up to those asked for; 0 when on none."""
        if micros < 0:
            return 0
        if self.cost(price_micros, self.ask.devices) <= micros:
            return self.ask.devices
        # As price and share stand side by side in a charge, this is the largest share at the price.
        return price_within(micros, price_micros * self.package.term_ms) // self.package.milli_gpu


class Prepared:
    """One snapshot, ready to be cleared any number of times with other prices."""

    def __init__(self, snapshot: Snapshot) -> None:
        snapshot = as_of_now(snapshot)
        self.snapshot = snapshot
        self.ground = Ground(snapshot.devices)
        self.capacity = self.ground.capacity
        self.board = Board(self.ground, snapshot.leases)
        self.leases = {lease.id: lease for lease in snapshot.leases}
        self.bids = {bid.id: bid for bid in snapshot.bids}
        self.funds = self._funds()
        self._parts: dict[Package, list[tuple[int, Ask]]] = {}
        self.demand = self._demand()
        fills = {size: Fill(size, self.demand) for size in set(self.capacity.values()) if size.milli > 0}
        self._kinds: dict[tuple[Package, int], tuple[int, Fraction]] = {}
        self.options = {bid.id: self._options(bid, fills) for bid in snapshot.bids}
        self._known_ratios: dict[tuple[Shape, Shape, int], Fraction] = {}
        self._ratios = {lease.id: self._lease_ratio(lease, fills) for lease in snapshot.leases}
        self.densities = {
            lease.id: math.floor(lease.max_price_micros * self._ratios[lease.id]) for lease in snapshot.leases
        }
        horizon = snapshot.now_ms + snapshot.rules.notice_ms + snapshot.rules.tick_ms
        self.due = tuple(
            sorted(
                (lease for lease in snapshot.leases if lease.state == "active" and lease.end_ms <= horizon),
                key=lambda lease: (-self.densities[lease.id], lease.start_ms, lease.id),
            )
        )

    def expired(self, bid: Bid) -> bool:
        return bid.deadline_ms is not None and bid.deadline_ms <= self.snapshot.now_ms

    def _funds(self) -> dict[str, int]:
        """What each agent can pay: the least that any of its bids and leases names."""
        funds: dict[str, int] = {}
        items: tuple[Bid | Lease, ...] = (*self.snapshot.bids, *self.snapshot.leases)
        for item in items:
            funds[item.agent] = min(funds.get(item.agent, item.funds_micros), item.funds_micros)
        return funds

    def _demand(self) -> Counter[Shape]:
        """How many shares of each shape are wanted by pending bids or in use, as on their first device."""
        demand: Counter[Shape] = Counter()
        for bid in self.snapshot.bids:
            for _, package in self._packages(bid):
                if parts := self._by_speed(package):
                    demand[next(iter(parts[0][1].needs.values()))] += 1
        for lease in self.snapshot.leases:
            if lease.state != "draining":
                demand.update(Shape(share.milli, share.memory_mib) for share in lease.shares[:1])
        return demand

    def _packages(self, bid: Bid) -> Iterable[tuple[int, Package]]:
        """Those that say what they want, with their index; none when the deadline is over."""
        late = self.expired(bid)
        return ((at, each) for at, each in enumerate(bid.packages) if not late and well_formed(each))

    def _options(self, bid: Bid, fills: dict[Shape, Fill]) -> tuple[Option, ...]:
        """The packages that fit the empty pool, by speed."""
        options = []
        for index, package in self._packages(bid):
            for speed, ask in self._by_speed(package):
                key = (replace(package, price_micros=0), speed)
                if key not in self._kinds:
                    sizes = {(self.capacity[device], need) for device, need in ask.needs.items()}
                    ratio = max(Fraction(*fills[size].ratio(need)) for size, need in sizes)
                    self._kinds[key] = len(self._kinds), ratio * SPEED_UNIT / speed
                kind, ratio = self._kinds[key]
                options.append(Option(bid, index, package, ask, speed, kind, *ratio.as_integer_ratio()))
        return tuple(options)

    def _by_speed(self, package: Package) -> list[tuple[int, Ask]]:
        """What it asks of devices of each speed; where none has enough, of all as if as fast as the best."""
        alike = replace(package, price_micros=0, term_ms=0)
        if alike not in self._parts:
            self._parts[alike] = self._split(self.ground.ask(package))
        return self._parts[alike]

    def _split(self, ask: Ask) -> list[tuple[int, Ask]]:
        if not self.ground.holds(ask):
            return []
        speeds = {self.ground.speed(device) for device in ask.needs}
        found = []
        for speed in sorted(speeds, reverse=True):
            needs = {each: need for each, need in ask.needs.items() if self.ground.speed(each) == speed}
            part = replace(ask, needs=needs)
            if self.ground.holds(part):
                found.append((speed, part))
        return found or [(max(speeds), ask)]

    def _lease_ratio(self, lease: Lease, fills: dict[Shape, Fill]) -> Fraction:
        """Milli-GPU over effective size at speed 1000, as for options, by what it has of its first device."""
        for share in lease.shares:
            size, shape = self.capacity.get(share.device), Shape(share.milli, share.memory_mib)
            if size is not None and shape.milli > 0 and shape.fits(size):
                key = (size, shape, self.speed_of(lease))
                if key not in self._known_ratios:
                    self._known_ratios[key] = Fraction(*fills[size].ratio(shape)) * SPEED_UNIT / key[2]
                return self._known_ratios[key]
        return Fraction(0)

    def price_for(self, lease: Lease, density: int) -> int:
        """The least price with which a lease would be as dense."""
        ratio = self._ratios[lease.id]
        return math.ceil(density / ratio) if ratio else density

    def speed_of(self, lease: Lease) -> int:
        """Of the fastest of its devices."""
        return max(self.ground.speed(share.device) for share in lease.shares)

    def price_of(self, lease: Lease, price_micros: int) -> int:
        """What a lease pays where devices of speed 1000 cost so much: never more than its bid."""
        return min(at_speed(price_micros, self.speed_of(lease)), lease.max_price_micros)


def as_of_now(snapshot: Snapshot) -> Snapshot:
    """The snapshot with prices as they are at its time, where bids decay."""
    if all(bid.decays_ms is None for bid in snapshot.bids):
        return snapshot
    return replace(snapshot, bids=tuple(_as_of(bid, snapshot.now_ms) for bid in snapshot.bids))


def _as_of(bid: Bid, now_ms: int) -> Bid:
    packages = (
        replace(each, price_micros=bid.worth_micros(each.price_micros, now_ms)) for each in bid.packages
    )
    return replace(bid, packages=tuple(packages))


def well_formed(package: Package) -> bool:
    """Whether it asks for something at all, for some time, at no negative price."""
    return (
        0 <= package.devices_min <= package.devices
        and package.devices > 0
        and package.milli_gpu > 0
        and package.memory_mib >= 0
        and package.term_ms > 0
        and package.price_micros >= 0
    )


def value(price_micros: int, milli: int) -> int:
    """Worth an hour in thousandths of a micro, as prices are for whole devices and shares in milli."""
    return price_micros * milli


def term_cost(lease: Lease, price_micros: int) -> int:
    """What the next term of a lease costs at a price."""
    return charge(price_micros, lease.total_milli, lease.term_ms)
