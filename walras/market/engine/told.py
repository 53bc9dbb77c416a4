"""What a kept pool has been told: bids and leases by name, and where they are in the engine's columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from walras.core.errors import Invalid
from walras.devices.placement import Shape
from walras.devices.topology import Affinity
from walras.market.engine.book import Book
from walras.market.engine.jit import NONE, Ints
from walras.market.engine.leases import ACTIVE, DRAINING, RESERVED, Leases
from walras.market.engine.snapshots import Translated
from walras.market.engine.supports import FUNDS_MAX
from walras.market.ground import SPEED_UNIT
from walras.market.prepared import well_formed
from walras.market.types import Bid, Device, Lease, Package, Rules, Share

WHOLE: Final = 1000

_STATES = {"reserved": RESERVED, "active": ACTIVE, "draining": DRAINING}
_NONE = np.empty(0, np.int64)


class Told:
    """Bids and leases of one pool, told of in the order of their names. priced: whether prices count.

    known: the book with names. lease_rows, devices, agents: rows and numbers by name. late: bids whose
    deadline is over, which are no part of the book any more. deadline_ms: by option, 0 without one.
    """

    def __init__(
        self, devices: Sequence[Device], rules: Rules, agents: Sequence[str], *, priced: bool
    ) -> None:
        """Raises Invalid for a pool or rules that it does not know."""
        capacity = _whole_and_alike(devices, rules)
        ordered = tuple(sorted(devices, key=lambda device: device.id))
        nodes = {name: number for number, name in enumerate(dict.fromkeys(each.node for each in ordered))}
        node = np.array([nodes[device.node] for device in ordered], np.int64)
        reserve = rules.reserve_micros if priced else 0
        kind = np.zeros(node.size, np.int64)
        book = Book((capacity,), kind, node, reserve_micros=reserve, first=[0])
        book.set_funds(np.arange(len(agents)), np.zeros(len(agents), np.int64))
        self._shape, self._priced, self._named = capacity, priced, 0
        wholes = tuple(Share(each.id, WHOLE, each.memory_mib) for each in ordered)
        self.known = Translated(book, Leases(book), ordered, {}, {}, {}, wholes)
        self.lease_rows: dict[str, int] = {}
        self.devices = {device.id: number for number, device in enumerate(ordered)}
        self.agents = {name: number for number, name in enumerate(agents)}
        self.late: dict[str, Bid] = {}
        self.deadline_ms = np.zeros(64, np.int64)

    def pay(self, funds: Iterable[int]) -> None:
        """What each agent can pay now, in their order."""
        micros = np.fromiter(funds, np.int64)
        if micros.size and int(np.abs(micros).max()) > FUNDS_MAX:
            raise Invalid("an agent has more than the engine counts")
        self.known.book.set_funds(np.arange(micros.size), micros)

    def tell(self, bids: Mapping[str, Bid | None], leases: Mapping[str, Lease | None]) -> None:
        """Bids and leases as they are now, None for those that are gone. Raises Invalid for a bid that it
        does not know: from then on the pool has to be decided plainly."""
        self._tell_bids(bids)
        self.tell_leases(leases)

    def _tell_bids(self, bids: Mapping[str, Bid | None]) -> None:
        known, book = self.known, self.known.book
        gone, rows, prices, fresh = [], [], [], []
        for name, bid in bids.items():
            row = known.rows.get(name)
            if bid is None:
                self.late.pop(name, None)
                if row is not None:
                    gone.append(row)
                    del known.rows[name], known.packages[row]
            elif row is not None:
                known.packages[row] = (bid, 0)
                rows.append(row)
                prices.append(bid.packages[0].price_micros)
            elif name in self.late:
                self.late[name] = bid
            else:
                fresh.append(bid)
        if gone:
            book.remove_bids(np.array(gone, np.int64))
        if rows and self._priced:
            book.reprice(np.array(rows, np.int64), np.array(prices, np.int64))
        if fresh:
            self._add_bids(fresh)

    def _add_bids(self, bids: list[Bid]) -> None:
        kind = self.known.book.catalogue.kind
        columns = np.array(
            [
                (
                    self.agents[bid.agent],
                    kind(_whole(bid).devices, WHOLE, 0),
                    bid.packages[0].price_micros if self._priced else 0,
                    bid.packages[0].term_ms,
                    bid.submitted_ms,
                    int(self._priced and bid.job_class == "latency"),
                )
                for bid in bids
            ],
            np.int64,
        ).T
        names = ("agent", "kind", "price", "term_ms", "submitted_ms", "latency")
        rows = self.known.book.add_bids(**dict(zip(names, columns, strict=True)))
        size = self.known.book.options().kind.size
        if self.deadline_ms.size < size:
            self.deadline_ms = np.concatenate((self.deadline_ms, np.zeros(size, np.int64)))
        self.deadline_ms[rows] = [bid.deadline_ms or 0 for bid in bids]
        for row, bid in zip(rows.tolist(), bids, strict=True):
            self.known.packages[row] = (bid, 0)
            self.known.rows[bid.id] = row

    def tell_leases(self, leases: Mapping[str, Lease | None]) -> None:
        known, table = self.known.leases_by_row, self.known.leases.table
        ended, started, drained, fresh, there, times = [], [], [], [], [], []
        for name, lease in leases.items():
            row = self.lease_rows.get(name)
            if row is None:
                if lease is not None:
                    fresh.append(lease)
                continue
            if lease is None:
                ended.append(row)
                del self.lease_rows[name], known[row]
                continue
            was, known[row] = known[row].state, lease
            there.append(row)
            times.append((lease.start_ms, lease.end_ms))
            if was != lease.state:
                if was == "reserved":
                    started.append(row)
                if lease.state == "draining":
                    drained.append(row)
        if there:
            table["start"][there], table["end"][there] = np.array(times, np.int64).T
        for rows, change in (
            (ended, self.known.leases.end),
            (started, self.known.leases.start),
            (drained, self.known.leases.drain),
        ):
            if rows:
                change(np.array(rows, np.int64))
        self.add_leases(fresh)

    def add_leases(self, leases: Sequence[Lease]) -> Ints:
        if not leases:
            return _NONE
        numbers, wanted = self.devices, np.array([len(lease.shares) for lease in leases], np.int64)
        device = np.array(
            [numbers.get(share.device, NONE) for each in leases for share in each.shares], np.int64
        )
        # A lease on devices that are gone is there until it is ended.
        here = device != NONE
        counts = np.bincount(np.repeat(np.arange(wanted.size), wanted), here, wanted.size).astype(np.int64)
        device = device[here]
        columns = np.array(
            [
                (
                    self.agents[lease.agent],
                    int(lease.job_class == "latency"),
                    lease.max_price_micros if self._priced else 0,
                    lease.restart_cost_micros,
                    lease.start_ms,
                    lease.end_ms,
                    lease.term_ms,
                    _STATES[lease.state],
                )
                for lease in leases
            ],
            np.int64,
        ).T
        names = ("agent", "latency", "price", "restart", "start_ms", "end_ms", "term_ms", "state")
        shape = self.known.book.catalogue.shape(self._shape)
        rows = self.known.leases.add(
            **dict(zip(names, columns, strict=True)),
            begin=np.concatenate(([0], np.cumsum(counts))),
            device=device,
            milli=np.full(device.size, WHOLE, np.int64),
            memory=np.full(device.size, self._shape.memory_mib, np.int64),
            elsewhere=WHOLE * (wanted - counts),
            name=np.arange(self._named, self._named + len(leases)),
            shape=np.full(len(leases), shape, np.int64),
        )
        self._named += len(leases)
        for row, lease in zip(rows.tolist(), leases, strict=True):
            self.known.leases_by_row[row] = lease
            self.lease_rows[lease.id] = row
        return rows

    def forget(self, leases: Sequence[Lease], rows: Ints) -> None:
        """Leases that were shown to one decision only."""
        if rows.size:
            self.known.leases.end(rows)
        for row, lease in zip(rows.tolist(), leases, strict=True):
            del self.known.leases_by_row[row], self.lease_rows[lease.id]

    def lay_aside(self, now_ms: int) -> None:
        """Bids whose deadline is over take no part; they can only be taken back."""
        live = self.known.book.live()
        deadline = self.deadline_ms[: live.size]
        late = np.flatnonzero((live == 1) & (deadline > 0) & (deadline <= now_ms))
        if late.size:
            for row in late.tolist():
                bid, _ = self.known.packages.pop(row)
                del self.known.rows[bid.id]
                self.late[bid.id] = bid
            self.known.book.remove_bids(late)


def _whole(bid: Bid) -> Package:
    """Its only package, which asks for a number of whole devices anywhere. Raises Invalid for other bids."""
    package = bid.packages[0]
    if (
        len(bid.packages) != 1
        or bid.decays_ms is not None
        or not well_formed(package)
        or package.milli_gpu != WHOLE
        or package.memory_mib
        or package.devices_min
        or package.eligible is not None
        or package.affinity is not Affinity.ANY
        or package.mig_profile
    ):
        raise Invalid(f"bid {bid.id} is not for a number of whole devices anywhere")
    return package


def _whole_and_alike(devices: Sequence[Device], rules: Rules) -> Shape:
    """What each of the devices has. Raises Invalid for devices or rules that are not kept."""
    alike = {(each.milli, each.memory_mib, each.speed_milli, each.mig is None) for each in devices}
    if len(alike) != 1 or rules.payments != "uniform":
        raise Invalid("only pools of devices that are all alike, at one price, are kept")
    milli, memory_mib, speed_milli, uncut = alike.pop()
    if milli != WHOLE or speed_milli != SPEED_UNIT or not uncut:
        raise Invalid("only pools of whole devices are kept")
    return Shape(milli, memory_mib)
