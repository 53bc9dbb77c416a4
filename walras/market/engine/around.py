"""Escrows of a pool that the engine keeps, by the rules of `walras.market.escrow`.

Devices are whole and alike, so that a bid may have any of them and is as dense as its price is high: what the
rules look for is found in columns, and no snapshot is made of the pool.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from walras.market.engine.clearing import Cleared
from walras.market.engine.ending import Ending
from walras.market.engine.filling import Filling
from walras.market.engine.jit import NONE, Ints
from walras.market.engine.leases import DRAINING, leases_on
from walras.market.engine.options import Options
from walras.market.engine.told import Told
from walras.market.escrow import ESCROWS_MAX, LOOKED_AT, reservation
from walras.market.types import Bid, Displacement, Escrow, Lease, Outcome, Rules


@dataclass(frozen=True, slots=True)
class Refused:
    """Bids that lost for want of room: `rows` of the book. paid: whether none lost for want of money."""

    rows: Ints
    paid: bool
    options: Options

    def first(self, count: int) -> Ints:
        """So many of them, in the order of the clearing."""
        rows = self.rows
        if rows.size > count:
            least = -np.partition(-self.options.density[rows], count - 1)[count - 1]
            rows = rows[self.options.density[rows] >= least]
        return self.ordered(rows)[:count]

    def ordered(self, rows: Ints) -> Ints:
        """Rows in the order of the clearing."""
        options = self.options
        found: Ints = rows[np.lexsort((options.told[rows], options.rank[rows], -options.density[rows]))]
        return found


class Around:
    """The escrows of one clearing, before it and after it."""

    def __init__(self, told: Told, rules: Rules, now_ms: int, escrows: Sequence[Escrow]) -> None:
        self._told, self._known = told, told.known
        self._rules, self._now = rules, now_ms
        self._escrows = tuple(escrows)
        self._standing: tuple[Escrow, ...] = ()
        self._ended: tuple[Displacement, ...] = ()
        self._outbid: frozenset[str] = frozenset()

    def before(self) -> tuple[tuple[Lease, ...], dict[str, Lease]]:
        """The rooms that are kept, as leases; and the leases that end for escrows, as they are then."""
        ended: dict[str, Lease] = {}
        standing = []
        for escrow in filter(self._stands, self._escrows):
            for lease in self._in_the_way(escrow, ended):
                drains_ms = max(lease.end_ms, self._now + self._rules.notice_ms)
                ended[lease.id] = replace(lease, state="draining", drains_at_ms=drains_ms)
            if self._holders(escrow, ended):
                standing.append(escrow)
        self._standing = tuple(standing)
        self._ended = tuple(Displacement(each.id, None, _over_ms(each), "gang") for each in ended.values())
        return self._reservations, ended

    def standing(self) -> tuple[Lease, ...]:
        """The rooms that are kept from a bid which is decided on its arrival."""
        self._standing = tuple(filter(self._stands, self._escrows))
        return self._reservations

    def giving_way(self, row: int) -> Iterator[tuple[Escrow, ...]]:
        """All escrows, then again and again without the least dense of those that a bid is denser than, which
        is decided on its arrival."""
        yield self._escrows
        price = _price(self._known.packages[row][0])
        worth = {escrow.bid: self._worth(escrow) for escrow in self._escrows}
        weaker = sorted((name for name in worth if worth[name] < price), key=lambda name: worth[name])
        for count in range(1, len(weaker) + 1):
            yield tuple(escrow for escrow in self._escrows if escrow.bid not in weaker[:count])

    def after(self, cleared: Cleared, outcome: Outcome, refused: Refused) -> Outcome:
        """The outcome with what ended for escrows, losers on room that is idle until they are over, and the
        escrows of the next clearing; without refusals."""
        filled: Ints = refused.rows[:0]
        if self._standing:
            self._keep(refused)
            filling = Filling(self._told, self._rules, self._now, self._standing)
            filled, awards = filling.fill(cleared, outcome, refused)
            outcome = replace(outcome, awards=(*outcome.awards, *awards))
        lost = refused.first(LOOKED_AT + filled.size)
        escrows = self._planned(lost[~np.isin(lost, filled)][:LOOKED_AT], cleared)
        return replace(outcome, displacements=(*outcome.displacements, *self._ended), escrows=escrows)

    def _keep(self, refused: Refused) -> None:
        """Forget escrows that are over: those whose bids won, or lost to denser ones."""
        rows, densest = self._known.rows, int(refused.options.price[refused.rows].max(initial=NONE))
        wanted = [each for each in self._standing if rows.get(each.bid, NONE) in refused.rows]
        self._outbid = frozenset(each.bid for each in wanted if self._worth(each) < densest)
        self._standing = tuple(each for each in wanted if each.bid not in self._outbid)

    def _planned(self, lost: Ints, cleared: Cleared) -> tuple[Escrow, ...]:
        """The escrows that stand, and new ones for losers. For one device nothing is kept: it is free, or it
        is that of one lease, which gives way anyway."""
        book, escrows = self._known.book, [*self._standing]
        gangs = lost[book.catalogue.columns().devices[book.options().kind[lost]] > 1]
        if not gangs.size or len(escrows) >= ESCROWS_MAX:
            return tuple(escrows)
        known = self._outbid.union(each.bid for each in escrows)
        ending = Ending(self._told, self._rules, self._now, cleared)
        for escrow in escrows:
            ending.deny(np.array(self._numbers(escrow)))
        for row in gangs.tolist():
            if len(escrows) < ESCROWS_MAX and self._known.packages[row][0].id not in known:
                planned = ending.plan(row)
                escrows += [planned] if planned else []
        return tuple(escrows)

    def _stands(self, escrow: Escrow) -> bool:
        """Whether its bid still waits on devices that there still are, and it is not overdue."""
        overdue_ms = escrow.starts_ms + self._rules.notice_ms + 2 * self._rules.tick_ms
        there = all(share.device in self._told.devices for share in escrow.shares)
        return self._bid(escrow) is not None and self._now <= overdue_ms and there

    def _in_the_way(self, escrow: Escrow, ended: dict[str, Lease]) -> list[Lease]:
        """Leases up for renewal that give way to the bid and have some of its room."""
        worth, bid = self._worth(escrow), self._bid(escrow)
        horizon_ms = self._now + self._rules.notice_ms + self._rules.tick_ms
        return [
            lease
            for lease in self._holders(escrow, ended)
            if lease.state == "active"
            and lease.end_ms <= horizon_ms
            and bid is not None
            and (
                lease.max_price_micros < worth
                or (lease.max_price_micros == worth and lease.start_ms >= bid.submitted_ms)
            )
        ]

    def _holders(self, escrow: Escrow, ended: dict[str, Lease]) -> list[Lease]:
        """The leases in its room that stay once drains are over, beside those that ended; each once."""
        shares, state = self._known.leases.shares(), self._known.leases.table["state"]
        rows = dict.fromkeys(row for device in self._numbers(escrow) for row in leases_on(device, shares))
        found = [self._known.leases_by_row[row] for row in rows if state[row] != DRAINING]
        return [lease for lease in found if lease.id not in ended]

    @property
    def _reservations(self) -> tuple[Lease, ...]:
        found = ((escrow, self._bid(escrow)) for escrow in self._standing)
        return tuple(reservation(escrow, bid, self._now) for escrow, bid in found if bid is not None)

    def _bid(self, escrow: Escrow) -> Bid | None:
        """The bid that it is for, be its deadline over; None when it is gone."""
        row = self._known.rows.get(escrow.bid)
        return self._told.late.get(escrow.bid) if row is None else self._known.packages[row][0]

    def _worth(self, escrow: Escrow) -> int:
        """How dense the bid is that it is for, NONE for one that is gone or late."""
        row = self._known.rows.get(escrow.bid)
        return NONE if row is None else _price(self._known.packages[row][0])

    def _numbers(self, escrow: Escrow) -> list[int]:
        return [self._told.devices[share.device] for share in escrow.shares]


def _price(bid: Bid) -> int:
    return bid.packages[0].price_micros


def _over_ms(lease: Lease) -> int:
    assert lease.drains_at_ms is not None, "it was made to drain"
    return lease.drains_at_ms
