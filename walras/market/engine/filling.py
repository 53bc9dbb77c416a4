"""What is kept idle for a while in a kept pool goes to bids that are over before it is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from walras.market.engine.amounts import charges
from walras.market.engine.clearing import Cleared
from walras.market.engine.jit import Ints
from walras.market.engine.told import Told
from walras.market.types import Award, Escrow, Outcome, Rules

if TYPE_CHECKING:
    from walras.market.engine.around import Refused


class Filling:
    """Devices of escrows that are free until these begin."""

    def __init__(self, told: Told, rules: Rules, now_ms: int, escrows: Sequence[Escrow]) -> None:
        self._told, self._rules, self._now = told, rules, now_ms
        self._kept = [each.bid for each in escrows]
        book = told.known.book
        # By device: when it is needed, and by how dense a bid.
        self._idle: dict[int, tuple[int, int]] = {}
        for escrow in escrows:
            bid, _ = told.known.packages[told.known.rows[escrow.bid]]
            for device in (told.devices[share.device] for share in escrow.shares):
                if not book.devices.now_milli[device] and not book.devices.later_milli[device]:
                    self._idle[device] = (escrow.starts_ms, bid.packages[0].price_micros)

    def fill(self, cleared: Cleared, outcome: Outcome, refused: Refused) -> tuple[Ints, list[Award]]:
        """The rows of those that have room there, as `walras.market.backfill.backfill` finds them, with their
        awards."""
        rest_ms = max((at for at, _ in self._idle.values()), default=0) - self._now - self._rules.notice_ms
        short = refused.ordered(refused.rows[refused.options.term[refused.rows] <= rest_ms])
        purse = self._left(cleared, outcome) if short.size else short
        rows, awards = [], []
        for row in short.tolist():
            if not self._idle:
                break
            award = self._place(row, outcome.price_micros, purse)
            if award is not None:
                rows.append(row)
                awards.append(award)
        return np.array(rows, np.int64), awards

    def _left(self, cleared: Cleared, outcome: Outcome) -> Ints:
        """What each agent has left beside what winners bid at most and renewals cost."""
        known = self._told.known
        book, table = known.book, known.leases.table
        options, won, purse = book.options(), cleared.won.options, book.funds.copy()
        np.subtract.at(purse, options.agent[won], options.cost[won] + cleared.compensations)
        rows = cleared.renewed
        pays = np.minimum(table["price"][rows], outcome.price_micros)
        np.subtract.at(purse, table["agent"][rows], charges(pays, table["milli"][rows] * table["term"][rows]))
        return purse

    def _place(self, row: int, price_micros: int, purse: Ints) -> Award | None:
        options, (bid, _) = self._told.known.book.options(), self._told.known.packages[row]
        package = bid.packages[0]
        offered, cost, agent = package.price_micros, int(options.cost[row]), int(options.agent[row])
        price = min(price_micros, offered)
        over_ms = self._now + package.term_ms + self._rules.notice_ms
        rooms = sorted(
            device for device, (at, worth) in self._idle.items() if over_ms <= at and offered <= worth
        )[: package.devices]
        short = len(rooms) < package.devices or cost > purse[agent] or purse[agent] < 0
        if bid.id in self._kept or price < self._rules.reserve_micros or short:
            return None
        purse[agent] -= cost
        for device in rooms:
            del self._idle[device]
        shares = tuple(self._told.known.wholes[device] for device in rooms)
        return Award(bid.id, 0, shares, price, offered, package.term_ms, starts_now=True)
