"""Everything a pool's market knows, in columns that are kept between ticks and changed by what changes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from walras.core.errors import Invalid
from walras.core.money import charge
from walras.devices.placement import Shape
from walras.market.engine.amounts import PRICE_MAX, TERM_MAX, VALUE_MAX, charges, require
from walras.market.engine.board import Board, Devices, prepare
from walras.market.engine.catalogue import Catalogue
from walras.market.engine.jit import LIMIT, NONE, Ints
from walras.market.engine.options import Options
from walras.market.engine.ordering import Order
from walras.market.engine.ranked import Ranking
from walras.market.engine.refresh import choose_leads, entering, rate
from walras.market.engine.sorting import LATER
from walras.market.engine.table import Table

_OF_BID = ("agent", "kind", "price", "term", "rank", "told", "head", "next", "cost", "live")


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
        self._order = Order()
        self._bids = 0
        # Rows whose density is unknown, and that may enter the order.
        self._unrated: list[Ints] = []
        self._touched: list[Ints] = []
        # live: a pending option; place: see `Order`; lead: by first option, the one that stands for the bid,
        # plus 1.
        self._options = Table(
            *("kind", "agent", "price", "cost", "term", "density", "rank", "told", "head", "next", "nth"),
            *("several", "live", "place", "lead"),
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

    def add_bid(
        self, agent: int, kind: int, price: int, term_ms: int, *, submitted_ms: int, latency: bool
    ) -> int:
        """Add one bid of one package, as `add_bids` does, in a fraction of its time; returns its row."""
        kinds, table = self.catalogue.kinds, self._options
        total = int(kinds["devices"][kind] * kinds["milli"][kind]) if 0 <= kind < kinds.size else -1
        bounds = 0 <= price <= PRICE_MAX, 0 < term_ms <= TERM_MAX, 0 <= agent < self.funds.size
        if total < 0 or not all(bounds) or price * total > VALUE_MAX or not 0 <= submitted_ms < LATER:
            raise Invalid(f"a bid of {price} for {term_ms} ms is out of bounds")
        rows = table.take(1)
        row, rank = int(rows[0]), submitted_ms if latency else submitted_ms + LATER
        cost = min(charge(price, total, term_ms), LIMIT)
        values = (agent, kind, price, term_ms, rank, self._bids, row, row, cost, 1)
        for name, value in zip(_OF_BID, values, strict=True):
            table[name][row] = value
        self._bids += 1
        kinds["live"][kind] += 1
        if kinds["possible"][kind]:
            self.catalogue.want_one(int(kinds["shape"][kind]), 1)
        self._touch(rows)
        return row

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
        self.join(rows, np.array([0, rows.size]))
        return rows

    def join(self, rows: Ints, begin: Ints) -> None:
        """Make one bid of any one of the packages in `rows` from `begin[i]` to `begin[i + 1]`, for each i,
        that were added as bids of their own."""
        table, counts = self._options, np.diff(begin)
        first = np.repeat(begin[:-1], counts)
        nth = np.arange(rows.size) - first
        last = nth + 1 == np.repeat(counts, counts)
        table["head"][rows] = rows[first]
        table["next"][rows] = rows[np.where(last, first, np.arange(rows.size) + 1) % max(1, rows.size)]
        table["nth"][rows], table["several"][rows] = nth, np.repeat(counts > 1, counts)
        self.multiple = np.concatenate((self.multiple, rows[begin[:-1]][counts > 1]))

    def set_reserve(self, micros: int) -> None:
        """Change the least price at which the pool sells."""
        table, self.reserve_micros = self._options, micros
        live = np.flatnonzero(table.column("live"))
        self._leave(live[table["price"][live] < micros])
        self._touched.append(live)

    def reprice(self, rows: Ints, prices: Ints) -> None:
        """Change what options pay at most; a bid of one package has one option, of its own row."""
        table = self._options
        self._check(table["kind"][rows], prices, table["term"][rows])
        table["price"][rows] = prices
        self._leave(rows)
        self._value(rows)

    def remove_bids(self, rows: Ints) -> None:
        """Forget bids, by their rows."""
        table = self._options
        several = rows[table["several"][rows] != 0]
        if several.size:
            rows = np.concatenate((rows[table["several"][rows] == 0], *map(self.packages, several.tolist())))
        self._want(rows, -1)
        self._leave(rows)
        table.give(rows)
        if several.size:
            self.multiple = self.multiple[table["live"][self.multiple] == 1]

    def packages(self, row: int) -> Ints:
        """The options of a bid, in the order of its packages."""
        chain = [row]
        while (following := int(self._options["next"][chain[-1]])) != row:
            chain.append(following)
        return np.array(chain)

    def rate(self) -> None:
        """Densities of what is new, and of all whose effective size has changed."""
        table, kinds = self._options, self.catalogue.kinds
        changed = self.catalogue.rerate()
        if changed.size:
            rated = np.zeros(kinds.size, np.int64)
            rated[changed] = 1
            again = np.flatnonzero((table.column("live") == 1) & (rated[table.column("kind")] == 1))
            self._leave(again)
            self._touch(again)
        numerator, denominator = kinds["numerator"], kinds["denominator"]
        if self._unrated:
            rows = self._unrated[0] if len(self._unrated) == 1 else np.concatenate(self._unrated)
            rate(rows, table["price"], table["kind"], numerator, denominator, table["density"])
            self._unrated = []

    def order(self, posted_micros: int) -> Ranking:
        """The first package by surplus of each bid that offers the reserve, best density first.

        Kept from one clearing to the next: what changed is sorted and merged into the rest.
        """
        table = self._options
        self.rate()
        options, kinds = self.options(), self.catalogue.columns()
        live, place, lead = (table.column(name) for name in ("live", "place", "lead"))
        if self.multiple.size:
            limits = np.array([self.reserve_micros, posted_micros], np.int64)
            ceased, came = choose_leads(self.multiple, lead, limits, options, kinds)
            self._order.leave(ceased, place)
            self._touched.append(came)
        touched = np.concatenate((self.multiple[:0], *self._touched))
        self._touched = []
        ready = entering(touched, live, place, lead, self.reserve_micros, options, kinds)
        self._order.enter(ready, place, options)
        return self._order.ranking

    def live(self) -> Ints:
        """By option, 1 for one that is pending."""
        return self._options.column("live")

    def term_ms(self, option: int) -> int:
        """How long a lease of that option lasts."""
        return int(self._options["term"][option])

    def options(self) -> Options:
        """The options as kernels read them; good until bids are added."""
        return Options(*(self._options.column(name) for name in Options._fields))

    def board(self) -> Board:
        """A board to place on."""
        return prepare(self.devices, self.catalogue.demand(), self.catalogue.columns(), False)

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
        np.add.at(kinds["live"], kind, change)
        kind = kind[kinds["possible"][kind] != 0]
        self.catalogue.want(kinds["shape"][kind], change)

    def _value(self, rows: Ints) -> None:
        table, kinds = self._options, self.catalogue.kinds
        kind = table["kind"][rows]
        amount = kinds["devices"][kind] * kinds["milli"][kind] * table["term"][rows]
        table["cost"][rows] = charges(table["price"][rows], amount)
        self._touch(rows)

    def _touch(self, rows: Ints) -> None:
        self._unrated.append(rows)
        self._touched.append(rows)

    def _leave(self, rows: Ints) -> None:
        """Out of the order, and in again at the next clearing if they are touched and live."""
        self._order.leave(rows, self._options["place"])


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
