"""A book of one snapshot, and its decisions in the words of `walras.market.types`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from walras.devices.placement import Shape
from walras.market.engine.book import Book
from walras.market.engine.clearing import Cleared
from walras.market.engine.express import Decided
from walras.market.engine.jit import NONE, Ints
from walras.market.engine.leases import ACTIVE, DRAINING, RESERVED, Leases
from walras.market.prepared import well_formed
from walras.market.types import Award, Bid, Device, Lease, Package, Share, Snapshot

_STATES = {"reserved": RESERVED, "active": ACTIVE, "draining": DRAINING}


@dataclass(frozen=True, slots=True)
class Translated:
    """A book with the names of what is in it. `packages` is by row: the bid and the index of its package."""

    book: Book
    leases: Leases
    devices: tuple[Device, ...]  # by number
    packages: dict[int, tuple[Bid, int]]
    rows: dict[str, int]  # by bid, its first option
    lease_rows: dict[str, int]

    def awards(self, cleared: Cleared) -> tuple[Award, ...]:
        """The winners as awards, in the order in which they won."""
        won, found = cleared.won, []
        for at, row in enumerate(won.options.tolist()):
            bid, index = self.packages[row]
            shares = self._shares(row, won.devices[won.start[at] : won.start[at + 1]])
            term = bid.packages[index].term_ms
            found.append(
                Award(
                    bid.id,
                    index,
                    shares,
                    int(cleared.pays[at]),
                    bid.packages[index].price_micros,
                    term,
                    bool(won.now[at]),
                )
            )
        return tuple(found)

    def award(self, decided: Decided) -> tuple[Award, ...]:
        """The award of one bid that was decided on its arrival, if it won."""
        if decided.option == NONE:
            return ()
        names = {row: name for name, row in self.lease_rows.items()}
        bid, index = self.packages[decided.option]
        shares = self._shares(decided.option, decided.devices)
        victims = tuple(names[row] for row in decided.victims.tolist())
        term, restarts = bid.packages[index].term_ms, decided.restart_costs_micros
        return (
            Award(
                bid.id,
                index,
                shares,
                decided.pays,
                bid.packages[index].price_micros,
                term,
                decided.now,
                victims,
                restarts,
            ),
        )

    def _shares(self, row: int, devices: Ints) -> tuple[Share, ...]:
        bid, index = self.packages[row]
        memory = self.book.catalogue.columns().memory[self.book.options().kind[row]]
        classes, milli = self.book.devices.kind, bid.packages[index].milli_gpu
        return tuple(
            Share(self.devices[device].id, milli, int(memory[classes[device]])) for device in devices.tolist()
        )


def translate(snapshot: Snapshot) -> Translated:
    """A book with the snapshot's devices, leases and bids that are in time. Raises Invalid out of bounds."""
    # Of places that suit equally well the auction takes the first by name, the engine the lowest number.
    places = sorted(range(len(snapshot.devices)), key=lambda place: snapshot.devices[place].id)
    devices = tuple(snapshot.devices[place] for place in places)
    packages = [package for bid in snapshot.bids for package in bid.packages]
    classes = Classes(devices, {package.eligible for package in packages if package.eligible is not None})
    first = [len(devices)] * len(classes.capacities)
    for place, number in zip(places, classes.numbers.tolist(), strict=True):
        first[number] = min(first[number], place)
    nodes = {node: number for number, node in enumerate(dict.fromkeys(device.node for device in devices))}
    node = np.array([nodes[device.node] for device in devices], np.int64)
    reserve = snapshot.rules.reserve_micros
    book = Book(classes.capacities, classes.numbers, node, reserve_micros=reserve, first=first)
    agents = _funds(book, (*snapshot.bids, *snapshot.leases))
    leases = Leases(book)
    found = Translated(book, leases, devices, {}, {}, {})
    _add_leases(found, snapshot.leases, agents)
    bids = [bid for bid in snapshot.bids if bid.deadline_ms is None or bid.deadline_ms > snapshot.now_ms]
    for bid in sorted(bids, key=lambda bid: (bid.submitted_ms, bid.id)):
        _add_bid(found, bid, agents[bid.agent], classes)
    return found


class Classes:
    """Devices that no bid tells apart are of one class."""

    def __init__(self, devices: tuple[Device, ...], eligible: set[frozenset[str]]) -> None:
        selectors = sorted(eligible, key=sorted)
        numbers: dict[tuple[Shape, tuple[bool, ...]], int] = {}
        column = []
        for device in devices:
            key = Shape(device.milli, device.memory_mib), tuple(device.id in each for each in selectors)
            column.append(numbers.setdefault(key, len(numbers)))
        self.numbers: Ints = np.array(column, np.int64)
        self.capacities = [capacity for capacity, _ in numbers]
        self._masks = {
            selector: sum(1 << number for (_, taken), number in numbers.items() if taken[at])
            for at, selector in enumerate(selectors)
        }

    def mask(self, eligible: frozenset[str] | None) -> int | None:
        """The classes that a selector takes, None for all."""
        return None if eligible is None else self._masks[eligible]


def _funds(book: Book, items: Iterable[Bid | Lease]) -> dict[str, int]:
    """Numbers of the agents; each can pay the least that any of its bids and leases names."""
    funds: dict[str, int] = {}
    for item in items:
        funds[item.agent] = min(funds.get(item.agent, item.funds_micros), item.funds_micros)
    book.set_funds(np.arange(len(funds)), np.array(list(funds.values()), np.int64))
    return {agent: number for number, agent in enumerate(funds)}


def _add_bid(found: Translated, bid: Bid, agent: int, classes: Classes) -> None:
    kinds = []
    for index, package in enumerate(bid.packages):
        if well_formed(package):
            kinds.append((index, _kind(found.book, package, classes), package))
    if kinds:
        options = [(kind, package.price_micros, package.term_ms) for _, kind, package in kinds]
        latency = bid.job_class == "latency"
        rows = found.book.add_packages(agent, options, submitted_ms=bid.submitted_ms, latency=latency)
        found.rows[bid.id] = int(rows[0])
        for row, (index, _, _) in zip(rows.tolist(), kinds, strict=True):
            found.packages[row] = bid, index


def _kind(book: Book, package: Package, classes: Classes) -> int:
    mask = classes.mask(package.eligible)
    return book.catalogue.kind(package.devices, package.milli_gpu, package.memory_mib, mask)


def _add_leases(found: Translated, leases: Iterable[Lease], agents: dict[str, int]) -> None:
    """Leases on the devices that there are."""
    numbers = {device.id: number for number, device in enumerate(found.devices)}
    kept = []
    for lease in leases:
        shares = [share for share in lease.shares if share.device in numbers]
        if shares:
            kept.append((lease, shares))
    every = [share for _, shares in kept for share in shares]

    def column(values: Iterable[int]) -> Ints:
        return np.fromiter(values, np.int64)

    rows = found.leases.add(
        agent=column(agents[lease.agent] for lease, _ in kept),
        latency=column(int(lease.job_class == "latency") for lease, _ in kept),
        price=column(lease.max_price_micros for lease, _ in kept),
        restart=column(lease.restart_cost_micros for lease, _ in kept),
        start_ms=column(lease.start_ms for lease, _ in kept),
        state=column(_STATES[lease.state] for lease, _ in kept),
        begin=np.concatenate(([0], np.cumsum(column(len(shares) for _, shares in kept)))).astype(np.int64),
        device=column(numbers[share.device] for share in every),
        milli=column(share.milli for share in every),
        memory=column(share.memory_mib for share in every),
    )
    found.lease_rows.update((lease.id, int(row)) for row, (lease, _) in zip(rows, kept, strict=True))
