"""What is taken: leases and their shares, in columns, kept in step with the book's devices."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from walras.market.engine.amounts import MILLI_MAX, PRICE_MAX, TERM_MAX, VALUE_MAX, require
from walras.market.engine.book import Book
from walras.market.engine.jit import LIMIT, Grid, Ints, kernel, part
from walras.market.engine.table import Table

# States; the last two, and GONE for what must go, are those of one clearing.
GONE: Final = 0
RESERVED: Final = 1
DRAINING: Final = 2
ACTIVE: Final = 3
RENEWING: Final = 4  # active and up for renewal
KEPT: Final = 5  # which no denser bid may take over
RESTART_MAX: Final = 1 << 50
SIZES: Final = MILLI_MAX.bit_length()


class Shares(NamedTuple):
    """Columns by share, and by device the first share on it; links are rows + 1, 0 ends a chain."""

    lease: Ints
    device: Ints
    milli: Ints
    memory: Ints
    next: Ints  # of the lease
    after: Ints  # on the device
    prior: Ints
    on_device: Ints
    cheapest: Ints  # by device, the least price of a lease on it
    dearest: Ints  # and the highest
    least: Grid  # the least value, on it and elsewhere, of a lease with 2^row milli or more on it
    second: Ints  # and the second least of all leases on it
    value: Ints  # and price x milli of all shares on it that do not drain


class Leases:
    """The leases of a book's devices. A lease is known by its row."""

    def __init__(self, book: Book) -> None:
        self._book = book
        count = book.devices.kind.size
        self.table = Table(
            *("agent", "latency", "price", "restart", "start", "end", "term", "milli", "state"),
            *("told", "name", "first", "shape"),
        )
        self._shares = Table("lease", "device", "milli", "memory", "next", "after", "prior")
        self._on_device = np.zeros(count, np.int64)
        self._cheapest = np.full(count, LIMIT, np.int64)
        self._least, self._second = np.full((SIZES, count), LIMIT, np.int64), np.full(count, LIMIT, np.int64)
        self._dearest, self._value = np.zeros(count, np.int64), np.zeros(count, np.int64)
        self._told = 0
        self.waiting = 0  # reserved or draining: where these are, room now and room later differ

    def add(
        self,
        *,
        agent: Ints,
        latency: Ints,
        price: Ints,
        restart: Ints,
        start_ms: Ints,
        end_ms: Ints,
        term_ms: Ints,
        state: Ints,
        begin: Ints,
        device: Ints,
        milli: Ints,
        memory: Ints,
        elsewhere: Ints | None = None,
        name: Ints | None = None,
        shape: Ints | None = None,
    ) -> Ints:
        """Add leases; the shares of the i-th are those from `begin[i]` to `begin[i + 1]`. Returns their rows.

        price is the most its bid pays; restart is what being displaced costs it; elsewhere is what it has on
        devices that are not of the book, in milli; name decides between leases that are equally dense and
        old, by default in the order in which they are told; shape is the number of what it counts as wanted,
        by default its first share. Raises Invalid out of bounds.
        """
        require(price, 0, PRICE_MAX, "prices")
        require(restart, 0, RESTART_MAX, "restart costs")
        require(term_ms, 1, TERM_MAX, "terms")
        before = np.concatenate(([0], np.cumsum(milli)))
        total = before[begin[1:]] - before[begin[:-1]]
        total = total if elsewhere is None else total + elsewhere
        require(price * total, 0, VALUE_MAX, "values")
        rows, shares = self.table.take(agent.size), self._shares.take(device.size)
        told = np.arange(self._told, self._told + rows.size)
        columns = {"agent": agent, "latency": latency, "price": price, "restart": restart, "start": start_ms}
        columns |= {"end": end_ms, "term": term_ms, "state": state, "milli": total, "told": told}
        for each, column in (columns | {"name": told if name is None else name}).items():
            self.table[each][rows] = column
        self._told += rows.size
        for each, column in (("device", device), ("milli", milli), ("memory", memory)):
            self._shares[each][shares] = column
        link(rows, begin, shares, self.table["first"], price, total, self.shares())
        self._occupy(rows, 1)
        self.table["shape"][rows] = self._shapes(rows) if shape is None else shape
        self._want(rows[state != DRAINING], 1)
        return rows

    def drain(self, rows: Ints) -> None:
        """Active leases are warned: they stay for now and will be gone."""
        self._occupy(rows, -1)
        self._want(rows, -1)
        self.table["state"][rows] = DRAINING
        self._occupy(rows, 1)

    def start(self, rows: Ints) -> None:
        """Reserved leases start."""
        self._occupy(rows, -1)
        self.table["state"][rows] = ACTIVE
        self._occupy(rows, 1)

    def renew(self, rows: Ints, now_ms: int) -> None:
        """Leases go on for a term after their end, or after now if that is later."""
        ends, terms = self.table["end"], self.table["term"]
        ends[rows] = np.maximum(ends[rows], now_ms) + terms[rows]

    def end(self, rows: Ints) -> None:
        """Forget leases."""
        self._occupy(rows, -1)
        self._want(rows[self.table["state"][rows] != DRAINING], -1)
        shares = unlink(rows, self.table["first"], self.table["price"], self.table["milli"], self.shares())
        self._shares.give(shares)
        self.table.give(rows)

    def densities(self, rows: Ints) -> Ints:
        """Prices per effective size, by what each lease has of its first device; 0 for one without."""
        first = self.table["first"][rows]
        share, held = first[first > 0] - 1, np.zeros(rows.size, np.int64)
        held[first > 0] = self._book.catalogue.lease_densities(
            self.table["price"][rows[first > 0]],
            self._shares["milli"][share],
            self._shares["memory"][share],
            self._book.devices.kind[self._shares["device"][share]],
        )
        return held

    def due(self, horizon_ms: int) -> Ints:
        """Active leases that end by then, in the order of renewal: the densest first, then the oldest."""
        table = self.table
        ending = (table.column("state") == ACTIVE) & (table.column("end") <= horizon_ms)
        rows = np.flatnonzero(ending)
        if rows.size:
            order = np.lexsort((table["name"][rows], table["start"][rows], -self.densities(rows)))
            rows = rows[order]
        return rows

    def interruptible(self, begun_ms: int) -> bool:
        """Whether any active lease started by then."""
        started = self.table.column("start") <= begun_ms
        return bool(np.any(started & (self.table.column("state") == ACTIVE)))

    def shares(self) -> Shares:
        """The shares as kernels read them; good until leases are added."""
        table = self._shares
        return Shares(
            table["lease"],
            table["device"],
            table["milli"],
            table["memory"],
            table["next"],
            table["after"],
            table["prior"],
            self._on_device,
            self._cheapest,
            self._dearest,
            self._least,
            self._second,
            self._value,
        )

    def _occupy(self, rows: Ints, sign: int) -> None:
        self.waiting += sign * int((self.table["state"][rows] != ACTIVE).sum())
        devices = self._book.devices
        occupy(
            rows,
            self.table["state"],
            self.table["first"],
            self.table["price"],
            self.shares(),
            devices.now_milli,
            devices.now_memory,
            devices.later_milli,
            devices.later_memory,
            sign,
        )

    def _want(self, rows: Ints, change: int) -> None:
        self._book.catalogue.want(self.table["shape"][rows], change)

    def _shapes(self, rows: Ints) -> Ints:
        """The numbers of the leases' first shares as shapes."""
        first, catalogue = self.table["first"][rows] - 1, self._book.catalogue
        keys = (self._shares["milli"][first] << 32) | self._shares["memory"][first]
        distinct, inverse = np.unique(keys, return_inverse=True)
        numbers = [catalogue.shape_of(key >> 32, key & 0xFFFFFFFF) for key in distinct.tolist()]
        return np.array(numbers, np.int64)[inverse]


def leases_on(device: int, shares: Shares) -> list[int]:
    """The rows of the leases on a device."""
    found, share = [], int(shares.on_device[device])
    while share:
        found.append(int(shares.lease[share - 1]))
        share = int(shares.after[share - 1])
    return found


@part
def weigh(device: int, milli: int, value: int, table: Shares) -> None:
    """Count a lease of that value, with so much of the device, in what is least there."""
    table.second[device] = min(table.second[device], max(value, table.least[0, device]))
    for size in range(SIZES):
        if milli >> size == 0:
            break
        table.least[size, device] = min(table.least[size, device], value)


@kernel
def link(rows: Ints, begin: Ints, shares: Ints, first: Ints, price: Ints, total: Ints, table: Shares) -> None:
    """Chain shares by lease, in their order, and by device."""
    for i in range(rows.size):
        for at in range(begin[i + 1] - 1, begin[i] - 1, -1):
            share = shares[at]
            device = table.device[share]
            table.lease[share] = rows[i]
            table.next[share] = first[rows[i]]
            first[rows[i]] = share + 1
            after = table.on_device[device]
            table.after[share], table.prior[share] = after, 0
            if after:
                table.prior[after - 1] = share + 1
            table.on_device[device] = share + 1
            table.cheapest[device] = min(table.cheapest[device], price[i])
            table.dearest[device] = max(table.dearest[device], price[i])
            weigh(device, table.milli[share], price[i] * total[i], table)


@kernel
def unlink(rows: Ints, first: Ints, price: Ints, total: Ints, table: Shares) -> Ints:
    """Take the leases' shares out of the devices' chains; returns them."""
    count = 0
    found = np.empty(16, np.int64)
    for row in rows:
        at = first[row]
        while at:
            share = at - 1
            if count == found.size:
                found = np.concatenate((found, np.empty_like(found)))
            found[count] = share
            count += 1
            device, prior, after = table.device[share], table.prior[share], table.after[share]
            if prior:
                table.after[prior - 1] = after
            else:
                table.on_device[device] = after
            if after:
                table.prior[after - 1] = prior
            table.least[:, device] = table.second[device] = LIMIT
            least, most, other = LIMIT, 0, table.on_device[device]
            while other:
                lease = table.lease[other - 1]
                least, most = min(least, price[lease]), max(most, price[lease])
                weigh(device, table.milli[other - 1], price[lease] * total[lease], table)
                other = table.after[other - 1]
            table.cheapest[device], table.dearest[device] = least, most
            at = table.next[share]
    return found[:count]


@kernel
def occupy(
    rows: Ints,
    state: Ints,
    first: Ints,
    price: Ints,
    table: Shares,
    now_milli: Ints,
    now_memory: Ints,
    later_milli: Ints,
    later_memory: Ints,
    sign: int,
) -> None:
    """Count leases in or out of what is taken: now unless reserved, later unless draining."""
    for row in rows:
        at = first[row]
        while at:
            share = at - 1
            device = table.device[share]
            if state[row] != RESERVED:
                now_milli[device] += sign * table.milli[share]
                now_memory[device] += sign * table.memory[share]
            if state[row] != DRAINING:
                later_milli[device] += sign * table.milli[share]
                later_memory[device] += sign * table.memory[share]
                table.value[device] += sign * price[row] * table.milli[share]
            at = table.next[share]
