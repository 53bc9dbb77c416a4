"""The leases of one clearing: which are up for renewal, what may go, and whether what is decided stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from walras.market.engine.amounts import MILLI_MAX, charges
from walras.market.engine.board import Board, Devices, Kinds, prepare
from walras.market.engine.book import Book
from walras.market.engine.covering import Held, parts_for
from walras.market.engine.evicting import Scratch, drop
from walras.market.engine.greedy import Won
from walras.market.engine.jit import NONE, Ints, kernel
from walras.market.engine.leases import GONE, KEPT, RENEWING, Leases, Shares
from walras.market.engine.options import Options
from walras.market.engine.terms import Terms
from walras.market.engine.turnover import GIVEN, LEASE, LOGGED, WIN, Turnover

# Why a lease is not renewed, whoever bids.
PRICE: Final = 1
FUNDS: Final = 2

Flags = npt.NDArray[np.bool_]

_NONE = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Gone:
    """Rows of leases: `given` up to denser bids; `displaced`, by the win of that number; `ended`, and why."""

    given: Ints
    displaced: Ints
    by: Ints
    ended: Ints
    why: Ints

    @property
    def logged(self) -> Ints:
        """Those that went for a bid, which makes a price."""
        return np.concatenate((self.given, self.displaced))


class Due:
    """The leases that are up for renewal: `rows` in order. It may take some rounds until all can stand."""

    def __init__(self, book: Book, leases: Leases, terms: Terms, posted_micros: int, now_ms: int) -> None:
        self._book, self._leases, self._terms = book, leases, terms
        self._begun = terms.begun_by(now_ms)
        self.rows = leases.due(terms.horizon(now_ms))
        self.displaces = leases.interruptible(self._begun)
        count, table = self.rows.size, leases.table
        self._kept, self._broke = np.zeros(count, np.int64), np.zeros(count, np.int64)
        # Until the price is known, the posted one is put aside.
        self._aside = self._cost(
            np.minimum(table["price"][self.rows], max(posted_micros, book.reserve_micros))
        )
        self._fate, self._state = np.zeros(count, np.int64), _NONE

    def keep(self, leases: Ints) -> None:
        """No bid may take these over in the next round."""
        self._kept |= np.isin(self.rows, leases)

    def end(self, place: int) -> None:
        """The lease at that place of the order cannot be paid; it ends in the next round."""
        self._broke[place] = 1

    def begin(self) -> tuple[Turnover, Board, Ints]:
        """A round: what may go, a board from which those that end are gone, and what each agent has left."""
        book, table, size = self._book, self._leases.table, self._leases.table.size
        own, count = book.devices, book.devices.kind.size
        own = own._replace(later_milli=own.later_milli.copy(), later_memory=own.later_memory.copy())
        shares = self._leases.shares()
        shares = shares._replace(value=shares.value.copy())
        density, places = np.zeros(table["told"].size, np.int64), np.zeros(table["told"].size, np.int64)
        density[self.rows] = self._leases.densities(self.rows)
        places[self.rows] = np.arange(self.rows.size)
        columns = {name: table[name] for name in Held._fields[:-1]} | {"state": table["state"].copy()}
        held = Held(**columns, density=density)
        purse, spots = book.funds.copy(), np.zeros(count, np.int64)
        rows, fate, flags = self.rows, self._fate, (self._kept, self._broke)
        start_renewals(
            rows,
            self._aside,
            *flags,
            fate,
            spots,
            purse,
            book.reserve_micros,
            held,
            shares,
            table["first"],
            own,
        )
        self._state = held.state
        board = prepare(own, book.catalogue.demand(), book.catalogue.columns(), True)
        widest = int(book.catalogue.columns().devices.max(initial=1))
        search = Scratch(
            np.zeros(table["told"].size, np.int64),
            np.empty(count, np.int64),
            np.empty(count, np.int64),
            np.empty(count, np.int64),
            np.zeros(count, np.int64),
            np.flatnonzero(spots),
            np.empty(widest, np.int64),
            np.empty(size + 1, np.int64),
        )
        settings = [int((self._fate == 0).any()), int(self.displaces), self._begun, self._terms.percent]
        return (
            _turnover(held, held._replace(told=places), shares, table["first"], search, settings, book, size),
            board,
            purse,
        )

    def gone(self, turnover: Turnover) -> Gone:
        """What a round took from its holders."""
        log = turnover.log[: turnover.counts[LOGGED]]
        given = log[:, GIVEN] == 1
        ended = self._fate != 0
        return Gone(
            log[given, LEASE],
            log[~given, LEASE],
            log[~given, WIN],
            self.rows[ended],
            self._fate[ended],
        )

    def renewed(self) -> Ints:
        """The leases that go on, in order."""
        return self.rows[self._renewing()]

    def compensations(self, won: Won, gone: Gone, options: Options) -> Ints:
        """What each winner pays to the holders of the leases that it displaces, but for its own agent's."""
        table, found = self._leases.table, np.zeros(won.options.size, np.int64)
        others = table["agent"][gone.displaced] != options.agent[won.options[gone.by]]
        np.add.at(found, gone.by[others], table["restart"][gone.displaced[others]])
        return found

    def overdrawn(self, won: Won, price: int, compensations: Ints, book: Book) -> int:
        """The place of the last lease whose renewal its agent cannot pay beside the rest, or NONE."""
        options, kinds, table = book.options(), book.catalogue.columns(), self._leases.table
        going = self._renewing()
        agent = table["agent"][self.rows]
        renewal = np.where(going, self._cost(np.minimum(table["price"][self.rows], price)), 0)
        spending = np.zeros(book.funds.size, np.int64)
        np.add.at(spending, agent, renewal)
        kind, pays = options.kind[won.options], np.minimum(options.price[won.options], price)
        amount = kinds.devices[kind] * kinds.milli[kind] * options.term[won.options]
        np.add.at(spending, options.agent[won.options], charges(pays, amount) + compensations)
        short = np.flatnonzero(going & (spending[agent] > book.funds[agent]))
        return int(short[-1]) if short.size else NONE

    def _renewing(self) -> Flags:
        state = self._state[self.rows]
        renewing: Flags = (state == RENEWING) | (state == KEPT)
        return renewing

    def _cost(self, price: Ints) -> Ints:
        """What another term costs each at a price."""
        table = self._leases.table
        return charges(price, table["milli"][self.rows] * table["term"][self.rows])


def _turnover(
    held: Held, renewals: Held, shares: Shares, first: Ints, search: Scratch, settings: list[int], book: Book,
    leases: int,
) -> Turnover:  # fmt: skip
    """What may go, with nothing gone yet."""
    kinds, devices = book.catalogue.columns(), book.devices
    room = int((devices.class_milli[devices.kind]).sum()) // int(kinds.milli.min(initial=1000)) + 1
    rests = min(int((kinds.devices * kinds.live).sum()), 2 * room)
    floors = np.full((kinds.milli.size, 3), NONE, np.int64)
    return Turnover(
        held,
        renewals,
        shares,
        first,
        parts_for(MILLI_MAX),
        search,
        np.array(settings, np.int64),
        np.zeros(4, np.int64),
        np.empty((leases + 1, 3), np.int64),
        np.zeros((devices.kind.size, 2), np.int64),
        np.zeros(rests, np.int64),
        floors,
        np.empty(search.picked.size, np.int64),
        np.empty((book.options().kind.size + 1, 5), np.int64),
        np.zeros(book.funds.size, np.int64),
    )


def _nothing() -> Turnover:
    """What a pass is told where no lease may go."""
    grid, two = np.empty((0, 2), np.int64), np.zeros(4, np.int64)
    held = Held(*(_NONE for _ in Held._fields))
    shares = Shares(*(_NONE for _ in Shares._fields))._replace(least=grid)
    search = Scratch(*(_NONE for _ in Scratch._fields))
    parts = parts_for(0)
    return Turnover(
        held, held, shares, _NONE, parts, search, two, two, grid, grid, _NONE, grid, _NONE, grid, _NONE
    )


@kernel
def start_renewals(
    due: Ints, cost: Ints, kept: Ints, broke: Ints, fate: Ints, spots: Ints, purse: Ints, floor: int,
    held: Held, shares: Shares, first: Ints, devices: Devices,
) -> None:  # fmt: skip
    """Put the renewals' cost aside; those that are not renewed, whoever bids, go, and `fate` says why."""
    for place in range(due.size):
        lease = due[place]
        fate[place] = PRICE if held.price[lease] < floor else 0
        if fate[place] == 0 and (broke[place] or cost[place] > purse[held.agent[lease]]):
            fate[place] = FUNDS
        if fate[place] != 0:
            held.state[lease] = GONE
            drop(lease, -1, first, shares, held, devices)
            continue
        held.state[lease] = KEPT if kept[place] else RENEWING
        purse[held.agent[lease]] -= cost[place]
        share = first[lease]
        while share:
            spots[shares.device[share - 1]] = 1
            share = shares.next[share - 1]


def unworthy(won: Won, turnover: Turnover, options: Options, kinds: Kinds) -> Ints:
    """Leases given up for bids that are, together, worth less an hour than those leases."""
    log, rests = turnover.log[: turnover.counts[LOGGED]], turnover.rests[: won.devices.size]
    held = turnover.held
    here: dict[int, list[int]] = {}  # by device, what was given up there, in order
    for at in np.flatnonzero(log[:, GIVEN]).tolist():
        for device in _devices(int(log[at, LEASE]), turnover):
            here.setdefault(device, []).append(at)
    groups: list[tuple[set[int], set[int]]] = []
    resting = np.flatnonzero(rests)
    for place, win in zip(
        resting.tolist(), (won.start.searchsorted(resting, "right") - 1).tolist(), strict=True
    ):
        wins, members = {win}, {at for at in here[int(won.devices[place])] if at < rests[place]}
        for group in [group for group in groups if group[1] & members or win in group[0]]:
            groups.remove(group)
            wins |= group[0]
            members |= group[1]
        groups.append((wins, members))
    bad = []
    for wins, members in groups:
        rows, given = won.options[list(wins)], log[list(members), LEASE]
        kind = options.kind[rows]
        gained = int((options.price[rows] * kinds.devices[kind] * kinds.milli[kind]).sum())
        if gained < int((held.price[given] * held.milli[given]).sum()):
            bad += given.tolist()
    return np.array(bad, np.int64)


def _devices(lease: int, turnover: Turnover) -> set[int]:
    """The devices on which a lease has shares."""
    found, share = set(), int(turnover.first[lease])
    while share:
        found.add(int(turnover.shares.device[share - 1]))
        share = int(turnover.shares.next[share - 1])
    return found


NOTHING: Final = _nothing()
