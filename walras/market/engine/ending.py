"""Which devices of a kept pool come free soonest, and what a bid could have of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from heapq import heapify, heappop, heappush

import numpy as np

from walras.market.engine.jit import NONE, Ints
from walras.market.engine.leases import DRAINING, RESERVED
from walras.market.engine.snapshots import Translated
from walras.market.engine.sorting import LATER
from walras.market.types import Outcome, Rules


class Ending:
    """Whole devices after a clearing: those that are free once what drains is gone, and leased ones by how
    soon their lease is over, of equal ones the lower number first."""

    def __init__(
        self,
        known: Translated,
        lease_rows: Mapping[str, int],
        rules: Rules,
        now_ms: int,
        outcome: Outcome,
        taken: Ints,
    ) -> None:
        """taken: devices that no bid may have, beside those that were just won."""
        table, shares = known.leases.table, known.leases.shares()
        self._known, options, kinds = known, known.book.options(), known.book.catalogue.kinds
        self._options, self._sizes = options, kinds["devices"]
        there = np.flatnonzero(shares.milli > 0)
        there = there[table["state"][shares.lease[there]] != DRAINING]
        self._held = np.full(len(known.devices), _FREE, np.int64)
        self._held[shares.device[there]] = shares.lease[there]
        gone = [lease_rows[each.lease] for each in outcome.displacements]
        self._held[np.isin(self._held, gone)] = _FREE
        self._held[taken] = _TAKEN
        self.free = np.flatnonzero(self._held == _FREE)
        ends, waiting = table["end"].copy(), table["state"] == RESERVED
        ends[waiting] = now_ms + rules.notice_ms + rules.tick_ms + table["term"][waiting]
        for renewal in outcome.renewals:
            ends[lease_rows[renewal.lease]] = renewal.end_ms
        devices = np.flatnonzero(self._held >= 0)
        order = np.argsort(np.maximum(ends[self._held[devices]], now_ms + 1), kind="stable")
        self._devices = devices[order]
        rows = self._held[self._devices]
        self._began, prices = table["start"][rows], table["price"][rows]
        # Whole devices are all of one kind to a price.
        kind = int(np.flatnonzero(kinds.column("possible"))[0])
        self._density = prices * kinds["numerator"][kind] // kinds["denominator"][kind]

    def yielding(self, option: int, count: int) -> Ints:
        """So many leased devices, the soonest first, whose lease gives way to an option: it is worth less, or
        as much and began after the bid had come."""
        density, rank = self._options.density[option], self._options.rank[option]
        came = rank - LATER * (rank >= LATER)
        weaker = (self._density < density) | ((self._density == density) & (self._began >= came))
        return self._devices[np.flatnonzero(weaker)[:count]]

    def helps(self, option: int) -> bool:
        """Whether leases would have to go for a bid of several devices, and are worth no more than it is: as
        `walras.market.planning.Planning.plan` has it, device by device."""
        wanted = int(self._sizes[self._options.kind[option]])
        free, chosen = self.free[:wanted].tolist(), 0
        heapify(free)
        gone: dict[int, None] = {}
        soonest = self._in_turn(option, wanted)
        while chosen < wanted:
            if free:
                heappop(free)
            else:
                device = next((each for each in soonest if int(self._held[each]) not in gone), NONE)
                if device == NONE:
                    return False
                lease = int(self._held[device])
                gone[lease] = None
                for other in self.devices_of(lease):
                    if other != device and self._held[other] == lease:
                        heappush(free, other)
            chosen += 1
        table, rows = self._known.leases.table, np.fromiter(gone, np.int64)
        worth = int((table["price"][rows] * table["milli"][rows]).sum())
        return len(gone) > 0 and worth <= int(self._options.price[option]) * wanted * 1000

    def _in_turn(self, option: int, wanted: int) -> Iterator[int]:
        """Leased devices that could be next; a lease that is gone may have many of the first."""
        seen = 0
        while True:
            found = self.yielding(option, max(8 * wanted, 2 * seen))[seen:].tolist()
            if not found:
                return
            seen += len(found)
            yield from found

    def beside(self, devices: Iterable[int]) -> Ints:
        """These with all others of their leases."""
        leases = {int(self._held[device]) for device in devices} - {_FREE, _TAKEN}
        others = {device for lease in leases for device in self.devices_of(lease)}
        return np.array(sorted({*devices, *others}), np.int64)

    def devices_of(self, lease: int) -> list[int]:
        """The devices of the lease of a row."""
        shares, found = self._known.leases.shares(), []
        share = int(self._known.leases.table["first"][lease])
        while share:
            found.append(int(shares.device[share - 1]))
            share = int(shares.next[share - 1])
        return found


_FREE, _TAKEN = NONE, NONE - 1
