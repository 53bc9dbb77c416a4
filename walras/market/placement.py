"""What is taken on each device, now and once all drains are over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from walras.devices.placement import EMPTY, Shape
from walras.market.types import Device, Lease, Package, Share


def capacities(devices: Iterable[Device]) -> dict[str, Shape]:
    return {device.id: Shape(device.milli, device.memory_mib) for device in devices}


def need_on(package: Package, capacity: Shape) -> Shape:
    """The share of one device that a package asks for; without a memory size the share's part of it."""
    memory = package.memory_mib or capacity.memory_mib * package.milli_gpu // max(1, capacity.milli)
    return Shape(package.milli_gpu, memory)


def needs_of(package: Package, capacity: Mapping[str, Shape]) -> dict[str, Shape]:
    """What a package needs on each device that it is eligible for and fits when that is empty."""
    needs = {}
    for device, room in capacity.items():
        if package.eligible is None or device in package.eligible:
            need = need_on(package, room)
            if need.fits(room):
                needs[device] = need
    return needs


class Board:
    """Two sums a device: what occupies it now, and what will when nothing drains any more.

    A share may start now where it fits both; it may be reserved where it fits the second. That is the rule
    min(cap - active - reserved, cap - active - draining), and keeps every device within its size at any time.
    """

    def __init__(self, capacity: Mapping[str, Shape], leases: Iterable[Lease]) -> None:
        self.capacity = capacity
        self.now = dict.fromkeys(capacity, EMPTY)
        self.later = dict.fromkeys(capacity, EMPTY)
        for lease in leases:
            if lease.state != "reserved":
                self._add(self.now, lease.shares, 1)
            if lease.state != "draining":
                self._add(self.later, lease.shares, 1)

    def copy(self) -> Board:
        """A board of its own, as this one is now."""
        board = Board(self.capacity, ())
        board.now, board.later = dict(self.now), dict(self.later)
        return board

    def room_now(self, device: str) -> Shape:
        """Free for a share that starts at once."""
        size, now, later = self.capacity[device], self.now[device], self.later[device]
        return Shape(size.milli - max(now.milli, later.milli), size.memory_mib - max(now[1], later[1]))

    def room_later(self, device: str) -> Shape:
        """Free for a share that waits for the drains."""
        return self.capacity[device] - self.later[device]

    def take(self, shares: Iterable[Share], *, now: bool) -> None:
        """Occupy shares, at once or once drains are over."""
        shares = tuple(shares)
        self._add(self.later, shares, 1)
        if now:
            self._add(self.now, shares, 1)

    def drain(self, lease: Lease) -> None:
        """An active lease will go: it stays for now, and is gone later."""
        self._add(self.later, lease.shares, -1)

    def _add(self, sums: dict[str, Shape], shares: Iterable[Share], sign: int) -> None:
        for share in shares:
            if share.device in sums:
                sums[share.device] += Shape(share.milli * sign, share.memory_mib * sign)


def startable(lease: Lease, leases: Iterable[Lease], devices: Iterable[Device]) -> bool:
    """Whether a reserved lease's capacity is really free: nothing that runs or drains is in its way."""
    capacity = capacities(devices)
    running = [other for other in leases if other.id != lease.id and other.state != "reserved"]
    board = Board(capacity, running)
    board.take(lease.shares, now=True)
    return all(
        share.device in capacity and board.now[share.device].fits(capacity[share.device])
        for share in lease.shares
    )
