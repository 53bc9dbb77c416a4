"""Room for gangs in a kept pool: which devices of it come free soonest, and what a bid could have of them."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappop, heappush

import numpy as np
import numpy.typing as npt

from walras.market.engine.clearing import Cleared
from walras.market.engine.jit import LIMIT, Grid, Ints, kernel
from walras.market.engine.leases import ACTIVE, DRAINING, RESERVED, Shares, leases_on
from walras.market.engine.sorting import LATER
from walras.market.engine.told import WHOLE, Told
from walras.market.types import Escrow, Rules

Flags = npt.NDArray[np.bool_]
# Rows of what `soonest_over` fills: leases, when they are over, the lowest device of each.
LEASE, OVER, LOWEST = 0, 1, 2


class Ending:
    """Whole devices after a clearing: those that are free once what drains is gone, and leases by how soon
    they are over. What is planned here is taken from then on."""

    def __init__(self, told: Told, rules: Rules, now_ms: int, cleared: Cleared) -> None:
        table, gone = told.known.leases.table, cleared.gone
        self._told, self._table, self._now = told, table, now_ms
        self._shares = told.known.leases.shares()
        self._ends, states = table["end"].copy(), table["state"].copy()
        waiting = states == RESERVED
        # A lease that waits begins once what drains for it is gone.
        self._ends[waiting] = now_ms + rules.notice_ms + rules.tick_ms + table["term"][waiting]
        renewed = cleared.renewed
        self._ends[renewed] = np.maximum(self._ends[renewed], now_ms) + table["term"][renewed]
        self._states, self._taken = states, told.known.book.devices.later_milli > 0
        rows = np.concatenate((gone.displaced, gone.given, gone.ended))
        states[rows] = DRAINING
        for row in rows.tolist():
            self._taken[self._devices_of(row)] = False
        # By device, whether no bid may have it, be there a lease on it or not.
        self._denied = np.zeros(self._taken.size, np.bool_)
        self.deny(cleared.won.devices)

    def deny(self, devices: Ints) -> None:
        """No bid may have these."""
        self._denied[devices] = True

    def plan(self, row: int) -> Escrow | None:
        """The room that a gang which lost would have if leases that give way to it are not renewed, as
        `walras.market.planning.Planning.plan` has it: device by device, each the one that is free soonest."""
        known = self._told.known
        options = known.book.options()
        wanted = int(known.book.catalogue.columns().devices[options.kind[row]])
        free = self._first_free(wanted)
        rank = int(options.rank[row])
        soonest = soonest_over(
            int(options.price[row]),
            rank - LATER * (rank >= LATER),
            np.empty((3, wanted), np.int64),
            np.maximum(self._ends, self._now + 1),
            self._states,
            self._table["price"],
            self._table["start"],
            self._table["first"],
            self._denied,
            self._shares,
        ).tolist()
        chosen: list[int] = []
        victims: list[int] = []
        while len(chosen) < wanted:
            if not free:
                if len(victims) == len(soonest):
                    return None
                victims.append(soonest[len(victims)])
                for device in self._devices_of(victims[-1]):
                    if not self._denied[device]:
                        heappush(free, device)
            chosen.append(heappop(free))
        if not victims or not self._is_worth(row, victims, wanted):
            return None
        self.deny(np.array(chosen))
        shares = tuple(known.wholes[device] for device in chosen)
        starts_ms = max([*self._ends[victims].tolist(), *self._drains(chosen)])
        return Escrow(known.packages[row][0].id, 0, shares, starts_ms)

    def _first_free(self, count: int) -> list[int]:
        """So many devices that are free once drains are over, the lowest numbers; a heap."""
        found: list[int] = np.flatnonzero(~(self._taken | self._denied))[:count].tolist()
        return found

    def _is_worth(self, row: int, victims: list[int], wanted: int) -> bool:
        """Whether a bid is worth as much as the leases that would go for it."""
        table = self._table
        worth = int((table["price"][victims] * table["milli"][victims]).sum())
        return worth <= int(self._told.known.book.options().price[row]) * wanted * WHOLE

    def _devices_of(self, lease: int) -> list[int]:
        shares, found = self._shares, []
        share = int(self._table["first"][lease])
        while share:
            found.append(int(shares.device[share - 1]))
            share = int(shares.next[share - 1])
        return found

    def _drains(self, devices: Iterable[int]) -> list[int]:
        """When what drains on some devices already is over."""
        rows = {row for device in devices for row in leases_on(device, self._shares)}
        draining = (row for row in rows if self._table["state"][row] == DRAINING)
        leases = (self._told.known.leases_by_row[row] for row in draining)
        return [lease.drains_at_ms or lease.end_ms for lease in leases]


@kernel
def soonest_over(
    price: int, came_ms: int, best: Grid, ends: Ints, states: Ints, prices: Ints, starts: Ints, first: Ints,
    denied: Flags, shares: Shares,
) -> Ints:  # fmt: skip
    """The leases that give way to a bid, the first that are over and of these those on lower devices: at most
    as many as `best` has columns. They are worth less, or as much and began after the bid had come."""
    count, most = 0, best.shape[1]
    for row in range(states.size):
        if states[row] != ACTIVE and states[row] != RESERVED:
            continue
        if prices[row] > price or (prices[row] == price and starts[row] < came_ms):
            continue
        if count == most and ends[row] > best[OVER, most - 1]:
            continue
        lowest, share = LIMIT, first[row]
        while share:
            device = shares.device[share - 1]
            if not denied[device]:
                lowest = min(lowest, device)
            share = shares.next[share - 1]
        at = count
        while at > 0 and (
            best[OVER, at - 1] > ends[row]
            or (best[OVER, at - 1] == ends[row] and best[LOWEST, at - 1] > lowest)
        ):
            at -= 1
        if lowest == LIMIT or at == most:
            continue
        count = min(count + 1, most)
        for later in range(count - 1, at, -1):
            for column in range(3):
                best[column, later] = best[column, later - 1]
        best[LEASE, at], best[OVER, at], best[LOWEST, at] = row, ends[row], lowest
    return best[LEASE, :count].copy()
