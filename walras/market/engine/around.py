"""Escrows of a pool that the engine keeps, by the plain rules, on the few devices that they are about.

A plan takes the devices that come free soonest. Those that a plan of a clearing could take are found in
columns; the rules then look at these alone, with all that holds them, instead of at the whole pool.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from walras.market.backfill import backfill
from walras.market.engine.ending import Ending
from walras.market.engine.jit import Ints
from walras.market.engine.options import Options
from walras.market.engine.told import Told
from walras.market.escrow import (
    ESCROWS_MAX,
    LOOKED_AT,
    Held,
    giving_way,
    hold,
    hold_for_tick,
    keep,
    settle,
)
from walras.market.types import (
    Bid,
    Constraint,
    Escrow,
    Explanation,
    Lease,
    Outcome,
    Reason,
    Refusal,
    Rules,
    Snapshot,
)


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

    def __init__(
        self, told: Told, rules: Rules, now_ms: int, posted_micros: int, escrows: Sequence[Escrow]
    ) -> None:
        self._told, self._known, self._lease_rows = told, told.known, told.lease_rows
        self._rules, self._now, self._posted = rules, now_ms, posted_micros
        self._escrows = tuple(escrows)
        names = {share.device for escrow in self._escrows for share in escrow.shares}
        self._devices = self._numbers(name for name in names if name in told.devices)
        empty = Snapshot(now_ms, rules, (), (), (), posted_micros)
        self._held = Held(empty, empty)

    def before(self) -> tuple[tuple[Lease, ...], dict[str, Lease]]:
        """The rooms that are kept, as leases; and the leases that end for escrows, as they are then."""
        if not self._escrows:
            return (), {}
        self._held = hold_for_tick(self._snapshot(self._devices, self._kept_bids()))
        ended = {each.lease for each in self._held.ended}
        return self._reservations, {each.id: each for each in self._held.real.leases if each.id in ended}

    def standing(self) -> tuple[Lease, ...]:
        """The rooms that are kept from a bid which is decided on its arrival."""
        if not self._escrows:
            return ()
        self._held = hold(self._snapshot(self._devices, self._kept_bids()))
        return self._reservations

    def giving_way(self, row: int) -> Iterator[tuple[Escrow, ...]]:
        """The escrows that are left, in turn, to a bid which is decided on its arrival."""
        if not self._escrows:
            return iter((self._escrows,))
        around = self._snapshot(self._devices, [*self._kept_bids(), self._bid(row)])
        return giving_way(replace(around, escrows=self._escrows), self._bid(row).id)

    def after(self, outcome: Outcome, refused: Refused) -> Outcome:
        """The outcome with what ended for escrows, losers on room that is idle until they are over, and the
        escrows of the next clearing; without refusals."""
        if self._held.escrows:
            outcome = self._keep(outcome, refused)
        won = {award.bid for award in outcome.awards}
        first = refused.first(LOOKED_AT + len(won)).tolist()
        lost = np.array([row for row in first if self._bid(row).id not in won][:LOOKED_AT], np.int64)
        lost = self._from_the_first_that_is_helped(lost, outcome)
        if not lost.size:
            displacements = (*outcome.displacements, *self._held.ended)
            return replace(outcome, refusals=(), displacements=displacements, escrows=self._held.escrows)
        real = self._snapshot(self._reach(lost, outcome), map(self._bid, lost.tolist()))
        told = replace(outcome, refusals=self._refusals(lost))
        return replace(settle(replace(self._held, real=real), told), refusals=())

    def _from_the_first_that_is_helped(self, lost: Ints, outcome: Outcome) -> Ints:
        """The gangs among losers from the first on that room is kept for, if there is one. For one device
        nothing is kept: it is free, or it is that of one lease, which gives way anyway."""
        known = {*(escrow.bid for escrow in self._held.escrows), *self._held.outbid}
        gangs = lost[self._wanted(lost) > 1]
        if gangs.size and len(self._held.escrows) < ESCROWS_MAX:
            ending = self._ending(outcome)
            for at, row in enumerate(gangs.tolist()):
                if self._known.packages[row][0].id not in known and ending.helps(row):
                    return gangs[at:]
        return _NONE

    def _keep(self, outcome: Outcome, refused: Refused) -> Outcome:
        """Forget escrows that are over, and fill what is idle in the others."""
        options, rows = refused.options, self._known.rows
        mine = [rows[each.bid] for each in self._held.escrows if each.bid in rows]
        rest_ms = max(each.starts_ms for each in self._held.escrows) - self._now - self._rules.notice_ms
        short = refused.rows[options.term[refused.rows] <= rest_ms]
        asked = (np.intersect1d(mine, refused.rows), short, refused.first(LOOKED_AT))
        lost = refused.ordered(np.unique(np.concatenate(asked)).astype(np.int64))
        real = self._snapshot(self._devices, map(self._bid, lost.tolist()))
        shown = replace(real, leases=(*real.leases, *self._reservations))
        outcome = replace(outcome, refusals=self._refusals(lost))
        self._held = keep(replace(self._held, shown=shown, real=real), outcome)
        if not self._held.escrows or not short.size:
            return outcome
        # What winners and those who go on pay is no longer there to be paid by others.
        awarded = (self._bid(rows[award.bid]) for award in outcome.awards)
        there = {lease.id for lease in real.leases}
        going = [self._lease(each.lease) for each in outcome.renewals if each.lease not in there]
        bids, leases = (*real.bids, *awarded), (*real.leases, *going)
        return backfill(replace(self._held, real=replace(real, bids=bids, leases=leases)), outcome)

    @property
    def _reservations(self) -> tuple[Lease, ...]:
        return self._held.shown.leases[len(self._held.real.leases) :]

    def _ending(self, outcome: Outcome) -> Ending:
        kept = [share.device for escrow in self._held.escrows for share in escrow.shares]
        won = [share.device for award in outcome.awards for share in award.shares]
        return Ending(
            self._known, self._lease_rows, self._rules, self._now, outcome, self._numbers({*kept, *won})
        )

    def _reach(self, gangs: Ints, outcome: Outcome) -> Ints:
        """The devices that any plan for one of these bids could take, and those of escrows."""
        ending, widest = self._ending(outcome), int(self._wanted(gangs).max())
        # Beside its own as many as plans before it may take away.
        more = (ESCROWS_MAX + 1) * widest
        found = [ending.free[:more]]
        for row in gangs.tolist():
            found.append(ending.beside(ending.yielding(row, widest * more).tolist()))
        return np.unique(np.concatenate((self._devices, *found)))

    def _snapshot(self, devices: Ints, bids: Iterable[Bid]) -> Snapshot:
        """Of some devices, and enough others that the pool could hold what it can hold."""
        widest = int(self._known.book.catalogue.columns().devices.max(initial=1))
        every = np.union1d(devices, np.arange(min(widest, len(self._known.devices))))
        funds = self._known.book.funds
        agents, shares = self._known.leases.table["agent"], self._known.leases.shares()
        rows: dict[int, None] = {}
        for device in every.tolist():
            share = int(shares.on_device[device])
            while share:
                rows[int(shares.lease[share - 1])] = None
                share = int(shares.after[share - 1])
        leases = tuple(
            replace(self._known.leases_by_row[row], funds_micros=int(funds[agents[row]]))
            for row in sorted(rows)
        )
        return Snapshot(
            self._now,
            self._rules,
            tuple(self._known.devices[device] for device in every.tolist()),
            leases,
            tuple(bids),
            self._posted,
            frozenset(),
            escrows=self._escrows,
        )

    def _kept_bids(self) -> list[Bid]:
        late = [self._told.late[each.bid] for each in self._escrows if each.bid in self._told.late]
        rows = (self._known.rows.get(each.bid) for each in self._escrows)
        return [*map(self._funded, late), *(self._bid(row) for row in rows if row is not None)]

    def _bid(self, row: int) -> Bid:
        return self._funded(self._known.packages[row][0])

    def _funded(self, bid: Bid) -> Bid:
        """With what its agent can pay now."""
        return replace(bid, funds_micros=int(self._known.book.funds[self._told.agents[bid.agent]]))

    def _lease(self, name: str) -> Lease:
        row = self._lease_rows[name]
        funds = int(self._known.book.funds[self._known.leases.table["agent"][row]])
        return replace(self._known.leases_by_row[row], funds_micros=funds)

    def _wanted(self, rows: Ints) -> Ints:
        """How many devices each option wants."""
        book = self._known.book
        found: Ints = book.catalogue.columns().devices[book.options().kind[rows]]
        return found

    def _refusals(self, rows: Ints) -> tuple[Refusal, ...]:
        """Of bids in the order of the clearing, in which they lost for want of room."""
        return tuple(
            Refusal(
                self._known.packages[row][0].id,
                Explanation(Reason.OUTBID, Constraint.PRICE, 0, None, position, ""),
            )
            for position, row in enumerate(rows.tolist(), 1)
        )

    def _numbers(self, names: Iterable[str]) -> Ints:
        return np.array(sorted(self._told.devices[name] for name in names), np.int64)


_NONE = np.empty(0, np.int64)
