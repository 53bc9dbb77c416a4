"""A book of one snapshot, and its decisions in the words of `walras.market.types`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from walras.devices.placement import Shape
from walras.market.engine.book import Book
from walras.market.engine.clearing import Cleared
from walras.market.engine.express import Decided
from walras.market.engine.jit import LIMIT, NONE, Ints
from walras.market.engine.leases import ACTIVE, DRAINING, RESERVED, Leases
from walras.market.engine.round import PRICE
from walras.market.engine.terms import Terms
from walras.market.prepared import well_formed
from walras.market.types import (
    Award,
    Bid,
    Device,
    Displacement,
    DisplacementReason,
    Lease,
    Renewal,
    Rules,
    Share,
    Snapshot,
)

_STATES = {"reserved": RESERVED, "active": ACTIVE, "draining": DRAINING}


@dataclass(frozen=True, slots=True)
class Translated:
    """A book with the names of what is in it. `packages` is by row: the bid and the index of its package.
    `wholes` are all of each device, where nothing else is asked for: made once, as most shares are."""

    book: Book
    leases: Leases
    devices: tuple[Device, ...]  # by number
    packages: dict[int, tuple[Bid, int]]
    rows: dict[str, int]  # by bid, its first option
    leases_by_row: dict[int, Lease]
    wholes: tuple[Share, ...] = ()

    def awards(self, cleared: Cleared) -> tuple[Award, ...]:
        """The winners as awards, in the order in which they won."""
        won, found, shares = cleared.won, [], self._shares()
        displaces: dict[int, list[str]] = {}
        for win, lease in zip(cleared.gone.by.tolist(), cleared.gone.displaced.tolist(), strict=True):
            displaces.setdefault(win, []).append(self.leases_by_row[lease].id)
        for at, row in enumerate(won.options.tolist()):
            bid, index = self.packages[row]
            package = bid.packages[index]
            award = Award(
                bid.id,
                index,
                shares(row, won.devices[won.start[at] : won.start[at + 1]]),
                int(cleared.pays[at]),
                package.price_micros,
                package.term_ms,
                bool(won.now[at]),
                tuple(displaces.get(at, ())),
                int(cleared.compensations[at]),
            )
            found.append(award)
        return tuple(found)

    def winners(self, cleared: Cleared) -> set[str]:
        """The bids that won."""
        return {self.packages[row][0].id for row in cleared.won.options.tolist()}

    @contextmanager
    def instead(self, option: int, price_micros: int, funded: bool) -> Iterator[int]:
        """Have an option name another price for a while, and its agent pay anything if `funded`; the first
        option of its bid."""
        options, rows = self.book.options(), np.array([option])
        price, agent = int(options.price[option]), int(options.agent[option])
        funds = self.book.funds[agent]
        self.book.reprice(rows, np.array([price_micros]))
        if funded:
            self.book.funds[agent] = LIMIT
        yield int(options.head[option])
        self.book.funds[agent] = funds
        self.book.reprice(rows, np.array([price]))

    def renewals(self, cleared: Cleared, now_ms: int) -> tuple[Renewal, ...]:
        """The leases that go on, in order."""
        leases = [self.leases_by_row[row] for row in cleared.renewed.tolist()]
        price = cleared.price_micros
        return tuple(
            Renewal(lease.id, min(price, lease.max_price_micros), max(lease.end_ms, now_ms) + lease.term_ms)
            for lease in leases
        )

    def displacements(self, cleared: Cleared, noticed_ms: int) -> tuple[Displacement, ...]:
        """The leases that must go: displaced, given up, not renewed; with notice until then at least."""
        gone, names = cleared.gone, self.leases_by_row
        found = [
            self._displaced(row, winner, noticed_ms)
            for row, winner in zip(
                gone.displaced.tolist(), cleared.won.options[gone.by].tolist(), strict=True
            )
        ]
        reasons: list[tuple[Lease, DisplacementReason]]
        reasons = [(names[row], "price") for row in gone.given.tolist()]
        for row, why in zip(gone.ended.tolist(), gone.why.tolist(), strict=True):
            reasons.append((names[row], "price" if why == PRICE else "funds"))
        found += [
            Displacement(lease.id, None, max(lease.end_ms, noticed_ms), reason) for lease, reason in reasons
        ]
        return tuple(found)

    def displaced(self, decided: Decided, noticed_ms: int) -> tuple[Displacement, ...]:
        """The leases that go for a bid that was decided on its arrival."""
        return tuple(self._displaced(row, decided.option, noticed_ms) for row in decided.victims.tolist())

    def _displaced(self, row: int, option: int, noticed_ms: int) -> Displacement:
        """A holder is paid for its restart, unless the bid is its own."""
        lease, bid = self.leases_by_row[row], self.packages[option][0]
        restart = 0 if lease.agent == bid.agent else lease.restart_cost_micros
        return Displacement(lease.id, bid.id, noticed_ms, "outbid", restart)

    def award(self, decided: Decided) -> tuple[Award, ...]:
        """The award of one bid that was decided on its arrival, if it won."""
        if decided.option == NONE:
            return ()
        bid, index = self.packages[decided.option]
        package = bid.packages[index]
        award = Award(
            bid.id,
            index,
            self._shares()(decided.option, decided.devices),
            decided.pays,
            package.price_micros,
            package.term_ms,
            decided.now,
            tuple(self.leases_by_row[row].id for row in decided.victims.tolist()),
            decided.restart_costs_micros,
        )
        return (award,)

    def _shares(self) -> Callable[[int, Ints], tuple[Share, ...]]:
        """What an option takes of devices."""
        if wholes := self.wholes:
            return lambda _, devices: tuple([wholes[device] for device in devices.tolist()])
        memory, kinds = self.book.catalogue.columns().memory, self.book.options().kind
        classes, names, packages = self.book.devices.kind, self.devices, self.packages

        def shares(row: int, devices: Ints) -> tuple[Share, ...]:
            bid, index = packages[row]
            milli, needs = bid.packages[index].milli_gpu, memory[kinds[row]]
            return tuple(
                Share(names[device].id, milli, int(needs[classes[device]])) for device in devices.tolist()
            )

        return shares


def translate(snapshot: Snapshot) -> Translated:
    """A book with the snapshot's devices, leases and bids that are in time. Raises Invalid out of bounds."""
    # Of places that suit equally well the auction takes the first by name, the engine the lowest number.
    places = sorted(range(len(snapshot.devices)), key=lambda place: snapshot.devices[place].id)
    devices = tuple(snapshot.devices[place] for place in places)
    eligible = dict.fromkeys(package.eligible for bid in snapshot.bids for package in bid.packages)
    classes = Classes(devices, [each for each in eligible if each is not None])
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
    _add_bids(found, snapshot, agents, classes)
    return found


class Classes:
    """Devices that no bid tells apart are of one class."""

    def __init__(self, devices: tuple[Device, ...], eligible: Iterable[frozenset[str]]) -> None:
        # Which of the selectors take a device, bit by selector.
        takes = dict.fromkeys((device.id for device in devices), 0)
        for bit, selector in enumerate(eligible):
            for device_id in selector & takes.keys():
                takes[device_id] |= 1 << bit
        keys = [(Shape(device.milli, device.memory_mib), takes[device.id]) for device in devices]
        numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        self.numbers: Ints = np.array([numbers[key] for key in keys], np.int64)
        self.capacities = [capacity for capacity, _ in numbers]
        self._masks = {
            selector: sum(1 << number for (_, taken), number in numbers.items() if taken >> bit & 1)
            for bit, selector in enumerate(eligible)
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


def _add_bids(found: Translated, snapshot: Snapshot, agents: dict[str, int], classes: Classes) -> None:
    """The bids that are in time, the older first."""
    book, now_ms = found.book, snapshot.now_ms
    kinds: dict[tuple[int, int, int, frozenset[str] | None], int] = {}
    bids, begin, options, columns = [], [0], [], []
    for bid in sorted(snapshot.bids, key=lambda bid: (bid.submitted_ms, bid.id)):
        if bid.deadline_ms is not None and bid.deadline_ms <= now_ms:
            continue
        agent, latency = agents[bid.agent], int(bid.job_class == "latency")
        for index, package in enumerate(bid.packages):
            if well_formed(package):
                key = package.devices, package.milli_gpu, package.memory_mib, package.eligible
                if key not in kinds:
                    kinds[key] = book.catalogue.kind(*key[:3], classes.mask(package.eligible))
                options.append((bid, index))
                columns.append(
                    (agent, kinds[key], package.price_micros, package.term_ms, bid.submitted_ms, latency)
                )
        if len(options) > begin[-1]:
            begin.append(len(options))
            bids.append(bid.id)
    names = ("agent", "kind", "price", "term_ms", "submitted_ms", "latency")
    every = np.array(columns, np.int64).reshape(-1, len(names)).T
    rows = book.add_bids(**dict(zip(names, every, strict=True)))
    book.join(rows, np.array(begin, np.int64))
    found.packages.update(zip(rows.tolist(), options, strict=True))
    found.rows.update(zip(bids, rows[begin[:-1]].tolist(), strict=True))


def _add_leases(found: Translated, leases: tuple[Lease, ...], agents: dict[str, int]) -> None:
    """All leases, with what they have of the devices that there are."""
    numbers = {device.id: number for number, device in enumerate(found.devices)}
    kept = [[share for share in lease.shares if share.device in numbers] for lease in leases]
    every = [share for shares in kept for share in shares]
    names = {name: place for place, name in enumerate(sorted(lease.id for lease in leases))}
    shape_of = found.book.catalogue.shape_of

    def column(values: Iterable[int]) -> Ints:
        return np.fromiter(values, np.int64)

    rows = found.leases.add(
        agent=column(agents[lease.agent] for lease in leases),
        latency=column(int(lease.job_class == "latency") for lease in leases),
        price=column(lease.max_price_micros for lease in leases),
        restart=column(lease.restart_cost_micros for lease in leases),
        start_ms=column(lease.start_ms for lease in leases),
        end_ms=column(lease.end_ms for lease in leases),
        term_ms=column(lease.term_ms for lease in leases),
        state=column(_STATES[lease.state] for lease in leases),
        begin=np.concatenate((_NO_ROWS, [0], np.cumsum(column(len(shares) for shares in kept)))),
        device=column(numbers[share.device] for share in every),
        milli=column(share.milli for share in every),
        memory=column(share.memory_mib for share in every),
        elsewhere=column(
            lease.total_milli - sum(share.milli for share in shares)
            for lease, shares in zip(leases, kept, strict=True)
        ),
        name=column(names[lease.id] for lease in leases),
        shape=column(shape_of(lease.shares[0].milli, lease.shares[0].memory_mib) for lease in leases),
    )
    found.leases_by_row.update(zip(rows.tolist(), leases, strict=True))


_NO_ROWS = np.empty(0, np.int64)


def terms_of(rules: Rules) -> Terms:
    """The rules for leases."""
    return Terms(rules.quantum_ms, rules.epsilon_percent, rules.notice_ms, rules.tick_ms)
