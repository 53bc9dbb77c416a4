"""A pool that the engine keeps between clearings, and that is told of what changes.

It knows whole devices that are all alike, and bids for a number of them anywhere; under the auction, or in
the order of arrival without a price. It decides as the plain mechanism does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from walras.core.money import HOUR_MS
from walras.market.engine.amounts import charges
from walras.market.engine.around import Around, Refused
from walras.market.engine.clearing import Cleared, clear
from walras.market.engine.express import Express
from walras.market.engine.leases import ACTIVE, RESERVED
from walras.market.engine.snapshots import terms_of
from walras.market.engine.told import WHOLE, Told
from walras.market.types import Device, Escrow, Outcome, Renewal, Rules


@dataclass(frozen=True, slots=True)
class Turn:
    """What a clearing decides, without refusals. stands: whether these stand as long as nothing changes, as
    those for money or a deadline do not."""

    outcome: Outcome
    stands: bool


class Standing:
    """Decides one pool by what it was `told`. priced: under the auction, else in the order of arrival."""

    def __init__(
        self, devices: Sequence[Device], rules: Rules, agents: Sequence[str], *, priced: bool
    ) -> None:
        """Raises Invalid for a pool or rules that it does not know."""
        self.told = Told(devices, rules, agents, priced=priced)
        self._rules, self._priced, self._known = rules, priced, self.told.known
        self._express: Express | None = None

    def clear(self, now_ms: int, posted_micros: int, escrows: Sequence[Escrow] = ()) -> Turn:
        """All pending bids, renewals and displacements of this tick. escrows: those of the last clearing."""
        self.told.lay_aside(now_ms)
        if not self._priced:
            return self._in_order(now_ms)
        around = Around(self.told, self._rules, now_ms, escrows)
        reservations, ended = around.before()
        self.told.tell_leases(ended)
        kept = self.told.add_leases(reservations)
        cleared = clear(self._known.book, posted_micros, self._known.leases, terms_of(self._rules), now_ms)
        self.told.forget(reservations, kept)
        refused = self._refused(cleared)
        outcome = Outcome(
            self._known.awards(cleared),
            (),
            self._known.renewals(cleared, now_ms),
            self._known.displacements(cleared, now_ms + self._rules.notice_ms),
            cleared.price_micros,
        )
        return Turn(around.after(cleared, outcome, refused), refused.paid and not self.told.late)

    def _in_order(self, now_ms: int) -> Turn:
        """What was there first goes first; leases go on for as long as they are used."""
        cleared, table = clear(self._known.book, 0), self._known.leases.table
        due = self._known.leases.due(terms_of(self._rules).horizon(now_ms))
        due = due[np.lexsort((table["name"][due], table["start"][due]))]
        leases = [self._known.leases_by_row[row] for row in due.tolist()]
        renewals = tuple(Renewal(lease.id, 0, max(lease.end_ms, now_ms) + lease.term_ms) for lease in leases)
        return Turn(Outcome(self._known.awards(cleared), (), renewals, (), 0), not self.told.late)

    def express(
        self, bid_id: str, now_ms: int, posted_micros: int, escrows: Sequence[Escrow] = ()
    ) -> Outcome:
        """One bid on its arrival, at the posted price."""
        self.told.lay_aside(now_ms)
        row = self._known.rows.get(bid_id)
        if row is None:
            return Outcome((), (), (), (), posted_micros, escrows=tuple(escrows))
        found = []
        for left in Around(self.told, self._rules, now_ms, escrows).giving_way(row):
            found.append(self._on_arrival(row, now_ms, posted_micros, left))
            if found[-1].awards:
                return found[-1]
        return replace(found[0], escrows=tuple(escrows))

    def _on_arrival(self, row: int, now_ms: int, posted_micros: int, escrows: tuple[Escrow, ...]) -> Outcome:
        held = Around(self.told, self._rules, now_ms, escrows).standing()
        kept = self.told.add_leases(held)
        if self._express is None:
            self._express = Express(self._known.book, self._known.leases, terms_of(self._rules))
        decided = self._express.decide(row, posted_micros if self._priced else 0, now_ms)
        self.told.forget(held, kept)
        awards = self._known.award(decided)
        displacements = self._known.displaced(decided, now_ms + self._rules.notice_ms) if awards else ()
        return Outcome(awards, (), (), displacements, decided.price_micros, escrows=escrows)

    def _refused(self, cleared: Cleared) -> Refused:
        options, kinds, book = (
            self._known.book.options(),
            self._known.book.catalogue.columns(),
            self._known.book,
        )
        lost = (book.live() == 1) & (cleared.won.heads != 1) & (kinds.possible[options.kind] == 1)
        lost &= options.price >= book.reserve_micros
        rows = np.flatnonzero(lost)
        funded = options.cost[rows] <= cleared.won.purse[options.agent[rows]]
        return Refused(rows[funded], bool(funded.all()), options)

    def excess_milli(self, price_micros: int) -> int:
        """Milli-GPU wanted at that price beyond what the pool has, as `walras.market.slow.excess_milli`."""
        table, book = self._known.leases.table, self._known.book
        state = table.column("state")
        staying = (state == ACTIVE) | (state == RESERVED)
        staying &= table.column("price") >= price_micros
        wanted = int(table.column("milli")[staying].sum())
        options, kinds = book.options(), book.catalogue.columns()
        rows = np.flatnonzero((book.live() == 1) & (options.price >= price_micros))
        milli = kinds.devices[options.kind[rows]] * kinds.milli[options.kind[rows]]
        cost = charges(np.full(rows.size, price_micros, np.int64), milli * options.term[rows])
        wanted += int(milli[cost <= book.funds[options.agent[rows]]].sum())
        for bid in self.told.late.values():
            package = bid.packages[0]
            funds = int(book.funds[self.told.agents[bid.agent]])
            pays = price_micros * package.total_milli * package.term_ms // (WHOLE * HOUR_MS) <= funds
            wanted += package.total_milli * (package.price_micros >= price_micros and pays)
        return wanted - WHOLE * len(self.told.devices)

    def changes_ms(self, now_ms: int) -> int:
        """When a clearing would decide otherwise at the earliest, if refusals stand and nothing changes."""
        table, live = self._known.leases.table, self._known.book.live()
        deadline, rules = self.told.deadline_ms[: live.size][live == 1], self._rules
        there = table.column("state") != 0
        lapse = table.column("end")[there] - rules.notice_ms - rules.tick_ms
        begun = table.column("start")[there] + rules.quantum_ms
        found = [deadline[deadline > 0], lapse, begun[begun > now_ms]]
        return min(now_ms + HOUR_MS, *(int(each.min(initial=now_ms + HOUR_MS)) for each in found))
