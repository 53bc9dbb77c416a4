"""One bid on its arrival: free room at the posted price, or the room of leases that are worth enough less."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from walras.core.money import price_within
from walras.market.engine.amounts import MILLI_MAX, PRICE_MAX
from walras.market.engine.board import Devices, Kinds
from walras.market.engine.book import Book
from walras.market.engine.covering import Claim, Held, parts_for
from walras.market.engine.evicting import Scratch, displace
from walras.market.engine.fragmentation import fragmented, score
from walras.market.engine.jit import LIMIT, NONE, Grid, Ints, part
from walras.market.engine.leases import Leases
from walras.market.engine.options import Options, following
from walras.market.engine.sorting import LATER
from walras.market.engine.terms import Terms


@dataclass(frozen=True, slots=True)
class Decided:
    """The option that won and its devices, or NONE and the price that was too high. Victims are leases."""

    option: int
    devices: Ints
    now: bool
    victims: Ints
    restart_costs_micros: int
    price_micros: int
    pays: int


class Express:
    """Decides bids of a book one at a time, changing nothing."""

    def __init__(self, book: Book, leases: Leases, terms: Terms) -> None:
        self._book, self._leases, self._terms = book, leases, terms
        devices = book.devices.kind.size
        self._parts = parts_for(MILLI_MAX)
        self._bounds = np.empty(devices, np.int64)
        self._exact, self._scores = np.empty(devices, np.int64), np.empty(devices, np.int64)
        self._places, self._listed = np.empty(devices, np.int64), np.zeros(devices, np.int64)
        self._gone = np.zeros(64, np.int64)

    def decide(self, row: int, posted_micros: int, now_ms: int) -> Decided:
        """Decide the bid of that row, by its packages in order of surplus over the posted price."""
        book = self._book
        book.rate()
        options, kinds, least = (
            book.options(),
            book.catalogue.columns(),
            max(posted_micros, book.reserve_micros),
        )
        purse = int(book.funds[options.agent[row]])
        ordered = self._by_surplus(row, least, posted_micros, options, kinds)
        funded = [package for package in ordered if options.cost[package] <= purse]
        for package in funded:
            found = self._place(package, least, options, kinds)
            if found is not None:
                return found
        if options.rank[row] < LATER:
            for package in funded:
                found = self._displace(package, purse, now_ms, least, options, kinds)
                if found is not None:
                    return found
        lost = max((int(options.density[package]) for package in funded), default=0)
        return Decided(NONE, _NO_ROWS, False, _NO_ROWS, 0, max(least, lost), 0)

    def _by_surplus(self, row: int, least: int, posted: int, options: Options, kinds: Kinds) -> list[int]:
        """The bid's packages that are possible and offer the least price."""
        if not options.several[row]:
            offered = options.price[row] >= least and kinds.possible[options.kind[row]]
            return [row] if offered else []
        found, package = [], NONE
        while (package := int(following(row, package, least, posted, options, kinds))) != NONE:
            found.append(package)
        return found

    def _place(self, package: int, price: int, options: Options, kinds: Kinds) -> Decided | None:
        kind, devices, scores = int(options.kind[package]), self._book.devices, self._scores
        wanted = int(kinds.devices[kind])
        for now in (True, False) if self._leases.waiting else (True,):
            if fitting(kind, now, kinds, devices, scores) >= wanted:
                rank(kind, now, kinds, devices, self._book.catalogue.demand(), scores)
                order = scores.argsort(kind="stable") if wanted > 1 else np.array([scores.argmin()])
                places = order[:wanted]
                pays = min(price, int(options.price[package]))
                return Decided(package, places, now, _NO_ROWS, 0, price, pays)
        return None

    def _displace(
        self, package: int, purse: int, now_ms: int, least: int, options: Options, kinds: Kinds
    ) -> Decided | None:
        """The cheapest leases go if the bid is worth enough more and can pay for their restart."""
        book, table = self._book, self._leases.table
        kind, agent, price = (int(column[package]) for column in (options.kind, options.agent, options.price))
        wanted = int(kinds.devices[kind])
        if self._gone.size < table["agent"].size:
            self._gone = np.zeros(table["agent"].size, np.int64)
        worth = 100 * price * wanted * int(kinds.milli[kind])
        claim = Claim(
            *(kind, agent, price, book.term_ms(package), NONE),
            *(self._terms.begun_by(now_ms), self._terms.percent, worth),
        )
        held = Held(*(table[name] for name in Held._fields if name != "density"), *[_NO_ROWS])
        picked, victims = np.empty(wanted, np.int64), np.empty(table.size, np.int64)
        shares, first = self._leases.shares(), table["first"]
        scratch = Scratch(
            *(self._gone, self._bounds, self._exact, self._places, self._listed),
            *(_NO_ROWS, picked, victims),
        )
        count = displace(kinds, book.devices, shares, held, first, claim, self._parts, scratch)
        if count == NONE:
            return None
        gone = victims[:count].copy()
        restarts = int(held.restart[gone[held.agent[gone] != agent]].sum())
        if int(options.cost[package]) + restarts > purse:
            return None
        reached = max([least, *self._leases.densities(gone).tolist()])
        # As in the auction, it pays no more than it bid with what it pays to those who go.
        within = PRICE_MAX
        if restarts:
            left = min(int(options.cost[package]), LIMIT) - restarts
            within = price_within(max(0, left), wanted * int(kinds.milli[kind]) * book.term_ms(package))
        return Decided(package, picked, False, gone, restarts, reached, min(reached, price, within))


_NO_ROWS = np.empty(0, np.int64)


@part
def free(device: int, now: bool, devices: Devices, memory: bool) -> int:
    """What a device has free, now or once drains are over."""
    kind = devices.kind[device]
    if memory:
        later, taken, size = (
            devices.later_memory[device],
            devices.now_memory[device],
            devices.class_memory[kind],
        )
    else:
        later, taken, size = devices.later_milli[device], devices.now_milli[device], devices.class_milli[kind]
    return int(size - (max(later, taken) if now else later))


@part
def fitting(kind: int, now: bool, kinds: Kinds, devices: Devices, scores: Ints) -> int:
    """How many devices have room; those that have not get the score LIMIT, others 0."""
    found = 0
    for device in range(devices.kind.size):
        scores[device] = LIMIT
        if free(device, now, devices, False) >= kinds.milli[kind]:
            memory = kinds.memory[kind, devices.kind[device]]
            if free(device, now, devices, True) >= memory:
                scores[device] = 0
                found += 1
    return found


@part
def rank(kind: int, now: bool, kinds: Kinds, devices: Devices, demand: Grid, scores: Ints) -> None:
    """Score the devices that have room. Neighbours are often alike, so the last score is remembered."""
    need, known, last, last_memory, last_class = kinds.milli[kind], 0, NONE, NONE, NONE
    for device in range(devices.kind.size):
        if scores[device] == 0:
            milli, memory = free(device, now, devices, False), free(device, now, devices, True)
            device_class = devices.kind[device]
            if milli != last or memory != last_memory or device_class != last_class:
                last, last_memory, last_class = milli, memory, device_class
                before = fragmented(milli, memory, demand)
                left = memory - kinds.memory[kind, device_class]
                known = score(milli - need, left, before, demand)
            scores[device] = known
