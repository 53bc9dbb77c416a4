"""A snapshot with everything worked out that does not depend on prices."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from fractions import Fraction

from walras.core.money import charge
from walras.devices.placement import Fill, Shape
from walras.market.placement import Board, capacities, needs_of
from walras.market.types import Bid, Lease, Package, Snapshot


@dataclass(frozen=True, slots=True)
class Option:
    """A package of a bid that the pool could hold: where, and how much of its price counts."""

    bid: Bid
    index: int
    package: Package
    needs: dict[str, Shape]
    kind: int  # options of the same kind differ in nothing but the bid and the price
    numerator: int  # of milli asked for / effective size
    denominator: int

    def density(self, price_micros: int) -> int:
        """Price per GPU-hour of effective size, rounded down."""
        return price_micros * self.numerator // self.denominator

    def price_for(self, density: int) -> int:
        """The least price of that density or more."""
        return -(-density * self.denominator // self.numerator)


class Prepared:
    """One snapshot, ready to be cleared any number of times with other prices."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.capacity = capacities(snapshot.devices)
        self.board = Board(self.capacity, snapshot.leases)
        self.leases = {lease.id: lease for lease in snapshot.leases}
        self.bids = {bid.id: bid for bid in snapshot.bids}
        self.funds = self._funds()
        needs = {
            (bid.id, index): needs_of(package, self.capacity)
            for bid in snapshot.bids
            if not self.expired(bid)
            for index, package in enumerate(bid.packages)
            if well_formed(package)
        }
        self.demand = self._demand(needs)
        fills = {size: Fill(size, self.demand) for size in set(self.capacity.values()) if size.milli > 0}
        self._kinds: dict[Package, int] = {}
        self.options = {bid.id: self._options(bid, needs, fills) for bid in snapshot.bids}
        self.densities = {lease.id: self._lease_density(lease, fills) for lease in snapshot.leases}
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

    def _demand(self, needs: dict[tuple[str, int], dict[str, Shape]]) -> Counter[Shape]:
        """How many shares of each shape are wanted by pending bids or in use, as on their first device."""
        demand: Counter[Shape] = Counter()
        for (bid, index), where in needs.items():
            package = self.bids[bid].packages[index]
            if len(where) >= package.devices:
                demand[next(iter(where.values()))] += 1
        for lease in self.snapshot.leases:
            if lease.state != "draining":
                demand.update(Shape(share.milli, share.memory_mib) for share in lease.shares[:1])
        return demand

    def _options(
        self, bid: Bid, needs: dict[tuple[str, int], dict[str, Shape]], fills: dict[Shape, Fill]
    ) -> tuple[Option, ...]:
        """The packages that fit the empty pool; none when the deadline is over."""
        options = []
        for index, package in enumerate(bid.packages):
            where = needs.get((bid.id, index), {})
            if len(where) >= max(1, package.devices):
                kinds = {(self.capacity[device], need) for device, need in where.items()}
                ratio = max(Fraction(*fills[size].ratio(need)) for size, need in kinds)
                kind = self._kinds.setdefault(replace(package, price_micros=0), len(self._kinds))
                options.append(Option(bid, index, package, where, kind, *ratio.as_integer_ratio()))
        return tuple(options)

    def _lease_density(self, lease: Lease, fills: dict[Shape, Fill]) -> int:
        for share in lease.shares:
            size = self.capacity.get(share.device)
            shape = Shape(share.milli, share.memory_mib)
            if size is not None and shape.milli > 0 and shape.fits(size):
                numerator, denominator = fills[size].ratio(shape)
                return lease.max_price_micros * numerator // denominator
        return 0


def well_formed(package: Package) -> bool:
    """Whether it asks for something at all, for some time, at no negative price."""
    return (
        package.devices > 0
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
