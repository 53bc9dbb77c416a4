"""Everything a pool's market knows, in columns that are kept between ticks and changed by what changes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from walras.devices.placement import Shape
from walras.market.engine.amounts import PRICE_MAX, TERM_MAX, VALUE_MAX, charges, require
from walras.market.engine.board import Board, Devices, prepare
from walras.market.engine.catalogue import Catalogue
from walras.market.engine.greedy import Options
from walras.market.engine.jit import NONE, Ints
from walras.market.engine.refresh import choose_leads, entering
from walras.market.engine.sorting import merge, sort_rows
from walras.market.engine.table import Table

LATER = 1 << 45  # ranks whoever is not of the latency class after those that are; above any time in ms


class Book:
    """Bids and devices of one pool; `walras.market.engine.leases.Leases` keeps what is taken.

    capacities: of each class of devices. device_class, node: by device; of places that suit equally well the
    lower device number is taken. A bid is known by the row of its first option.
    """

    def __init__(
        self,
        capacities: Sequence[Shape],
        device_class: Ints,
        node: Ints,
        *,
        reserve_micros: int = 0,
        first: Sequence[int] | None = None,
    ) -> None:
        counts = np.bincount(device_class, minlength=len(capacities)).tolist()
        if first is None:
            first = [int(np.argmax(device_class == number)) for number in range(len(capacities))]
        self.catalogue = Catalogue(capacities, counts, first)
        self.reserve_micros = reserve_micros
        self.devices = _devices(capacities, device_class, node)
        self.funds = np.zeros(0, np.int64)  # by agent
        self.multiple = np.empty(0, np.int64)  # first options of bids with several packages
        self._order = np.empty(0, np.int64)
        self._bids = 0
        # live: a pending option; dirty: its density is unknown; listed: in the order; gone: to leave it;
        # lead: by first option, the one that stands for the bid in the order, plus 1.
        self._options = Table(
            *("kind", "agent", "price", "cost", "term", "density", "rank", "told", "head", "next", "nth"),
            *("several", "live", "dirty", "listed", "gone", "lead"),
        )

    def set_funds(self, agents: Ints, micros: Ints) -> None:
        """What agents can pay; an agent is a number from 0."""
        most = int(agents.max(initial=NONE)) + 1
        if most > self.funds.size:
            self.funds = np.concatenate((self.funds, np.zeros(most - self.funds.size, np.int64)))
        self.funds[agents] = micros

    def add_bids(
        self, *, agent: Ints, kind: Ints, price: Ints, term_ms: Ints, submitted_ms: Ints, latency: Ints
    ) -> Ints:
        """Add bids of one package each; returns their rows. Raises Invalid out of `amounts`' bounds."""
        self._check(kind, price, term_ms)
        require(agent, 0, self.funds.size - 1, "agents")
        require(submitted_ms, 0, LATER - 1, "submitted_ms")
        table = self._options
        rows = table.take(agent.size)
        for name, column in (("agent", agent), ("kind", kind), ("price", price), ("term", term_ms)):
            table[name][rows] = column
        table["rank"][rows] = np.where(latency != 0, 0, LATER) + submitted_ms
        table["told"][rows] = np.arange(self._bids, self._bids + rows.size)
        table["head"][rows] = table["next"][rows] = rows
        self._bids += rows.size
        self._begin(rows)
        return rows

    def add_packages(
        self,
        agent: int,
        packages: Sequence[tuple[int, int, int]],
        *,
        submitted_ms: int,
        latency: bool,
    ) -> Ints:
        """Add a bid for any one of (kind, price, term_ms); returns its options' rows, of which the first is
        the bid's."""
        kind, price, term_ms = np.array(packages, np.int64).T
        same = np.ones(len(packages), np.int64)
        rows = self.add_bids(
            agent=same * agent,
            kind=kind,
            price=price,
            term_ms=term_ms,
            submitted_ms=same * submitted_ms,
            latency=same * latency,
        )
        if rows.size > 1:
            table = self._options
            table["head"][rows], table["next"][rows] = rows[0], np.roll(rows, -1)
            table["nth"][rows], table["several"][rows] = np.arange(rows.size), 1
            self.multiple = np.append(self.multiple, rows[0])
        return rows

    def reprice(self, rows: Ints, prices: Ints) -> None:
        """Change what options pay at most; a bid of one package has one option, of its own row."""
        table = self._options
        self._check(table["kind"][rows], prices, table["term"][rows])
        table["price"][rows] = prices
        self._leave(rows)
        self._value(rows)

    def remove_bids(self, rows: Ints) -> None:
        """Forget bids, by their rows; a row may be given again after the next clearing."""
        table = self._options
        several = rows[table["several"][rows] != 0]
        if several.size:
            self.multiple = self.multiple[~np.isin(self.multiple, several)]
            found = [rows[table["several"][rows] == 0]]
            for row in several:
                chain = [int(row)]
                while (following := int(table["next"][chain[-1]])) != row:
                    chain.append(following)
                found.append(np.array(chain))
            rows = np.concatenate(found)
        self._want(rows, -1)
        table["live"][rows] = table["dirty"][rows] = table["lead"][rows] = 0
        self._leave(rows)
        table.give(rows[table["gone"][rows] == 0])

    def order(self, posted_micros: int) -> Ints:
        """The first package by surplus of each bid that offers the reserve, best density first.

        Kept from one clearing to the next: what changed is sorted and merged into the rest.
        """
        table, catalogue, floor = self._options, self.catalogue, self.reserve_micros
        self._rate()
        options, kinds = self.options(), catalogue.columns()
        live, listed, gone, lead = (table.column(name) for name in ("live", "listed", "gone", "lead"))
        if self.multiple.size:
            choose_leads(self.multiple, lead, listed, gone, floor, posted_micros, options, kinds)
        ready, cheap = entering(live, listed, lead, floor, options, kinds)
        listed[cheap], gone[cheap] = 0, 1
        columns = options.density, options.rank, options.told
        if ready.size > self._order.size // 8:
            kept = self._order[gone[self._order] == 0]
            self._order = sort_rows(np.concatenate((kept, ready)), *columns)
        else:
            self._order = merge(self._order, gone, sort_rows(ready, *columns), *columns)
        listed[ready] = 1
        left = np.flatnonzero(gone)
        gone[left] = 0
        table.give(left[live[left] == 0])
        return self._order

    def options(self) -> Options:
        """The options as kernels read them; good until bids are added."""
        return Options(*(self._options.column(name) for name in Options._fields))

    def board(self) -> Board:
        """A board to place on."""
        return prepare(self.devices, self.catalogue.demand(), self.catalogue.columns())

    def _check(self, kind: Ints, price: Ints, term_ms: Ints) -> None:
        kinds = self.catalogue.kinds
        require(kind, 0, kinds.size - 1, "kinds")
        require(price, 0, PRICE_MAX, "prices")
        require(term_ms, 1, TERM_MAX, "terms")
        require(price * kinds["devices"][kind] * kinds["milli"][kind], 0, VALUE_MAX, "values")

    def _begin(self, rows: Ints) -> None:
        self._options["live"][rows] = 1
        self._value(rows)
        self._want(rows, 1)

    def _want(self, rows: Ints, change: int) -> None:
        kinds, kind = self.catalogue.kinds, self._options["kind"][rows]
        kind = kind[kinds["possible"][kind] != 0]
        self.catalogue.want(kinds["shape"][kind], change)

    def _value(self, rows: Ints) -> None:
        table, kinds = self._options, self.catalogue.kinds
        kind = table["kind"][rows]
        amount = kinds["devices"][kind] * kinds["milli"][kind] * table["term"][rows]
        table["cost"][rows] = charges(table["price"][rows], amount)
        table["dirty"][rows] = 1

    def _leave(self, rows: Ints) -> None:
        """Out of the order at the next clearing, and in again if they are live."""
        table = self._options
        listed = rows[table["listed"][rows] != 0]
        table["listed"][listed], table["gone"][listed] = 0, 1

    def _rate(self) -> None:
        """Densities of what is new, and of all whose effective size has changed."""
        table, kinds = self._options, self.catalogue.kinds
        changed = self.catalogue.rerate()
        if changed.size:
            rated = np.zeros(kinds.size, np.int64)
            rated[changed] = 1
            again = np.flatnonzero((table.column("live") == 1) & (rated[table.column("kind")] == 1))
            table["dirty"][again] = 1
            self._leave(again)
        rows = np.flatnonzero(table.column("dirty"))
        kind = table["kind"][rows]
        table["density"][rows] = table["price"][rows] * kinds["numerator"][kind] // kinds["denominator"][kind]
        table["dirty"][rows] = 0


def _devices(capacities: Sequence[Shape], device_class: Ints, node: Ints) -> Devices:
    """Columns of empty devices."""
    nodes = int(node.max(initial=NONE)) + 1
    start = np.zeros(nodes + 1, np.int64)
    np.cumsum(np.bincount(node, minlength=nodes), out=start[1:])
    taken = (np.zeros(device_class.size, np.int64) for _ in range(4))
    return Devices(
        device_class.astype(np.int64),
        next(taken),
        next(taken),
        next(taken),
        next(taken),
        np.array([size.milli for size in capacities], np.int64),
        np.array([size.memory_mib for size in capacities], np.int64),
        node.astype(np.int64),
        start,
        np.argsort(node, kind="stable").astype(np.int64),
    )
